//! `aop zones`: the tree of zones for people.

use std::collections::BTreeSet;

use super::{PeerNames, age};
use crate::api::{Zone, Zones};
use crate::cli::args::ClientArgs;
use crate::cli::client::Client;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Rows, print_json};
use crate::proto::name::ZoneName;

/// `aop zones`.
pub(in crate::cli) fn zones(args: &ClientArgs) -> Result<Exit, Failure> {
    let client = Client::new(args)?;
    let tree: Zones = client.get("/v1/zones", &[])?;
    if args.json {
        print_json(&tree)?;
        return Ok(Exit::Done);
    }
    let mut rows =
        Rows::new(&["ZONE", "ROLE", "STATE", "AGE", "AGENTS", "MEMBERS", "GATEWAYS", "KEY", "ABOVE"]);
    let names = PeerNames::get(&client)?;
    for zone in &tree.zones {
        rows.push(row(zone, &tree.zones, &names));
    }
    rows.print()?;
    Ok(Exit::Done)
}

fn row(zone: &Zone, tree: &[Zone], names: &PeerNames) -> [String; 9] {
    let gateways: Vec<String> = zone.gateways.iter().map(|peer| names.shortened(peer)).collect();
    [
        format!("{}{}", "  ".repeat(depth(zone, tree)), zone.zone),
        if zone.gateway { format!("{}, gateway", zone.role) } else { zone.role.to_string() },
        zone.status.to_string(),
        age(zone.age_ms),
        zone.agents.to_string(),
        zone.members.map_or("-".into(), |members| members.to_string()),
        if gateways.is_empty() { "-".into() } else { gateways.join(", ") },
        // Whole: of two registries of one name it says which is meant, and is what an anchor takes.
        zone.key.clone().unwrap_or("-".into()),
        // The next zone on the way up from here, where this node speaks for the zone.
        zone.parent.clone().unwrap_or("-".into()),
    ]
}

/// How many other zones of the tree a zone lies below; registries of one name are one zone.
fn depth(zone: &Zone, tree: &[Zone]) -> usize {
    let parsed = |zone: &Zone| zone.zone.parse::<ZoneName>().ok();
    let Some(name) = parsed(zone) else { return 0 };
    let above: BTreeSet<ZoneName> =
        tree.iter().filter_map(parsed).filter(|other| *other != name && name.is_within(other)).collect();
    above.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ZoneRole, ZoneStatus};

    #[test]
    fn a_tree_is_indented_and_registries_of_one_name_are_told_apart_by_their_keys() {
        let zone = |name: &str, role| Zone { zone: name.into(), role, ..Zone::default() };
        let of = |key: &str| Zone { key: Some(key.into()), ..zone("x.acme.org", ZoneRole::Below) };
        let gateways = vec!["12D3KooWabcdefgh".into(), "12D3KooWijklmnop".into()];
        let held = Zone { members: Some(3), gateway: true, gateways, ..zone(".", ZoneRole::Member) };
        let stale = Zone { status: ZoneStatus::Stale, age_ms: Some(130_000), ..of("12D3KooWsecond") };
        let deep = Zone { age_ms: Some(1_000), ..zone("a.b.x.acme.org", ZoneRole::Below) };
        let first = Zone { parent: Some(".".into()), ..of("12D3KooWfirst") };
        let tree = [held, zone("acme.org", ZoneRole::Follower), first, stale, deep];
        let names = PeerNames([("12D3KooWijklmnop".into(), "atlas".into())].into());
        let rows: Vec<String> = tree.iter().map(|zone| row(zone, &tree, &names).join("|")).collect();
        assert_eq!(
            rows,
            [
                ".|member, gateway|held|never|0|3|…cdefgh, atlas …klmnop|-|-",
                "  acme.org|follower|held|never|0|-|-|-|-",
                "    x.acme.org|below|held|never|0|-|-|12D3KooWfirst|.",
                "    x.acme.org|below|stale|2 min 10 s ago|0|-|-|12D3KooWsecond|-",
                "      a.b.x.acme.org|below|held|1.0 s ago|0|-|-|-|-",
            ]
        );
    }
}
