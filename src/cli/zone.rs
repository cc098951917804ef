//! `aop zone`: zones that are joined and left while the node runs, the keys of zones, and what they vouch for.

pub(super) mod domain;

use std::time::Duration;

use serde_json::json;

use super::args::{ZoneDelegateArgs, ZoneInitArgs, ZoneJoinArgs, ZoneLeaveArgs};
use super::client::{Client, segment};
use super::failure::{Exit, Failure};
use super::output::{Console, print_json, write};
use crate::agents::grants::{OfferingNode, grant, grant_line};
use crate::api::{JoinZone, ZoneChange, ZoneRole};
use crate::key_file::{create_key, read_key};
use crate::proto::grant::{Grant, Reach};
use crate::proto::name::ZoneName;
use crate::proto::record::RecordKind;

/// `aop zone join`.
pub(super) fn join(args: &ZoneJoinArgs, console: Console) -> Result<Exit, Failure> {
    let zone = zone(&args.zone)?;
    let role = if args.follow { ZoneRole::Follower } else { ZoneRole::Member };
    let body = serde_json::to_vec(&JoinZone { zone: zone.to_string(), role });
    let body = body.map_err(|error| Failure::plain(Exit::Failure, &error))?;
    let changed: ZoneChange = Client::new(&args.client)?.post("/v1/zones", &[], &body)?;
    tell(&changed, &format!("{role} of {zone} from now on"), args.client.json, console)
}

/// `aop zone leave`.
pub(super) fn leave(args: &ZoneLeaveArgs, console: Console) -> Result<Exit, Failure> {
    let zone = zone(&args.zone)?;
    // A lone dot would be taken out of the path.
    let name = if zone.is_root() { String::new() } else { segment(zone.as_str())? };
    let changed: ZoneChange = Client::new(&args.client)?.delete(&format!("/v1/zones/{name}"))?;
    tell(&changed, &format!("left {zone}"), args.client.json, console)
}

fn tell(changed: &ZoneChange, what: &str, json: bool, console: Console) -> Result<Exit, Failure> {
    if json {
        print_json(changed)?;
    } else {
        console.print(what);
        changed.notes.iter().for_each(|note| console.print(note));
    }
    Ok(Exit::Done)
}

/// `aop zone init`.
pub(super) fn init(args: &ZoneInitArgs, console: Console) -> Result<Exit, Failure> {
    // Before the key: a file that nobody asked for would be in the way of the next try.
    let zone = zone(&args.zone)?;
    let key = create_key(&args.out).map_err(|error| Failure::plain(Exit::Failure, &error))?.key();
    let file = args.out.display();
    console.print(&format!("wrote {file}: keep it apart from the nodes, whoever has it owns {zone}"));
    console.print("every node of the zone needs this in its configuration, and a grant:");
    console.print(&format!(
        "  aop keys grant --key {file} --to PEERID --zone {zone} --kind agent --kind delegation"
    ));
    if args.json {
        print_json(&json!({"zone": zone, "key": key.to_string(), "file": file.to_string()}))?;
    } else {
        write(&format!("[[anchor]]\nzone = \"{zone}\"\nkey = \"{key}\"\n"))?;
    }
    Ok(Exit::Done)
}

/// `aop zone delegate`.
pub(super) fn delegate(args: &ZoneDelegateArgs, console: Console) -> Result<Exit, Failure> {
    let child = zone(&args.child)?;
    if child.is_root() {
        let fix = "name a zone below the one whose key this is, such as `research.acme.org`";
        return Err(Failure::new(Exit::Usage, "nothing lies above the root, so nobody delegates it", fix));
    }
    let subject = args.to.parse().map_err(|error| Failure::plain(Exit::Usage, &error))?;
    let above = read_key(&args.key_file).map_err(|error| Failure::plain(Exit::Failure, &error))?;
    if above.key() == subject {
        let fix = format!(
            "make a key for {child} with `aop zone init {child} --out FILE`, and give what it prints"
        );
        return Err(Failure::new(
            Exit::Usage,
            format!("{subject} is the key in {} itself", args.key_file.display()),
            fix,
        ));
    }
    let to = OfferingNode { key: subject, network: args.network.clone(), home: child.clone() };
    let life = Duration::from_secs(u64::from(args.days) * 86_400);
    let grant = Grant {
        kinds: vec![RecordKind::Delegation],
        may_delegate: true,
        ..grant(&above, &to, child.clone(), Reach::Subtree, life)
    };
    let line = grant_line(&grant, &above);
    console.print(&format!(
        "the first line of the `grant` of the anchor of {child}; below it goes what its own key gives a node:"
    ));
    console.print(&format!("  aop keys grant --key FILE --to PEERID --zone {child} --kind delegation"));
    if args.json {
        print_json(&json!({
            "zone": child,
            "key": subject.to_string(),
            "by": above.key().to_string(),
            "grant": line,
            "expires_at": grant.expires_at.0,
        }))?;
    } else {
        write(&(line + "\n"))?;
    }
    Ok(Exit::Done)
}

/// A name is judged here: a mistake in it is one in what was typed, whether or not a node answers.
fn zone(text: &str) -> Result<ZoneName, Failure> {
    text.parse().map_err(|error| Failure::plain(Exit::Usage, &error))
}
