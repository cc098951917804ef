//! The union of the tools of several servers (paper eq. 6).
//!
//! A name that two servers have stays with the one that stands earlier in the file; the other's tool is exposed under
//! the name, `_` and its server's place, with a warning. A server that is down keeps its tools in the list.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{Tool, ToolUnion};

/// What one server contributes.
enum ServerTools {
    /// Neither answered nor failed yet.
    Pending,
    /// Never listed its tools so far.
    Failed,
    /// What it listed last.
    Listed(Vec<Tool>),
}

/// Where a name of the union leads.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Route {
    /// Place of the server, from 0.
    pub(super) server: usize,
    /// The server's own name of the tool.
    pub(super) tool: String,
}

pub(super) struct Union {
    board: Mutex<Board>,
    tools: watch::Sender<ToolUnion>,
}

struct Board {
    servers: Vec<ServerTools>,
    routes: BTreeMap<String, Route>,
}

impl Union {
    pub(super) fn new(servers: usize) -> Union {
        let pending = std::iter::repeat_with(|| ServerTools::Pending).take(servers).collect();
        let tools = ToolUnion { pending: servers > 0, unlisted: servers > 0, ..ToolUnion::default() };
        Union {
            board: Mutex::new(Board { servers: pending, routes: BTreeMap::new() }),
            tools: watch::Sender::new(tools),
        }
    }

    pub(super) fn tools(&self) -> watch::Receiver<ToolUnion> {
        self.tools.subscribe()
    }

    pub(super) fn route(&self, name: &str) -> Option<Route> {
        self.board().routes.get(name).cloned()
    }

    /// A server whose tools are not known, so that a name nobody has may be one of them.
    pub(super) fn unlisted(&self) -> Option<usize> {
        self.board().servers.iter().position(|tools| !matches!(tools, ServerTools::Listed(_)))
    }

    /// Takes what the server listed; its earlier tools go.
    pub(super) fn listed(&self, server: usize, tools: Vec<Tool>) {
        let mut board = self.board();
        board.servers[server] = ServerTools::Listed(tools);
        self.publish(&mut board);
    }

    /// The server failed; what it listed earlier stays.
    pub(super) fn failed(&self, server: usize) {
        let mut board = self.board();
        // A list that is known is worth more than none: its
        // tools fail one by one, and are back with the server.
        if matches!(board.servers[server], ServerTools::Pending) {
            board.servers[server] = ServerTools::Failed;
            self.publish(&mut board);
        }
    }

    fn publish(&self, board: &mut Board) {
        let (list, routes) = merge(&board.servers);
        for (name, route) in routes.iter().filter(|(name, route)| **name != route.tool) {
            // Told when it comes up, not at every list that follows.
            if board.routes.get(name) != Some(route) {
                let (tool, server) = (&route.tool, route.server + 1);
                tracing::warn!(
                    tool,
                    server,
                    exposed_as = name,
                    "two MCP servers of an agent have the same tool"
                );
            }
        }
        // Routes before the list, so that whoever is woken by it finds the way to each tool.
        board.routes = routes;
        let pending = board.servers.iter().any(|tools| matches!(tools, ServerTools::Pending));
        let unlisted = board.servers.iter().any(|tools| !matches!(tools, ServerTools::Listed(_)));
        let now = ToolUnion { list: Arc::new(list), pending, unlisted };
        self.tools.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn merge(servers: &[ServerTools]) -> (Vec<Tool>, BTreeMap<String, Route>) {
    let mut union: BTreeMap<String, (Tool, Route)> = BTreeMap::new();
    for (server, listed) in servers.iter().enumerate() {
        let ServerTools::Listed(tools) = listed else { continue };
        for tool in tools {
            let mut name = tool.name.clone();
            // The longer name may be taken as well; it grows with each turn, so this ends.
            while union.contains_key(&name) {
                name.push_str(&format!("_{}", server + 1));
            }
            let route = Route { server, tool: tool.name.clone() };
            union.insert(name.clone(), (Tool { name, ..tool.clone() }, route));
        }
    }
    let routes = union.iter().map(|(name, (_, route))| (name.clone(), route.clone())).collect();
    (union.into_values().map(|(tool, _)| tool).collect(), routes)
}
