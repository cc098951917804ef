//! What a configuration file may hold, for who writes one: a file with everything in it, and the schema for editors.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::keys::{choices_of, default_of, example_of};
use super::{ANCHOR, IMPORT, KEYS, Key, Shape};

/// Letters of a line of comment.
const LINE_LETTERS: usize = 100;
/// What it begins with.
const HEAD: &str = "\
# Settings of a node. Each is shown with its default, or with an example where it has none, and takes effect without the `#` in
# front of it. Flags and AOP_… variables win over this file. Paths start at the folder of this file. `aop config check FILE`
# tells what is wrong with it, `aop config show --config FILE` what holds.
";
/// The lists of tables, which no flag can say.
const TABLES: &str = r#"
# The key of a zone, as `aop zone init` prints it, and the grants by which this node delegates it. Any number of these tables.
# [[anchor]]
# zone = "acme.org"
# key = "12D3KooW…"
# grant = "acme.grant"

# A registry that is imported regularly. Any number of these tables.
# [[import]]
# url = "https://registry.example.org"
# zone = ["acme.org"]
# kind = "mcp"
# every = "1h"
# header_env = { Authorization = "REGISTRY_TOKEN" }
"#;

/// A file with every setting, which sets none: what it shows stands behind a `#`.
pub fn blank_file() -> String {
    let mut file = HEAD.to_owned();
    // In TOML what stands below the head of a section belongs to it, so sections come last.
    let (sectioned, plain): (Vec<&Key>, Vec<&Key>) = KEYS.iter().partition(|key| key.name.contains('.'));
    let mut open = "";
    for key in plain.into_iter().chain(sectioned) {
        let (section, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if section != open {
            let _infallible = write!(file, "\n[{section}]\n");
            open = section;
        }
        file.push('\n');
        for line in wrapped(key.meaning) {
            let _infallible = writeln!(file, "# {line}");
        }
        let _infallible = writeln!(file, "# {}, {}\n#{name} = {}", key.flag, key.env, shown(key));
    }
    file + TABLES
}

fn shown(key: &Key) -> String {
    let mut values = default_of(key.name);
    if values.is_empty() {
        values = example_of(key.name).iter().map(|value| value.to_string()).collect();
    }
    // A text in JSON is one in TOML.
    let value = match key.shape {
        Shape::Text | Shape::Path => json!(values.first().cloned().unwrap_or_default()),
        Shape::Texts | Shape::Paths => json!(values),
    };
    value.to_string()
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().filter(|line| line.len() + word.len() < LINE_LETTERS);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => *line = format!("{line} {word}"),
            None => lines.push(word.into()),
        }
    }
    lines
}

/// The JSON Schema of a configuration file, as TOML is read by editors that know one.
pub fn schema() -> Value {
    let mut properties = Map::new();
    for key in &KEYS {
        match key.name.split_once('.') {
            None => drop(properties.insert(key.name.into(), of_key(key))),
            Some((section, name)) => {
                let empty = json!({"type": "object", "properties": {}, "additionalProperties": false});
                properties.entry(section).or_insert(empty)["properties"][name] = of_key(key);
            }
        }
    }
    let (text, texts) = (json!({"type": "string"}), text_or_texts());
    properties
        .insert(ANCHOR.into(), tables(&["zone", "key"], json!({"zone": text, "key": text, "grant": text})));
    let headers = json!({"type": "object", "additionalProperties": text});
    let kind = json!({"enum": ["mcp", "ard", "agents"]});
    let import = json!({"url": text, "zone": texts, "kind": kind, "every": text, "header_env": headers});
    properties.insert(IMPORT.into(), tables(&["url"], import));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "aop node",
        "description": "Settings of `aop node` in a file, as `--config FILE` reads it",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

fn of_key(key: &Key) -> Value {
    let mut schema = match key.shape {
        Shape::Text | Shape::Path => json!({"type": "string"}),
        Shape::Texts | Shape::Paths => text_or_texts(),
    };
    schema["description"] = json!(key.meaning);
    let choices = choices_of(key.name);
    if !choices.is_empty() {
        schema["enum"] = json!(choices);
    }
    schema
}

/// A lone text where a list may stand is a list of one.
fn text_or_texts() -> Value {
    json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
}

fn tables(required: &[&str], properties: Value) -> Value {
    let table = json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    json!({"type": "array", "items": table})
}

#[cfg(test)]
mod tests {
    use super::super::{Flags, Origin, load};
    use super::*;

    fn parsed(text: &str) -> Value {
        toml::from_str(text).unwrap()
    }

    /// With each `#` taken away that stands right before a setting.
    fn everything_set() -> String {
        let bare = |line: &str| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|letter: char| letter.is_ascii_lowercase()) => rest.to_owned(),
            _ => line.to_owned(),
        };
        blank_file().lines().map(|line| bare(line) + "\n").collect()
    }

    #[test]
    fn the_blank_file_loads_as_it_is_and_with_everything_set() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("aop.toml");
        let origins = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let (_, effective) = load(&Flags::new(), &|_| None, Some(&path)).unwrap();
            effective.into_iter().filter(|it| it.origin != Origin::Default).count()
        };
        assert_eq!(origins(&blank_file()), 0);
        assert_eq!(origins(&everything_set()), KEYS.len());
        assert!(blank_file().lines().all(|line| line.len() < 140), "readable");
    }

    #[test]
    fn the_schema_takes_what_loads_and_nothing_unknown() {
        let schema = jsonschema::validator_for(&schema()).unwrap();
        let takes = |text: &str| schema.is_valid(&parsed(text));
        assert!(takes(&blank_file()) && takes(&everything_set()));
        let tables = "[[anchor]]\nzone = 'a'\nkey = 'k'\n[[import]]\nurl = 'u'\nzone = 'z'\nheader_env = { A = 'B' }\n";
        assert!(takes(tables) && takes("zones = '.'\nhttp.registry = 'public'\n"));
        for wrong in [
            "zonse = ['.']",
            "network = 7",
            "gateway = 'maybe'",
            "[http]\nadr = 'x'",
            "[[anchor]]\nzone = 'a'",
            "[[import]]\nurl = 'u'\nevry = '1h'",
            "http.registry = 'everybody'",
        ] {
            assert!(!takes(wrong), "{wrong}");
        }
    }

    #[test]
    fn what_the_schema_lets_be_chosen_loads() {
        for key in &KEYS {
            for choice in choices_of(key.name) {
                let flags =
                    Flags::from([("data_dir", vec!["/x".into()]), (key.name, vec![choice.to_string()])]);
                assert!(load(&flags, &|_| None, None).is_ok(), "{} = {choice}", key.name);
            }
        }
    }
}
