//! Commands that play a run again, ready for a shell.

use std::collections::BTreeMap;

use serde_json::Value;

/// A word of a command line, in quotes if a shell would read it otherwise.
pub fn quoted(word: &str) -> String {
    // What is known to be harmless: shells differ in what they find special.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:,+@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.into();
    }
    // Between single quotes a shell reads nothing but the next one, which has to stand outside.
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// ` --set key=value`.
pub fn setting(key: &str, value: &str) -> String {
    format!(" --set {}", quoted(&format!("{key}={value}")))
}

/// `command` for one cell and seed.
pub(super) fn replay(command: &str, parameters: &BTreeMap<String, Value>, seed: u64) -> String {
    let settings: String = parameters.iter().map(|(key, value)| setting(key, &written(value))).collect();
    format!("{command}{settings} --seed {seed}")
}

/// A value as `--set` takes it: texts that cannot be taken for anything else need no quotes.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) if text.parse::<f64>().is_err() && text != "true" && text != "false" => {
            text.clone()
        }
        // JSON separates key and value by a colon, and `--set` reads TOML.
        Value::Object(table) => {
            let entries: Vec<String> = table.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_command_survives_a_shell() {
        let parameters = [
            ("network.latency", serde_json::json!({"least": "5ms", "most": "50ms"})),
            ("network.loss.mode", serde_json::json!("drop")),
            ("network.nodes", serde_json::json!(1000)),
        ];
        let parameters = parameters.map(|(key, value)| (key.to_string(), value)).into_iter().collect();
        assert_eq!(
            replay("aop sim replay it.toml", &parameters, 7),
            "aop sim replay it.toml --set 'network.latency={ least = \"5ms\", most = \"50ms\" }' \
             --set network.loss.mode=drop --set network.nodes=1000 --seed 7"
        );
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
