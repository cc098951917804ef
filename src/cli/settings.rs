//! `aop config`: what holds and why, and whether files are right.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::args::{ConfigCheckArgs, ConfigShowArgs, NodeArgs};
use super::failure::{Exit, Failure};
use super::output::{Console, Rows, print_json, print_json_indented, write};
use crate::config::{
    self, ANCHOR, Anchor, ConfigError, Effective, Flags, IMPORT, Import, KEYS, Settings, Shape,
};
use crate::document::AgentFile;

/// `aop config show`.
pub(super) fn show(args: &ConfigShowArgs) -> Result<Exit, Failure> {
    let (settings, effective) = load(&args.settings)?;
    if args.json {
        let all = effective.iter().map(as_json).chain(settings.anchors.iter().map(anchor_as_json));
        let all = all.chain(settings.imports.iter().map(import_as_json));
        print_json(&json!({"settings": all.collect::<Vec<_>>()}))?;
        return Ok(Exit::Done);
    }
    let mut rows = Rows::new(&["SETTING", "VALUE", "ORIGIN"]);
    for Effective { key, values, origin } in effective {
        rows.push([key.to_string(), values.join(", "), origin.to_string()]);
    }
    for Anchor { zone, key, grant_file, origin, .. } in settings.anchors {
        let grant = grant_file.map(|path| format!(", grant {}", path.display())).unwrap_or_default();
        rows.push([ANCHOR.to_string(), format!("{zone} {key}{grant}"), origin.to_string()]);
    }
    for import in settings.imports {
        let every = humantime::format_duration(import.every);
        rows.push([IMPORT.to_string(), format!("{} every {every}", import.url), import.origin.to_string()]);
    }
    rows.print()?;
    Ok(Exit::Done)
}

/// `aop config init`.
pub(super) fn init() -> Result<Exit, Failure> {
    write(&config::blank_file())?;
    Ok(Exit::Done)
}

/// `aop config schema`.
pub(super) fn schema() -> Result<Exit, Failure> {
    print_json_indented(&config::schema())?;
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
    load_layers(&args.flags(), &|variable| std::env::var(variable).ok(), file(args).as_deref())
}

/// The file that is read: the one that is named, else the first that is where one is looked for.
pub(super) fn file(args: &NodeArgs) -> Option<PathBuf> {
    args.config.clone().or_else(config::default_file)
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

/// It stands in the file alone.
fn import_as_json(import: &Import) -> Value {
    let Import { url, zones, kind, every, header_env, origin } = import;
    json!({
        "key": IMPORT,
        "value": {
            "url": url,
            "zone": zones.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "kind": kind,
            "every_s": every.as_secs(),
            "header_env": header_env,
        },
        "origin": origin.to_string(),
    })
}

fn anchor_as_json(anchor: &Anchor) -> Value {
    let Anchor { zone, key, grant_file, grants: _, origin } = anchor;
    json!({
        "key": ANCHOR,
        "value": {
            "zone": zone,
            "key": key.to_string(),
            "grant": grant_file.as_ref().map(|path| path.display().to_string()),
        },
        "origin": origin.to_string(),
        "flag": null,
        "env": null,
        "meaning": "The key of a zone, and the grants by which this node delegates it",
    })
}
