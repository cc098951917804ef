//! Records of the Open Agentic Schema Framework, 0.7 to 1.1: what an agent can do, where it is found, and the cards of MCP
//! and A2A that it brings as modules.

use std::borrow::Cow;

use serde_json::Value;

use super::field::Violation;
use super::imported::Imported;
use super::listing::{self, Labels, Listing};
use super::{Offer, a2a};
use crate::proto::card::{Endpoint, Origin};

/// Maps one record; `fields` and `document` are the same object.
pub(super) fn read(fields: &Imported<'_>, document: &Value) -> Result<Offer, Violation> {
    let name = fields.required_text("name", "write the record's name")?;
    let mut tags = Labels::tags("oasf");
    for domain in fields.objects("domains") {
        domain.text("name")?.iter().for_each(|name| add_class(&mut tags, name));
    }
    let mut capabilities = Labels::capabilities();
    for skill in fields.objects("skills") {
        match skill.text("name")? {
            Some(name) => add_class(&mut capabilities, &name),
            None => skill.note("name", "is missing; the skill is passed over"),
        }
    }
    let mut endpoints = locators(fields)?;
    for module in fields.objects("modules") {
        endpoints.extend(module_endpoints(&module)?);
    }
    listing::register(Listing {
        origin: Origin::Oasf,
        name,
        title: None,
        description: fields.prose("description")?,
        version: fields.text("version")?,
        deprecated: None,
        tags,
        capabilities,
        endpoints,
        path: fields.path(),
        document,
    })
}

/// Classes are paths such as `technology/software_engineering/apis_integration`: people look for the last part.
fn add_class(labels: &mut Labels, class: &str) {
    labels.add(class.rsplit('/').next().unwrap_or(class));
    labels.add(class);
}

fn locators(fields: &Imported<'_>) -> Result<Vec<Endpoint>, Violation> {
    let mut endpoints = Vec::new();
    for locator in fields.objects("locators") {
        let kind = locator.text("type")?.unwrap_or("url".into());
        // Version 1.0 made a list of what was one address.
        let urls = match locator.value("urls") {
            Some(_) => locator.texts("urls"),
            None => locator.text("url")?.into_iter().collect(),
        };
        endpoints.extend(urls.into_iter().map(|url| endpoint(&kind, url)));
    }
    Ok(endpoints)
}

/// The addresses of an MCP server or an A2A agent; what a module starts as a command has none.
fn module_endpoints(module: &Imported<'_>) -> Result<Vec<Endpoint>, Violation> {
    let Some(data) = module.object("data") else { return Ok(Vec::new()) };
    match module.text("name")?.as_deref() {
        Some("integration/a2a") => a2a::endpoints(&data.object("card_data").unwrap_or(data)),
        Some("integration/mcp") => {
            let mut endpoints = Vec::new();
            for connection in data.objects("connections") {
                let kind = connection.text("type")?.unwrap_or("streamable-http".into());
                endpoints.extend(connection.text("url")?.map(|url| endpoint(&kind, url)));
            }
            Ok(endpoints)
        }
        _ => Ok(Vec::new()),
    }
}

fn endpoint(kind: &str, url: Cow<'_, str>) -> Endpoint {
    Endpoint { kind: kind.into(), address: url.into_owned(), ..Endpoint::default() }
}

#[cfg(test)]
mod tests {
    use crate::document::read_all;
    use crate::proto::card::Origin;
    use serde_json::json;

    #[test]
    fn a_record_says_what_an_agent_can_do_and_where_it_is() {
        let reading = read_all(&[json!({
            "name": "acme.example/research/reader", "version": "v4.0.0", "schema_version": "1.0.0", "description": "Reads",
            "authors": ["Acme"], "created_at": "2026-01-01T00:00:00Z",
            "skills": [{"name": "language_processing/summarization", "id": 10201}, {"id": 7}],
            "domains": [{"id": 301, "name": "life_science/biotechnology"}],
            "locators": [
                {"type": "docker_image", "url": "https://images.example/reader"},
                {"type": "container_image", "urls": ["https://images.example/a", "https://images.example/b"]},
            ],
            "modules": [
                {"name": "integration/a2a", "data": {"card_data": {"name": "x", "supportedInterfaces": [
                    {"url": "https://a.example", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]}}},
                {"name": "integration/mcp", "data": {"connections": [
                    {"type": "stdio", "command": "reader"}, {"type": "sse", "url": "https://m.example/sse"}]}},
                {"name": "runtime/model", "data": {"models": []}},
            ],
        })])
        .remove(0)
        .unwrap();
        let card = &reading.offer.card;
        assert_eq!((card.origin, card.version.as_deref()), (Origin::Oasf, Some("v4.0.0")));
        assert_eq!(card.original_name.as_deref(), Some("acme.example/research/reader"));
        assert_eq!(card.capabilities, ["summarization", "language_processing/summarization"]);
        assert_eq!(card.tags, ["oasf", "biotechnology", "life_science/biotechnology"]);
        let endpoints: Vec<_> =
            card.endpoints.iter().map(|at| (at.kind.as_str(), at.address.as_str())).collect();
        assert_eq!(
            endpoints,
            [
                ("docker_image", "https://images.example/reader"),
                ("container_image", "https://images.example/a"),
                ("container_image", "https://images.example/b"),
                ("JSONRPC", "https://a.example"),
                ("sse", "https://m.example/sse"),
            ]
        );
        assert_eq!(reading.notes, ["`skills[1].name` is missing; the skill is passed over"]);
    }
}
