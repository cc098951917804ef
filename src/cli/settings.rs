//! `aop config`: what holds and why, and whether files are right.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::args::{ConfigCheckArgs, ConfigShowArgs, NodeArgs};
use super::failure::{Exit, Failure};
use super::output::{Console, Rows, print_json};
use crate::config::{self, ConfigError, Effective, Flags, KEYS, Settings, Shape};
use crate::document::AgentFile;

/// `aop config show`.
pub(super) fn show(args: &ConfigShowArgs) -> Result<Exit, Failure> {
    let (_, effective) = load(&args.settings)?;
    if args.json {
        print_json(&json!({"settings": effective.iter().map(as_json).collect::<Vec<_>>()}))?;
        return Ok(Exit::Done);
    }
    let mut rows = Rows::new(&["SETTING", "VALUE", "ORIGIN"]);
    for Effective { key, values, origin } in effective {
        rows.push([key.to_string(), values.join(", "), origin.to_string()]);
    }
    rows.print()?;
    Ok(Exit::Done)
}

/// `aop config check`.
pub(super) fn check(args: &ConfigCheckArgs, console: Console) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for file in &args.files {
        match check_file(file) {
            Ok(()) => console.print(&format!("{}: ok", file.display())),
            // Told already, and the other files are checked all the same.
            Err(failure) => exit = failure.exit,
        }
    }
    Ok(exit)
}

/// The settings of a node from all layers; what is wrong has been reported.
pub(super) fn load(args: &NodeArgs) -> Result<(Settings, Vec<Effective>), Failure> {
    load_layers(&args.flags(), &|variable| std::env::var(variable).ok(), args.config.as_deref())
}

fn load_layers(
    flags: &Flags,
    env: &dyn Fn(&str) -> Option<String>,
    file: Option<&Path>,
) -> Result<(Settings, Vec<Effective>), Failure> {
    config::load(flags, env, file).map_err(|errors: Vec<ConfigError>| {
        let all = errors.iter().map(|error| Failure::reported(Exit::Usage, error));
        // All are told; a program reads the first.
        let first = all.reduce(|first, _| first);
        first.unwrap_or_else(|| Failure::already_reported(Exit::Usage))
    })
}

/// One file alone, without flags and environment; an agent's file is known by its table `[agent]`.
fn check_file(path: &PathBuf) -> Result<(), Failure> {
    // A file that cannot be read is no agent's; reading it as a configuration says why.
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let is_agent = toml::from_str::<toml::Table>(&text).is_ok_and(|table| table.contains_key("agent"));
    if is_agent {
        return AgentFile::read(path).map(drop).map_err(|error| Failure::reported(Exit::Usage, &error));
    }
    // The defaults of this machine are not what is checked.
    let flags = Flags::from([("data_dir", vec![".".to_string()])]);
    load_layers(&flags, &|_| None, Some(path)).map(drop)
}

fn as_json(effective: &Effective) -> Value {
    let key = KEYS.iter().find(|key| key.name == effective.key);
    let is_list = key.is_some_and(|key| matches!(key.shape, Shape::Texts | Shape::Paths));
    let value = match is_list {
        true => json!(effective.values),
        false => json!(effective.values.first()),
    };
    json!({
        "key": effective.key,
        "value": value,
        "origin": effective.origin.to_string(),
        "flag": key.map(|key| key.flag),
        "env": key.map(|key| key.env),
        "meaning": key.map(|key| key.meaning),
    })
}
