//! Catalogue entries (ARD v0.91 section 4): an agent's card in the words of the standard.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::identifier::{Identifier, NodeEntry};
use crate::host::CatalogAgent;
use crate::http::date;
use crate::proto::card::{AgentCard, Origin};
use crate::proto::identity::PeerKey;

pub(super) const REGISTRY: &str = "application/ai-registry+json";
const A2A_CARD: &str = "application/a2a-agent-card+json";
const SERVER_CARD: &str = "application/mcp-server-card+json";
/// Of which the standard knows no name of its own.
const OASF: &str = "application/vnd.oasf.record+json";
const AOP_AGENT: &str = "application/vnd.aop.agent+json";
const SERVER_CARD_SCHEMA: &str = "https://static.modelcontextprotocol.io/schemas/v1/server-card.schema.json";
/// What a server card takes from a server.json as it is.
const OF_SERVER: [&str; 7] = ["name", "title", "description", "version", "websiteUrl", "icons", "remotes"];
/// Examples of questions that an entry shows: fewer say nothing, more are passed over.
const QUERIES: std::ops::RangeInclusive<usize> = 2..=5;

/// An entry, as an object of JSON.
pub(super) type Entry = Map<String, Value>;

/// An entry, and beside it what it is the entry of, in the very text of its publisher.
pub(super) struct Shown {
    pub(super) entry: Entry,
    data: Option<Data>,
}

/// What an entry is of.
enum Data {
    Whole(Box<RawValue>),
    Fields(Vec<(&'static str, Box<RawValue>)>),
}

/// The members of a document, as they are written there.
type Fields<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

impl Shown {
    /// The same as one object.
    pub(super) fn whole(&self) -> Entry {
        let mut entry = self.entry.clone();
        if let Some(data) = &self.data {
            // What was read as JSON is JSON.
            entry.insert("data".into(), serde_json::to_value(data).unwrap_or_default());
        }
        entry
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let data = self.data.as_ref();
        let mut map = serializer.serialize_map(None)?;
        self.entry.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        data.map_or(Ok(()), |data| map.serialize_entry("data", data))?;
        map.end()
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Data::Whole(text) => text.serialize(serializer),
            Data::Fields(fields) => serializer.collect_map(fields.iter().map(|(name, text)| (name, text))),
        }
    }
}

/// An agent as an entry; `base` is the address of this node.
pub(super) fn entry(agent: &CatalogAgent, base: &str) -> Shown {
    let mut entry = head(agent);
    let original = agent.card.original.as_deref();
    let fields: Option<Fields<'_>> = original.and_then(|text| serde_json::from_str(text).ok());
    let data = match (agent.card.origin, fields, original) {
        (Origin::ServerJson, Some(fields), _) => Some(server_card(&fields)),
        (Origin::A2a, Some(fields), Some(text)) => {
            let card = a2a_card(&fields).unwrap_or(text);
            let queries = example_queries(card);
            if QUERIES.contains(&queries.len()) {
                entry.insert("representativeQueries".into(), queries.into());
            }
            raw(card).map(Data::Whole)
        }
        (Origin::ServerCard | Origin::Oasf, Some(_), Some(text)) => raw(text).map(Data::Whole),
        _ => None,
    };
    if data.is_none() {
        let url = match agent.card.callable {
            true => card_url(agent, base),
            false => format!("{base}/v1/agents/{}", agent.id),
        };
        entry.insert("url".into(), url.into());
    }
    Shown { entry, data }
}

fn raw(text: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(text.to_owned()).ok()
}

/// An entry without what it is the entry of, which costs most.
pub(super) fn head(agent: &CatalogAgent) -> Entry {
    let CatalogAgent { name, id, owner, card, .. } = agent;
    let original_name = card.original_name.as_deref().unwrap_or(name.agent.as_str());
    let metadata = json!({
        "aopAgent": name.to_string(),
        "aopId": id.to_string(),
        "aopOwner": owner.to_string(),
        "callable": card.callable,
        "originalName": original_name,
    });
    let told = json!({
        "identifier": Identifier::Agent(*owner, name.clone()).to_string(),
        "displayName": card.title.as_deref().unwrap_or(original_name),
        "type": kind(card),
        "metadata": metadata,
    });
    let Value::Object(mut entry) = told else { return Entry::new() };
    let mut more = |field: &str, value: Value| _ = entry.insert(field.into(), value);
    if !card.description.is_empty() {
        more("description", card.description.as_str().into());
    }
    if !card.tags.is_empty() {
        more("tags", card.tags.clone().into());
    }
    if !card.capabilities.is_empty() {
        more("capabilities", card.capabilities.clone().into());
    }
    if let Some(version) = &card.version {
        more("version", version.as_str().into());
    }
    if let Some(updated) = agent.updated_at() {
        more("updatedAt", date(updated).into());
    }
    if let (Some(why), Some(metadata)) = (&card.deprecated, entry.get_mut("metadata")) {
        metadata["deprecated"] = why.as_str().into();
    }
    entry
}

fn kind(card: &AgentCard) -> &'static str {
    // Without its document it is shown as this node knows it.
    let is_document = card.original.is_some();
    match card.origin {
        Origin::ServerJson | Origin::ServerCard if is_document => SERVER_CARD,
        Origin::A2a if is_document => A2A_CARD,
        Origin::Oasf if is_document => OASF,
        _ if card.callable => A2A_CARD,
        _ => AOP_AGENT,
    }
}

/// By its id: a name may be another's elsewhere.
fn card_url(agent: &CatalogAgent, base: &str) -> String {
    format!("{base}/a2a/{}/.well-known/agent-card.json", agent.id)
}

/// What a server card has of a server.json.
fn server_card(server: &Fields<'_>) -> Data {
    let schema = serde_json::value::to_raw_value(SERVER_CARD_SCHEMA).ok();
    let taken = |field: &'static str| Some((field, (*server.get(field)?).to_owned()));
    let mut card: Vec<(&'static str, Box<RawValue>)> =
        schema.map(|schema| ("$schema", schema)).into_iter().collect();
    card.extend(OF_SERVER.into_iter().filter_map(taken));
    card.extend(taken("repository").filter(|(_, repository)| has_url(repository)));
    Data::Fields(card)
}

fn has_url(repository: &RawValue) -> bool {
    serde_json::from_str::<Value>(repository.get())
        .is_ok_and(|it| it.get("url").is_some_and(Value::is_string))
}

/// The card in a document that wraps it, as some do.
fn a2a_card<'a>(document: &Fields<'a>) -> Option<&'a str> {
    document.get("card").map(|card| card.get()).filter(|card| card.starts_with('{'))
}

fn example_queries(card: &str) -> Vec<Value> {
    let fields: Fields<'_> = serde_json::from_str(card).unwrap_or_default();
    let skills =
        fields.get("skills").and_then(|skills| serde_json::from_str::<Vec<Value>>(skills.get()).ok());
    let skills = skills.unwrap_or_default();
    let examples = skills.iter().filter_map(|skill| skill.get("examples")?.as_array()).flatten();
    examples.filter(|example| example.is_string()).take(*QUERIES.end()).cloned().collect()
}

/// What this node shows of itself.
pub(super) fn of_node(key: PeerKey, entry: NodeEntry, base: &str) -> Shown {
    let (name, kind, url, description, queries) = match entry {
        NodeEntry::Registry => (
            "AOP registry node",
            REGISTRY,
            format!("{base}/ard"),
            "Searches the agents of a peer-to-peer registry, and says which zones answered",
            ["find an agent that summarises documents", "which MCP server searches the web"],
        ),
        NodeEntry::Mcp => (
            "AOP registry node over MCP",
            SERVER_CARD,
            format!("{base}/mcp/server-card"),
            "Finds and calls agents of a peer-to-peer registry as tools of MCP",
            ["find an agent for my task and call it", "list the agents that I can use"],
        ),
    };
    let told = json!({
        "identifier": Identifier::Node(key, entry).to_string(),
        "displayName": name,
        "type": kind,
        "url": url,
        "description": description,
        "version": env!("CARGO_PKG_VERSION"),
        "representativeQueries": queries,
    });
    let Value::Object(entry) = told else { return Shown { entry: Entry::new(), data: None } };
    Shown { entry, data: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::identity::{AgentId, Identity};
    use crate::proto::time::Timestamp;

    fn agent(card: AgentCard) -> CatalogAgent {
        let (owner, name) = (Identity::from_seed([7; 32]).key(), "a@acme.org".parse().unwrap());
        CatalogAgent { id: AgentId::of(owner, &name), name, owner, card: card.into(), score: 0.0 }
    }

    fn document(origin: Origin, original: &Value) -> AgentCard {
        let dates = Some(crate::proto::card::CardDates { published: Timestamp(1), updated: Timestamp(2) });
        let original = Some(original.to_string());
        AgentCard {
            origin,
            original,
            original_name: Some("ai.exa/exa".into()),
            dates,
            ..AgentCard::default()
        }
    }

    #[test]
    fn a_server_is_shown_as_a_server_card_and_keeps_its_name_where_a_name_is_no_claim() {
        let server = json!({"name": "ai.exa/exa", "description": "d", "version": "1", "packages": [1],
                            "repository": {"url": ""}, "remotes": [{"type": "sse", "url": "https://a.example"}]});
        let shown = entry(&agent(document(Origin::ServerJson, &server)), "http://node").whole();
        assert_eq!(shown["type"], SERVER_CARD);
        assert_eq!(
            (shown["data"]["name"].as_str(), shown["data"].get("packages")),
            (Some("ai.exa/exa"), None)
        );
        assert_eq!(shown["data"]["remotes"], server["remotes"]);
        assert!(
            shown["identifier"].as_str().unwrap().ends_with(".aop.alt:acme.org:a"),
            "{}",
            shown["identifier"]
        );
        assert_eq!(shown["metadata"]["originalName"], "ai.exa/exa");
        assert_eq!(shown["updatedAt"], "1970-01-01T00:00:00.002Z");
    }

    #[test]
    fn a_card_is_shown_out_of_its_wrapper_with_the_questions_that_its_skills_give() {
        let card = json!({"name": "x", "skills": [{"examples": ["one", 2]}, {"examples": ["three"]}, {}]});
        for original in [card.clone(), json!({"id": 7, "card": card})] {
            let shown = entry(&agent(document(Origin::A2a, &original)), "http://node").whole();
            assert_eq!((&shown["type"], &shown["data"]), (&json!(A2A_CARD), &card));
            assert_eq!(shown["representativeQueries"], json!(["one", "three"]));
        }
    }

    #[test]
    fn every_entry_has_either_an_address_or_the_thing_itself() {
        let native = |callable| AgentCard { callable, ..AgentCard::default() };
        let nothing = json!(null);
        let cards = [
            native(true),
            native(false),
            document(Origin::ServerJson, &json!({})),
            document(Origin::A2a, &json!({})),
            document(Origin::Oasf, &json!({})),
            document(Origin::ServerCard, &json!({})),
            AgentCard { original: None, ..document(Origin::Oasf, &nothing) },
        ];
        for card in cards {
            let shown = entry(&agent(card.clone()), "http://node").whole();
            assert_ne!(shown.contains_key("url"), shown.contains_key("data"), "{card:?}");
            assert_ne!(shown["displayName"], "", "{card:?}");
        }
    }
}
