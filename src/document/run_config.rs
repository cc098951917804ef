//! How a host runs an agent: what `[agent.run]` and the settings beside it say. None of it ever enters a card.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

pub use super::agent::DEFAULT_LIMITS;
use super::field::{Fields, JsonPath, Violation, quoted_text};

/// The paper authors' default queue of an agent, calls.
const MAX_QUEUE_DEFAULT: usize = 1_000;
/// Processes of one call by default: far more than a shell's pipeline or a pool of workers has, far fewer than a mistake makes.
const MAX_PROCESSES_DEFAULT: u32 = 64;
/// Most processes that a file may allow one call.
const MAX_PROCESSES_MAX: u32 = 100_000;
/// Least memory of one call, bytes: no interpreter starts with less.
const MAX_MEMORY_LEAST: u64 = 1024 * 1024;
/// Whether this host sees what processes take.
const SEES_PROCESSES: bool = cfg!(target_os = "linux");

/// The part of an agent's file that stays on the host (paper eq. 2: prompt and run-time parameters are secrets).
#[derive(Clone, Debug, PartialEq)]
pub struct RunConfig {
    /// The one way to run it.
    pub runner: Runner,
    /// Folder of the agent's file: the working directory of its commands.
    pub folder: PathBuf,
    /// The agent's file, if it has one. Only its operator is told of it.
    pub file: Option<PathBuf>,
    /// Peers, owners and zones that may call it; empty: whoever may find it.
    pub callers: Vec<String>,
    /// What the processes of one call may take, of a [`Runner::Command`].
    pub process_limits: ProcessLimits,
    /// How many calls of one caller it takes in a time; none: as many as there is room for.
    pub rate_limit: Option<Rate>,
    /// Calls that may wait for a free place.
    pub max_queue: usize,
    /// Whether each call is logged with its duration.
    pub verbose: bool,
    /// Whether what a failed agent wrote to stderr is logged on the host.
    pub traceback_enabled: bool,
}

impl RunConfig {
    /// An agent of this folder whose file says nothing but how it runs.
    pub fn new(runner: Runner, folder: &Path) -> RunConfig {
        RunConfig {
            runner,
            folder: folder.into(),
            file: None,
            callers: Vec::new(),
            rate_limit: None,
            process_limits: ProcessLimits { max_memory: None, max_processes: Some(MAX_PROCESSES_DEFAULT) },
            max_queue: MAX_QUEUE_DEFAULT,
            verbose: false,
            traceback_enabled: true,
        }
    }
}

/// So many calls in a time, at once or spread over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub count: u32,
    /// A second, a minute or an hour.
    pub per: Duration,
}

/// What a program and all that it starts may take, as long as they stay in its process group. Seen on Linux alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Resident memory of all together, bytes; none: as much as there is.
    pub max_memory: Option<u64>,
    /// Processes at once; threads are none.
    pub max_processes: Option<u32>,
}

/// One way to run an agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Runner {
    /// One process a call: JSON on stdin, JSON or text on stdout.
    Command(Program),
    /// Tools of MCP servers.
    Mcp {
        /// At least one; several form one union (paper eq. 6).
        servers: Vec<McpServer>,
        /// The one tool that is the agent; all tools otherwise.
        tool: Option<String>,
    },
    /// A POST of the input.
    Http(Endpoint),
    /// A chat model behind an OpenAI-compatible API.
    Chat(Chat),
    /// An A2A agent, by the address of its card.
    A2a(Endpoint),
    /// An agent of this program, to try and to measure.
    Builtin(Builtin),
}

/// An MCP server to call.
#[derive(Clone, Debug, PartialEq)]
pub enum McpServer {
    /// A child process that speaks MCP over stdio.
    Command(Program),
    /// A streamable HTTP endpoint.
    Url(Endpoint),
}

/// What this host starts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Variables of its environment, beside those that every program gets.
    pub env: BTreeMap<String, GivenValue>,
}

/// Where this host sends requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Endpoint {
    /// An `http` or `https` URL.
    pub url: String,
    /// Headers of every request.
    pub headers: BTreeMap<String, GivenValue>,
}

/// What an agent's file gives to whatever runs the agent. It may be a key, so it is never shown.
#[derive(Clone, PartialEq)]
pub enum GivenValue {
    /// It stands in the file, and is as safe as the file is.
    Literal(String),
    /// It is in this environment variable of the node.
    Variable(String),
}

impl fmt::Debug for GivenValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GivenValue::Literal(_) => f.write_str("a literal"),
            GivenValue::Variable(name) => write!(f, "the variable {name}"),
        }
    }
}

/// Settings of a chat agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Chat {
    /// Such as `http://127.0.0.1:8080/v1`; its paths lie below.
    pub base: Endpoint,
    /// The model's name at that address.
    pub model: String,
    /// Environment variable of this process that holds the key.
    pub api_key_env: Option<String>,
    /// Goes before every task.
    pub system_prompt: Option<String>,
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// Turns for one task.
    pub max_loops: u32,
}

/// Agents that need nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// Answers with its task.
    Echo,
    /// Waits as many milliseconds as its task says, with progress on the way.
    Sleep,
    /// Fails.
    Fail,
}

/// What the node tells an agent of each call, under a fixed name: a variable of a program, a header of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallLabel {
    /// The caller's PeerId, or `local`.
    Caller,
    /// The call, as its caller was told.
    CallId,
    /// The conversation that its caller named.
    Conversation,
    /// W3C Trace Context.
    Trace,
}

impl CallLabel {
    /// Every label.
    pub const ALL: [CallLabel; 4] =
        [CallLabel::Caller, CallLabel::CallId, CallLabel::Conversation, CallLabel::Trace];

    /// Its environment variable.
    pub fn variable(self) -> &'static str {
        match self {
            CallLabel::Caller => "AOP_CALLER",
            CallLabel::CallId => "AOP_CALL_ID",
            CallLabel::Conversation => "AOP_CONVERSATION",
            CallLabel::Trace => "TRACEPARENT",
        }
    }

    /// Its HTTP header, in lower case.
    pub fn header(self) -> &'static str {
        match self {
            CallLabel::Caller => "aop-caller",
            CallLabel::CallId => "aop-call-id",
            CallLabel::Conversation => "aop-conversation",
            CallLabel::Trace => "traceparent",
        }
    }
}

impl Runner {
    /// Reads `[agent.run]`, which has passed the checks of the agent's file.
    pub(super) fn read(run: &Value) -> Option<Runner> {
        if run.get("command").is_some() {
            return Some(Runner::Command(Program::read(run)));
        }
        if let Some(mcp) = run.get("mcp") {
            let servers = match mcp {
                // Checked servers have exactly one of the two keys, so none is lost here.
                Value::Array(servers) => servers.iter().filter_map(McpServer::read).collect(),
                server => McpServer::read(server).into_iter().collect(),
            };
            // Beside `mcp`, or inside of it where there is one server.
            let tool = run.get("tool").or_else(|| mcp.get("tool")).and_then(text);
            return Some(Runner::Mcp { servers, tool });
        }
        if let Some(http) = run.get("http") {
            return Endpoint::read(http, "url").map(Runner::Http);
        }
        if let Some(chat) = run.get("chat") {
            return Chat::read(chat).map(Runner::Chat);
        }
        if let Some(a2a) = run.get("a2a") {
            return Endpoint::read(a2a, "card").map(Runner::A2a);
        }
        Some(Runner::Builtin(match run.get("builtin")?.as_str()? {
            "echo" => Builtin::Echo,
            "sleep" => Builtin::Sleep,
            // The checks let no fourth word through.
            _ => Builtin::Fail,
        }))
    }
}

impl McpServer {
    fn read(server: &Value) -> Option<McpServer> {
        match server.get("command") {
            Some(_) => Some(McpServer::Command(Program::read(server))),
            None => Endpoint::read(server, "url").map(McpServer::Url),
        }
    }
}

impl Program {
    fn read(run: &Value) -> Program {
        let env = match run.get("env") {
            // The program finds the value under the name that it has for the node.
            Some(Value::Array(names)) => {
                names.iter().filter_map(text).map(|name| (name.clone(), GivenValue::Variable(name))).collect()
            }
            values => given(values, GivenValue::Literal).collect(),
        };
        Program { command: run.get("command").map(texts).unwrap_or_default(), env }
    }
}

impl Endpoint {
    fn read(run: &Value, url: &str) -> Option<Endpoint> {
        let headers = given(run.get("headers"), GivenValue::Literal)
            .chain(given(run.get("header_env"), GivenValue::Variable))
            .collect();
        Some(Endpoint { url: run.get(url).and_then(text)?, headers })
    }
}

fn given(
    values: Option<&Value>,
    kind: fn(String) -> GivenValue,
) -> impl Iterator<Item = (String, GivenValue)> {
    let values = values.and_then(Value::as_object).into_iter().flatten();
    values.filter_map(move |(name, value)| Some((name.clone(), kind(text(value)?))))
}

impl Chat {
    fn read(chat: &Value) -> Option<Chat> {
        let own = |key: &str| chat.get(key).and_then(text);
        Some(Chat {
            base: Endpoint::read(chat, "base_url")?,
            model: own("model")?,
            api_key_env: own("api_key_env"),
            system_prompt: own("system_prompt"),
            temperature: chat.get("temperature").and_then(Value::as_f64),
            // At most 1,000 by the checks, so the cast loses nothing.
            max_loops: chat.get("max_loops").and_then(Value::as_u64).map_or(1, |loops| loops as u32),
        })
    }
}

impl Rate {
    /// Reads a rate such as `10/min`; none if it is no rate. One of 0 would make an agent that nobody can ever call.
    pub(super) fn parse(text: &str) -> Option<Rate> {
        let (count, unit) = text.split_once('/')?;
        let seconds = match unit.trim() {
            "s" => 1,
            "min" => 60,
            "h" => 3_600,
            _ => return None,
        };
        let count = count.trim().parse().ok().filter(|count| *count > 0)?;
        Some(Rate { count, per: Duration::from_secs(seconds) })
    }
}

/// Checks `max_memory` and `max_processes`, which stand beside `[agent.run]` and only bound its `command`.
pub(super) fn check_process_limits(fields: &Fields<'_>) -> Result<(), Violation> {
    let has_program = fields.value("run").is_some_and(|run| run.get("command").is_some());
    if let Some(key) = fields.first_of(&["max_memory", "max_processes"]).filter(|_| !has_program) {
        let fix = "remove it; only the programs that calls start have such a limit";
        return Err(Violation::bad(fields.path_of(key), "stands without `command` in `[agent.run]`", fix));
    }
    fields.count("max_processes", 1..=MAX_PROCESSES_MAX)?;
    match fields.text("max_memory")? {
        Some(text) if bytes_of(text).is_none_or(|bytes| bytes < MAX_MEMORY_LEAST) => {
            let fix = "write megabytes or gigabytes of memory, at least one: `512M` or `2G`";
            Err(Violation::bad(fields.path_of("max_memory"), format!("is {}", quoted_text(text)), fix))
        }
        _ => Ok(()),
    }
}

/// What this host cannot do for a file that it runs; a document that is sent to it runs nothing.
pub(super) fn check_is_seen(fields: &Fields<'_>) -> Result<(), Violation> {
    match fields.first_of(&["max_memory", "max_processes"]) {
        Some(key) if !SEES_PROCESSES => {
            let fix = "remove it, or run the agent on Linux";
            Err(Violation::bad(fields.path_of(key), "cannot be held on this system", fix))
        }
        _ => Ok(()),
    }
}

/// Bytes of a size such as `512M`, of 1,024 each.
fn bytes_of(text: &str) -> Option<u64> {
    let unit = text.chars().last()?;
    let bytes: u64 = match unit {
        'K' => 1 << 10,
        'M' => 1 << 20,
        'G' => 1 << 30,
        _ => return None,
    };
    text.strip_suffix(unit)?.trim_end().parse::<u64>().ok()?.checked_mul(bytes)
}

impl ProcessLimits {
    /// Reads what `[agent]` says, which has passed the checks.
    pub(super) fn read(agent: &Value) -> ProcessLimits {
        let processes = agent.get("max_processes").and_then(Value::as_u64);
        ProcessLimits {
            max_memory: agent.get("max_memory").and_then(Value::as_str).and_then(bytes_of),
            max_processes: processes
                .and_then(|count| u32::try_from(count).ok())
                .or(Some(MAX_PROCESSES_DEFAULT)),
        }
    }
}

/// Checks `env` of a program: names of variables, or a table of values.
pub(super) fn check_env(fields: &Fields<'_>) -> Result<(), Violation> {
    if fields.value("env").is_some_and(Value::is_array) {
        for (index, name) in fields.texts("env")?.into_iter().enumerate() {
            check_variable(name, || fields.path_of("env").index(index))?;
        }
        return Ok(());
    }
    let Some(env) = fields.object("env")? else { return Ok(()) };
    for name in env.keys() {
        check_variable(name, || env.path_of(name))?;
        env.required_text(name, "write its value, or leave the variable out")?;
    }
    Ok(())
}

fn check_variable(name: &str, path: impl FnOnce() -> JsonPath) -> Result<(), Violation> {
    if name.is_empty() || name.contains(['=', '\0']) {
        let fix = "name variables of the node, `[\"API_KEY\"]`, or write values, `{ API_KEY = \"…\" }`";
        return Err(Violation::bad(path(), "is no name of a variable", fix));
    }
    // Refused and not passed over: an agent that trusts them must be able to.
    if CallLabel::ALL.iter().any(|label| label.variable() == name) {
        let fix = "remove it; every call of a `command` agent has its own";
        return Err(Violation::bad(path(), "is a variable that the node writes itself", fix));
    }
    Ok(())
}

/// Headers that say how a request travels, or that the protocol of the agent sets itself.
const OWN_HEADERS: [&str; 11] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "host",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "transfer-encoding",
];

/// Checks `headers`, which hold values, and `header_env`, which names variables of the node that hold them.
pub(super) fn check_headers(fields: &Fields<'_>) -> Result<(), Violation> {
    let mut seen = std::collections::BTreeSet::new();
    for key in ["headers", "header_env"] {
        let Some(headers) = fields.object(key)? else { continue };
        for name in headers.keys() {
            let refused = |problem: &str, fix: &str| Err(Violation::bad(headers.path_of(name), problem, fix));
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_token) {
                return refused(
                    "is no name of a header",
                    "write letters, digits and `-`, such as `X-Api-Key`",
                );
            }
            let lower = name.to_ascii_lowercase();
            let is_label = CallLabel::ALL.iter().any(|label| label.header() == lower);
            if is_label || OWN_HEADERS.contains(&lower.as_str()) {
                return refused("is a header that the node writes itself", "remove it");
            }
            // Names of headers have no case.
            if !seen.insert(lower) {
                return refused("is given twice", "keep one of the two");
            }
            headers.required_text(name, "write its value, or leave the header out")?;
        }
    }
    Ok(())
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn texts(values: &Value) -> Vec<String> {
    values.as_array().into_iter().flatten().filter_map(text).collect()
}
