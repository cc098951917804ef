//! A lean HTTP client on a keep-alive connection: the measured server must cost more than the client.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What is sent, and the status that answers it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    pub(crate) status: u16,
}

/// Asks for a path.
pub(crate) fn get(addr: SocketAddr, path: &str) -> Request {
    Request { bytes: format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n").into_bytes(), status: 200 }
}

/// One question; the answer's body lies at the end of `buffer`, and its length is returned.
pub(crate) async fn ask(stream: &mut TcpStream, request: &Request, buffer: &mut Vec<u8>) -> usize {
    stream.write_all(&request.bytes).await.expect("sent");
    buffer.clear();
    loop {
        let read = stream.read_buf(buffer).await.expect("received");
        assert!(read > 0, "the server closed the connection");
        let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let (head, body) = (String::from_utf8_lossy(&buffer[..end]), &buffer[end + 4..]);
        let answered = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        assert_eq!(answered, Some(request.status), "{head}\n{}", String::from_utf8_lossy(body));
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
