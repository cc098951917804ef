//! `aop mcp`: MCP over stdio for hosts that start a program, bridged to the node that runs anyway.
//!
//! Lines of JSON-RPC on stdin become requests to the node's `/mcp`, its answers become lines on stdout, and nothing
//! else is ever written there. The bridge understands no tool: it knows the two eras only as far as HTTP tells them
//! apart, and keeps the session of the older one alive when the node starts again.

mod answers;
mod bridge;
mod events;
mod message;
mod probe;

use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

use self::bridge::Bridge;
pub(super) use self::probe::{Era, count_tools};
use super::args::McpArgs;
use super::client::{base_url, read_token};
use super::failure::{Exit, Failure};
use super::process::run;

/// Longest line, bytes: more than the node takes as a body.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Lines on their way to stdout; a host that does not read holds the bridge up.
const LINES_MAX: usize = 64;

/// Bridges until stdin ends. Exits 4 if the node never answered.
pub(super) fn mcp(args: &McpArgs) -> Result<Exit, Failure> {
    let base = base_url(&args.node)?;
    let token = read_token(args.http_token_file.as_deref())?;
    run(serve(base, token))
}

async fn serve(base: String, token: Option<crate::http::Token>) -> Result<Exit, Failure> {
    let (lines, written) = mpsc::channel(LINES_MAX);
    // One writer for all, so that answers that come together do not mix within a line.
    let writer = tokio::spawn(write_lines(written));
    let bridge = Arc::new(Bridge::new(&base, token, lines.clone())?);
    let mut stdin = BufReader::new(tokio::io::stdin());
    loop {
        let line = tokio::select! {
            line = next_line(&mut stdin) => line,
            // Nobody reads the answers any more.
            () = lines.closed() => None,
        };
        let Some(line) = line else { break };
        bridge.take(&line).await;
    }
    let reached = bridge.finish().await;
    // The writer ends with the last sender, so these go before it is waited for.
    drop((bridge, lines));
    // A writer that failed has nobody left to write for.
    let _written = writer.await;
    match reached {
        true => Ok(Exit::Done),
        false => Err(bridge::unreachable(&base)),
    }
}

/// The next line; one that is too long comes as its head, which is no JSON. `None` at the end.
async fn next_line(stdin: &mut (impl AsyncBufReadExt + Unpin)) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        let bytes = stdin.fill_buf().await.ok()?;
        if bytes.is_empty() {
            // A host may end without a line break after its last message.
            return (!line.is_empty()).then_some(line);
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        // A line never grows beyond the limit, so the subtraction holds; the rest of it is read and dropped.
        line.extend_from_slice(&part[..part.len().min(LINE_BYTES_MAX - line.len())]);
        let taken = end.map_or(bytes.len(), |end| end + 1);
        stdin.consume(taken);
        if end.is_some() {
            return Some(line);
        }
    }
}

async fn write_lines(mut lines: mpsc::Receiver<String>) {
    let mut stdout = tokio::io::stdout();
    while let Some(line) = lines.recv().await {
        let written = async {
            stdout.write_all(line.as_bytes()).await?;
            stdout.write_all(b"\n").await?;
            // Each line at once, because a host waits for it.
            stdout.flush().await
        };
        if written.await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_one_by_one_and_a_long_one_is_cut() {
        let long = "x".repeat(LINE_BYTES_MAX + 10);
        let text = format!("a\n\n{long}\nlast");
        let mut reader = BufReader::new(text.as_bytes());
        let mut lengths = Vec::new();
        while let Some(line) = next_line(&mut reader).await {
            lengths.push(line.len());
        }
        assert_eq!(lengths, [1, 0, LINE_BYTES_MAX, 4]);
    }
}
