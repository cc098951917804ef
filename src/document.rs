//! Documents about agents, made ready to be registered: `agent.toml` in its JSON form, server.json of the MCP
//! registry and its answers, server cards, A2A agent cards, and OASF records.
//!
//! A document becomes one card or one refusal, and never touches the others of its request. The mapping depends on
//! the document alone: the same document makes the same name and card on every node. The imported text stays in the
//! card (`AgentCard::original`). Every card has passed [`check`]. Any JSON value may come in; none makes this panic.
//!
//! | kind | recognised by |
//! |---|---|
//! | agent's file | an object `agent` |
//! | server.json | `$schema` of `server.schema.json`; an object `server` (registry answer); without `$schema`: `packages`, `remotes`, or a `name` with `/` and a `version` |
//! | server card | `$schema` of `server-card.schema.json`; an object `serverInfo` |
//! | A2A card | an object `card` (wrapper); `skills`, `protocolVersion`, `supportedInterfaces`, `preferredTransport`, `defaultInputModes`, an object `capabilities`, or a list of them beside `url` |
//! | OASF record | `schema_version` beside `skills`, `modules`, `locators`, `authors` or `domains` |
//! | registry's list | an array `servers`, which stands for what it lists |
//!
//! Refusal codes: `unknown_format`, `unknown_key`, `missing_field`, `bad_field`, `bad_name`, `too_large`, `deleted`,
//! `older_version`, `duplicate_name`; the node adds `conflict`, `superseded` and those of a write.

mod a2a;
mod adoption;
mod agent;
mod agent_file;
mod card_signature;
mod check;
mod content_id;
mod date;
mod field;
mod format;
mod imported;
pub(crate) mod json;
mod listing;
mod loose_schema;
mod name;
mod oasf;
mod redaction;
mod registry;
pub mod run_config;
pub mod schema;
mod server_json;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

pub use adoption::{Adoption, Variable};
pub use agent_file::{
    AgentFile, FileDiagnostic, FileError, files_named_in, read_agent_file, read_run_config,
};
pub use card_signature::{CardKeys, CardSignature};
pub use check::{ADDRESS_BYTES_MAX, CARD_BYTES_MAX, check};
pub use content_id::content_id;
pub use date::parse_date;
pub(crate) use loose_schema::loosened;
pub use name::{agent_name, similar_name, tool_name};
pub use registry::RegistryEntry;

pub use crate::proto::card::Offer;
use crate::proto::card::{Endpoint, version};
use crate::proto::code::Code;
use crate::proto::name::{AgentName, ZoneName};
pub(crate) use field::compact;
use field::{Fields, JsonPath, Violation, quoted, shortened};
use format::{DocumentFormat, unknown_format};
use imported::{Imported, Notes};
use registry::Status;

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

/// One document as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The agent that it describes.
    pub offer: Offer,
    /// What was read otherwise than it is written; one sentence each.
    pub notes: Vec<String>,
    /// Its registry has deleted it, so there is nothing to register: why.
    pub deleted: Option<Refusal>,
    /// What else its registry says of it; nothing where it did not come in a registry's answer.
    pub entry: RegistryEntry,
}

/// JSON from a file or a request. A byte order mark, which editors of Windows write, is no part of it.
///
/// # Errors
/// What it is instead.
pub fn parse(bytes: &[u8]) -> Result<Value, String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("UTF-16 text; write it as UTF-8".into());
    }
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    serde_json::from_slice(text).map_err(|error| format!("not JSON: {error}"))
}

/// The documents of what was sent: an array of any, in which a registry's list stands for the documents that it lists.
pub fn documents_in(body: Value) -> Vec<Value> {
    let listed = |document: Value| match document {
        Value::Object(mut map) if is_list(&map) => match map.remove("servers") {
            Some(Value::Array(servers)) => servers,
            _ => Vec::new(),
        },
        document => vec![document],
    };
    match body {
        Value::Array(documents) => documents.into_iter().flat_map(listed).collect(),
        document => listed(document),
    }
}

/// Reads documents; one entry for each, in order.
///
/// Of several documents for one name and zone the one with the greatest version is kept.
pub fn read_all(documents: &[Value]) -> Vec<Result<Reading, Refusal>> {
    let mut outcomes: Vec<_> = documents.iter().map(read_document).collect();
    keep_one_of_each_name(&mut outcomes);
    outcomes
}

/// Reads documents that a registry lists; one entry for each, in order. What it says is not the latest version is left out as
/// older, and of several documents for one name the one with the greatest version is kept.
pub fn read_listed(documents: &[Value]) -> Vec<Result<Reading, Refusal>> {
    let latest = |outcome: Result<Reading, Refusal>| match outcome {
        Ok(reading) if reading.deleted.is_none() && reading.entry.is_latest == Some(false) => {
            let message = "its registry has a later version".into();
            Err(Refusal { name: shortened(name_of(&reading.offer)), code: Code::OlderVersion, message })
        }
        outcome => outcome,
    };
    let mut outcomes: Vec<_> = documents.iter().map(read_document).map(latest).collect();
    keep_one_of_each_name(&mut outcomes);
    outcomes
}

/// Reads what was sent, as [`documents_in`] and [`read_all`] do, for whoever wants the agents alone: what its registry has
/// deleted is refused.
pub fn read_documents(body: Value) -> Vec<Result<Offer, Refusal>> {
    let offer = |reading: Reading| reading.deleted.map_or(Ok(reading.offer), Err);
    read_all(&documents_in(body)).into_iter().map(|outcome| outcome.and_then(offer)).collect()
}

/// Where an A2A card says that its agent is served, its main address first.
///
/// # Errors
/// It is no card, or says it in a way that cannot be read.
pub(crate) fn a2a_endpoints(card: &Value) -> Result<Vec<Endpoint>, String> {
    let Value::Object(map) = card else { return Err("a card is a JSON object".into()) };
    let notes = Notes::default();
    a2a::endpoints(&Imported::new(Fields::new(map, JsonPath::default()), &notes))
        .map_err(|why| why.to_string())
}

/// Whether it is a page of a registry's list: `{"servers": […], "metadata": {…}}`.
fn is_list(map: &Map<String, Value>) -> bool {
    map.get("servers").is_some_and(Value::is_array) && !map.contains_key("name")
}

fn read_document(document: &Value) -> Result<Reading, Refusal> {
    match document {
        Value::Object(map) => {
            map_object(map, document).map_err(|violation| Refusal::new(name_in(map), &violation))
        }
        other => Err(Refusal::new("", &unknown_format(format!("is {}", quoted(other))))),
    }
}

fn map_object(map: &Map<String, Value>, document: &Value) -> Result<Reading, Violation> {
    let notes = Notes::default();
    let (mut status, mut entry) = (Status::Active, RegistryEntry::default());
    let outer = || Imported::new(Fields::new(map, JsonPath::default()), &notes);
    let offer = match DocumentFormat::of(map)? {
        DocumentFormat::Agent => agent::read(map)?,
        DocumentFormat::ServerJson => {
            status = Status::read(None, map);
            server_json::read(&outer(), document, status.deprecation())?
        }
        DocumentFormat::ServerCard => server_json::read_card(&outer(), document)?,
        DocumentFormat::A2a => a2a::read(&outer(), document)?,
        DocumentFormat::Oasf => oasf::read(&outer(), document)?,
        DocumentFormat::Wrapped(key) => {
            let (Some(inner), Some(document @ Value::Object(server))) = (outer().object(key), map.get(key))
            else {
                return Err(unknown_format(format!("has an empty `{key}`")));
            };
            if key == "card" {
                a2a::read(&inner, document)?
            } else {
                status = Status::read(Some(map), server);
                entry = RegistryEntry::read(map);
                server_json::read(&inner, document, status.deprecation())?
            }
        }
    };
    let deleted = match status {
        Status::Deleted(why) => Some(deleted(&offer, &why)),
        Status::Active | Status::Deprecated(_) => None,
    };
    Ok(Reading { offer, notes: notes.into_texts(), deleted, entry })
}

fn deleted(offer: &Offer, why: &str) -> Refusal {
    let version =
        offer.card.version.as_deref().map(|version| format!(" {}", shortened(version))).unwrap_or_default();
    let why = if why.is_empty() { String::new() } else { format!(", saying {why:?}") };
    let message = format!(
        "its registry has deleted{version}{why}; nothing is registered: look for another version, or another server"
    );
    Refusal { name: shortened(name_of(offer)), code: Code::Deleted, message }
}

fn name_in(map: &Map<String, Value>) -> &str {
    // The name only labels a refusal, so it is looked for inside of any wrapper, whatever the format.
    let inner =
        ["agent", "server", "card"].into_iter().find_map(|key| map.get(key).and_then(Value::as_object));
    inner.unwrap_or(map).get("name").and_then(Value::as_str).unwrap_or_default()
}

/// A host has one record a name and zone, so of several documents for one only the greatest version is kept. Those of
/// another origin are no versions of it: there the first stays.
fn keep_one_of_each_name(outcomes: &mut [Result<Reading, Refusal>]) {
    let mut kept: BTreeMap<(Option<ZoneName>, AgentName), usize> = BTreeMap::new();
    for index in 0..outcomes.len() {
        // A refused or deleted document contests nothing, so a broken newer version leaves the older one registered.
        let Some(new) = offered(&outcomes[index]) else { continue };
        let key = (new.zone.clone(), new.name.clone());
        let Some(earlier) = kept.get(&key).copied() else {
            kept.insert(key, index);
            continue;
        };
        let Some(old) = offered(&outcomes[earlier]) else { continue };
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

fn offered(outcome: &Result<Reading, Refusal>) -> Option<&Offer> {
    outcome.as_ref().ok().filter(|reading| reading.deleted.is_none()).map(|reading| &reading.offer)
}

enum Contest {
    NewIsGreater,
    OldIsGreater,
    SameName,
}

fn contest(old: &Offer, new: &Offer) -> Contest {
    if !new.card.is_same_agent(&old.card) {
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
         alone, with `--replace`"
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
    fn a_list_of_a_registry_stands_for_its_servers() {
        let answer = |name: &str| json!({"server": server(name, "1"), "_meta": {}});
        let page = json!({"servers": [answer("a.b/c"), answer("a.b/d"), 7], "metadata": {"nextCursor": "x"}});
        assert_eq!(codes(page.clone()), ["ok", "ok", "unknown_format"]);
        assert_eq!(codes(json!([page, answer("a.b/c")])), ["ok", "ok", "unknown_format", "duplicate_name"]);
        assert_eq!(codes(json!({"servers": []})), [""; 0]);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        assert_eq!(parse("\u{feff}[1]".as_bytes()), Ok(json!([1])));
        assert_eq!(parse(b"\xff\xfe[\0").unwrap_err(), "UTF-16 text; write it as UTF-8");
        assert!(parse(b"{").unwrap_err().starts_with("not JSON: "));
    }

    #[test]
    fn a_version_that_is_deleted_contests_nothing() {
        let deleted = json!({"server": server("a.b/c", "2"),
            "_meta": {"io.modelcontextprotocol.registry/official": {"status": "deleted"}}});
        for body in [json!([deleted, server("a.b/c", "1")]), json!([server("a.b/c", "1"), deleted])] {
            let mut codes = codes(body);
            codes.sort_unstable();
            assert_eq!(codes, ["deleted", "ok"]);
        }
    }

    #[test]
    fn cards_of_one_name_at_two_addresses_are_two_agents() {
        let card = |name: &str, url: &str, version: &str| json!({"name": name, "url": url, "version": version, "skills": []});
        let two = json!([card("A B", "https://one.example", "1"), card("A B", "https://two.example", "1")]);
        assert_eq!(codes(two), ["ok", "ok"]);
        let same = json!([card("A B", "https://One.example/", "1"), card("A B", "https://one.example", "2")]);
        assert_eq!(codes(same), ["older_version", "ok"]);
        // A name that is one of an agent as it stands leaves no room for a second.
        let plain = json!([card("a", "https://one.example", "1"), card("a", "https://two.example", "2")]);
        assert_eq!(codes(plain), ["ok", "duplicate_name"]);
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
        let card = json!({"$schema": "https://x/v1/other.schema.json", "name": "a/b", "version": "1", "remotes": []});
        assert!(refusal(card).message.contains("other.schema.json"));
    }
}
