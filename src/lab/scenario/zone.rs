//! Zones of a scenario, and which nodes serve them.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

use super::values::{optional_count, optional_duration};
use crate::proto::name::ZoneName;

/// A zone and who serves it. Nodes that are members of none are members of the root zone.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// Its name.
    pub name: ZoneName,
    /// Nodes that offer agents in it.
    pub members: NodeSet,
    /// Nodes that hold it without being members.
    #[serde(default)]
    pub followers: NodeSet,
    /// It stands for many zones below the name, of so many members each, as far as there are nodes.
    #[serde(default, deserialize_with = "optional_count")]
    pub each: Option<usize>,
    /// Whether its members of even and of odd number never heard of each other.
    #[serde(default)]
    pub halves: bool,
    /// Members that the zone's key grants to write; without it the zone has none.
    #[serde(default)]
    pub granted: Option<NodeSet>,
    /// When the grants end, virtual time; not in the run if none.
    #[serde(default, deserialize_with = "optional_duration")]
    pub grants_end: Option<Duration>,
}

impl Zone {
    /// The zones that it stands for in a world of so many nodes.
    pub(super) fn dealt(self, nodes: usize) -> Vec<Zone> {
        let Some(each) = self.each else { return vec![self] };
        let members: Vec<usize> = self.members.0.iter().copied().filter(|node| *node < nodes).collect();
        let below = if self.name.is_root() { String::new() } else { format!(".{}", self.name) };
        let dealt = members.chunks(each).enumerate();
        let zone = |(number, members): (usize, &[usize])| Zone {
            name: format!("z{number}{below}").parse().unwrap_or_else(|_| self.name.clone()),
            members: NodeSet(members.iter().copied().collect()),
            followers: self.followers.clone(),
            each: None,
            halves: self.halves,
            granted: self.granted.clone(),
            grants_end: self.grants_end,
        };
        dealt.map(zone).collect()
    }
}

/// Nodes by number: `"0-9, 15"`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct NodeSet(pub BTreeSet<usize>);

impl TryFrom<String> for NodeSet {
    type Error = String;

    fn try_from(text: String) -> Result<NodeSet, String> {
        let number = |it: &str| it.trim().parse::<usize>().ok();
        let part = |part: &str| match part.split_once('-') {
            Some((from, to)) => Some(number(from)?..=number(to)?),
            None => number(part).map(|one| one..=one),
        };
        // Bounded before it is spelt out: `0-9999999999` would fill the memory.
        let parts =
            text.split(',').map(|it| part(it).filter(|part| !part.is_empty() && *part.end() < NODE_MAX));
        let parts = parts.collect::<Option<Vec<_>>>();
        let parts = parts.ok_or_else(|| format!("`{text}` names no nodes; write \"0-9, 15\""))?;
        Ok(NodeSet(parts.into_iter().flatten().collect()))
    }
}

/// Numbers of nodes end here: no tier with zones plays more.
const NODE_MAX: usize = 100_000;
