//! Catalogue entries (ARD v0.91 section 4): an agent's card in the words of the standard.

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

/// An agent as an entry; `base` is the address of this node.
pub(super) fn entry(agent: &CatalogAgent, base: &str) -> Entry {
    let mut entry = head(agent);
    let original = || agent.card.original.as_deref().and_then(|text| serde_json::from_str(text).ok());
    match (agent.card.origin, original()) {
        (Origin::ServerJson, Some(server)) => _ = entry.insert("data".into(), server_card(server)),
        (Origin::A2a, Some(card)) => {
            let card = a2a_card(card);
            let queries = example_queries(&card);
            if QUERIES.contains(&queries.len()) {
                entry.insert("representativeQueries".into(), queries.into());
            }
            entry.insert("data".into(), card);
        }
        (Origin::ServerCard | Origin::Oasf, Some(document @ Value::Object(_))) => {
            entry.insert("data".into(), document);
        }
        _ if agent.card.callable => _ = entry.insert("url".into(), card_url(agent, base).into()),
        _ => _ = entry.insert("url".into(), format!("{base}/v1/agents/{}", agent.id).into()),
    }
    entry
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
fn server_card(server: Value) -> Value {
    let Value::Object(mut server) = server else { return Value::Null };
    let mut card = Map::new();
    card.insert("$schema".into(), SERVER_CARD_SCHEMA.into());
    card.extend(OF_SERVER.iter().filter_map(|field| Some(((*field).to_owned(), server.remove(*field)?))));
    if let Some(repository) =
        server.remove("repository").filter(|it| it.get("url").is_some_and(Value::is_string))
    {
        card.insert("repository".into(), repository);
    }
    Value::Object(card)
}

/// A card, which some wrap.
fn a2a_card(mut document: Value) -> Value {
    match document.get_mut("card").filter(|card| card.is_object()) {
        Some(card) => card.take(),
        None => document,
    }
}

fn example_queries(card: &Value) -> Vec<Value> {
    let skills = card.get("skills").and_then(Value::as_array).into_iter().flatten();
    let examples = skills.filter_map(|skill| skill.get("examples")?.as_array()).flatten();
    examples.filter(|example| example.is_string()).take(*QUERIES.end()).cloned().collect()
}

/// What this node shows of itself.
pub(super) fn of_node(key: PeerKey, entry: NodeEntry, base: &str) -> Entry {
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
    let Value::Object(entry) = told else { return Entry::new() };
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::identity::{AgentId, Identity};
    use crate::proto::time::Timestamp;

    fn agent(card: AgentCard) -> CatalogAgent {
        let (owner, name) = (Identity::from_seed([7; 32]).key(), "a@acme.org".parse().unwrap());
        CatalogAgent { id: AgentId::of(owner, &name), name, owner, card, score: 0.0 }
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
        let shown = entry(&agent(document(Origin::ServerJson, &server)), "http://node");
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
            let shown = entry(&agent(document(Origin::A2a, &original)), "http://node");
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
            let shown = entry(&agent(card.clone()), "http://node");
            assert_ne!(shown.contains_key("url"), shown.contains_key("data"), "{card:?}");
            assert_ne!(shown["displayName"], "", "{card:?}");
        }
    }
}
