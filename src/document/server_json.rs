//! server.json of the MCP registry, every dated schema from 2025-07-09 to 2025-12-11, read tolerantly.
//!
//! Only what is mapped is looked at; the rest travels in the card's `original`. Of the schemas' changes one matters
//! here: 2025-07-09 writes `registry_type` where later ones write `registryType`.

use serde_json::{Map, Value};

use super::field::{Fields, Violation};
use super::listing::{Labels, Listing};
use super::{Offer, listing};
use crate::proto::card::{Endpoint, Origin};

/// Where publishers put what the format has no field for.
const PUBLISHER_META: &str = "io.modelcontextprotocol.registry/publisher-provided";
/// Members of the publisher's metadata that hold words about the server.
const TOPIC_KEYS: [&str; 2] = ["topics", "keywords"];
/// How deep topics are looked for: registries nest them under their own name and `repo`.
const TOPIC_DEPTH_MAX: usize = 5;

/// Maps one server.json; `fields` and `document` are the same object.
pub(super) fn read(fields: &Fields<'_>, document: &Value) -> Result<Offer, Violation> {
    let name = fields.required_text("name", "write the server's name, such as `ai.exa/exa`")?;
    let mut transports = Labels::capabilities();
    let mut endpoints = Vec::new();
    for remote in fields.objects("remotes")? {
        endpoints.push(remote_endpoint(&remote, &mut transports)?);
    }
    for package in fields.objects("packages")? {
        endpoints.push(package_endpoint(&package, &mut transports)?);
    }
    listing::register(Listing {
        origin: Origin::ServerJson,
        name,
        title: fields.text("title")?,
        description: fields.prose("description")?,
        version: fields.text("version")?,
        tags: tags(fields),
        capabilities: transports,
        endpoints,
        path: fields.path(),
        document,
    })
}

fn remote_endpoint(remote: &Fields<'_>, transports: &mut Labels) -> Result<Endpoint, Violation> {
    let kind = remote.required_text("type", "write `streamable-http` or `sse`")?;
    let url = remote.required_text("url", "write the URL of the server")?;
    transports.add(kind);
    Ok(Endpoint { kind: kind.into(), address: url.into() })
}

fn package_endpoint(package: &Fields<'_>, transports: &mut Labels) -> Result<Endpoint, Violation> {
    // Where neither is there, the message names the spelling of the newer schemas.
    let key = package.first_of(&["registryType", "registry_type"]).unwrap_or("registryType");
    let registry = package.required_text(key, "write `npm`, `pypi`, `oci`, `nuget` or `mcpb`")?;
    let identifier = package.required_text("identifier", "write the package's name in its registry")?;
    let version = package.text("version")?.filter(|version| !version.is_empty());
    transports.add(registry);
    if let Some(transport) = package.object("transport")?
        && let Some(kind) = transport.text("type")?
    {
        transports.add(kind);
    }
    let address = version.map_or_else(|| identifier.into(), |version| format!("{identifier}@{version}"));
    Ok(Endpoint { kind: registry.into(), address })
}

fn tags(fields: &Fields<'_>) -> Labels {
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
