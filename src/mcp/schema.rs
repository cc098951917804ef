//! An agent's schemas as a tool publishes them. A tool takes and gives objects; a schema of anything else is wrapped.

use rmcp::model::JsonObject;
use serde_json::{Value, json};

/// Keyword of a schema's property.
const HEADER: &str = "x-mcp-header";

/// How arguments become an agent's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// They are the input.
    Whole,
    /// The input is their field `input`.
    Field,
}

/// How an agent's output becomes the tool's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// It is the answer.
    Whole,
    /// It is the answer's field `result`, beside `success` (paper, algorithm 2).
    Result,
}

/// What a tool takes, from the agent's own schema or the paper's.
pub(super) fn input(text: Option<&str>) -> (Input, JsonObject) {
    let Some(mut schema) = text.and_then(parse) else { return (Input::Whole, object(paper_input())) };
    if !schema.contains_key("type") && schema.contains_key("properties") {
        schema.insert("type".into(), "object".into());
    }
    match is_of_object(&schema) {
        true => (Input::Whole, schema),
        false => (Input::Field, wrapped(schema, "input", &["input"], json!({}))),
    }
}

/// What a tool gives, from the agent's own schema or the paper's.
pub(super) fn output(text: Option<&str>) -> (Output, JsonObject) {
    let schema = match text.and_then(parse) {
        Some(schema) if is_of_object(&schema) => return (Output::Whole, schema),
        Some(schema) => schema,
        None => object(json!({"description": "what the agent answered"})),
    };
    let error = json!({"type": "string", "description": "why there is no result"});
    let beside = json!({"success": {"type": "boolean"}, "error": error});
    (Output::Result, wrapped(schema, "result", &["success"], beside))
}

impl Input {
    /// The input in `arguments`.
    pub(super) fn take(self, mut arguments: JsonObject) -> Value {
        match self {
            Input::Whole => Value::Object(arguments),
            Input::Field => arguments.remove("input").unwrap_or_default(),
        }
    }
}

impl Output {
    /// The answer for `output`.
    pub(super) fn give(self, output: Value) -> Value {
        match self {
            Output::Whole => output,
            Output::Result => json!({"result": output, "success": true}),
        }
    }
}

/// What the paper's agents take.
fn paper_input() -> Value {
    json!({
        "type": "object",
        "properties": {
            "task": {"type": "string", "description": "what to do"},
            "img": {"type": ["string", "null"], "description": "an image inline or its URL"},
            "imgs": {"type": ["array", "null"], "items": {"type": "string"}, "description": "several images"},
            "correct_answer": {"type": ["string", "null"], "description": "what to compare the answer with"},
        },
        "required": ["task"],
    })
}

fn parse(text: &str) -> Option<JsonObject> {
    let mut schema = serde_json::from_str(text).ok()?;
    drop_header(&mut schema);
    match schema {
        Value::Object(schema) => Some(schema),
        _ => None,
    }
}

/// The keyword has clients repeat an argument as a header, and a call without it is refused. No proxy here reads it, and
/// who speaks over stdio has no headers, so it is not published.
fn drop_header(schema: &mut Value) {
    match schema {
        Value::Object(schema) => {
            // Unless it is the name of a property.
            schema.retain(|key, value| key != HEADER || !value.is_string());
            schema.values_mut().for_each(drop_header);
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(drop_header),
        _ => {}
    }
}

fn is_of_object(schema: &JsonObject) -> bool {
    schema.get("type").is_some_and(|kind| kind == "object")
}

/// An object with `schema` under `field`. Definitions move to the top, where references look for them.
fn wrapped(mut schema: JsonObject, field: &str, required: &[&str], beside: Value) -> JsonObject {
    let mut whole = object(json!({"type": "object"}));
    for key in ["$schema", "$defs", "definitions"] {
        if let Some(value) = schema.remove(key) {
            whole.insert(key.into(), value);
        }
    }
    let mut properties = object(json!({}));
    properties.insert(field.into(), Value::Object(schema));
    properties.extend(object(beside));
    whole.insert("properties".into(), Value::Object(properties));
    whole.insert("required".into(), json!(required));
    whole
}

/// The object that a literal of this module is.
pub(super) fn object(value: Value) -> JsonObject {
    match value {
        Value::Object(object) => object,
        other => JsonObject::from_iter([("value".to_owned(), other)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_without_schemas_has_those_of_the_paper() {
        let (input, schema) = input(None);
        assert_eq!((input, &schema["required"]), (Input::Whole, &json!(["task"])));
        let (output, schema) = output(None);
        assert_eq!((output, &schema["required"]), (Output::Result, &json!(["success"])));
        assert_eq!(output.give(json!("x")), json!({"result": "x", "success": true}));
    }

    #[test]
    fn a_schema_of_an_object_is_published_as_it_is() {
        let text = r#"{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}"#;
        assert_eq!(input(Some(text)), (Input::Whole, serde_json::from_str(text).unwrap()));
        assert_eq!(output(Some(text)), (Output::Whole, serde_json::from_str(text).unwrap()));
        let (_, untyped) = input(Some(r#"{"properties":{}}"#));
        assert_eq!(untyped["type"], "object");
    }

    #[test]
    fn no_argument_is_asked_for_as_a_header() {
        let text =
            r#"{"properties":{"a":{"type":"string","x-mcp-header":"A"},"x-mcp-header":{"type":"string"}}}"#;
        let (_, schema) = input(Some(text));
        assert_eq!(
            schema["properties"],
            json!({"a": {"type": "string"}, "x-mcp-header": {"type": "string"}})
        );
    }

    #[test]
    fn a_schema_of_anything_else_is_wrapped_with_its_definitions_on_top() {
        let text = r##"{"type":"array","items":{"$ref":"#/$defs/n"},"$defs":{"n":{"type":"number"}}}"##;
        let (taken, schema) = input(Some(text));
        assert_eq!(taken.take(object(json!({"input": [1]}))), json!([1]));
        assert_eq!(schema["properties"]["input"]["items"]["$ref"], "#/$defs/n");
        assert_eq!(schema["$defs"]["n"]["type"], "number");
        let (given, schema) = output(Some(text));
        assert_eq!(given.give(json!([1])), json!({"result": [1], "success": true}));
        assert_eq!(schema["properties"]["result"]["type"], "array");
    }
}
