//! A schema of somebody else, without what cannot be used of it: one keyword costs a tool that keyword and not its schema.
//!
//! What remains takes whatever the whole takes. To leave out a keyword mostly takes more, but not below `not`, `if` and
//! `oneOf`, nor beside keywords that speak of what others left over; there the outer keyword goes.

use serde_json::{Map, Value, json};

use super::schema::Schema;
use crate::proto::limits::SCHEMA_BYTES_MAX;

/// Keywords that are left out of one schema: each costs a compilation. A schema with more is not one that is nearly right.
const LEFT_OUT_MAX: usize = 64;
/// Longest description of a property in an outline, bytes: a sentence.
const SENTENCE_BYTES_MAX: usize = 160;

/// Keywords that hold schemas by name, so that what stands below them is no keyword.
const NAMED: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];
/// Keywords that hold schemas in a list.
const LISTED: [&str; 4] = ["allOf", "anyOf", "items", "prefixItems"];
/// Keywords below which less is more.
const TURNING: [&str; 3] = ["not", "if", "oneOf"];

/// What can be used of a schema, and which parts, as JSON pointers, were left out.
pub(crate) fn loosened(schema: &Value) -> (Value, Vec<String>) {
    let mut left_out = Vec::new();
    let fits = schema.is_object() && schema.to_string().len() <= SCHEMA_BYTES_MAX;
    if fits && let Some(part) = without_flaws(schema, &mut left_out) {
        return (part, left_out);
    }
    (outline(schema), vec!["all but the names of its properties".into()])
}

fn without_flaws(schema: &Value, left_out: &mut Vec<String>) -> Option<Value> {
    let mut part = schema.clone();
    for _ in 0..LEFT_OUT_MAX {
        let place = match Schema::flaw(&part) {
            Ok(None) => return Some(part),
            Ok(Some(place)) => place,
            // Too much of something, which no single place is to blame for.
            Err(()) => return None,
        };
        let mut place: Vec<String> = place.split('/').skip(1).map(unescaped).collect();
        if place.is_empty() {
            return None;
        }
        leave_out(&mut part, &mut place);
        left_out.push(format!("/{}", place.join("/")));
    }
    None
}

fn unescaped(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// Leaves out what stands at `place`, or the keyword around it that must go instead; `place` becomes what went.
fn leave_out(schema: &mut Value, place: &mut Vec<String>) {
    let is_keyword = |at: usize| at == 0 || !NAMED.contains(&place[at - 1].as_str());
    let turning = (0..place.len()).find(|at| TURNING.contains(&place[*at].as_str()) && is_keyword(*at));
    if let Some(at) = turning {
        place.truncate(at + 1);
    }
    let is_schema = |place: &[String], at: usize| {
        at > 0 && (NAMED.contains(&place[at - 1].as_str()) || LISTED.contains(&place[at - 1].as_str()))
    };
    // An item of a list of words: without it the list would say something else.
    if parent(schema, place).is_some_and(|parent| parent.is_array()) && !is_schema(place, place.len() - 1) {
        place.pop();
    }
    loosen_around(schema, place);
    let Some((last, _)) = place.split_last() else { return };
    let by_pattern = place.len() > 1 && place[place.len() - 2] == "patternProperties";
    let becomes_any = is_schema(place, place.len() - 1) && !by_pattern;
    match parent(schema, place) {
        Some(Value::Object(map)) if becomes_any => drop(map.insert(last.clone(), json!({}))),
        Some(Value::Object(map)) => drop(map.shift_remove(last)),
        Some(Value::Array(items)) => {
            if let Some(item) = last.parse().ok().and_then(|at: usize| items.get_mut(at)) {
                *item = json!({});
            }
        }
        _ => {}
    }
}

/// Takes away what speaks of the properties and items that no other keyword named: there are more of them now.
fn loosen_around(schema: &mut Value, place: &[String]) {
    let mut here = Some(schema);
    for (depth, token) in place.iter().enumerate() {
        let Some(within) = here.take() else { return };
        if let Value::Object(map) = within {
            let left = place.len() - depth;
            map.shift_remove("unevaluatedProperties");
            map.shift_remove("unevaluatedItems");
            let named_less = token == "patternProperties" || token == "properties" && left == 1;
            if named_less {
                map.shift_remove("additionalProperties");
            }
            if token == "prefixItems" && left == 1 {
                map.shift_remove("items");
            }
        }
        here = child(within, token);
    }
}

fn parent<'a>(schema: &'a mut Value, place: &[String]) -> Option<&'a mut Value> {
    let (_, above) = place.split_last()?;
    above.iter().try_fold(schema, |within, token| child(within, token))
}

fn child<'a>(within: &'a mut Value, token: &str) -> Option<&'a mut Value> {
    match within {
        Value::Object(map) => map.get_mut(token),
        Value::Array(items) => items.get_mut(token.parse::<usize>().ok()?),
        _ => None,
    }
}

/// The names of an object's properties with their types and a sentence each, or any object where even these are too many.
fn outline(schema: &Value) -> Value {
    let any = json!({"type": "object"});
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return any };
    let property = |given: &Value| {
        let mut kept = Map::new();
        if let Some(kind) = given.get("type").filter(|kind| kind.is_string()) {
            kept.insert("type".into(), kind.clone());
        }
        if let Some(said) = given.get("description").and_then(Value::as_str) {
            kept.insert("description".into(), said[..said.floor_char_boundary(SENTENCE_BYTES_MAX)].into());
        }
        Value::Object(kept)
    };
    let properties: Map<String, Value> =
        properties.iter().map(|(name, given)| (name.clone(), property(given))).collect();
    let outline = json!({"type": "object", "properties": properties});
    let fits = outline.to_string().len() <= SCHEMA_BYTES_MAX && Schema::compile(&outline).is_ok();
    if fits { outline } else { any }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(schema: &Value, document: &Value) -> bool {
        Schema::compile(schema).unwrap().check(document).is_ok()
    }

    #[test]
    fn one_keyword_costs_that_keyword() {
        let who = |keyword: &str, value: Value| {
            let mut who = json!({"type": "string", "description": "whom to greet"});
            who[keyword] = value;
            json!({"type": "object", "properties": {"who": who, "n": {"type": "integer"}}, "required": ["who"]})
        };
        for (keyword, value) in [
            ("pattern", json!("^(?!-)[a-z-]+$")),
            ("pattern", json!("(a)\\1")),
            ("$ref", json!("http://127.0.0.1:9/s.json")),
            ("$ref", json!("#/$defs/nowhere")),
            ("$dynamicRef", json!("#node")),
            ("minLength", json!("3")),
            ("type", json!("strin")),
            ("required", json!(true)),
            ("exclusiveMinimum", json!(true)),
        ] {
            let (part, left_out) = loosened(&who(keyword, value.clone()));
            assert_eq!(part["properties"]["who"]["description"], "whom to greet", "{keyword}: {part}");
            assert_eq!(part["required"], json!(["who"]), "{keyword}");
            assert_eq!(left_out, [format!("/properties/who/{keyword}")], "{value}");
            assert!(takes(&part, &json!({"who": "x"})) && !takes(&part, &json!({"n": 1})), "{part}");
        }
    }

    #[test]
    fn what_is_not_known_is_no_reason() {
        for schema in [
            json!({"properties": {"a": {"type": "string", "format": "no-such-format", "nullable": true}}}),
            json!({"x-order": [1], "type": "object"}),
        ] {
            assert_eq!(loosened(&schema), (schema, Vec::new()));
        }
    }

    #[test]
    fn what_remains_takes_whatever_the_whole_takes() {
        let bad = json!({"pattern": "(?!x)"});
        for (schema, document) in [
            (json!({"not": {"properties": {"a": bad}}}), json!({"a": "b"})),
            (json!({"oneOf": [bad, {"type": "string"}]}), json!("b")),
            (json!({"if": bad, "then": {"type": "integer"}}), json!("b")),
            (json!({"anyOf": [bad, {"type": "integer"}]}), json!("b")),
            (json!({"properties": {"a": 5}, "additionalProperties": false}), json!({"a": "b"})),
            (json!({"patternProperties": {"(?!x)": {}}, "additionalProperties": false}), json!({"a": "b"})),
            (json!({"allOf": [{"$ref": "other"}], "unevaluatedProperties": false}), json!({"a": "b"})),
            (json!({"properties": {"not": {"pattern": "(?!x)", "type": "string"}}}), json!({"not": "b"})),
        ] {
            let (part, left_out) = loosened(&schema);
            assert!(takes(&part, &document), "{schema} became {part}");
            assert!(!left_out.is_empty(), "{schema}");
        }
    }

    #[test]
    fn of_a_schema_that_is_too_much_the_names_remain() {
        let mut schema =
            json!({"properties": {"city": {"type": "string", "description": "where", "title": "x"}}});
        schema["title"] = "x".repeat(SCHEMA_BYTES_MAX).into();
        let (part, _) = loosened(&schema);
        assert_eq!(part["properties"]["city"], json!({"type": "string", "description": "where"}));
        for schema in [json!("none"), json!(7), json!({"title": "x".repeat(SCHEMA_BYTES_MAX)})] {
            assert_eq!(loosened(&schema).0, json!({"type": "object"}));
        }
    }
}
