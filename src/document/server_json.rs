//! server.json of the MCP registry, every dated schema from 2025-07-09 to 2025-12-11, read tolerantly.
//!
//! Only what is mapped is looked at; the rest travels in the card's `original`. Of the schemas' changes one matters
//! here: 2025-07-09 writes `registry_type` where later ones write `registryType`.

use serde_json::{Map, Value};

use super::field::{Fields, Flaw};
use super::listing::{Labels, Listing};
use super::{Registration, listing};
use crate::proto::card::{Endpoint, Origin};

/// Where publishers put what the format has no field for.
const PUBLISHER_META: &str = "io.modelcontextprotocol.registry/publisher-provided";
/// Members of the publisher's metadata that hold words about the server.
const TOPIC_KEYS: [&str; 2] = ["topics", "keywords"];
/// How deep topics are looked for: registries nest them under their own name and `repo`.
const TOPIC_DEPTH_MAX: usize = 5;

/// Maps one server.json; `fields` and `document` are the same object.
pub(super) fn read(fields: &Fields<'_>, document: &Value) -> Result<Registration, Flaw> {
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
        place: fields.here(),
        document,
    })
}

fn remote_endpoint(remote: &Fields<'_>, transports: &mut Labels) -> Result<Endpoint, Flaw> {
    let kind = remote.required_text("type", "write `streamable-http` or `sse`")?;
    let url = remote.required_text("url", "write the URL of the server")?;
    transports.add(kind);
    Ok(Endpoint { kind: kind.into(), address: url.into() })
}

fn package_endpoint(package: &Fields<'_>, transports: &mut Labels) -> Result<Endpoint, Flaw> {
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
