//! `aop keys`: making and showing keys, and grants from an owner to a node.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::args::{GrantKind, KeysGrantArgs, KeysNewArgs, KeysShowArgs};
use super::failure::{Exit, Failure};
use super::output::{Console, print_json, write};
use crate::agents::grants::{OfferingNode, grant, grant_line};
use crate::config::default_data_dir;
use crate::key_file::{KeyError, create_key, read_key};
use crate::proto::grant::{Grant, Reach};
use crate::proto::name::ZoneName;
use crate::proto::record::RecordKind;

/// `aop keys show`.
pub(super) fn show(args: &KeysShowArgs) -> Result<Exit, Failure> {
    let path = match &args.file {
        Some(file) => file.clone(),
        None => node_key(args.data_dir.clone())?,
    };
    let key = read_key(&path).map_err(|error| match error {
        // A node makes its own at its first start.
        KeyError::Missing(_) if args.file.is_none() => Failure::new(
            Exit::Failure,
            format!("there is no node's key yet: {} is missing", path.display()),
            "run `aop node` once, which makes it; or name another folder with --data-dir, or a key file",
        ),
        other => Failure::plain(Exit::Failure, &other),
    });
    let key = key?.key();
    if args.json {
        print_json(&json!({"peer_id": key.to_string(), "file": path.display().to_string()}))?;
    } else {
        write(&format!("{key}\n"))?;
    }
    Ok(Exit::Done)
}

/// `aop keys new`.
pub(super) fn new(args: &KeysNewArgs, console: Console) -> Result<Exit, Failure> {
    let identity = create_key(&args.out).map_err(|error| Failure::plain(Exit::Failure, &error))?;
    console.print(&format!("wrote {}: keep it, whoever has it is you", args.out.display()));
    write(&format!("{}\n", identity.key()))?;
    Ok(Exit::Done)
}

/// `aop keys grant`.
pub(super) fn write_grant(args: &KeysGrantArgs, console: Console) -> Result<Exit, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::plain(Exit::Usage, error);
    let owner = read_key(&args.key).map_err(|error| Failure::plain(Exit::Failure, &error))?;
    let zone: ZoneName = args.zone.parse().map_err(|error| usage(&error))?;
    let host = OfferingNode {
        key: args.to.parse().map_err(|error| usage(&error))?,
        network: args.network.clone(),
        home: zone.clone(),
    };
    let reach = match &args.name {
        Some(_) if args.kinds.contains(&GrantKind::Delegation) => {
            let fix = "make one grant for the agent and another for delegations";
            return Err(Failure::new(Exit::Usage, "`--name` names an agent, which no delegation has", fix));
        }
        Some(name) => Reach::Label(name.parse().map_err(|error| usage(&error))?),
        None => Reach::Zone,
    };
    let mut kinds: Vec<RecordKind> = args.kinds.iter().map(|kind| record_kind(*kind)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let life = Duration::from_secs(u64::from(args.days) * 86_400);
    let grant = Grant {
        kinds,
        may_delegate: args.pass_on,
        generation: args.generation,
        slots: args.slots,
        ..grant(&owner, &host, zone, reach, life)
    };
    let line = grant_line(&grant, &owner) + "\n";
    let Some(out) = &args.out else {
        write(&line)?;
        return Ok(Exit::Done);
    };
    fs::write(out, line).map_err(|error| {
        Failure::new(Exit::Failure, format!("cannot write {}: {error}", out.display()), "check the path")
    })?;
    console.print(&format!("wrote {}: give it to the host", out.display()));
    Ok(Exit::Done)
}

fn record_kind(kind: GrantKind) -> RecordKind {
    match kind {
        GrantKind::Agent => RecordKind::Agent,
        GrantKind::Delegation => RecordKind::Delegation,
        GrantKind::Revocation => RecordKind::Revocation,
    }
}

fn node_key(data_dir: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let folder = data_dir.or_else(default_data_dir);
    folder.map(|folder| folder.join("node.key")).ok_or_else(|| {
        Failure::new(Exit::Usage, "there is no home folder, so no default key", "name a key file")
    })
}
