//! The card of an agent of the mesh (specification of 1.0, section 4.4, and of 0.3, section 5.5): one document that clients of
//! both versions read.

use serde_json::{Value, json};

use crate::host::CatalogAgent;

/// What an agent of the mesh takes and gives: a text is its task, a document its input.
const MODES: [&str; 2] = ["text/plain", "application/json"];
/// The version of an agent that names none.
const VERSION: &str = "1.0.0";

/// The card of an agent that is reached at `url`; `needs_token` if this node asks for its token.
pub(super) fn card(agent: &CatalogAgent, url: &str, needs_token: bool) -> Value {
    let name = agent.card.title.as_deref().unwrap_or(agent.name.agent.as_str());
    let description = if agent.card.description.is_empty() { name } else { &agent.card.description };
    let mut tags: Vec<&str> =
        agent.card.tags.iter().chain(&agent.card.capabilities).map(String::as_str).collect();
    tags.dedup();
    if tags.is_empty() {
        tags.push("agent");
    }
    let interface = |binding: &str, version: &str| json!({"url": url, "protocolBinding": binding, "protocolVersion": version});
    let mut card = json!({
        "name": name,
        "description": description,
        "version": agent.card.version.as_deref().unwrap_or(VERSION),
        "supportedInterfaces": [
            interface("JSONRPC", "1.0"), interface("JSONRPC", "0.3"), interface("HTTP+JSON", "1.0"),
        ],
        "capabilities": {"streaming": true, "pushNotifications": false},
        "defaultInputModes": MODES,
        "defaultOutputModes": MODES,
        "skills": [{"id": agent.name.agent.as_str(), "name": name, "description": description, "tags": tags}],
        // By these clients of 0.3 find the way.
        "url": url,
        "preferredTransport": "JSONRPC",
        "protocolVersion": "0.3.0",
    });
    if needs_token {
        // Each version passes over the words of the other.
        let scheme =
            json!({"type": "http", "scheme": "bearer", "httpAuthSecurityScheme": {"scheme": "Bearer"}});
        card["securitySchemes"] = json!({ "bearer": scheme });
        card["security"] = json!([{"bearer": []}]);
        card["securityRequirements"] = json!([{"schemes": {"bearer": {"list": []}}}]);
    }
    card
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::card::AgentCard;
    use crate::proto::identity::{AgentId, Identity};

    #[test]
    fn a_bare_agent_has_all_that_a_card_must_have() {
        let (owner, name) = (Identity::from_seed([7; 32]).key(), "echo@.".parse().unwrap());
        let id = AgentId::of(owner, &name);
        let agent = CatalogAgent { id, name, owner, card: AgentCard::default().into(), score: 0.0 };
        let card = card(&agent, "http://node/a2a/echo", false);
        for field in ["name", "description", "version", "url"] {
            assert!(card[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {card}");
        }
        assert!(card["skills"][0]["tags"].as_array().is_some_and(|tags| !tags.is_empty()));
        assert!(card.get("securitySchemes").is_none());
    }
}
