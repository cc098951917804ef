//! How a host runs an agent: what `[agent.run]` and the settings beside it say. None of it ever enters a card.

use std::path::{Path, PathBuf};

use serde_json::Value;

pub use super::agent::DEFAULT_LIMITS;

/// The paper authors' default queue of an agent, calls.
const MAX_QUEUE_DEFAULT: usize = 1_000;

/// The part of an agent's file that stays on the host (paper eq. 2: prompt and run-time parameters are secrets).
#[derive(Clone, Debug, PartialEq)]
pub struct RunConfig {
    /// The one way to run it.
    pub runner: Runner,
    /// Folder of the agent's file: the working directory of its commands.
    pub folder: PathBuf,
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
    /// One process a call: JSON on stdin, JSON or text on stdout. Program and arguments.
    Command(Vec<String>),
    /// Tools of MCP servers.
    Mcp {
        /// At least one; several form one union (paper eq. 6).
        servers: Vec<McpServer>,
        /// The one tool that is the agent; all tools otherwise.
        tool: Option<String>,
    },
    /// A POST of the input.
    Http {
        /// Where to.
        url: String,
    },
    /// A chat model behind an OpenAI-compatible API.
    Chat(Chat),
    /// An agent of this program, to try and to measure.
    Builtin(Builtin),
}

/// An MCP server to call.
#[derive(Clone, Debug, PartialEq)]
pub enum McpServer {
    /// A child process that speaks MCP over stdio.
    Command(Vec<String>),
    /// A streamable HTTP endpoint.
    Url(String),
}

/// Settings of a chat agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Chat {
    /// Such as `http://127.0.0.1:8080/v1`.
    pub base_url: String,
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
        if let Some(command) = run.get("command") {
            return Some(Runner::Command(texts(command)));
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
            return Some(Runner::Http { url: text(http.get("url")?)? });
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
            Some(command) => Some(McpServer::Command(texts(command))),
            None => server.get("url").and_then(text).map(McpServer::Url),
        }
    }
}

impl Chat {
    fn read(chat: &Value) -> Option<Chat> {
        let own = |key: &str| chat.get(key).and_then(text);
        Some(Chat {
            base_url: own("base_url")?,
            model: own("model")?,
            api_key_env: own("api_key_env"),
            system_prompt: own("system_prompt"),
            temperature: chat.get("temperature").and_then(Value::as_f64),
            // At most 1,000 by the checks, so the cast loses nothing.
            max_loops: chat.get("max_loops").and_then(Value::as_u64).map_or(1, |loops| loops as u32),
        })
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn texts(values: &Value) -> Vec<String> {
    values.as_array().into_iter().flatten().filter_map(text).collect()
}
