//! Documents about agents, made ready to be registered: `agent.toml` in its JSON form, server.json of the MCP
//! registry, and A2A agent cards.
//!
//! A document becomes one card or one refusal, and never touches the others of its request. The mapping depends on
//! the document alone: the same document makes the same name and card on every node. The imported text stays in the
//! card (`AgentCard::original`). Every card has passed [`check`]. Any JSON value may come in; none makes this panic.
//!
//! | kind | recognised by |
//! |---|---|
//! | agent's file | an object `agent` |
//! | server.json | `$schema` of `server.schema.json`; an object `server` (registry answer); without `$schema`: `packages`, `remotes`, or a `name` with `/` and a `version` |
//! | A2A card | an object `card` (wrapper); `skills`, `protocolVersion`, `supportedInterfaces`, `preferredTransport`, `defaultInputModes`, or an object `capabilities` |
//!
//! Refusal codes: `unknown_format`, `unknown_key`, `missing_field`, `bad_field`, `bad_name`, `too_large`,
//! `older_version`, `duplicate_name`; the node adds `conflict` and those of a write.

mod a2a;
mod agent;
mod agent_file;
mod check;
mod excerpt;
mod field;
mod listing;
mod loose_schema;
mod name;
pub mod run_config;
pub mod schema;
mod server_json;
mod version;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

pub use agent_file::{
    AgentFile, FileDiagnostic, FileError, files_named_in, read_agent_file, read_run_config,
};
pub use check::{ADDRESS_BYTES_MAX, CARD_BYTES_MAX, check};
pub(crate) use loose_schema::loosened;
pub use name::{agent_name, tool_name};

pub use crate::proto::card::Offer;
use crate::proto::code::Code;
use crate::proto::name::{AgentName, ZoneName};
pub(crate) use field::compact;
use field::{Fields, JsonPath, Violation, quoted, shortened};

/// Why one document was not taken. The others of its request are not affected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its name in the document, as far as it could be read; cut if long.
    pub name: String,
    /// Stable code.
    pub code: Code,
    /// The field, the reason, what to do, and the limit that was exceeded.
    pub message: String,
}

impl Refusal {
    fn new(name: &str, violation: &Violation) -> Refusal {
        Refusal { name: shortened(name), code: violation.code, message: violation.to_string() }
    }
}

/// Reads one document or an array of them; one entry per document, in order.
///
/// Of several documents for one name and zone the one with the greatest version is kept.
pub fn read_documents(body: Value) -> Vec<Result<Offer, Refusal>> {
    let documents = match body {
        Value::Array(documents) => documents,
        document => vec![document],
    };
    let mut outcomes: Vec<_> = documents.into_iter().map(|document| read_document(&document)).collect();
    keep_one_of_each_name(&mut outcomes);
    outcomes
}

fn read_document(document: &Value) -> Result<Offer, Refusal> {
    match document {
        Value::Object(map) => {
            map_object(map, document).map_err(|violation| Refusal::new(name_in(map), &violation))
        }
        other => Err(Refusal::new("", &unknown_format(format!("is {}", quoted(other))))),
    }
}

fn map_object(map: &Map<String, Value>, document: &Value) -> Result<Offer, Violation> {
    match format_of(map) {
        Some(DocumentFormat::Agent) => agent::read(map),
        Some(DocumentFormat::ServerJson) => {
            server_json::read(&Fields::new(map, JsonPath::default()), document)
        }
        Some(DocumentFormat::A2a) => a2a::read(&Fields::new(map, JsonPath::default()), document),
        Some(DocumentFormat::Wrapped(key)) => unwrap_document(map, key),
        None => Err(unknown_format(describe_unknown(map))),
    }
}

/// The registry API wraps a server.json as `server`, beside its own `_meta`; card collections wrap as `card`.
fn unwrap_document(map: &Map<String, Value>, key: &'static str) -> Result<Offer, Violation> {
    let outer = Fields::new(map, JsonPath::default());
    let (Some(inner), Some(document)) = (outer.object(key)?, outer.value(key)) else {
        return Err(unknown_format(format!("has an empty `{key}`")));
    };
    match key {
        "server" => server_json::read(&inner, document),
        _ => a2a::read(&inner, document),
    }
}

enum DocumentFormat {
    Agent,
    ServerJson,
    A2a,
    Wrapped(&'static str),
}

fn format_of(map: &Map<String, Value>) -> Option<DocumentFormat> {
    let is_object = |key: &str| map.get(key).is_some_and(Value::is_object);
    // A key that is null is no sign of a format: it is written for what is not given.
    let has = |key: &&str| map.get(*key).is_some_and(|value| !value.is_null());
    // An empty `$schema` names no other format, so the fields below may still tell.
    let schema = map.get("$schema").and_then(Value::as_str).filter(|schema| !schema.is_empty());
    // Some documents point into the schema with a fragment.
    if schema.is_some_and(|schema| schema.contains("/server.schema.json")) {
        return Some(DocumentFormat::ServerJson);
    }
    // Ours first: what stands beside `agent` is then an unknown key, not a sign of another format.
    if is_object("agent") {
        return Some(DocumentFormat::Agent);
    }
    if let Some(key) = ["server", "card"].into_iter().find(|key| is_object(key)) {
        return Some(DocumentFormat::Wrapped(key));
    }
    let a2a = ["skills", "protocolVersion", "supportedInterfaces", "preferredTransport", "defaultInputModes"];
    if a2a.iter().any(has) || is_object("capabilities") {
        return Some(DocumentFormat::A2a);
    }
    // Other formats of the same family have these fields too, and their own schema.
    let named = map.get("name").and_then(Value::as_str).is_some_and(|name| name.contains('/'));
    let looks_alike = ["packages", "remotes"].iter().any(has) || (named && has(&"version"));
    (schema.is_none() && looks_alike).then_some(DocumentFormat::ServerJson)
}

fn unknown_format(problem: String) -> Violation {
    let fix = "accepted are an agent's file as {\"agent\": {…}}, a server.json of the MCP registry, an A2A agent card, \
               and an array of these";
    Violation { code: Code::UnknownFormat, ..Violation::bad(JsonPath::default(), problem, fix) }
}

fn describe_unknown(map: &Map<String, Value>) -> String {
    if let Some(schema) = map.get("$schema") {
        return format!("follows the schema {}, which is not read here", quoted(schema));
    }
    if map.get("servers").is_some_and(Value::is_array) {
        return "is a registry's list; send its array `servers` instead".into();
    }
    // Five keys tell a reader which document this is, and the message stays a line.
    let keys: Vec<_> = map.keys().take(5).map(|key| format!("`{}`", shortened(key))).collect();
    if keys.is_empty() {
        return "is empty".into();
    }
    format!("is of no known format (it has {})", keys.join(", "))
}

fn name_in(map: &Map<String, Value>) -> &str {
    // The name only labels a refusal, so it is looked for inside of any wrapper, whatever the format.
    let inner =
        ["agent", "server", "card"].into_iter().find_map(|key| map.get(key).and_then(Value::as_object));
    inner.unwrap_or(map).get("name").and_then(Value::as_str).unwrap_or_default()
}

/// A host has one record a name and zone, so of several documents for one only the greatest version is kept. Those of
/// another origin are no versions of it: there the first stays.
fn keep_one_of_each_name(outcomes: &mut [Result<Offer, Refusal>]) {
    let mut kept: BTreeMap<(Option<ZoneName>, AgentName), usize> = BTreeMap::new();
    for index in 0..outcomes.len() {
        // A refused document contests nothing, so a broken newer version leaves the older one registered.
        let Ok(new) = &outcomes[index] else { continue };
        let key = (new.zone.clone(), new.name.clone());
        let Some(earlier) = kept.get(&key).copied() else {
            kept.insert(key, index);
            continue;
        };
        let Ok(old) = &outcomes[earlier] else { continue };
        let (loser, refusal) = match contest(old, new) {
            Contest::NewIsGreater => (earlier, older_version(old, new)),
            Contest::OldIsGreater => (index, older_version(new, old)),
            Contest::SameName => (index, duplicate_name(new, earlier)),
        };
        outcomes[loser] = Err(refusal);
        // The winner takes the place, or a third version would be compared with one that is refused already.
        if loser == earlier {
            kept.insert(key, index);
        }
    }
}

enum Contest {
    NewIsGreater,
    OldIsGreater,
    SameName,
}

fn contest(old: &Offer, new: &Offer) -> Contest {
    let called = |one: &Offer| (one.card.origin, one.card.original_name.clone());
    if called(old) != called(new) {
        return Contest::SameName;
    }
    match version::compare(new.card.version.as_deref(), old.card.version.as_deref()) {
        Ordering::Greater => Contest::NewIsGreater,
        Ordering::Less => Contest::OldIsGreater,
        // Only equal texts are equal versions: neither is newer, so the first stays.
        Ordering::Equal => Contest::SameName,
    }
}

fn name_of(registration: &Offer) -> &str {
    registration.card.original_name.as_deref().unwrap_or(registration.name.as_str())
}

fn older_version(loser: &Offer, winner: &Offer) -> Refusal {
    let version = |one: &Offer| one.card.version.as_deref().map_or("none".into(), shortened);
    let (lower, greater) = (version(loser), version(winner));
    let message = format!(
        "`version` is {lower}, and this request also has {greater}, which is registered; to register {lower} send it \
         alone"
    );
    Refusal { name: shortened(name_of(loser)), code: Code::OlderVersion, message }
}

fn duplicate_name(loser: &Offer, earlier: usize) -> Refusal {
    let message = format!(
        "`name` gives {}, as document {earlier} of this request does, which is registered; remove one of them, or \
         change its name or zone",
        loser.name
    );
    Refusal { name: shortened(name_of(loser)), code: Code::DuplicateName, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn codes(body: Value) -> Vec<&'static str> {
        let code =
            |outcome: &Result<Offer, Refusal>| outcome.as_ref().map_or_else(|no| no.code.text(), |_| "ok");
        read_documents(body).iter().map(code).collect()
    }

    fn server(name: &str, version: &str) -> Value {
        json!({"name": name, "description": "d", "version": version})
    }

    #[test]
    fn one_bad_document_does_not_stop_the_others() {
        let body =
            json!([server("a.b/c", "1"), 7, {"agent": {"name": "X"}}, {"card": {"name": "n"}}, [], {}]);
        assert_eq!(
            codes(body),
            ["ok", "unknown_format", "bad_name", "ok", "unknown_format", "unknown_format"]
        );
        assert_eq!(codes(json!([])), [""; 0]);
    }

    #[test]
    fn the_greatest_version_is_kept_in_any_order() {
        let versions = ["0.9.0", "0.10.0", "0.10.0-rc.1"];
        for order in [[0, 1, 2], [1, 2, 0], [2, 0, 1], [1, 0, 2], [0, 2, 1], [2, 1, 0]] {
            let body: Vec<_> = order.iter().map(|index| server("a.b/c", versions[*index])).collect();
            let outcomes = read_documents(json!(body));
            for (index, outcome) in order.iter().zip(outcomes) {
                match outcome {
                    Ok(one) => assert_eq!((*index, one.card.version.as_deref()), (1, Some("0.10.0"))),
                    Err(refusal) => assert_eq!((*index != 1, refusal.code), (true, Code::OlderVersion)),
                }
            }
        }
    }

    #[test]
    fn an_older_version_is_told_both_versions() {
        let refusal =
            read_documents(json!([server("a.b/c", "1.2"), server("a.b/c", "1.10")])).remove(0).unwrap_err();
        assert_eq!(refusal.name, "a.b/c");
        assert!(
            refusal.message.starts_with("`version` is 1.2, and this request also has 1.10"),
            "{refusal:?}"
        );
    }

    #[test]
    fn the_later_of_two_documents_with_one_name_and_version_is_refused() {
        assert_eq!(codes(json!([server("a.b/c", "1"), server("a.b/c", "1")])), ["ok", "duplicate_name"]);
        let agent = json!({"agent": {"name": "a-b_c", "version": "9"}});
        assert_eq!(codes(json!([server("a.b/c", "1"), agent])), ["ok", "duplicate_name"]);
    }

    #[test]
    fn one_name_in_two_zones_is_two_agents() {
        let agent = |zone: &str| json!({"agent": {"name": "a", "zone": zone}});
        assert_eq!(codes(json!([agent("x"), agent("y"), agent("x")])), ["ok", "ok", "duplicate_name"]);
    }

    #[test]
    fn what_is_not_recognised_says_what_is_accepted() {
        let refusal = |body: Value| read_documents(body).remove(0).unwrap_err();
        let unknown = refusal(json!({"foo": 1, "bar": 2}));
        assert!(unknown.message.contains("`foo`, `bar`") && unknown.message.contains("A2A agent card"));
        let card = json!({"$schema": "https://x/v1/server-card.schema.json", "name": "a/b", "version": "1", "remotes": []});
        assert!(refusal(card).message.contains("server-card.schema.json"));
        assert!(refusal(json!({"servers": [], "metadata": {}})).message.contains("send its array `servers`"));
    }
}
