//! The content identifier of an OASF record, as its directories compute it: a CID of version 1 over SHA-256 of the record in one
//! spelling, which is that of Go's encoder with fields in the order of their bytes.

use data_encoding::BASE32_NOPAD;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// CID version 1, codec 1, SHA-256 of 32 bytes.
const HEAD: [u8; 4] = [0x01, 0x01, 0x12, 0x20];
/// What stands before base32 in lower case.
const BASE32: char = 'b';

/// The content identifier of a record; 59 characters.
pub fn content_id(record: &Value) -> String {
    let mut text = String::new();
    write(record, &mut text);
    let bytes = [&HEAD[..], &Sha256::digest(text)].concat();
    format!("{BASE32}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
}

fn write(value: &Value, into: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| name.as_bytes());
            let mut before = '{';
            for (name, value) in fields {
                into.push(before);
                write_text(name, into);
                into.push(':');
                write(value, into);
                before = ',';
            }
            into.push_str(if before == '{' { "{}" } else { "}" });
        }
        Value::Array(items) => {
            let mut before = '[';
            for item in items {
                into.push(before);
                write(item, into);
                before = ',';
            }
            into.push_str(if before == '[' { "[]" } else { "]" });
        }
        Value::String(text) => write_text(text, into),
        // JSON of the browsers and Go write a double alike.
        Value::Number(_) => into.push_str(&serde_json_canonicalizer::to_string(value).unwrap_or_default()),
        Value::Null | Value::Bool(_) => into.push_str(&value.to_string()),
    }
}

/// Go writes what could be markup, and two ends of lines, by their numbers.
fn write_text(text: &str, into: &mut String) {
    for c in Value::from(text).to_string().chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => into.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => into.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(value: &Value) -> String {
        let mut text = String::new();
        write(value, &mut text);
        text
    }

    #[test]
    fn a_record_has_one_spelling() {
        let record = json!({"b": [1, 2.50, 1e21, 1e-7], "a": {"z": null, "y": true}, "é": "<a&b>\u{2028}\"\n", "Z": {}, "c": []});
        assert_eq!(
            written(&record),
            r#"{"Z":{},"a":{"y":true,"z":null},"b":[1,2.5,1e+21,1e-7],"c":[],"é":"\u003ca\u0026b\u003e\u2028\"\n"}"#
        );
    }

    #[test]
    fn equal_records_have_one_identifier_and_others_another() {
        let one = content_id(&json!({"name": "a", "version": "1"}));
        assert!(one.starts_with("baeare") && one.len() == 59, "{one}");
        assert_eq!(content_id(&json!({"version": "1", "name": "a"})), one);
        assert_ne!(content_id(&json!({"version": "2", "name": "a"})), one);
    }
}
