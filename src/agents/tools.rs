//! Agents that are tools of MCP servers (paper eq. 6). With `tool` an agent is that tool; without, it is the union of
//! all tools, and every tool is an agent of its own beside it, found and called from anywhere.
//!
//! Files say which agents there are, servers say which tools they have, and both change at any time: the agents of a
//! host are always made anew from both, and only what differs is started or ended.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, Weak};

use serde_json::{Value, json};
use tokio::task::AbortHandle;

use super::upstream::{Tool, ToolUnion, Upstream};
use super::{Agents, HostedAgent, Inner, Invocation};
use crate::document::run_config::{McpServer, RunConfig, Runner};
use crate::document::{check, compact, tool_name};
use crate::proto::call::{CallFailure, Outcome};
use crate::proto::card::{AgentCard, Offer};
use crate::proto::code::Code;
use crate::proto::name::{FullName, ZoneName};

/// The MCP servers that agents of one folder name. Ends when no agent names them any more.
pub(super) struct McpUpstream {
    servers: Vec<McpServer>,
    folder: PathBuf,
    upstream: Upstream,
    following: AbortHandle,
}

impl McpUpstream {
    /// Starts the servers; each change of their tools makes the agents anew.
    fn start(servers: &[McpServer], folder: &Path, agents: &Weak<Inner>) -> Arc<McpUpstream> {
        let upstream = Upstream::start(servers.to_vec(), folder);
        // Weak: the agents own their servers, and a server that owns them back would never end.
        let (mut tools, agents) = (upstream.tools(), agents.clone());
        let following = tokio::spawn(async move {
            while tools.changed().await.is_ok() {
                let Some(inner) = agents.upgrade() else { return };
                Agents(inner).rebuild();
            }
        });
        let following = following.abort_handle();
        Arc::new(McpUpstream { servers: servers.to_vec(), folder: folder.into(), upstream, following })
    }

    /// Runs one call: of this tool, or of the one that the input names.
    pub(super) async fn call(
        &self,
        tool: Option<&str>,
        invocation: &Invocation,
    ) -> Result<Value, CallFailure> {
        if let Some(tool) = tool {
            return self.upstream.call(tool, invocation.input.clone(), invocation).await;
        }
        let Some(tool) = invocation.input.get("tool").and_then(Value::as_str) else {
            let message = "the input names no tool; write {\"tool\": \"…\", \"arguments\": {…}}";
            return Err(CallFailure::new(Code::BadInput, Outcome::NotStarted, message));
        };
        let arguments = invocation.input.get("arguments").cloned().unwrap_or_else(|| json!({}));
        self.upstream.call(tool, arguments, invocation).await
    }

    fn tools(&self) -> ToolUnion {
        self.upstream.tools().borrow().clone()
    }
}

impl Drop for McpUpstream {
    fn drop(&mut self) {
        self.following.abort();
    }
}

/// What files say, and the servers that they name.
#[derive(Default)]
pub(super) struct Declared {
    pub(super) locals: Vec<HostedAgent>,
    pub(super) is_complete: bool,
    upstreams: Vec<Arc<McpUpstream>>,
}

/// An agent as it stands now.
pub(super) struct ResolvedAgent {
    pub(super) local: HostedAgent,
    pub(super) upstream: Option<Arc<McpUpstream>>,
    /// Whether the world is told of it: an agent whose tool is not known yet is as it was.
    pub(super) is_offered: bool,
}

impl Declared {
    /// Starts the servers that are new and lets go of those that no agent names.
    pub(super) fn start_upstreams(&mut self, agents: &Weak<Inner>) {
        // Held until the end, so that a server which is still named is not ended and started again.
        let before = std::mem::take(&mut self.upstreams);
        for run_config in self.locals.iter().filter_map(|local| local.run_config.as_ref()) {
            let Runner::Mcp { servers, .. } = &run_config.runner else { continue };
            // Agents with the same servers in the same folder share
            // them: one process, whatever the number of tools.
            if self.upstream_of(run_config).is_none() {
                let is_same = |upstream: &&Arc<McpUpstream>| {
                    upstream.servers == *servers && upstream.folder == run_config.folder
                };
                // By all of its settings: a server with another argument is another server.
                let same = before.iter().find(is_same).cloned();
                self.upstreams
                    .push(same.unwrap_or_else(|| McpUpstream::start(servers, &run_config.folder, agents)));
            }
        }
    }

    fn upstream_of(&self, run_config: &RunConfig) -> Option<&Arc<McpUpstream>> {
        let Runner::Mcp { servers, .. } = &run_config.runner else { return None };
        self.upstreams
            .iter()
            .find(|upstream| upstream.servers == *servers && upstream.folder == run_config.folder)
    }

    /// Whether each server is up, by the agent whose file names it first, and by its place there where there are several.
    pub(super) fn servers(&self, home: &ZoneName) -> Vec<(String, bool)> {
        let mut servers = Vec::new();
        let mut told: Vec<*const McpUpstream> = Vec::new();
        for local in &self.locals {
            let upstream = local.run_config.as_ref().and_then(|run_config| self.upstream_of(run_config));
            let Some(upstream) = upstream.filter(|upstream| !told.contains(&Arc::as_ptr(upstream))) else {
                continue;
            };
            told.push(Arc::as_ptr(upstream));
            let zone = local.offer.zone.as_ref().unwrap_or(home);
            let name = format!("{}@{zone}", local.offer.name);
            let up: Vec<bool> = upstream.upstream.up().collect();
            match up[..] {
                [is_up] => servers.push((name, is_up)),
                _ => servers.extend(up.iter().zip(1..).map(|(is_up, at)| (format!("{name}/{at}"), *is_up))),
            }
        }
        servers
    }

    /// All agents, those of files first, and the names below which nothing is known yet.
    pub(super) fn resolved(&self, home: &ZoneName) -> (Vec<ResolvedAgent>, BTreeSet<FullName>) {
        let (mut resolved, mut tool_agents, mut unknown) = (Vec::new(), Vec::new(), BTreeSet::new());
        for local in &self.locals {
            let upstream = local
                .run_config
                .as_ref()
                .and_then(|run_config| Some((run_config, self.upstream_of(run_config)?)));
            let Some((run_config, upstream)) = upstream else {
                resolved.push(ResolvedAgent { local: local.clone(), upstream: None, is_offered: true });
                continue;
            };
            let tools = upstream.tools();
            if tools.unlisted {
                let zone = local.offer.zone.clone().unwrap_or_else(|| home.clone());
                unknown.insert(FullName { agent: local.offer.name.clone(), zone });
            }
            let resolve = |local: HostedAgent, is_offered| ResolvedAgent {
                local,
                upstream: Some(upstream.clone()),
                is_offered,
            };
            if let Runner::Mcp { tool: Some(name), .. } = &run_config.runner {
                let tool = tools.list.iter().find(|tool| tool.name == *name);
                resolved.push(resolve(as_tool(local, tool), !tools.unlisted || tool.is_some()));
            } else {
                // Offered at once: it takes whatever tools its servers turn out to have.
                resolved.push(resolve(as_union(local), true));
                let locals = tools.list.iter().filter_map(|tool| of_tool(local, run_config, tool));
                tool_agents.extend(locals.map(|local| resolve(local, true)));
            }
        }
        // Last, because of two agents with one name the first stays, and files come before servers.
        resolved.extend(tool_agents);
        (resolved, unknown)
    }
}

/// The agent of a file that is one tool: what the file leaves out, the tool says.
fn as_tool(local: &HostedAgent, tool: Option<&Tool>) -> HostedAgent {
    let mut local = local.clone();
    let Some(tool) = tool else { return local };
    let said = card_of(tool);
    let card = &mut local.offer.card;
    if card.description.is_empty() {
        card.description = said.description;
    }
    card.title = card.title.take().or(said.title);
    card.input_schema = card.input_schema.take().or(said.input_schema);
    card.output_schema = card.output_schema.take().or(said.output_schema);
    match check(card) {
        Ok(()) => local,
        Err(refusal) => {
            tracing::warn!(
                tool = tool.name,
                "a tool does not fit into its agent's card: {}",
                refusal.message
            );
            // Better without schemas than not offered: the server judges its input itself.
            local.offer.card.input_schema = None;
            local.offer.card.output_schema = None;
            local
        }
    }
}

/// The agent of a file that is all tools.
fn as_union(local: &HostedAgent) -> HostedAgent {
    let mut local = local.clone();
    let schema = json!({
        "type": "object",
        "properties": {
            "tool": {"type": "string", "description": "Name of the tool"},
            "arguments": {"type": "object", "description": "What the tool takes"},
        },
        "required": ["tool"],
    });
    local.offer.card.input_schema.get_or_insert_with(|| schema.to_string());
    local
}

/// An agent of its own for a tool, with the settings of the file. None if its card does not fit, which is told.
fn of_tool(local: &HostedAgent, run_config: &RunConfig, tool: &Tool) -> Option<HostedAgent> {
    let Runner::Mcp { servers, .. } = &run_config.runner else { return None };
    let runner = Runner::Mcp { servers: servers.clone(), tool: Some(tool.name.clone()) };
    let card = AgentCard {
        tags: local.offer.card.tags.clone(),
        capabilities: local.offer.card.capabilities.clone(),
        region: local.offer.card.region.clone(),
        residency: local.offer.card.residency.clone(),
        limits: local.offer.card.limits,
        callable: true,
        ..card_of(tool)
    };
    if let Err(refusal) = check(&card) {
        tracing::warn!(tool = tool.name, "a tool is not offered by itself: {}", refusal.message);
        return None;
    }
    // A name that makes no label leaves the tool to the union alone.
    let name = tool_name(&local.offer.name, &tool.name).ok()?;
    let offer = Offer { name, card, ..local.offer.clone() };
    Some(HostedAgent { offer, run_config: Some(RunConfig { runner, ..run_config.clone() }) })
}

/// What a tool says of itself, without the characters that a card must not have.
fn card_of(tool: &Tool) -> AgentCard {
    let prose = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    let title =
        tool.title.as_ref().map(|title| title.chars().filter(|c| !c.is_control()).collect::<String>());
    AgentCard {
        description: tool.description.chars().filter(prose).collect(),
        title: title.filter(|title| !title.is_empty()),
        input_schema: Some(compact(&tool.input_schema)),
        output_schema: tool.output_schema.as_ref().map(compact),
        ..AgentCard::default()
    }
}

impl Agents {
    /// The MCP servers of files, and whether calls reach them.
    pub(crate) fn upstream_servers(&self) -> Vec<(String, bool)> {
        self.0.declared.lock().unwrap_or_else(PoisonError::into_inner).servers(&self.0.home)
    }

    /// Makes the agents anew from what files and servers say now.
    pub(super) fn rebuild(&self) {
        let declared = self.0.declared.lock().unwrap_or_else(PoisonError::into_inner);
        self.take(&declared);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_fills_what_its_agents_file_leaves_out() {
        let tool = Tool {
            name: "now".into(),
            title: Some("The\u{1b} time".into()),
            description: "Says\u{7} the time".into(),
            input_schema: json!({"type": "object"}),
            output_schema: None,
        };
        let card = AgentCard { title: Some("Mine".into()), ..AgentCard::default() };
        let name = "a".parse().unwrap();
        let offer = Offer { name, zone: None, scope: Default::default(), card, grants: Vec::new() };
        let filled = as_tool(&HostedAgent { offer, run_config: None }, Some(&tool)).offer.card;
        assert_eq!((filled.title.as_deref(), filled.description.as_str()), (Some("Mine"), "Says the time"));
        assert_eq!(filled.input_schema.as_deref(), Some("{\"type\":\"object\"}"));
        assert_eq!(card_of(&tool).title.as_deref(), Some("The time"));
    }
}
