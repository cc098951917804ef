//! MCP servers as upstreams of a local agent (paper eq. 6: the tools of several servers form one union).
//!
//! Each server has one task: it starts the server, lists its tools, follows their changes, and starts it again when it
//! ends, with growing pauses, for ever. A call never waits for that. It goes to a server that is up, or fails at once
//! with "not started", so a dead server costs nothing but its own tools, which stay in the list.
//!
//! A server is not trusted: lists, schemas, messages, calls in flight and unread output all have limits, and what it
//! says never becomes a command, a path or an address.

mod answer;
mod child;
mod events;
mod http;
mod listing;
mod message;
mod server;
mod session;
mod task;
#[cfg(test)]
mod tests;
mod union;
mod wire;

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument;

pub(crate) use self::answer::structure;
use self::server::Server;
use self::union::Union;
use super::Invocation;
use crate::document::run_config::McpServer;
use crate::proto::call::{CallFailure, Outcome};
use crate::proto::code::Code;

/// A tool of the union.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tool {
    /// Unique in the union; the server's own name unless an earlier server has it.
    pub(crate) name: String,
    /// For people.
    pub(crate) title: Option<String>,
    /// What it does, cut to what a card holds.
    pub(crate) description: String,
    /// A JSON Schema that compiles: the server's own without what cannot be used.
    pub(crate) input_schema: Value,
    /// A JSON Schema that compiles, if the server gave one.
    pub(crate) output_schema: Option<Value>,
}

/// The union of the servers' tools.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ToolUnion {
    /// By name.
    pub(crate) list: Arc<Vec<Tool>>,
    /// Whether some server has neither answered nor failed yet, so that the list may still grow.
    pub(crate) pending: bool,
    /// Whether some server has not listed its tools once, so that what it has is not known.
    pub(crate) unlisted: bool,
}

/// The MCP servers of one agent. Dropping it ends them.
pub(crate) struct Upstream {
    union: Arc<Union>,
    servers: Vec<Arc<Server>>,
    _stop: DropGuard,
}

impl Upstream {
    /// Starts the servers; commands run in `folder`.
    pub(crate) fn start(servers: Vec<McpServer>, folder: &Path) -> Upstream {
        let union = Arc::new(Union::new(servers.len()));
        let stop = CancellationToken::new();
        let start = |(index, address)| {
            let server = Arc::new(Server::new(index, address, folder, union.clone()));
            tokio::spawn(server.clone().supervise(stop.clone()).instrument(server.span()));
            server
        };
        let servers = servers.into_iter().enumerate().map(start).collect();
        Upstream { union, servers, _stop: stop.drop_guard() }
    }

    /// The tools of all servers, now and as they change.
    pub(crate) fn tools(&self) -> watch::Receiver<ToolUnion> {
        self.union.tools()
    }

    /// Whether calls reach each of the servers, in their order.
    pub(crate) fn up(&self) -> impl Iterator<Item = bool> {
        self.servers.iter().map(|server| server.is_up())
    }

    /// Calls a tool of the union. Dropping the future cancels the call at the server.
    ///
    /// # Errors
    /// `not_found`, `bad_input`, `busy` and a server that is down: nothing was started. `agent_failed`: the tool says
    /// so. `upstream_failed` with an unknown outcome: the connection was lost while waiting.
    pub(crate) async fn call(
        &self,
        tool: &str,
        arguments: Value,
        invocation: &Invocation,
    ) -> Result<Value, CallFailure> {
        if let Some(route) = self.union.route(tool) {
            return self.servers[route.server].call(route.tool, arguments, invocation).await;
        }
        // While some server has not listed its tools, to say that there is no such tool would be a guess.
        match self.union.unlisted() {
            Some(index) => Err(self.servers[index].down()),
            None => Err(CallFailure::new(
                Code::NotFound,
                Outcome::NotStarted,
                format!("no MCP server of this agent has a tool `{tool}`; its tools may have changed"),
            )),
        }
    }
}
