//! A2A agent cards: the 0.1 to 0.3 shape (`url`, `preferredTransport`, `additionalInterfaces`), the 1.0 shape
//! (`supportedInterfaces`), and cards that mix both.

use serde_json::Value;

use super::Registration;
use super::field::{Fields, Flaw, quoted};
use super::listing::{self, Labels, Listing};
use crate::proto::card::{Endpoint, Origin};

/// What a card without `preferredTransport` speaks at its `url`, by the 0.3 specification.
const DEFAULT_BINDING: &str = "JSONRPC";

/// Maps one agent card; `fields` and `document` are the same object.
pub(super) fn read(fields: &Fields<'_>, document: &Value) -> Result<Registration, Flaw> {
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
        title: Some(name),
        description: fields.prose("description")?,
        version: fields.text("version")?,
        tags,
        capabilities,
        endpoints: endpoints(fields)?,
        place: fields.here(),
        document,
    })
}

/// Ids before names, for ids are what clients send.
fn read_skills(fields: &Fields<'_>, tags: &mut Labels, capabilities: &mut Labels) -> Result<(), Flaw> {
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
fn read_flags(fields: &Fields<'_>, capabilities: &mut Labels) -> Result<(), Flaw> {
    match fields.value("capabilities") {
        None => {}
        Some(Value::Object(flags)) => {
            let set = flags.iter().filter(|(_, value)| **value == Value::Bool(true));
            set.for_each(|(flag, _)| capabilities.add(flag));
        }
        Some(other) => {
            let problem = format!("is {}", quoted(other));
            let fix = "write an object of flags, such as {\"streaming\": true}";
            return Err(Flaw::bad(fields.place("capabilities"), problem, fix));
        }
    }
    Ok(())
}

fn endpoints(fields: &Fields<'_>) -> Result<Vec<Endpoint>, Flaw> {
    let mut endpoints = Vec::new();
    if let Some(url) = fields.text("url")?.filter(|url| !url.is_empty()) {
        let kind = fields.text("preferredTransport")?.unwrap_or(DEFAULT_BINDING);
        endpoints.push(Endpoint { kind: kind.into(), address: url.into() });
    }
    for key in ["supportedInterfaces", "additionalInterfaces"] {
        for interface in fields.objects(key)? {
            let endpoint = interface_endpoint(&interface)?;
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
    }
    Ok(endpoints)
}

fn interface_endpoint(interface: &Fields<'_>) -> Result<Endpoint, Flaw> {
    let url = interface.required_text("url", "write the URL of this interface")?;
    let kind = match interface.first_of(&["protocolBinding", "transport"]) {
        Some(key) => interface.text(key)?.unwrap_or(DEFAULT_BINDING),
        None => DEFAULT_BINDING,
    };
    Ok(Endpoint { kind: kind.into(), address: url.into() })
}
