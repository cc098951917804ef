//! A2A agent cards: the 0.1 to 0.3 shape (`url`, `preferredTransport`, `additionalInterfaces`), the 1.0 shape
//! (`supportedInterfaces`), cards that mix both, and cards in the field names of Protocol Buffers.

use serde_json::Value;

use super::Offer;
use super::field::{Violation, quoted};
use super::imported::Imported;
use super::listing::{self, Labels, Listing};
use crate::proto::card::{Endpoint, Origin};

/// What a card without `preferredTransport` speaks at its `url`, by the 0.3 specification.
const DEFAULT_BINDING: &str = "JSONRPC";

/// Maps one agent card; `fields` and `document` are the same object.
pub(super) fn read(fields: &Imported<'_>, document: &Value) -> Result<Offer, Violation> {
    let name = fields.required_text("name", "write the agent's name")?;
    let mut tags = Labels::tags("a2a");
    for key in ["registryTags", "tags"] {
        fields.texts(key).iter().for_each(|tag| tags.add(tag));
    }
    let mut capabilities = Labels::capabilities();
    read_skills(fields, &mut tags, &mut capabilities)?;
    read_capabilities(fields, &mut capabilities)?;
    listing::register(Listing {
        origin: Origin::A2a,
        // As written the name is for people; mapped it is the agent's.
        title: Some(name.clone()),
        name,
        description: fields.prose("description")?,
        version: fields.text("version")?,
        deprecated: None,
        tags,
        capabilities,
        endpoints: endpoints(fields)?,
        path: fields.path(),
        document,
    })
}

/// Ids before names, for ids are what clients send. A skill that is a word is both.
fn read_skills(fields: &Imported<'_>, tags: &mut Labels, capabilities: &mut Labels) -> Result<(), Violation> {
    if fields.value("skills").is_some_and(is_words) {
        fields.note("skills", "is a list of words; each is taken for a skill");
        fields.texts("skills").iter().for_each(|word| capabilities.add(word));
        return Ok(());
    }
    let skills = fields.objects("skills");
    for key in ["id", "name"] {
        for skill in &skills {
            skill.text(key)?.iter().for_each(|label| capabilities.add(label));
        }
    }
    for skill in &skills {
        skill.texts("tags").iter().for_each(|tag| tags.add(tag));
    }
    Ok(())
}

/// `{"streaming": true, …}`; anything in it that is not a flag describes an extension. Some cards list words there, or
/// objects with a name.
fn read_capabilities(fields: &Imported<'_>, capabilities: &mut Labels) -> Result<(), Violation> {
    match fields.value("capabilities") {
        None => {}
        Some(Value::Object(flags)) => {
            let is_set = |value: &Value| *value == Value::Bool(true) || value.as_str() == Some("true");
            let set = flags.iter().filter(|(_, value)| is_set(value));
            set.for_each(|(flag, _)| capabilities.add(flag));
        }
        Some(words) if is_words(words) => {
            fields.note(
                "capabilities",
                "is a list of words and no object of flags; each word is taken for a capability",
            );
            fields.texts("capabilities").iter().for_each(|word| capabilities.add(word));
        }
        Some(Value::Array(_)) => {
            fields.note(
                "capabilities",
                "is a list and no object of flags; what it names is taken for capabilities",
            );
            for named in fields.objects("capabilities") {
                let key = named.first_of(&["name", "id", "type"]).unwrap_or("name");
                named.text(key)?.iter().for_each(|word| capabilities.add(word));
            }
        }
        Some(other) => {
            let problem = format!("is {} and no object of flags; it is passed over", quoted(other));
            fields.note("capabilities", &problem);
        }
    }
    Ok(())
}

/// A text with commas, or a list of texts.
fn is_words(value: &Value) -> bool {
    match value {
        Value::String(_) => true,
        Value::Array(items) => !items.is_empty() && items.iter().all(Value::is_string),
        _ => false,
    }
}

/// Where a card says that its agent is served, its main address first.
pub(super) fn endpoints(fields: &Imported<'_>) -> Result<Vec<Endpoint>, Violation> {
    let mut endpoints = Vec::new();
    let version = fields.text("protocolVersion")?.filter(|version| !version.is_empty());
    if let Some(url) = fields.text("url")?.filter(|url| !url.is_empty()) {
        let kind = fields.text("preferredTransport")?.unwrap_or(DEFAULT_BINDING.into());
        endpoints.push(Endpoint {
            kind: binding(&kind),
            address: url.into(),
            protocol_version: version.as_deref().map(str::to_owned),
            tenant: None,
        });
    }
    for key in ["supportedInterfaces", "additionalInterfaces"] {
        for interface in fields.objects(key) {
            let Some(mut endpoint) = interface_endpoint(&interface)? else { continue };
            // Interfaces of 0.3 say no version: the card's holds for all of them.
            endpoint.protocol_version =
                endpoint.protocol_version.or_else(|| version.as_deref().map(str::to_owned));
            // Cards of 0.3 should list their main address once more among the additional ones.
            if !endpoints.iter().any(|known| is_same(known, &endpoint)) {
                endpoints.push(endpoint);
            }
        }
    }
    Ok(endpoints)
}

fn interface_endpoint(interface: &Imported<'_>) -> Result<Option<Endpoint>, Violation> {
    if interface.value("url").is_none() {
        interface.note("url", "is missing; the interface is passed over");
        return Ok(None);
    }
    let url = interface.address("url", "write the URL of this interface")?;
    // Version 1.0 renamed `transport` to `protocolBinding`; mixed cards have either.
    let kind = match interface.first_of(&["protocolBinding", "transport"]) {
        Some(key) => interface.text(key)?.unwrap_or(DEFAULT_BINDING.into()),
        None => DEFAULT_BINDING.into(),
    };
    let own = |key| Ok(interface.text(key)?.filter(|text| !text.is_empty()).map(Into::into));
    Ok(Some(Endpoint {
        kind: binding(&kind),
        address: url.into(),
        protocol_version: own("protocolVersion")?,
        tenant: own("tenant")?,
    }))
}

/// A binding by its name: enumerations of Protocol Buffers repeat theirs, and have no `+`.
fn binding(text: &str) -> String {
    let prefixes = ["TRANSPORT_PROTOCOL_", "PROTOCOL_BINDING_", "TRANSPORT_"];
    match prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        Some("HTTP_JSON") => "HTTP+JSON".into(),
        Some(name) => name.into(),
        None => text.into(),
    }
}

/// Patches of one protocol version do not differ, so `0.3.0` and `0.3` are the same.
fn is_same(a: &Endpoint, b: &Endpoint) -> bool {
    let minor = |endpoint: &Endpoint| {
        let version = endpoint.protocol_version.as_deref().unwrap_or_default();
        version.split('.').take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    (&a.kind, &a.address, &a.tenant) == (&b.kind, &b.address, &b.tenant) && minor(a) == minor(b)
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
        let versions: Vec<_> =
            one.card.endpoints.iter().map(|at| at.protocol_version.as_deref().unwrap()).collect();
        assert_eq!(
            endpoints(&one),
            [
                ("JSONRPC", "https://a.example"),
                ("JSONRPC", "https://a.example"),
                ("GRPC", "https://b.example")
            ]
        );
        assert_eq!(versions, ["1.0", "0.3", "1.0"]);
        assert_eq!((one.name.as_str(), one.card.original_name), ("weather", None));
    }

    #[test]
    fn a_merged_card_lists_each_interface_once() {
        let one = read(json!({
            "name": "Echo", "url": "https://a.example", "preferredTransport": "JSONRPC", "protocolVersion": "0.3.0",
            "supportedInterfaces": [
                {"url": "https://a.example", "protocolBinding": "JSONRPC", "protocolVersion": "1.0", "tenant": "t1"},
                {"url": "https://a.example", "protocolBinding": "JSONRPC", "protocolVersion": "0.3"},
            ],
        }));
        let endpoints = one.unwrap().card.endpoints;
        let kept: Vec<_> = endpoints
            .iter()
            .map(|at| (at.protocol_version.as_deref().unwrap(), at.tenant.as_deref()))
            .collect();
        assert_eq!(kept, [("0.3.0", None), ("1.0", Some("t1"))]);
    }

    #[test]
    fn a_card_in_the_names_of_protocol_buffers_makes_the_same_card() {
        let interface =
            json!({"url": "https://a.example", "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"});
        let camel = json!({"name": "A", "supportedInterfaces": [interface], "registryTags": ["x"]});
        let interface = json!({"url": "https://a.example", "protocol_binding": "TRANSPORT_PROTOCOL_HTTP_JSON",
            "protocol_version": "1.0"});
        let snake = json!({"name": "A", "supported_interfaces": [interface], "registry_tags": ["x"]});
        let (mut camel, mut snake) = (read(camel).unwrap(), read(snake).unwrap());
        (camel.card.original, snake.card.original) = (None, None);
        assert_eq!(camel, snake);
    }

    #[test]
    fn what_has_another_shape_and_does_no_harm_is_read_with_a_note() {
        let reading = crate::document::read_all(&[json!({
            "name": 7, "version": 2.5, "url": "https://a.example", "capabilities": [{"name": "plan"}, "x"],
            "skills": {"id": "only", "tags": "maps, routes"}, "tags": ["a", 1, {}, null],
            "additionalInterfaces": [{"transport": "GRPC"}, "https://b.example"], "description": null,
        })])
        .remove(0)
        .unwrap();
        let card = &reading.offer.card;
        assert_eq!((reading.offer.name.as_str(), card.version.as_deref()), ("7", Some("2.5")));
        assert_eq!(card.capabilities, ["only", "plan"]);
        assert_eq!(card.tags, ["a2a", "a", "1", "maps", "routes"]);
        assert_eq!(card.endpoints.len(), 1);
        for part in [
            "`name`",
            "`version`",
            "`capabilities`",
            "`capabilities[1]`",
            "`skills`",
            "`skills.tags`",
            "`tags[1]`",
            "`tags[2]`",
            "`additionalInterfaces[0].url`",
            "`additionalInterfaces[1]`",
        ] {
            let notes = reading.notes.iter().filter(|note| note.starts_with(&format!("{part} is "))).count();
            assert_eq!(notes, 1, "{part} in {:?}", reading.notes);
        }
        let words = json!({"name": "A", "capabilities": ["reasoning"], "skills": ["plan"], "url": "https://a.example"});
        assert_eq!(read(words).unwrap().card.capabilities, ["plan", "reasoning"]);
        let well = json!({"name": "A", "url": "https://a.example", "capabilities": {"streaming": true}});
        assert!(crate::document::read_all(&[well]).remove(0).unwrap().notes.is_empty());
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
        let refusal = read(json!({"card": {"name": "A", "skills": [], "version": "a\u{1b}b"}})).unwrap_err();
        assert!(refusal.message.starts_with("`card.version` contains the control character"), "{refusal:?}");
        assert_eq!(read(json!({"name": ["A"], "skills": []})).unwrap_err().code.text(), "bad_field");
        assert_eq!(read(json!({"skills": []})).unwrap_err().code.text(), "missing_field");
        assert_eq!(read(json!({"name": "a\u{1b}b", "skills": []})).unwrap_err().code.text(), "bad_field");
    }
}
