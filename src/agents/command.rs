//! Agents that are programs: one process a call, JSON on stdin, JSON or text on stdout.
//!
//! A process runs in the folder of its agent's file, in a process group of its own. The group is killed whole when
//! the call ends, however it ends: children never outlive their call unless they leave the group on purpose.
//! The environment is [`ENVIRONMENT`] and what the agent's file gives, so secrets of the node never reach an agent unasked.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tracing::Span;

use super::correlation::labels;
use super::partial_output::PartialOutput;
use super::resource_watch::ResourceWatch;
use super::secrets::{Secrets, logged, read_all};
use super::{CALL_BYTES_MAX, Invocation};
use crate::document::run_config::{CallLabel, McpServer, Program, RunConfig, Runner};
use crate::proto::call::{CallFailure, Outcome};
use crate::proto::code::Code;
use crate::proto::name::FullName;
use crate::telemetry::names;

/// What a process inherits: how to find programs, a home, a language, a clock, temporary files, caches, and the roots and
/// proxies without which no HTTPS works behind some networks. An agent that needs a key names it in its file.
const ENVIRONMENT: [&str; 26] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "TEMP",
    "TMP",
    "SYSTEMROOT",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
];
/// What is kept of stderr, bytes: the last lines of a traceback.
const STDERR_BYTES_MAX: usize = 4 * 1024;
/// What is read of an output at once, bytes.
const READ_BYTES: usize = 8 * 1024;
/// How long what a process wrote before its end may take to be read.
const DRAIN: Duration = Duration::from_secs(1);

/// Environment of a process that this host starts for an agent.
pub(super) fn environment() -> impl Iterator<Item = (&'static str, OsString)> {
    ENVIRONMENT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)))
}

/// Where the program is: a path with `/` starts at the agent's folder, any other name is looked up in `PATH`.
pub(super) fn find_program(program: &str, folder: &Path) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(folder.join(program)).filter(|path| path.is_file());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Starts a program with three pipes, in the agent's folder and in a process group of its own, with the `labels` of its call.
///
/// # Errors
/// Why it does not start, for the log of this host: the words name its files.
pub(super) fn start(
    program: &Program,
    folder: &Path,
    labels: &[(CallLabel, String)],
) -> Result<Child, String> {
    let Some((name, arguments)) = program.command.split_first() else {
        return Err("the agent's file names no program".into());
    };
    // A relative path of a program would be looked up again from the folder that it already names.
    let folder = std::path::absolute(Path::new(".").join(folder)).map_err(|error| error.to_string())?;
    // Looked up here, so that a missing program is told with its fix and not as an error of the system.
    let path = find_program(name, &folder).ok_or_else(|| missing(name, &folder))?;
    let mut command = Command::new(path);
    command.args(arguments).current_dir(&folder).env_clear().envs(environment());
    command.envs(read_all(&program.env)?);
    // Last: no file gives them other values.
    command.envs(labels.iter().map(|(label, value)| (label.variable(), value)));
    // Where there are no process groups, `kill_on_drop` alone ends the program.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    command.spawn().map_err(|error| format!("`{name}` in {} does not start: {error}", folder.display()))
}

/// Runs one call to its end. Dropping the future kills the process group.
pub(super) async fn run(
    program: &Program,
    run_config: &RunConfig,
    watch: &ResourceWatch,
    invocation: &Invocation,
    mut stderr_tail: StderrTail<'_>,
) -> Result<Value, CallFailure> {
    let child = start(program, &run_config.folder, &labels(invocation)).map_err(|why| {
        logged(Code::StartFailed, Outcome::NotStarted, "the agent's program cannot be started", why)
    })?;
    let watch = child.id().map(|leader| watch.watch(leader, run_config.process_limits));
    let (mut group, mut watch) = (Group { child }, watch.ok_or_else(no_process)?);
    let child = &mut group.child;
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(no_process());
    };
    let mut out = Vec::new();
    let status = {
        // All at once: a program whose full pipe nobody reads never ends.
        let partial = PartialOutput::of(invocation);
        let talk = async {
            tokio::try_join!(
                read(stdout, &mut out, partial),
                stderr_tail.read(stderr),
                feed(stdin, &invocation.input)
            )
        };
        tokio::pin!(talk);
        let mut is_over = false;
        let status = loop {
            tokio::select! {
                // The end of the program and not of its pipes, which a child left behind may hold open.
                status = group.ended() => break status?,
                failure = watch.exceeded() => return Err(failure),
                talked = &mut talk, if !is_over => {
                    talked?;
                    is_over = true;
                }
            }
        };
        if !is_over && let Ok(talked) = tokio::time::timeout(DRAIN, talk).await {
            talked?;
        }
        status
    };
    status.code().into_iter().for_each(|code| names::exited(&Span::current(), code));
    let answer = answer(status, out);
    if answer.is_ok() {
        // What a program that answered wrote beside it is no news.
        stderr_tail.bytes.clear();
    }
    answer
}

/// A program that has just been started has a number and pipes.
fn no_process() -> CallFailure {
    CallFailure::new(Code::Internal, Outcome::Unknown, "the process has no number or no pipes")
}

/// The end of what an agent writes to stderr: logged when the call ends without an answer, however it ends.
pub(super) struct StderrTail<'a> {
    agent: &'a FullName,
    secrets: &'a Secrets,
    is_logged: bool,
    bytes: Vec<u8>,
}

impl<'a> StderrTail<'a> {
    pub(super) fn new(agent: &'a FullName, secrets: &'a Secrets, is_logged: bool) -> StderrTail<'a> {
        StderrTail { agent, secrets, is_logged, bytes: Vec::new() }
    }

    async fn read(&mut self, mut stderr: impl AsyncRead + Unpin) -> Result<(), CallFailure> {
        let mut part = [0; 4096];
        // Read to its end though little is kept: a full pipe would stop the program.
        while let Ok(count @ 1..) = stderr.read(&mut part).await {
            self.bytes.extend_from_slice(&part[..count]);
            let surplus = self.bytes.len().saturating_sub(STDERR_BYTES_MAX);
            self.bytes.drain(..surplus);
        }
        Ok(())
    }
}

impl Drop for StderrTail<'_> {
    fn drop(&mut self) {
        let text = self.secrets.hide_keys(&String::from_utf8_lossy(&self.bytes));
        if self.is_logged && !text.trim().is_empty() {
            tracing::warn!(event = "agent_last_words", agent = %self.agent, stderr = text.trim_end(), "the agent's last words");
        }
    }
}

fn answer(status: ExitStatus, out: Vec<u8>) -> Result<Value, CallFailure> {
    if !status.success() {
        let how = match status.code() {
            Some(code) => format!("exit code {code}"),
            None => format!("{status}"),
        };
        return Err(CallFailure::new(
            Code::AgentFailed,
            Outcome::Done,
            format!("the program ended with {how}"),
        ));
    }
    let text = String::from_utf8(out).map_err(|_| {
        CallFailure::new(Code::BadOutput, Outcome::Done, "the program's output is not UTF-8 text")
    })?;
    Ok(json_or_text(&text))
}

/// Output as JSON where it is JSON, otherwise as text.
pub(super) fn json_or_text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.trim_end().to_owned()))
}

/// A process and all its children that stay in its group.
struct Group {
    child: Child,
}

impl Group {
    /// Waits for the program's end and then ends what it left behind.
    async fn ended(&mut self) -> Result<ExitStatus, CallFailure> {
        let group = self.child.id();
        let status = self.child.wait().await;
        // The number cannot be another group's yet: numbers are given out in turn, and this one just became free.
        kill_group(group);
        status.map_err(|error| {
            CallFailure::new(
                Code::Internal,
                Outcome::Unknown,
                format!("the program cannot be waited for: {error}"),
            )
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // None once it was waited for; until then the number is its own.
        kill_group(self.child.id());
    }
}

/// Ends a whole process group, at once.
#[cfg(unix)]
pub(super) fn kill_group(leader: Option<u32>) {
    let leader = leader.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(leader) = leader {
        // Nobody may be left.
        let _already_ended = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
    }
}

#[cfg(not(unix))]
pub(super) fn kill_group(_leader: Option<u32>) {}

/// The programs that an agent would need and that are not there, each with what to do.
pub(crate) fn missing_programs(run_config: &RunConfig) -> Vec<String> {
    let programs: Vec<&Program> = match &run_config.runner {
        Runner::Command(program) => vec![program],
        Runner::Mcp { servers, .. } => servers
            .iter()
            .filter_map(|server| match server {
                McpServer::Command(program) => Some(program),
                McpServer::Url(_) => None,
            })
            .collect(),
        Runner::Http(_) | Runner::Chat(_) | Runner::A2a(_) | Runner::Builtin(_) => Vec::new(),
    };
    let names = programs.into_iter().filter_map(|program| program.command.first());
    let is_missing = |name: &&String| find_program(name, &run_config.folder).is_none();
    names.filter(is_missing).map(|name| missing(name, &run_config.folder)).collect()
}

/// A program that is not there, and what to do.
pub(super) fn missing(program: &str, folder: &Path) -> String {
    let folder = folder.display();
    if program.contains('/') {
        format!("the program `{program}` is not in {folder}; a path starts at the folder of the agent's file")
    } else {
        format!(
            "the program `{program}` of an agent in {folder} is not found in PATH; install it, or write its path"
        )
    }
}

/// A program that reads no input, or not all of it, is none the worse.
async fn feed(mut stdin: ChildStdin, input: &Value) -> Result<(), CallFailure> {
    // `stdin` is dropped at the end, so that a program that reads until then goes on.
    if stdin.write_all(input.to_string().as_bytes()).await.is_ok() {
        let _ = stdin.write_all(b"\n").await;
    }
    Ok(())
}

async fn read(
    mut stdout: impl AsyncRead + Unpin,
    out: &mut Vec<u8>,
    mut partial: PartialOutput,
) -> Result<(), CallFailure> {
    let mut part = vec![0; READ_BYTES];
    loop {
        let count = stdout.read(&mut part).await.map_err(|error| {
            CallFailure::new(Code::Internal, Outcome::Unknown, format!("the output cannot be read: {error}"))
        })?;
        if count == 0 {
            return Ok(());
        }
        out.extend_from_slice(&part[..count]);
        if out.len() > CALL_BYTES_MAX {
            return Err(too_talkative());
        }
        // A document is of use whole, and one in the shape of the paper may be a failure, of which callers are not told all.
        if is_document(out) {
            partial = PartialOutput::none();
        }
        partial.push_bytes(&part[..count]);
    }
}

/// Whether output begins as a JSON object.
fn is_document(out: &[u8]) -> bool {
    out.trim_ascii_start().starts_with(b"{")
}

/// More output than a call may have.
pub(super) fn too_talkative() -> CallFailure {
    let message =
        format!("the agent's output is larger than {CALL_BYTES_MAX} bytes; let it answer with less");
    CallFailure::new(Code::TooLarge, Outcome::Done, message)
}
