//! What happens in a run and when, drawn from its seed before anything starts: who knows whom, who writes, who joins,
//! who is parted from whom.

use std::time::Duration;

use aop::lab::scenario::{FaultKind, Groups, Scenario};
use aop::net::swarm::Discovery;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::links::Links;

/// Up to this many nodes find each other as live nodes do, by bootstrap peers and Kademlia. It makes nearly every node
/// meet nearly every other, whose handshakes are the dearest part of a run.
pub const KADEMLIA_NODES_MAX: usize = 50;
/// Bootstrap peers of a small world.
const BOOTSTRAPS: usize = 3;
/// Random others that are drawn for each node of a larger world. As many draw it: 14 peers in all, between the 12 and the 16
/// to which a live node settles.
const DIALS: usize = 7;
/// Nodes that start in a second, at the most. Each is announced to all, and a node keeps what it heard of the last seconds,
/// tells of it and asks for it: with more at once that is most of a large world's memory.
const STARTS_PER_S: usize = 12;
/// Nodes start within this time at the least, so that their heartbeats are not in step.
const START_MS_MIN: usize = 1_000;
/// A partition breaks connections after this time: QUIC's idle timeout. A shorter one delays them.
const IDLE_MS_MAX: u64 = 10_000;

/// A run.
pub struct Plan {
    /// What happens, by virtual milliseconds.
    pub steps: Vec<(u64, Step)>,
    /// The nodes each node is told of.
    pub known: Vec<Vec<usize>>,
    /// How they find others.
    pub discovery: Discovery,
    /// Who writes, in turns.
    pub authors: Vec<usize>,
    /// When each node starts.
    pub starts_ms: Vec<u64>,
    /// When the last of those that are there from the start has started.
    pub present_ms: u64,
    /// When the last fault is over; none without faults.
    pub healed_ms: Option<u64>,
}

/// Something that happens. Partitions are numbered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A node starts.
    Start(usize),
    /// Nodes are parted.
    Part(usize, Vec<u8>),
    /// Connections that reach across any partition break.
    Break,
    /// A partition ends.
    Heal(usize),
}

impl Plan {
    /// Draws a run. Fails with a sentence if the world is too small for what is asked.
    pub fn new(scenario: &Scenario, links: &Links, seed: u64) -> Result<Plan, String> {
        let mut chance = Chance(ChaCha8Rng::seed_from_u64(seed));
        let nodes = scenario.network.nodes;
        // Bootstrap peers are there from the start.
        let mut free: Vec<usize> = (BOOTSTRAPS.min(nodes)..nodes).collect();
        chance.shuffle(&mut free);
        let start_within = START_MS_MIN.max(nodes * 1_000 / STARTS_PER_S);
        let mut starts_ms: Vec<u64> = (0..nodes).map(|_| chance.below(start_within) as u64).collect();
        let (mut steps, mut healed_ms, mut joining) = (Vec::new(), None, Vec::new());
        for (number, fault) in scenario.faults.iter().enumerate() {
            let at = millis(fault.at);
            let end = match &fault.kind {
                FaultKind::Partition { groups, lasts } => {
                    let end = at + millis(*lasts);
                    steps.push((at, Step::Part(number, split(groups, nodes, links, &mut chance))));
                    if millis(*lasts) > IDLE_MS_MAX {
                        steps.push((at + IDLE_MS_MAX, Step::Break));
                    }
                    steps.push((end, Step::Heal(number)));
                    end
                }
                FaultKind::Join { who } => {
                    for _ in 0..who.of(nodes) {
                        let node = free.pop().ok_or("too many nodes join: three are there from the start")?;
                        starts_ms[node] = at;
                        joining.push(node);
                    }
                    at
                }
                other => {
                    return Err(format!("the mesh tier knows no {}; tier = \"core\" does", other.name()));
                }
            };
            healed_ms = healed_ms.max(Some(end));
        }
        steps.extend(starts_ms.iter().enumerate().map(|(node, at)| (*at, Step::Start(node))));
        steps.sort_by_key(|(at, _)| *at);
        let mut present: Vec<usize> = (0..nodes).filter(|node| !joining.contains(node)).collect();
        chance.shuffle(&mut present);
        let (discovery, known) = match nodes {
            ..=KADEMLIA_NODES_MAX => (Discovery::Dht, bootstraps(nodes)),
            _ => (Discovery::Off, dials(&starts_ms, &present, &mut chance)),
        };
        let authors = scenario.workload.authors.unwrap_or(present.len());
        if authors > present.len() {
            return Err(format!(
                "{authors} authors, and {} nodes that are there from the start",
                present.len()
            ));
        }
        let present_ms = present.iter().map(|node| starts_ms[*node]).max().unwrap_or(0);
        present.truncate(authors);
        Ok(Plan { steps, known, discovery, authors: present, starts_ms, present_ms, healed_ms })
    }
}

fn bootstraps(nodes: usize) -> Vec<Vec<usize>> {
    let others = |node: usize| (0..BOOTSTRAPS.min(nodes)).filter(|other| *other != node).collect();
    (0..nodes).map(others).collect()
}

/// Each node draws nodes that are there from the start; of two nodes the one that starts later calls the other.
fn dials(starts_ms: &[u64], present: &[usize], chance: &mut Chance) -> Vec<Vec<usize>> {
    let nodes = starts_ms.len();
    let mut dials: Vec<Vec<usize>> = vec![Vec::new(); nodes];
    for node in 0..nodes {
        let (mut drawn, mut tries) = (0, 0);
        while drawn < DIALS && tries < DIALS * nodes {
            let other = present[chance.below(present.len())];
            if other != node && !dials[node].contains(&other) && !dials[other].contains(&node) {
                let (earlier, later) =
                    if starts_ms[node] < starts_ms[other] { (node, other) } else { (other, node) };
                dials[later].push(earlier);
                drawn += 1;
            }
            tries += 1;
        }
    }
    dials
}

fn split(groups: &Groups, nodes: usize, links: &Links, chance: &mut Chance) -> Vec<u8> {
    match groups {
        Groups::Regions => (0..nodes).map(|node| u8::from(links.is_in_first_half(node))).collect(),
        Groups::Random(count) => {
            let mut parts: Vec<u8> = (0..nodes).map(|node| (node % *count) as u8).collect();
            chance.shuffle(&mut parts);
            parts
        }
        // All serve the one zone that this tier knows.
        Groups::Zone(_) => vec![0; nodes],
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

struct Chance(ChaCha8Rng);

impl Chance {
    /// A number below `end`, by its share of 64 bits: too even to tell.
    fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.0.next_u64()) * end as u128) >> 64) as usize
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}
