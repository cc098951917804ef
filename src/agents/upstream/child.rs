//! An MCP server that is a child process: its start, its pipes and its end.
//!
//! It leads a process group of its own, which ends with it. Its program and arguments come from the agent's file alone.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rmcp::RoleClient;
use rmcp::transport::async_rw::AsyncRwTransport;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, BufReader, ReadBuf};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::message::{in_place_of, in_place_of_oversized, line};
use super::session::MESSAGE_BYTES_MAX;
use crate::agents::command;
use crate::document::run_config::Program;

/// A line this long never ends. Shorter ones that are too large for a message harm only the call they belong to.
const LINE_BYTES_MAX: usize = 4 * MESSAGE_BYTES_MAX;
/// Bytes of stderr kept for the log: the end of a traceback.
const STDERR_BYTES_MAX: usize = 4 * 1024;
/// How long a process has to leave once its input is closed, and again after SIGTERM. Both fit into a node's stop.
const LEAVE_MAX: Duration = Duration::from_secs(1);
/// How long stderr may take to end once the process group has.
const STDERR_END_MAX: Duration = Duration::from_millis(200);

/// A child process. Dropped before [`Child::end`], its whole group is killed.
pub(super) struct Child {
    process: tokio::process::Child,
    /// None once all of it was ended.
    group: Option<u32>,
    stderr: Stderr,
}

/// Messages over the pipes of a child.
pub(super) type Pipes = AsyncRwTransport<RoleClient, Lines, ChildStdin>;

impl Child {
    /// Starts the program.
    ///
    /// # Errors
    /// Why it does not start, for the log.
    pub(super) fn start(program: &Program, folder: &Path) -> Result<(Child, Pipes), String> {
        let mut process = command::start(program, folder, &[])?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (process.stdin.take(), process.stdout.take(), process.stderr.take())
        else {
            return Err("the process has no pipes".into());
        };
        let lines =
            Lines { stdout: BufReader::new(stdout), line: Vec::new(), bytes: 0, ready: Vec::new(), read: 0 };
        let pipes = AsyncRwTransport::new(lines, stdin).with_max_line_length(MESSAGE_BYTES_MAX);
        Ok((Child { group: process.id(), process, stderr: Stderr::drain(stderr) }, pipes))
    }

    /// Ends what is left of the process, gently at first, and says how it ended. Its input must be closed.
    pub(super) async fn end(mut self) -> String {
        // The end of its input is how MCP asks a server to leave; signals are for those that do not.
        if timeout(LEAVE_MAX, self.process.wait()).await.is_err() {
            ask_to_leave(self.group);
            let _ = timeout(LEAVE_MAX, self.process.wait()).await;
        }
        // What the process started and left behind goes too.
        command::kill_group(self.group.take());
        let status = match self.process.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let stderr = self.stderr.end().await;
        if stderr.is_empty() { status } else { format!("{status}, stderr ends with {stderr:?}") }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        command::kill_group(self.group);
    }
}

#[cfg(unix)]
fn ask_to_leave(group: Option<u32>) {
    if let Some(group) = group.and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
        // It may have left already.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
    }
}

#[cfg(not(unix))]
fn ask_to_leave(_group: Option<u32>) {}

/// Output line by line: an answer that cannot be read has an error in its place, and output ends with an error where a line
/// does not end.
pub(super) struct Lines {
    stdout: BufReader<ChildStdout>,
    /// The line so far, or the beginning of one that is too large.
    line: Vec<u8>,
    /// Bytes of the line, those that were not kept as well.
    bytes: usize,
    /// The last whole line, and how much of it was given on.
    ready: Vec<u8>,
    read: usize,
}

impl Lines {
    /// Takes output up to the end of a line; whether the line is whole.
    fn take(&mut self, output: &[u8]) -> (usize, bool) {
        let end = output.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let part = &output[..end.unwrap_or(output.len())];
        self.bytes += part.len();
        let room = MESSAGE_BYTES_MAX.saturating_sub(self.line.len());
        self.line.extend_from_slice(&part[..part.len().min(room)]);
        (part.len(), end.is_some())
    }

    /// Makes the whole line ready to be read.
    fn end_line(&mut self) {
        let whole = std::mem::take(&mut self.line);
        let as_line = |error| line(&error).into_bytes();
        self.ready = match self.bytes > MESSAGE_BYTES_MAX {
            // What is no answer is missed by nobody.
            true => in_place_of_oversized(&whole).map_or_else(Vec::new, as_line),
            false => in_place_of(whole.trim_ascii()).map_or(whole, as_line),
        };
        (self.bytes, self.read) = (0, 0);
    }
}

impl AsyncRead for Lines {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let lines = &mut *self;
        while lines.read == lines.ready.len() {
            let output = ready!(Pin::new(&mut lines.stdout).poll_fill_buf(cx))?.to_vec();
            if output.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let (taken, is_whole) = lines.take(&output);
            Pin::new(&mut lines.stdout).consume(taken);
            if lines.bytes > LINE_BYTES_MAX {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a line without an end")));
            }
            if is_whole {
                lines.end_line();
            }
        }
        let part = &lines.ready[lines.read..];
        let part = &part[..part.len().min(buffer.remaining())];
        buffer.put_slice(part);
        lines.read += part.len();
        Poll::Ready(Ok(()))
    }
}

/// The end of what a process writes to stderr.
struct Stderr {
    tail: Arc<Mutex<Vec<u8>>>,
    drain: JoinHandle<()>,
}

impl Stderr {
    fn drain(mut stderr: ChildStderr) -> Stderr {
        let tail = Arc::new(Mutex::new(Vec::new()));
        let kept = tail.clone();
        let drain = tokio::spawn(async move {
            let mut chunk = [0; STDERR_BYTES_MAX];
            // Read all the time: a server that fills this pipe would stand still.
            while let Ok(length @ 1..) = stderr.read(&mut chunk).await {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&chunk[..length]);
                let surplus = kept.len().saturating_sub(STDERR_BYTES_MAX);
                kept.drain(..surplus);
            }
        });
        Stderr { tail, drain }
    }

    async fn end(&mut self) -> String {
        // A process that left the group may hold the pipe open for ever.
        let _open = timeout(STDERR_END_MAX, &mut self.drain).await;
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&tail).trim().to_owned()
    }
}

impl Drop for Stderr {
    fn drop(&mut self) {
        self.drain.abort();
    }
}
