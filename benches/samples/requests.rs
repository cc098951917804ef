//! A lean HTTP client on one keep-alive connection: the measured server must cost more than the client.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends one request again and again for so long; how long each answer took.
pub(crate) async fn ask_for_a_while(addr: SocketAddr, asked: Vec<u8>, time: Duration) -> Vec<Duration> {
    let mut stream = TcpStream::connect(addr).await.expect("connected");
    let (began, mut times, mut buffer) = (Instant::now(), Vec::new(), Vec::new());
    while began.elapsed() < time {
        let asking = Instant::now();
        ask(&mut stream, &asked, &mut buffer).await;
        times.push(asking.elapsed());
    }
    times
}

/// One question; the answer's body lies at the end of `buffer`, and its length is returned.
pub(crate) async fn ask(stream: &mut TcpStream, asked: &[u8], buffer: &mut Vec<u8>) -> usize {
    stream.write_all(asked).await.expect("sent");
    buffer.clear();
    loop {
        let read = stream.read_buf(buffer).await.expect("received");
        assert!(read > 0, "the server closed the connection");
        let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let (head, body) = (String::from_utf8_lossy(&buffer[..end]), &buffer[end + 4..]);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}\n{}", String::from_utf8_lossy(body));
        match length_of(&head) {
            Some(length) if body.len() >= length => return length,
            None if body.ends_with(b"\r\n0\r\n\r\n") => return body.len(),
            _ => {}
        }
    }
}

/// The length that a head tells; none says that the body comes in chunks.
fn length_of(head: &str) -> Option<usize> {
    let head = head.to_lowercase();
    let length = head.split("content-length: ").nth(1)?;
    length.split("\r\n").next()?.parse().ok()
}
