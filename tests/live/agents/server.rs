//! A small real HTTP server: it answers as a function says and remembers what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What was asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// By their names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// Status and body; the body of a redirect is its target. One that begins with `retry-after:` is that header, and one that begins
/// with `event-stream:` is of that type.
type Answer = (u16, String);

/// A server on loopback; it ends when dropped.
pub(crate) struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (requests.clone(), Arc::new(answer));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, answer) = (seen.clone(), answer.clone());
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let request = read(&mut stream).await;
                    let (status, body) = answer(&request);
                    seen.lock().unwrap().push(request);
                    // A client that has enough of a large body closes.
                    let _closed = write(&mut stream, status, &body).await;
                });
            }
        });
        Server { port, requests, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Request {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let mut words = line.split(' ').map(str::to_owned);
    let mut request =
        Request { method: words.next().unwrap(), path: words.next().unwrap(), ..Request::default() };
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        match line.trim().split_once(": ") {
            Some((name, value)) => {
                let name = name.to_ascii_lowercase();
                if name == "content-length" {
                    length = value.parse().unwrap();
                }
                request.headers.insert(name, value.to_owned());
            }
            None => break,
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    request.body = String::from_utf8(body).unwrap();
    request
}

async fn write(stream: &mut BufReader<TcpStream>, status: u16, body: &str) -> std::io::Result<()> {
    let (header, body) = match body.strip_prefix("event-stream:") {
        Some(events) => ("content-type: text/event-stream; charset=utf-8\r\n".to_owned(), events),
        None if status == 302 => (format!("location: {body}\r\n"), ""),
        None if body.starts_with("retry-after:") => (format!("{body}\r\n"), ""),
        None => (String::new(), body),
    };
    let head = format!(
        "HTTP/1.1 {status} Said\r\n{header}content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
