//! How a host runs an agent: what `[agent.run]` and the settings beside it say. None of it ever enters a card.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use super::agent::DEFAULT_LIMITS;
use super::field::{Fields, Violation};

/// The paper authors' default queue of an agent, calls.
const MAX_QUEUE_DEFAULT: usize = 1_000;

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
            max_queue: MAX_QUEUE_DEFAULT,
            verbose: false,
            traceback_enabled: true,
        }
    }
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

/// Checks `env` of a program: names of variables, or a table of values.
pub(super) fn check_env(fields: &Fields<'_>) -> Result<(), Violation> {
    let fits = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
    let fix = "name variables of the node, `[\"API_KEY\"]`, or write values, `{ API_KEY = \"…\" }`";
    if fields.value("env").is_some_and(Value::is_array) {
        for (index, name) in fields.texts("env")?.into_iter().enumerate() {
            if !fits(name) {
                return Err(Violation::bad(
                    fields.path_of("env").index(index),
                    "is no name of a variable",
                    fix,
                ));
            }
        }
        return Ok(());
    }
    let Some(env) = fields.object("env")? else { return Ok(()) };
    for name in env.keys() {
        if !fits(name) {
            return Err(Violation::bad(env.path_of(name), "is no name of a variable", fix));
        }
        env.required_text(name, "write its value, or leave the variable out")?;
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
            if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                return refused("is a header that the node writes itself", "remove it");
            }
            // Names of headers have no case.
            if !seen.insert(name.to_ascii_lowercase()) {
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
