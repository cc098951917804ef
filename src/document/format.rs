//! Which kind of document a JSON object is, and what it is where it is none that is read here.

use serde_json::{Map, Value};

use super::field::{JsonPath, Violation, quoted, shortened};
use crate::proto::code::Code;

/// A kind of document that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DocumentFormat {
    /// An agent's file.
    Agent,
    /// A server.json.
    ServerJson,
    /// The card of an MCP server.
    ServerCard,
    /// An A2A agent card.
    A2a,
    /// An OASF record.
    Oasf,
    /// A document below this key: the registry API wraps a server.json as `server`, beside its own `_meta`; card
    /// collections wrap as `card`.
    Wrapped(&'static str),
}

/// Marks of an A2A card, in the spelling of its JSON and of Protocol Buffers.
const A2A_KEYS: [&str; 9] = [
    "skills",
    "protocolVersion",
    "protocol_version",
    "supportedInterfaces",
    "supported_interfaces",
    "preferredTransport",
    "preferred_transport",
    "defaultInputModes",
    "default_input_modes",
];

/// Documents that look like one of ours, or that people send in its place: a key that tells them, what they are, and what
/// to send instead.
const OTHERS: [(&str, &str, &str); 10] = [
    ("entries", "an ARD catalogue of entries", "register the document that an entry names as its `url`"),
    (
        "representativeQueries",
        "an entry of an ARD catalogue",
        "register the document that it names as its `url`",
    ),
    ("manifest_version", "the manifest of a bundle or an extension", "register the server.json beside it"),
    ("mcpServers", "the configuration of an MCP client", "register the server.json of each server"),
    ("dependencies", PACKAGE_JSON, PACKAGE_FIX),
    ("devDependencies", PACKAGE_JSON, PACKAGE_FIX),
    ("scripts", PACKAGE_JSON, PACKAGE_FIX),
    ("mcpName", PACKAGE_JSON, PACKAGE_FIX),
    ("autoload", "a composer.json, which describes a package and no server", PACKAGE_FIX),
    ("openapi", "an OpenAPI description", "register an agent card that names the address"),
];
const PACKAGE_JSON: &str = "an npm package.json, which describes a package and no server";
const PACKAGE_FIX: &str = "register the server.json beside it, which names the package";

impl DocumentFormat {
    /// The kind of `map`.
    ///
    /// # Errors
    /// `unknown_format`, with what it seems to be.
    pub(super) fn of(map: &Map<String, Value>) -> Result<DocumentFormat, Violation> {
        recognise(map).ok_or_else(|| describe_unknown(map))
    }
}

fn recognise(map: &Map<String, Value>) -> Option<DocumentFormat> {
    let is_object = |key: &str| map.get(key).is_some_and(Value::is_object);
    let has = |key: &&str| has(map, key);
    let schema = schema(map);
    // Some documents point into the schema with a fragment; the first drafts called it as the document.
    if schema.is_some_and(|schema| schema.contains("/server.schema.json") || schema.ends_with("/server.json"))
    {
        return Some(DocumentFormat::ServerJson);
    }
    if schema.is_some_and(|schema| schema.contains("server-card")) || is_object("serverInfo") {
        return Some(DocumentFormat::ServerCard);
    }
    // Ours first: what stands beside `agent` is then an unknown key, not a sign of another format.
    if is_object("agent") {
        return Some(DocumentFormat::Agent);
    }
    // Before A2A cards, which have `skills`, too.
    if has(&"schema_version") && ["skills", "modules", "locators", "authors", "domains"].iter().any(has) {
        return Some(DocumentFormat::Oasf);
    }
    // Each of these would pass for one of ours by a key that means something else there.
    let is_other = other(map).is_some();
    if let Some(key) = ["server", "card"].into_iter().find(|key| is_object(key) && !is_other) {
        return Some(DocumentFormat::Wrapped(key));
    }
    if A2A_KEYS.iter().any(has) {
        return Some(DocumentFormat::A2a);
    }
    if is_other {
        return None;
    }
    let has_address = has(&"url") && map.get("capabilities").is_some_and(Value::is_array);
    if is_object("capabilities") || has_address {
        return Some(DocumentFormat::A2a);
    }
    // Other formats of the same family have these fields too, and their own schema.
    let name = map.get("name").and_then(Value::as_str).unwrap_or_default();
    let looks_alike = ["packages", "remotes"].iter().any(has) || (name.contains('/') && has(&"version"));
    (schema.is_none() && looks_alike).then_some(DocumentFormat::ServerJson)
}

/// A key that is null is no sign of a format: it is written for what is not given.
fn has(map: &Map<String, Value>, key: &str) -> bool {
    map.get(key).is_some_and(|value| !value.is_null())
}

/// An empty `$schema` names no format, so the fields may still tell.
fn schema(map: &Map<String, Value>) -> Option<&str> {
    map.get("$schema").and_then(Value::as_str).filter(|schema| !schema.is_empty())
}

/// What it is that is not read here, and what to do.
fn other(map: &Map<String, Value>) -> Option<(&'static str, &'static str)> {
    // An npm name in a scope needs no more to look like a server's.
    let scoped = map.get("name").and_then(Value::as_str).is_some_and(|name| name.starts_with('@'));
    if scoped && has(map, "version") && !has(map, "packages") && !has(map, "remotes") {
        return Some((PACKAGE_JSON, PACKAGE_FIX));
    }
    OTHERS.iter().find(|(key, ..)| has(map, key)).map(|(_, what, fix)| (*what, *fix))
}

/// A document that is not read.
pub(super) fn unknown_format(problem: String) -> Violation {
    let fix = "accepted are an agent's file as {\"agent\": {…}}, a server.json or a server card of MCP, a registry's answer \
               with them, an A2A agent card, an OASF record, and an array of these";
    Violation { code: Code::UnknownFormat, ..Violation::bad(JsonPath::default(), problem, fix) }
}

fn describe_unknown(map: &Map<String, Value>) -> Violation {
    if let Some((what, fix)) = other(map) {
        let violation = Violation::bad(JsonPath::default(), format!("is {what}"), fix);
        return Violation { code: Code::UnknownFormat, ..violation };
    }
    if let Some(schema) = map.get("$schema") {
        return unknown_format(format!("follows the schema {}, which is not read here", quoted(schema)));
    }
    // Five keys tell a reader which document this is, and the message stays a line.
    let keys: Vec<_> = map.keys().take(5).map(|key| format!("`{}`", shortened(key))).collect();
    unknown_format(match keys.is_empty() {
        true => "is empty".into(),
        false => format!("is of no known format (it has {})", keys.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_of_others_are_told_apart_from_ours() {
        let told = |document: Value| {
            let violation = DocumentFormat::of(document.as_object().unwrap()).unwrap_err();
            assert_eq!(violation.code, Code::UnknownFormat, "{document}");
            violation.to_string()
        };
        let package = "npm package.json";
        for (document, what) in [
            (json!({"name": "@a/b", "version": "1.0.0"}), package),
            (json!({"name": "a/b", "version": "1.0.0", "scripts": {}}), package),
            (
                json!({"name": "a", "version": "1.0.0", "dependencies": {"c": "1"}, "mcpName": "a.b/c"}),
                package,
            ),
            (json!({"name": "a/b", "version": "1.0.0", "autoload": {}}), "composer.json"),
            (json!({"specVersion": "1.0", "host": {}, "entries": []}), "ARD catalogue"),
            (
                json!({"identifier": "urn:air:a:b", "representativeQueries": [], "capabilities": ["x"], "url": "u"}),
                "entry of an ARD",
            ),
            (
                json!({"manifest_version": "0.3", "name": "a", "server": {"type": "node"}}),
                "manifest of a bundle",
            ),
            (json!({"mcpServers": {"a": {"command": "a"}}}), "configuration of an MCP client"),
            (json!({"openapi": "3.1.0", "info": {}}), "OpenAPI"),
            (json!({"$schema": "https://json-schema.org/draft/2020-12/schema"}), "follows the schema"),
            (json!({"servers": {"a": {"command": "a"}}}), "it has `servers`"),
        ] {
            let told = told(document);
            assert!(told.contains(what) && told.contains("; "), "{what}: {told}");
        }
    }

    #[test]
    fn each_kind_is_told_by_its_marks() {
        for (document, kind) in [
            (json!({"name": "@a/b", "version": "1", "packages": []}), DocumentFormat::ServerJson),
            (json!({"name": "a.b/c", "version": "1"}), DocumentFormat::ServerJson),
            (
                json!({"serverInfo": {"name": "a"}, "protocolVersion": "2025-06-18"}),
                DocumentFormat::ServerCard,
            ),
            (json!({"schema_version": "0.7.0", "skills": []}), DocumentFormat::Oasf),
            (json!({"supported_interfaces": []}), DocumentFormat::A2a),
            (json!({"name": "a", "url": "u", "capabilities": ["x"]}), DocumentFormat::A2a),
            (json!({"name": "a", "skills": [], "dependencies": {}}), DocumentFormat::A2a),
            (json!({"agent": {"name": "a"}, "scripts": {}}), DocumentFormat::Agent),
            (json!({"server": {}, "_meta": {}}), DocumentFormat::Wrapped("server")),
        ] {
            assert_eq!(DocumentFormat::of(document.as_object().unwrap()), Ok(kind), "{document}");
        }
    }
}
