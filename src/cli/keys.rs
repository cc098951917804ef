//! `aop keys`: making and showing keys, and grants from an owner to a node.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::args::{KeysGrantArgs, KeysNewArgs, KeysShowArgs};
use super::failure::{Exit, Failure};
use super::output::{Talk, print_json, write};
use crate::config::{create_key, default_data_dir, read_key};
use crate::proto::identity::{Identity, PeerKey};
use crate::proto::name::{AgentName, ZoneName};

/// What an owner allows a node.
struct GrantRequest {
    /// The owner.
    owner: Identity,
    /// The node.
    to: PeerKey,
    /// Where.
    zone: ZoneName,
    /// Only this agent; every agent of the owner without it.
    name: Option<AgentName>,
    /// From now, 1 … 90.
    days: u16,
}

/// `aop keys show`.
pub(super) fn show(args: &KeysShowArgs) -> Result<Exit, Failure> {
    let path = match &args.file {
        Some(file) => file.clone(),
        None => node_key(args.data_dir.clone())?,
    };
    let key = read_key(&path).map_err(|error| Failure::plain(Exit::Failure, &error))?.key();
    if args.json {
        print_json(&json!({"peer_id": key.to_string(), "file": path.display().to_string()}))?;
    } else {
        write(&format!("{key}\n"))?;
    }
    Ok(Exit::Done)
}

/// `aop keys new`.
pub(super) fn new(args: &KeysNewArgs, talk: Talk) -> Result<Exit, Failure> {
    let identity = create_key(&args.out).map_err(|error| Failure::plain(Exit::Failure, &error))?;
    talk.say(&format!("wrote {}: keep it, whoever has it is you", args.out.display()));
    write(&format!("{}\n", identity.key()))?;
    Ok(Exit::Done)
}

/// `aop keys grant`.
pub(super) fn write_grant(args: &KeysGrantArgs, talk: Talk) -> Result<Exit, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::plain(Exit::Usage, error);
    let request = GrantRequest {
        owner: read_key(&args.key).map_err(|error| Failure::plain(Exit::Failure, &error))?,
        to: args.to.parse().map_err(|error| usage(&error))?,
        zone: args.zone.parse().map_err(|error| usage(&error))?,
        name: args.name.as_deref().map(str::parse).transpose().map_err(|error| usage(&error))?,
        days: args.days,
    };
    let line = grant(&request)? + "\n";
    let Some(out) = &args.out else {
        write(&line)?;
        return Ok(Exit::Done);
    };
    fs::write(out, line).map_err(|error| {
        Failure::new(Exit::Failure, format!("cannot write {}: {error}", out.display()), "check the path")
    })?;
    talk.say(&format!("wrote {}: give it to the host", out.display()));
    Ok(Exit::Done)
}

/// Signs the grant and encodes it as one line of text.
fn grant(request: &GrantRequest) -> Result<String, Failure> {
    let GrantRequest { owner, to, zone, name, days } = request;
    let scope = name.as_ref().map_or_else(|| zone.to_string(), |name| format!("{name}@{zone}"));
    Err(Failure::new(
        Exit::Failure,
        format!("grants are not built yet: {} could not allow {to} {scope} for {days} days", owner.key()),
        "register from a node that has the owner's key as its own",
    ))
}

fn node_key(data_dir: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let folder = data_dir.or_else(default_data_dir);
    folder.map(|folder| folder.join("node.key")).ok_or_else(|| {
        Failure::new(Exit::Usage, "there is no home folder, so no default key", "name a key file")
    })
}
