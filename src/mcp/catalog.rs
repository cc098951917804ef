//! The tools of this node: the discovery tools first, then one tool for each agent that this host runs.
//!
//! Names are what every host of models accepts: `[a-z0-9_-]`, at most 40 bytes. An agent whose name is longer, taken
//! or reserved gets the head of its name and a part of its id. The catalogue is made again when the agents change.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use rmcp::ErrorData;
use rmcp::model::{JsonObject, MetaObject, Tool, ToolAnnotations};
use serde_json::{Value, json};

use super::discovery;
use super::schema::{self, Input, Output};
use crate::agents::{Agents, HostedAgent};
use crate::document::run_config::DEFAULT_LIMITS;
use crate::proto::card::{AgentCard, CallLimits, Offer};
use crate::proto::grant::Grant;
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::name::FullName;
use crate::sanitize::{clean, clean_short};

/// Definitions of a page, bytes of JSON. Some clients never ask for a second page, so the first has what fits into an answer.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Longest name of a tool, bytes: hosts put their own prefix before it and stop at 64.
const NAME_BYTES_MAX: usize = 40;
/// Bytes of an agent's name that stay when it is cut.
const NAME_HEAD_BYTES: usize = 31;
/// Characters of the id that follow.
const ID_CHARS: usize = 8;
/// Longest description of a tool, bytes: models read all of them.
const DESCRIPTION_BYTES_MAX: usize = 1_024;
/// What goes before the name in a cursor, so that a text from elsewhere is no cursor.
const CURSOR_HEAD: &str = "after:";

/// An agent of this host as a tool.
pub(super) struct OwnTool {
    /// The agent.
    pub(super) agent: FullName,
    /// Its definition.
    pub(super) tool: Tool,
    /// How arguments become its input.
    pub(super) input: Input,
    /// How its output becomes the tool's answer.
    pub(super) output: Output,
}

/// All tools, made from one state of the agents.
pub(super) struct Tools {
    of: Arc<BTreeMap<FullName, HostedAgent>>,
    own: BTreeMap<String, OwnTool>,
    names: BTreeMap<FullName, String>,
}

/// Makes [`Tools`] again when the agents have changed.
pub(super) struct Catalog {
    agents: Agents,
    key: PeerKey,
    made: RwLock<Arc<Tools>>,
}

impl Catalog {
    pub(super) fn new(agents: Agents, key: PeerKey) -> Catalog {
        let made = RwLock::new(Arc::new(Tools::of(&agents, agents.list(), key)));
        Catalog { agents, key, made }
    }

    /// The tools of this moment.
    pub(super) fn tools(&self) -> Arc<Tools> {
        let list = self.agents.list();
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner).clone();
        // By address: a list of agents is replaced as a whole and never changed in place.
        if Arc::ptr_eq(&made.of, &list) {
            return made;
        }
        // Made without the lock, perhaps by two at once. If the older one wins, the next call makes it again.
        let fresh = Arc::new(Tools::of(&self.agents, list, self.key));
        *self.made.write().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
        fresh
    }
}

impl Tools {
    fn of(agents: &Agents, list: Arc<BTreeMap<FullName, HostedAgent>>, key: PeerKey) -> Tools {
        let mut tools = Tools { of: list.clone(), own: BTreeMap::new(), names: BTreeMap::new() };
        let run = list.iter().filter(|(_, local)| local.run_config.is_some());
        // Whoever can keep its name gets it first: a shortened name must not push it out.
        let (plain, cut): (Vec<_>, Vec<_>) = run.partition(|(name, _)| is_free(name.agent.as_str()));
        for (name, local) in plain.into_iter().chain(cut) {
            tools.insert(agents, name, &local.offer, key);
        }
        tools
    }

    fn insert(&mut self, agents: &Agents, agent: &FullName, offer: &Offer, key: PeerKey) {
        let owner = owner(offer, key);
        let id = AgentId::of(owner, agent).to_string();
        let name = self.tool_name(agent.agent.as_str(), &id);
        let mut own = own_tool(&name, agent, &offer.card, agents);
        own.tool.meta = Some(identity(agent, &id, owner));
        self.names.insert(agent.clone(), name.clone());
        self.own.insert(name, own);
    }

    fn tool_name(&self, agent: &str, id: &str) -> String {
        if is_free(agent) && !self.own.contains_key(agent) {
            return agent.to_owned();
        }
        // Names are ASCII, so one may be cut at any byte; an id is longer than the part taken of it.
        let head = &agent[..agent.len().min(NAME_HEAD_BYTES)];
        let parts = (0..id.len() - ID_CHARS).map(|at| format!("{head}_{}", &id[at..at + ID_CHARS]));
        // Another part of the id where somebody named an agent like the first one.
        let mut free = parts.filter(|name| !self.own.contains_key(name));
        free.next().unwrap_or_else(|| id.to_owned())
    }

    /// The tool of this name, if an agent has it.
    pub(super) fn own(&self, name: &str) -> Option<&OwnTool> {
        self.own.get(name)
    }

    /// The tool of an agent, if this host runs it.
    pub(super) fn name_of(&self, agent: &str) -> Option<&str> {
        let agent: FullName = agent.parse().ok()?;
        self.names.get(&agent).map(String::as_str)
    }

    /// How many agents are tools here.
    pub(super) fn len(&self) -> usize {
        self.own.len()
    }

    /// Agents and their tools' names, by name of the agent.
    pub(super) fn names(&self) -> impl Iterator<Item = (&FullName, &str)> {
        self.names.iter().map(|(agent, name)| (agent, name.as_str()))
    }

    /// The page after `cursor`, and the cursor of the next.
    pub(super) fn page(&self, cursor: Option<&str>) -> Result<(Vec<Tool>, Option<String>), ErrorData> {
        let (first, after) = match cursor {
            None => (0, None),
            Some(cursor) => place(cursor)?,
        };
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let own = self.own.range::<str, _>((after, Bound::Unbounded)).map(|(_, own)| &own.tool);
        // `place` gives at most the number of these tools, so the slice holds.
        let (mut tools, mut bytes, mut more) = (Vec::new(), 0, false);
        for tool in discovery::TOOLS[first..].iter().chain(own) {
            bytes += serde_json::to_vec(tool).map_or(0, |tool| tool.len());
            // One that is larger alone has a page of its own.
            if bytes > PAGE_BYTES_MAX && !tools.is_empty() {
                more = true;
                break;
            }
            tools.push(tool.clone());
        }
        // A name and not a number: it holds when agents come and go between two pages.
        let next = tools.last().filter(|_| more).map(|last| format!("{CURSOR_HEAD}{}", last.name));
        Ok((tools, next))
    }

    /// The definition of any tool.
    pub(super) fn tool(&self, name: &str) -> Option<&Tool> {
        let found = discovery::TOOLS.iter().find(|tool| tool.name == name);
        found.or_else(|| self.own(name).map(|own| &own.tool))
    }
}

/// How many discovery tools lie before a page, and after which own tool it begins.
fn place(cursor: &str) -> Result<(usize, Option<&str>), ErrorData> {
    let name = cursor.strip_prefix(CURSOR_HEAD).filter(|name| is_name(name));
    let name = name.ok_or_else(|| {
        ErrorData::invalid_params("the cursor is not one that this node gave out: start without it", None)
    })?;
    Ok(match discovery::TOOLS.iter().position(|tool| tool.name == name) {
        Some(at) => (at + 1, None),
        None => (discovery::TOOLS.len(), Some(name)),
    })
}

fn is_name(text: &str) -> bool {
    let fits = (1..=NAME_BYTES_MAX).contains(&text.len());
    fits && text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte))
}

/// Whether an agent may have a tool of its own name.
fn is_free(agent: &str) -> bool {
    is_name(agent) && !discovery::RESERVED.contains(&agent)
}

/// On whose behalf this host offers it: who issued the first grant, else the host.
fn owner(offer: &Offer, key: PeerKey) -> PeerKey {
    offer.grants.first().and_then(|grant| Grant::read(grant).ok()).map_or(key, |grant| grant.issuer)
}

fn own_tool(name: &str, agent: &FullName, card: &AgentCard, agents: &Agents) -> OwnTool {
    let (input, input_schema) = schema::input(agents.input_schema(agent));
    let (output, output_schema) = schema::output(agents.output_schema(agent));
    let described = clean_short(&card.description, DESCRIPTION_BYTES_MAX);
    let described = if described.is_empty() { format!("The agent {agent}") } else { described };
    let title = match &card.title {
        Some(title) => format!("{} ({agent})", clean(title)),
        None => agent.to_string(),
    };
    let tool = Tool::new(name.to_owned(), described, input_schema)
        .with_title(title)
        .with_raw_output_schema(output_schema)
        .with_annotations(ToolAnnotations::new().open_world(true));
    OwnTool { agent: agent.clone(), tool, input, output }
}

fn identity(agent: &FullName, id: &str, owner: PeerKey) -> MetaObject {
    let mut meta = JsonObject::new();
    let whole = json!({"agent": agent.to_string(), "id": id, "owner": owner.to_string()});
    meta.insert("aop/agent".into(), whole);
    MetaObject(meta)
}

/// Settings of an agent as the paper's AgentToolConfig names them.
pub(super) fn limits_json(limits: Option<CallLimits>) -> (Value, Value) {
    let limits = limits.unwrap_or(DEFAULT_LIMITS);
    (json!(limits.timeout_s), json!(limits.max_retries))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::document::read_documents;
    use crate::document::run_config::{Builtin, RunConfig, Runner};
    use crate::proto::identity::Identity;
    use crate::proto::name::ZoneName;

    fn local(name: &str, zone: &str) -> HostedAgent {
        let document =
            json!({"agent": {"name": name, "zone": zone, "description": "d", "run": {"builtin": "echo"}}});
        let run_config = RunConfig::new(Runner::Builtin(Builtin::Echo), Path::new("."));
        HostedAgent { offer: read_documents(document).remove(0).unwrap(), run_config: Some(run_config) }
    }

    fn catalog(locals: Vec<HostedAgent>) -> Catalog {
        let agents = Agents::new(ZoneName::root());
        agents.replace(locals);
        Catalog::new(agents, Identity::from_seed([1; 32]).key())
    }

    fn names(tools: &Tools) -> Vec<String> {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let (page, next) = tools.page(cursor.as_deref()).unwrap();
            let bytes: usize = page.iter().map(|tool| serde_json::to_vec(tool).unwrap().len()).sum();
            assert!(bytes <= PAGE_BYTES_MAX || page.len() == 1, "{bytes}");
            assert!(
                page.len() > 1 || next.is_none() || bytes > PAGE_BYTES_MAX,
                "no page is cut without need"
            );
            all.extend(page.into_iter().map(|tool| tool.name.into_owned()));
            cursor = next;
            if cursor.is_none() {
                return all;
            }
        }
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_repeat() {
        let agents = (0..300).map(|number| {
            let mut agent = local(&format!("agent-{number:03}"), ".");
            // Some have large schemas.
            let described = "x".repeat(if number % 3 == 0 { 20_000 } else { 10 });
            let schema = json!({"type": "object", "description": described});
            agent.offer.card.input_schema = Some(schema.to_string());
            agent
        });
        let tools = catalog(agents.collect()).tools();
        assert!(tools.page(None).unwrap().1.is_some(), "they are more than a page");
        let names = names(&tools);
        assert_eq!(names.len(), discovery::TOOLS.len() + 300);
        assert_eq!(names[0], "search_agents");
        assert!(names[discovery::TOOLS.len()..].is_sorted());
    }

    #[test]
    fn a_page_begins_after_a_tool_that_has_gone() {
        let tools = catalog(vec![local("a", "."), local("c", ".")]).tools();
        let (page, next) = tools.page(Some("after:b")).unwrap();
        assert_eq!((page.len(), page[0].name.as_ref(), next), (1, "c", None));
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let tools = catalog(Vec::new()).tools();
        for bad in ["", "a", "after:", "after:A", "after:ä", &format!("after:{}", "x".repeat(41))] {
            assert_eq!(
                tools.page(Some(bad)).unwrap_err().code,
                rmcp::model::ErrorCode::INVALID_PARAMS,
                "{bad}"
            );
        }
    }

    #[test]
    fn long_taken_and_reserved_names_are_shortened_and_whole_in_the_title() {
        let long = "n".repeat(63);
        let all = [local(&long, "."), local("search_agents", "."), local("pause_all_queues", ".")];
        let twice = [local("twin", "acme.org"), local("twin", ".")];
        let tools = catalog(all.into_iter().chain(twice).collect()).tools();
        assert_eq!(tools.len(), 5);
        for (agent, name) in tools.names() {
            assert!(is_name(name), "{name}");
            assert_eq!(
                is_free(agent.agent.as_str()) && name == agent.agent.as_str(),
                name == "twin",
                "{agent}"
            );
            let tool = tools.tool(name).unwrap();
            assert_eq!(tool.title.as_deref(), Some(agent.to_string().as_str()));
            assert_eq!(tool.meta.as_ref().unwrap().0["aop/agent"]["agent"], agent.to_string());
        }
        assert_eq!(tools.name_of(&format!("{long}@.")).unwrap().len(), 40);
        assert!(names(&tools).iter().filter(|name| *name == "search_agents").count() == 1);
    }

    #[test]
    fn an_agent_named_like_a_shortened_one_does_not_take_its_place() {
        let first = catalog(vec![local("search_agents", ".")]).tools();
        let shortened = first.name_of("search_agents@.").unwrap().to_owned();
        let tools = catalog(vec![local("search_agents", "."), local(&shortened, ".")]).tools();
        assert_eq!(tools.name_of(&format!("{shortened}@.")), Some(shortened.as_str()));
        assert_ne!(tools.name_of("search_agents@."), Some(shortened.as_str()));
    }

    #[test]
    fn tools_follow_the_agents() {
        let catalog = catalog(vec![local("a", ".")]);
        let before = catalog.tools();
        assert!(Arc::ptr_eq(&before, &catalog.tools()), "nothing changed, nothing is made again");
        catalog.agents.replace(vec![local("b", ".")]);
        let after = catalog.tools();
        assert!(after.own("a").is_none() && after.own("b").is_some());
    }
}
