//! A2A agent cards: the 0.1 to 0.3 shape (`url`, `preferredTransport`, `additionalInterfaces`), the 1.0 shape
//! (`supportedInterfaces`), and cards that mix both.

use serde_json::Value;

use super::Offer;
use super::field::{Fields, Violation, quoted};
use super::listing::{self, Labels, Listing};
use crate::proto::card::{Endpoint, Origin};

/// What a card without `preferredTransport` speaks at its `url`, by the 0.3 specification.
const DEFAULT_BINDING: &str = "JSONRPC";

/// Maps one agent card; `fields` and `document` are the same object.
pub(super) fn read(fields: &Fields<'_>, document: &Value) -> Result<Offer, Violation> {
    let name = fields.required_text("name", "write the agent's name")?;
    let mut tags = Labels::tags("a2a");
    for key in ["registryTags", "tags"] {
        fields.texts(key)?.into_iter().for_each(|tag| tags.add(tag));
    }
    let mut capabilities = Labels::capabilities();
    read_skills(fields, &mut tags, &mut capabilities)?;
    read_flags(fields, &mut capabilities)?;
    listing::register(Listing {
        origin: Origin::A2a,
        name,
        // As written the name is for people; mapped it is the agent's.
        title: Some(name),
        description: fields.prose("description")?,
        version: fields.text("version")?,
        tags,
        capabilities,
        endpoints: endpoints(fields)?,
        path: fields.path(),
        document,
    })
}

/// Ids before names, for ids are what clients send.
fn read_skills(fields: &Fields<'_>, tags: &mut Labels, capabilities: &mut Labels) -> Result<(), Violation> {
    let skills = fields.objects("skills")?;
    for key in ["id", "name"] {
        for skill in &skills {
            skill.text(key)?.into_iter().for_each(|label| capabilities.add(label));
        }
    }
    for skill in &skills {
        skill.texts("tags")?.into_iter().for_each(|tag| tags.add(tag));
    }
    Ok(())
}

/// `{"streaming": true, …}`; anything in it that is not a flag describes an extension.
fn read_flags(fields: &Fields<'_>, capabilities: &mut Labels) -> Result<(), Violation> {
    match fields.value("capabilities") {
        None => {}
        Some(Value::Object(flags)) => {
            let set = flags.iter().filter(|(_, value)| **value == Value::Bool(true));
            set.for_each(|(flag, _)| capabilities.add(flag));
        }
        Some(other) => {
            let problem = format!("is {}", quoted(other));
            let fix = "write an object of flags, such as {\"streaming\": true}";
            return Err(Violation::bad(fields.path_of("capabilities"), problem, fix));
        }
    }
    Ok(())
}

fn endpoints(fields: &Fields<'_>) -> Result<Vec<Endpoint>, Violation> {
    let mut endpoints = Vec::new();
    if let Some(url) = fields.text("url")?.filter(|url| !url.is_empty()) {
        let kind = fields.text("preferredTransport")?.unwrap_or(DEFAULT_BINDING);
        endpoints.push(Endpoint { kind: kind.into(), address: url.into() });
    }
    for key in ["supportedInterfaces", "additionalInterfaces"] {
        for interface in fields.objects(key)? {
            let endpoint = interface_endpoint(&interface)?;
            // Cards of 0.3 should list their main address once more among the additional ones.
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
    }
    Ok(endpoints)
}

fn interface_endpoint(interface: &Fields<'_>) -> Result<Endpoint, Violation> {
    let url = interface.required_text("url", "write the URL of this interface")?;
    // Version 1.0 renamed `transport` to `protocolBinding`; mixed cards have either.
    let kind = match interface.first_of(&["protocolBinding", "transport"]) {
        Some(key) => interface.text(key)?.unwrap_or(DEFAULT_BINDING),
        None => DEFAULT_BINDING,
    };
    Ok(Endpoint { kind: kind.into(), address: url.into() })
}

#[cfg(test)]
mod tests {
    use crate::document::{Offer, Refusal, read_documents};
    use serde_json::{Value, json};

    fn read(document: Value) -> Result<Offer, Refusal> {
        read_documents(document).remove(0)
    }

    fn endpoints(one: &Offer) -> Vec<(&str, &str)> {
        one.card.endpoints.iter().map(|at| (at.kind.as_str(), at.address.as_str())).collect()
    }

    #[test]
    fn a_card_of_the_older_shape_lists_its_url_first() {
        let one = read(json!({
            "protocolVersion": "0.3.0", "name": "Weather", "description": "d", "version": "1", "url": "https://a.example",
            "preferredTransport": "GRPC", "capabilities": {"streaming": true, "pushNotifications": false},
            "additionalInterfaces": [
                {"url": "https://a.example", "transport": "GRPC"},
                {"url": "https://a.example/rest", "transport": "HTTP+JSON"},
            ],
            "skills": [{"id": "get_forecast", "name": "Get Forecast", "tags": ["weather", "forecast"]}],
            "registryTags": ["weather"],
        }));
        let one = one.unwrap();
        assert_eq!(endpoints(&one), [("GRPC", "https://a.example"), ("HTTP+JSON", "https://a.example/rest")]);
        assert_eq!(one.card.tags, ["a2a", "weather", "forecast"]);
        assert_eq!(one.card.capabilities, ["get_forecast", "streaming"]);
        assert_eq!(
            (one.card.title.as_deref(), one.card.original_name.as_deref()),
            (Some("Weather"), Some("Weather"))
        );
    }

    #[test]
    fn a_card_of_the_newer_shape_lists_its_interfaces() {
        let interfaces = json!([
            {"url": "https://a.example", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
            {"url": "https://a.example", "protocolBinding": "JSONRPC", "protocolVersion": "0.3"},
            {"url": "https://b.example", "protocolBinding": "GRPC", "protocolVersion": "1.0"},
        ]);
        let one = read(json!({"name": "weather", "supportedInterfaces": interfaces})).unwrap();
        assert_eq!(endpoints(&one), [("JSONRPC", "https://a.example"), ("GRPC", "https://b.example")]);
        assert_eq!((one.name.as_str(), one.card.original_name), ("weather", None));
    }

    #[test]
    fn a_wrapped_card_makes_the_same_card_as_the_bare_one() {
        let card =
            json!({"protocolVersion": "0.1", "name": "A", "url": "https://a.example", "capabilities": {}});
        let wrapped = json!({"path": "agents/a.json", "commit": "8e43", "card": card});
        assert_eq!(read(wrapped).unwrap(), read(card).unwrap());
    }

    #[test]
    fn a_violation_is_named_with_its_path() {
        let refusal =
            read(json!({"card": {"name": "A", "skills": [{"id": "x"}, {"tags": [1]}]}})).unwrap_err();
        assert_eq!(refusal.message, "`card.skills[1].tags[0]` is 1; write a text");
        let refusal = read(json!({"name": "A", "skills": [], "capabilities": ["streaming"]})).unwrap_err();
        assert!(refusal.message.contains("an object of flags"), "{}", refusal.message);
        assert_eq!(read(json!({"skills": []})).unwrap_err().code.text(), "missing_field");
        assert_eq!(read(json!({"name": "a\u{1b}b", "skills": []})).unwrap_err().code.text(), "bad_field");
    }
}
