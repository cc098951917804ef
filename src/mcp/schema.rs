//! An agent's schemas as a tool publishes them. A tool takes and gives objects; a schema of anything else is wrapped.

use std::sync::Arc;

use rmcp::model::JsonObject;
use serde_json::{Value, json};

use crate::document::schema::{default_input, default_output};

/// Keyword of a schema's property.
const HEADER: &str = "x-mcp-header";

/// How arguments become an agent's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// They are the input.
    Whole,
    /// They are the input, where null says the same as nothing: clients of the paper's authors send it.
    Paper,
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

/// What a tool takes whose agent takes `schema`.
pub(super) fn input(schema: Arc<JsonObject>) -> (Input, Arc<JsonObject>) {
    // By address, which only the default has: an agent may give an equal schema and mean it strictly.
    if Arc::ptr_eq(&schema, &default_input()) {
        return (Input::Paper, schema);
    }
    let mut schema = Arc::unwrap_or_clone(schema);
    drop_header(&mut schema);
    if is_of_object(&schema) {
        return (Input::Whole, Arc::new(schema));
    }
    // MCP wants the type said. `properties` without it means an object all the same.
    if !schema.contains_key("type") && schema.contains_key("properties") {
        schema.insert("type".into(), "object".into());
        return (Input::Whole, Arc::new(schema));
    }
    (Input::Field, Arc::new(wrapped(schema, "input", &["input"], json!({}))))
}

/// What a tool gives whose agent answers `schema`.
pub(super) fn output(schema: Arc<JsonObject>) -> (Output, Arc<JsonObject>) {
    if Arc::ptr_eq(&schema, &default_output()) {
        return (Output::Result, schema);
    }
    if is_of_object(&schema) {
        return (Output::Whole, schema);
    }
    let beside = json!({"success": {"type": "boolean"}, "error": {"type": "string"}});
    // Nothing is required: what takes long is answered with the id of a task.
    (Output::Result, Arc::new(wrapped(Arc::unwrap_or_clone(schema), "result", &[], beside)))
}

impl Input {
    /// The input in `arguments`.
    pub(super) fn take(self, mut arguments: JsonObject) -> Value {
        match self {
            Input::Whole => Value::Object(arguments),
            Input::Paper => arguments.into_iter().filter(|(_, value)| !value.is_null()).collect(),
            // A missing field is null, and the agent's schema judges that.
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

/// The keyword has clients repeat an argument as a header, and a call without it is refused. No proxy here reads it, and
/// who speaks over stdio has no headers, so it is not published.
fn drop_header(schema: &mut JsonObject) {
    // Unless it is the name of a property.
    schema.retain(|key, value| key != HEADER || !value.is_string());
    schema.values_mut().for_each(drop_header_below);
}

fn drop_header_below(value: &mut Value) {
    match value {
        Value::Object(schema) => drop_header(schema),
        Value::Array(schemas) => schemas.iter_mut().for_each(drop_header_below),
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

    fn schema(text: &str) -> Arc<JsonObject> {
        Arc::new(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn an_agent_without_schemas_has_those_of_the_paper_and_null_says_nothing() {
        let (taken, shown) = input(default_input());
        assert_eq!((taken, &shown["required"]), (Input::Paper, &json!(["task"])));
        assert_eq!(taken.take(object(json!({"task": "x", "img": null}))), json!({"task": "x"}));
        let (given, _) = output(default_output());
        assert_eq!(given.give(json!("x")), json!({"result": "x", "success": true}));
    }

    #[test]
    fn a_schema_of_an_object_is_published_as_it_is() {
        let own = schema(r#"{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}"#);
        assert_eq!(input(own.clone()), (Input::Whole, own.clone()));
        assert_eq!(output(own.clone()), (Output::Whole, own));
        let (_, untyped) = input(schema(r#"{"properties":{}}"#));
        assert_eq!(untyped["type"], "object");
    }

    #[test]
    fn no_argument_is_asked_for_as_a_header() {
        let own =
            r#"{"properties":{"a":{"type":"string","x-mcp-header":"A"},"x-mcp-header":{"type":"string"}}}"#;
        let (_, shown) = input(schema(own));
        assert_eq!(shown["properties"], json!({"a": {"type": "string"}, "x-mcp-header": {"type": "string"}}));
    }

    #[test]
    fn a_schema_of_anything_else_is_wrapped_with_its_definitions_on_top() {
        let text = r##"{"type":"array","items":{"$ref":"#/$defs/n"},"$defs":{"n":{"type":"number"}}}"##;
        let (taken, shown) = input(schema(text));
        assert_eq!(taken.take(object(json!({"input": [1]}))), json!([1]));
        assert_eq!(shown["properties"]["input"]["items"]["$ref"], "#/$defs/n");
        assert_eq!(shown["$defs"]["n"]["type"], "number");
        let (given, shown) = output(schema(text));
        assert_eq!(given.give(json!([1])), json!({"result": [1], "success": true}));
        assert_eq!(shown["properties"]["result"]["type"], "array");
    }
}
