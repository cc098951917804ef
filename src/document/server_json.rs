//! server.json of the MCP registry, every dated schema and the previews before them, and the cards that servers show
//! themselves; read tolerantly.
//!
//! Only what is mapped is looked at; the rest travels in the card's `original`. Of the schemas' changes these matter here:
//! 2025-07-09 writes `registry_type` where later ones write `registryType`, and the previews wrote `registry_name`, the
//! package's `name`, `transport_type` and `version_detail`.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::Offer;
use super::field::Violation;
use super::imported::Imported;
use super::listing::{self, Labels, Listing};
use crate::proto::card::{Endpoint, Origin};

/// Where publishers put what the format has no field for.
const PUBLISHER_META: &str = "io.modelcontextprotocol.registry/publisher-provided";
/// Members of the publisher's metadata that hold words about the server.
const TOPIC_KEYS: [&str; 2] = ["topics", "keywords"];
/// How deep topics are looked for: registries nest them under their own name and `repo`.
const TOPIC_DEPTH_MAX: usize = 5;
/// What a name is to look like.
const NAME_FIX: &str = "write the server's name, such as `ai.exa/exa`";

/// What is said of a schema that was not published.
const UNKNOWN_SCHEMA: &str = "is none that was published; what is known of the format is read";

/// Maps one server.json, which its registry may advise against; `fields` and `document` are the same object.
pub(super) fn read(
    fields: &Imported<'_>,
    document: &Value,
    deprecated: Option<String>,
) -> Result<Offer, Violation> {
    let mut listing = listing(fields, document, Origin::ServerJson)?;
    // Those of this format are dated.
    if fields.value("$schema").and_then(Value::as_str).is_some_and(|schema| !schema.contains("/20")) {
        fields.note("$schema", UNKNOWN_SCHEMA);
    }
    if deprecated.is_some() {
        listing.tags.add("deprecated");
    }
    let offer = listing::register(Listing { deprecated, ..listing })?;
    // A name alone is no server that anybody could use.
    if fields.first_of(&["description", "version", "version_detail", "packages", "remotes"]).is_none() {
        let fix = "write the server's version, and its `packages` or `remotes`";
        return Err(Violation::missing(fields.path_of("version"), fix));
    }
    Ok(offer)
}

/// Maps one server card.
pub(super) fn read_card(fields: &Imported<'_>, document: &Value) -> Result<Offer, Violation> {
    // An earlier draft repeated what a server answers to `initialize`, and named its own path as its address.
    if let Some(info) = fields.object("serverInfo") {
        return read_draft(fields, &info, document);
    }
    let listing = listing(fields, document, Origin::ServerCard)?;
    if fields.value("$schema").and_then(Value::as_str).is_some_and(|schema| !schema.contains("/v1/")) {
        fields.note("$schema", UNKNOWN_SCHEMA);
    }
    if listing.name.matches('/').count() != 1 {
        fields.note("name", "is no name of a server, such as `ai.exa/exa`; it is taken as it is");
    }
    listing::register(listing)
}

fn listing<'a>(fields: &Imported<'a>, document: &'a Value, origin: Origin) -> Result<Listing<'a>, Violation> {
    let name = fields.required_text("name", NAME_FIX)?;
    let mut transports = Labels::capabilities();
    let mut endpoints = Vec::new();
    for remote in fields.objects("remotes") {
        endpoints.push(remote_endpoint(&remote, &mut transports)?);
    }
    for package in fields.objects("packages") {
        endpoints.push(package_endpoint(&package, &mut transports)?);
    }
    Ok(Listing {
        origin,
        name,
        title: fields.text("title")?,
        description: fields.prose("description")?,
        version: version(fields)?,
        deprecated: None,
        tags: tags(fields),
        capabilities: transports,
        endpoints,
        path: fields.path(),
        document,
    })
}

fn version<'a>(fields: &Imported<'a>) -> Result<Option<Cow<'a, str>>, Violation> {
    match (fields.value("version"), fields.value("version_detail")) {
        (None, Some(Value::Object(_))) => match fields.object("version_detail") {
            Some(detail) => detail.text("version"),
            None => Ok(None),
        },
        _ => fields.text("version"),
    }
}

fn read_draft(fields: &Imported<'_>, info: &Imported<'_>, document: &Value) -> Result<Offer, Violation> {
    let mut transports = Labels::capabilities();
    let mut endpoints = Vec::new();
    if let Some(transport) = fields.object("transport") {
        let kind = transport.text("type")?.unwrap_or("streamable-http".into());
        transports.add(&kind);
        let key = transport.first_of(&["url", "endpoint"]).unwrap_or("endpoint");
        match transport.text(key)? {
            Some(url) if url.contains("://") => {
                endpoints.push(Endpoint { kind: kind.into(), address: url.into(), ..Endpoint::default() })
            }
            Some(_) => transport.note(key, "is a path without a host; nobody can reach the server by it"),
            None => {}
        }
    }
    listing::register(Listing {
        origin: Origin::ServerCard,
        name: info.required_text("name", NAME_FIX)?,
        title: info.text("title")?,
        description: fields.prose("description")?,
        version: info.text("version")?,
        deprecated: None,
        tags: tags(fields),
        capabilities: transports,
        endpoints,
        path: fields.path(),
        document,
    })
}

fn remote_endpoint(remote: &Imported<'_>, transports: &mut Labels) -> Result<Endpoint, Violation> {
    let key = remote.first_of(&["type", "transport_type"]).unwrap_or("type");
    let kind = remote.address(key, "write `streamable-http` or `sse`")?;
    let url = remote.address("url", "write the URL of the server")?;
    transports.add(kind);
    Ok(Endpoint { kind: kind.into(), address: url.into(), ..Endpoint::default() })
}

fn package_endpoint(package: &Imported<'_>, transports: &mut Labels) -> Result<Endpoint, Violation> {
    // Where neither is there, the message names the spelling of the newer schemas.
    let key = package.first_of(&["registryType", "registry_name"]).unwrap_or("registryType");
    let registry = package.address(key, "write `npm`, `pypi`, `oci`, `nuget` or `mcpb`")?;
    let key = package.first_of(&["identifier", "name"]).unwrap_or("identifier");
    let identifier = package.address(key, "write the package's name in its registry")?;
    let version = package.text("version")?.filter(|version| !version.is_empty());
    transports.add(registry);
    if let Some(transport) = package.object("transport")
        && let Some(kind) = transport.text("type")?
    {
        transports.add(&kind);
    }
    let address = version.map_or_else(|| identifier.into(), |version| format!("{identifier}@{version}"));
    Ok(Endpoint { kind: registry.into(), address, ..Endpoint::default() })
}

fn tags(fields: &Imported<'_>) -> Labels {
    let mut tags = Labels::tags("mcp");
    let publisher = fields.value("_meta").and_then(|meta| meta.get(PUBLISHER_META));
    if let Some(Value::Object(publisher)) = publisher {
        collect_topics(publisher, TOPIC_DEPTH_MAX, &mut tags);
    }
    tags
}

/// Free-form data: what has another shape is passed over, not refused.
fn collect_topics(object: &Map<String, Value>, depth: usize, tags: &mut Labels) {
    for (key, value) in object {
        match value {
            Value::Array(words) if TOPIC_KEYS.contains(&key.as_str()) => {
                words.iter().filter_map(Value::as_str).for_each(|word| tags.add(word));
            }
            Value::Object(inner) if depth > 0 => collect_topics(inner, depth - 1, tags),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::document::{Offer, Refusal, read_documents};
    use crate::proto::card::Origin;
    use serde_json::{Value, json};

    const OFFICIAL: &str = "io.modelcontextprotocol.registry/official";

    fn read(document: Value) -> Result<Offer, Refusal> {
        read_documents(document).remove(0)
    }

    fn dated(date: &str, registry_key: &str) -> Value {
        json!({
            "$schema": format!("https://static.modelcontextprotocol.io/schemas/{date}/server.schema.json"),
            "name": "ai.exa/exa", "description": "Search", "version": "1.0.0",
            "packages": [{registry_key: "npm", "identifier": "exa", "version": "2.1", "transport": {"type": "stdio"}}],
            "remotes": [{"type": "sse", "url": "https://exa.example/sse"}],
        })
    }

    fn endpoints(one: &Offer) -> Vec<(&str, &str)> {
        one.card.endpoints.iter().map(|at| (at.kind.as_str(), at.address.as_str())).collect()
    }

    #[test]
    fn every_dated_schema_makes_the_same_card() {
        let schemas = [
            ("2025-07-09", "registry_type"),
            ("2025-09-16", "registryType"),
            ("2025-09-29", "registryType"),
            ("2025-10-17", "registryType"),
            ("2025-12-11", "registryType"),
        ];
        for (date, key) in schemas {
            let one = read(dated(date, key)).unwrap();
            assert_eq!(one.name.as_str(), "ai-exa_exa", "{date}");
            assert_eq!(one.card.original_name.as_deref(), Some("ai.exa/exa"));
            assert_eq!(endpoints(&one), [("sse", "https://exa.example/sse"), ("npm", "exa@2.1")], "{date}");
            assert_eq!(one.card.capabilities, ["sse", "npm", "stdio"]);
            assert_eq!((one.card.origin, one.card.callable), (Origin::ServerJson, false));
        }
    }

    #[test]
    fn the_previews_of_the_format_are_read() {
        let one = read(json!({
            "id": "0b1f", "name": "io.github.a-b/c", "description": "d",
            "version_detail": {"version": "1.0.2", "is_latest": true},
            "packages": [{"registry_name": "npm", "name": "@a-b/c", "version": "1.0.2", "environment_variables": []}],
            "remotes": [{"transport_type": "sse", "url": "https://c.example/sse"}],
        }))
        .unwrap();
        assert_eq!((one.name.as_str(), one.card.version.as_deref()), ("io-github-a-b_c", Some("1.0.2")));
        assert_eq!(endpoints(&one), [("sse", "https://c.example/sse"), ("npm", "@a-b/c@1.0.2")]);
        let draft = "https://modelcontextprotocol.io/schemas/draft/2025-07-09/server.json";
        assert!(read(json!({"$schema": draft, "name": "a.b/c", "version": "1"})).is_ok());
    }

    #[test]
    fn a_server_card_is_read_in_its_two_shapes() {
        let schema = "https://static.modelcontextprotocol.io/schemas/v1/server-card.schema.json";
        let card = read(json!({
            "$schema": schema, "name": "a.b/c", "version": "2.1.0", "title": "C", "description": "d",
            "remotes": [{"type": "streamable-http", "url": "https://{tenant}.example/mcp"}],
        }))
        .unwrap();
        assert_eq!((card.name.as_str(), card.card.origin), ("a-b_c", Origin::ServerCard));
        assert_eq!(endpoints(&card), [("streamable-http", "https://{tenant}.example/mcp")]);
        let server = read(json!({"name": "a.b/c", "version": "2.0"})).unwrap();
        assert!(card.card.is_same_agent(&server.card), "its registry speaks of the same server");

        let reading = |document: Value| crate::document::read_all(&[document]).remove(0).unwrap();
        let draft = reading(json!({
            "version": "1.0", "protocolVersion": "2025-06-18", "description": "d", "capabilities": {"tools": {}},
            "serverInfo": {"name": "files", "title": "Files", "version": "3"},
            "transport": {"type": "streamable-http", "endpoint": "/mcp"},
        }));
        let card = &draft.offer.card;
        assert_eq!((draft.offer.name.as_str(), card.version.as_deref()), ("files", Some("3")));
        assert!(card.endpoints.is_empty() && draft.notes[0].starts_with("`transport.endpoint` is a path"));
        let nameless =
            reading(json!({"$schema": schema, "name": "files", "version": "1", "description": "d"}));
        assert!(nameless.notes[0].starts_with("`name` is no name of a server"), "{:?}", nameless.notes);
        assert_eq!(
            read(json!({"$schema": schema, "version": "1"})).unwrap_err().code.text(),
            "missing_field"
        );
    }

    #[test]
    fn what_its_registry_says_of_a_server_counts() {
        let official =
            |status: &str, message: &str| json!({OFFICIAL: {"status": status, "statusMessage": message}});
        let server = json!({"name": "a.b/c", "version": "1.0.0"});
        let reading = |document: Value| crate::document::read_all(&[document]).remove(0).unwrap();
        let advised = |document: Value| {
            let card = reading(document).offer.card;
            (card.deprecated, card.tags.contains(&"deprecated".to_owned()))
        };
        let answer = |status, message| json!({"server": server, "_meta": official(status, message)});
        assert_eq!(advised(answer("active", "")), (None, false));
        assert_eq!(advised(answer("deprecated", "use d")), (Some("use d".into()), true));
        assert_eq!(advised(answer("deprecated", "")), (Some("deprecated".into()), true));
        assert_eq!(advised(answer("restored", "")), (None, false), "a word of a later registry");
        let early = json!({"server": server, "x-io.modelcontextprotocol.registry": {"status": "deprecated"}});
        assert!(advised(early).1);
        let own = json!({"name": "a.b/c", "version": "1.0.0", "status": "deprecated"});
        assert!(advised(own.clone()).1);
        let overruled = json!({"server": own, "_meta": official("active", "")});
        assert!(!advised(overruled).1, "the registry knows better than the document");
        let refusal = read(answer("deleted", "was \u{1b}malware")).unwrap_err();
        assert_eq!((refusal.code.text(), refusal.name.as_str()), ("deleted", "a.b/c"));
        assert!(refusal.message.contains("deleted 1.0.0, saying \"was malware\""), "{}", refusal.message);
    }

    #[test]
    fn known_defects_are_taken() {
        let mut defective = dated("2025-10-17", "registryType");
        defective["$schema"] =
            json!("https://x/schemas/2025-10-17/server.schema.json#/definitions/ServerDetail");
        defective["repository"] = json!({});
        defective["title"] = Value::Null;
        let members = defective.as_object_mut().unwrap();
        members.remove("description");
        members.remove("version");
        members.remove("remotes");
        let one = read(defective).unwrap();
        assert_eq!((one.card.description.as_str(), one.card.version, one.card.title), ("", None, None));
    }

    #[test]
    fn a_registry_answer_makes_the_same_card_as_the_document_in_it() {
        let document = dated("2025-12-11", "registryType");
        let wrapped = json!({"server": document, "_meta": {"io.modelcontextprotocol.registry/official": {}}});
        assert_eq!(read(wrapped).unwrap(), read(document).unwrap());
        let refusal = read(json!({"server": {"name": "a.b/c", "remotes": [{"type": "sse"}]}})).unwrap_err();
        assert_eq!((refusal.code.text(), refusal.name.as_str()), ("missing_field", "a.b/c"));
        assert!(refusal.message.starts_with("`server.remotes[0].url` is missing; "), "{}", refusal.message);
    }

    #[test]
    fn the_original_is_kept_in_content_without_raw_control_characters() {
        let document =
            json!({"name": "a.b/c", "version": "1", "x": "\u{1b}[31m\u{7f}\u{9b}é\n", "n": [1.5, null]});
        let original = read(document.clone()).unwrap().card.original.unwrap();
        assert!(!original.contains(char::is_control));
        assert_eq!(serde_json::from_str::<Value>(&original).unwrap(), document);
    }

    #[test]
    fn a_violation_is_named_with_its_path_and_a_remedy() {
        let refused = |document: Value| {
            let refusal = read(document).unwrap_err();
            (refusal.code.text(), refusal.message)
        };
        assert_eq!(refused(json!({"packages": []})).0, "missing_field");
        assert!(refused(json!({"server": {"name": "a.b/c"}})).1.starts_with("`server.version` is missing"));
        assert_eq!(refused(json!({"name": "", "packages": []})).0, "bad_field");
        let (code, message) = refused(json!({"name": "a.b/c", "remotes": [{"type": "sse", "url": 5}]}));
        assert_eq!((code, message.as_str()), ("bad_field", "`remotes[0].url` is 5; write a text"));
        let (code, message) =
            refused(json!({"name": "a.b/c", "version": "1", "description": "x".repeat(4097)}));
        assert_eq!(code, "too_large");
        assert!(message.contains("`description` has 4097 bytes, more than the 4096"), "{message}");
        let many = vec![json!({"type": "sse", "url": "https://x.example"}); 65];
        let wrapped = json!({"server": {"name": "a.b/c", "title": "x".repeat(1025)}});
        assert!(refused(wrapped).1.starts_with("`server.title` has 1025 bytes, more than the 1024"));
        let long = format!("a.b/{}", "c".repeat(1021));
        assert!(refused(json!({"server": {"name": long}})).1.starts_with("`server.name` has 1025 bytes"));
        assert!(refused(json!({"name": "a.b/c", "remotes": many})).1.contains("`endpoints` has 65 entries"));
    }

    #[test]
    fn topics_of_the_publisher_become_tags_once_and_within_the_limits() {
        let words: Vec<_> = (0..100).map(|n| format!("w{n}")).collect();
        let topics = json!({"x/meta": {"repo": {"topics": ["mcp", "ai", "ai", " ", "a\u{7}", "y".repeat(129)],
            "tags": ["1.0.0"]}, "keywords": words}});
        let document = json!({"name": "a.b/c", "version": "1",
            "_meta": {"io.modelcontextprotocol.registry/publisher-provided": topics}});
        let tags = read(document).unwrap().card.tags;
        assert_eq!(tags[..3], ["mcp", "ai", "w0"]);
        assert_eq!(tags.len(), 64);
    }
}
