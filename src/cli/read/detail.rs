//! `aop show`: one agent, as people read it.

use std::io::IsTerminal;

use serde_json::{Map, Value, json};

use super::age;
use crate::api::{Agent, AgentDetail, CardSignature, ReplicaState};
use crate::cli::failure::Failure;
use crate::cli::output::{Rows, print_text, shown_name};
use crate::cli::time::{date, distance, now_ms};
use crate::proto::card::Balance;

/// Prints what is known of an agent; its schemas below it on a terminal, and each on its line elsewhere.
pub(super) fn print(detail: &AgentDetail) -> Result<(), Failure> {
    let schemas = [("input schema", &detail.input_schema), ("output schema", &detail.output_schema)];
    let given = schemas.into_iter().filter(|(_, schema)| !schema.is_null());
    let below = std::io::stdout().is_terminal();
    let mut rows = rows(detail, now_ms());
    if !below {
        given.clone().for_each(|(what, schema)| rows.push([what.to_owned(), schema.to_string()]));
    }
    rows.print()?;
    given.filter(|_| below).try_for_each(|(what, schema)| print_text(&format!("\n{what}\n{schema:#}")))
}

fn rows(detail: &AgentDetail, now_ms: u64) -> Rows {
    let agent = &detail.agent;
    let mut rows = Rows::new(&["FIELD", "VALUE"]);
    let mut put = |field: &str, value: String| {
        if !value.is_empty() {
            rows.push([field.to_string(), value]);
        }
    };
    put("agent", shown_name(&agent.agent).to_owned());
    put("original name", agent.original_name.clone().unwrap_or_default());
    put("title", text(&detail.card, "title"));
    put("id", agent.id.clone());
    put("description", agent.description.clone());
    put("tags", agent.tags.join(" "));
    put("capabilities", agent.capabilities.join(" "));
    put("role", agent.role.clone().unwrap_or_default());
    put("model", agent.model.clone().unwrap_or_default());
    put("version", text(&detail.card, "version"));
    put("callable", if agent.callable { "yes".into() } else { "no, it is a listing".into() });
    put("call", if agent.callable { call_line(detail) } else { String::new() });
    put("limits", limits(&detail.card, agent));
    put("owner", agent.owner.clone());
    put("origin", agent.origin.to_string());
    put("signature", detail.signature.as_ref().map(signature).unwrap_or_default());
    put("content id", detail.content_id.clone().unwrap_or_default());
    put("deprecated", agent.deprecated.clone().unwrap_or_default());
    for endpoint in &agent.endpoints {
        let version = endpoint.protocol_version.iter().map(|version| format!(" {version}"));
        let tenant = endpoint.tenant.iter().map(|tenant| format!(", tenant {tenant}"));
        let more: String = version.chain(tenant).collect();
        put("endpoint", format!("{}{more} {}", endpoint.kind, endpoint.address));
    }
    for replica in &agent.replicas {
        put("replica", format!("{} {}, heard {}", replica.peer, replica.state, age(replica.seen_ms_ago)));
    }
    put("written", written(detail, now_ms));
    put("expires", format!("{}, {}", distance(detail.expires_at, now_ms), date(detail.expires_at)));
    rows
}

/// Who signed a card, and what that is worth.
fn signature(signature: &CardSignature) -> String {
    match signature {
        CardSignature::Unsigned => "none: nobody signed the card".into(),
        CardSignature::Unverified => "not verified: no key of `card_keys` made it".into(),
        CardSignature::Verified { key, covers_all: true } => format!("verified, by the key {key}"),
        CardSignature::Verified { key, covers_all: false } => {
            format!(
                "verified, by the key {key}; of the addresses only those of supportedInterfaces are signed"
            )
        }
    }
}

fn text(card: &Value, field: &str) -> String {
    card[field].as_str().unwrap_or_default().to_owned()
}

/// When the record was written, and which of its author's it is.
fn written(detail: &AgentDetail, now_ms: u64) -> String {
    let version = &detail.version;
    let wall = version.stamp.split('.').next().and_then(|wall| wall.parse::<u64>().ok());
    let when = wall.map(|wall| format!("{}, {}, ", distance(wall, now_ms), date(wall))).unwrap_or_default();
    format!("{when}version {} of {}", version.seq, version.author)
}

/// What hosts keep calls to, and whether there are as many of them as the agent asks for.
fn limits(card: &Value, agent: &Agent) -> String {
    let limit = |name: &str| card["limits"][name].as_u64();
    let there = agent.replicas.iter().filter(|it| it.state != ReplicaState::Unreachable).count();
    let balance = card["limits"]["balance"].as_str().filter(|balance| *balance != Balance::default().text());
    let told = [
        limit("timeout_s").map(|seconds| format!("{seconds} s an attempt")),
        limit("max_retries").map(|retries| format!("{retries} retries")),
        limit("max_concurrency").map(|calls| format!("{calls} calls at once")),
        (card["limits"]["idempotent"] == true).then(|| "may run again".to_owned()),
        balance.map(|balance| format!("hosts by {balance}")),
        limit("weight").filter(|weight| *weight != 1).map(|weight| format!("weight {weight}")),
        limit("min_replicas").filter(|min| *min > 1).map(|min| format!("{there} of at least {min} hosts")),
    ];
    told.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The command that calls it, with what its schema asks for.
fn call_line(detail: &AgentDetail) -> String {
    let name = shown_name(&detail.agent.agent);
    match example(&detail.input_schema) {
        Some(input) => format!("aop call {name} '{}'", input.to_string().replace('\'', "'\\''")),
        None => format!("aop call {name} --task \"…\""),
    }
}

/// An input that a schema may take: its required fields, or the first where none is. None where a task is one.
fn example(schema: &Value) -> Option<Value> {
    let fields = schema["properties"].as_object().filter(|fields| !fields.is_empty())?;
    let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
    let required: Vec<&str> = required.iter().filter_map(Value::as_str).collect();
    let is_task =
        |name: &&str| *name == "task" && fields.get(*name).is_some_and(|task| task["type"] == "string");
    if fields.contains_key("task") && required.iter().all(is_task) {
        return None;
    }
    let is_asked = |name: &str| required.contains(&name);
    let asked = fields.iter().filter(|(name, _)| is_asked(name));
    // Where nothing is required one field shows more than none.
    let asked = asked.chain(fields.iter().take(usize::from(required.is_empty())));
    Some(Value::Object(asked.map(|(name, field)| (name.clone(), value_of(field))).collect::<Map<_, _>>()))
}

fn value_of(field: &Value) -> Value {
    let given = [&field["const"], &field["default"], &field["examples"][0], &field["enum"][0]];
    if let Some(given) = given.into_iter().find(|given| !given.is_null()) {
        return given.clone();
    }
    match field["type"].as_str() {
        Some("integer" | "number") => field.get("minimum").cloned().unwrap_or(json!(1)),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => json!("…"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Agent;

    fn call_of(input_schema: Value) -> String {
        let agent = Agent { agent: "a@.".into(), callable: true, ..Agent::default() };
        call_line(&AgentDetail { agent, input_schema, ..AgentDetail::default() })
    }

    #[test]
    fn the_call_line_has_what_the_schema_asks_for() {
        let task = json!({"type": "object", "properties": {"task": {"type": "string"}, "img": {}}, "required": ["task"]});
        for schema in [Value::Null, json!({}), json!({"properties": {}}), task] {
            assert_eq!(call_of(schema), "aop call a --task \"…\"");
        }
        assert_eq!(call_of(json!({"properties": {"x": {}, "y": {}}})), r#"aop call a '{"x":"…"}'"#);
        let fields = json!({
            "properties": {
                "city": {"type": "string"}, "days": {"type": "integer", "minimum": 2}, "units": {"enum": ["it's", "b"]},
                "other": {"type": "string"},
            },
            "required": ["city", "days", "units"],
        });
        assert_eq!(call_of(fields), r#"aop call a '{"city":"…","days":2,"units":"it'\''s"}'"#);
    }

    #[test]
    fn limits_are_told_in_words_where_there_are_any() {
        let card = json!({"limits": {"timeout_s": 30, "max_retries": 3, "max_concurrency": 4}});
        assert_eq!(limits(&card, &Agent::default()), "30 s an attempt, 3 retries, 4 calls at once");
        assert_eq!(limits(&json!({}), &Agent::default()), "");
        let replica = |state| crate::api::Replica { state, ..crate::api::Replica::default() };
        let replicas = vec![replica(ReplicaState::Busy), replica(ReplicaState::Unreachable)];
        let agent = Agent { replicas, ..Agent::default() };
        let card =
            json!({"limits": {"balance": "weighted", "weight": 3, "min_replicas": 2, "idempotent": true}});
        assert_eq!(
            limits(&card, &agent),
            "may run again, hosts by weighted, weight 3, 1 of at least 2 hosts"
        );
    }
}
