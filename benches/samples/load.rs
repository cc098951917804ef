//! Connections that ask at once.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::requests::{Request, ask};

/// So many connections ask for so long, each one request after the other and all of them in turn; how long each answer took.
pub(crate) async fn load(
    addr: SocketAddr,
    requests: &[Request],
    connections: usize,
    time: Duration,
) -> Vec<Duration> {
    let ask_on = |first: usize| {
        let requests = requests.to_vec();
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(addr).await.expect("connected");
            let (began, mut times, mut buffer) = (Instant::now(), Vec::new(), Vec::new());
            for request in requests.iter().cycle().skip(first) {
                let asking = Instant::now();
                if asking - began >= time {
                    break;
                }
                ask(&mut stream, request, &mut buffer).await;
                times.push(asking.elapsed());
            }
            times
        })
    };
    let tasks: Vec<_> = (0..connections).map(|at| ask_on(at * requests.len() / connections)).collect();
    let mut times = Vec::new();
    for task in tasks {
        times.append(&mut task.await.expect("asked"));
    }
    times
}
