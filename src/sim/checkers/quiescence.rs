//! What must hold once the world is repaired and quiet: in each zone all agree, and everybody serves what clients were
//! promised.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::reference::{Acknowledged, Operation, is_known};
use super::{Check, Checkers};
use crate::proto::fingerprint;
use crate::proto::identity::AgentId;
use crate::proto::name::{FullName, ZoneName};
use crate::proto::node::Node;
use crate::proto::record::{KeyHash, Record, RecordHash, Shelf};
use crate::proto::time::Timestamp;
use crate::proto::zone::Zone;
use crate::sim::clients::text_of;
use crate::sim::fabric::Fabric;

/// Records that end within this are not compared: some hold them and some do not, rightly.
pub(super) const ENDING_MS: u64 = 120_000;
/// Records stamped further ahead than this may be refused by a clock a little behind: less than the time bound by more
/// than twice the largest skew.
pub(super) const DUE_MS: u64 = 50_000;

/// What is served in the end against what was promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promises {
    /// Withdrawn agents that some node still serves.
    pub zombies: usize,
    /// Offered agents that some node does not serve as they were offered last.
    pub lost: usize,
}

/// What a node serves of an agent.
enum ServedState {
    Nothing,
    /// Whether it is what was offered last, with the record.
    Card(bool, Arc<Record>),
}

/// Whether a record's card is what was offered last; each is decoded once for all nodes.
type Decoded = BTreeMap<RecordHash, bool>;

impl Checkers {
    /// What must hold once the world is repaired and quiet.
    pub(in crate::sim) fn check_settled(&mut self, fabric: &mut Fabric) {
        // What must hold at any time comes first: a disagreement is then no consequence of it.
        self.check_all(fabric);
        self.check_signatures(fabric);
        for at in fabric.nodes.honest() {
            self.check_claims_of_all(at, fabric);
            self.check_forks(at, fabric);
            self.check_own_keys(at, fabric);
        }
        // Last, as the first failure is what is told: a broken right often is why nodes disagree.
        if let Some((check, detail)) = self.unsettled(fabric) {
            fabric.kernel.fail(check, detail);
        }
    }

    /// What does not hold yet of what must hold in the end.
    pub(in crate::sim) fn unsettled(&self, fabric: &mut Fabric) -> Option<(Check, String)> {
        // Before promises: nodes that differ are not done yet, and what they serve may still change.
        for zone in fabric.nodes.held_zones() {
            if let Some(detail) = disagreement(&zone, fabric) {
                return Some((Check::Agreement, detail));
            }
        }
        let mut decoded = Decoded::new();
        let agents = self.reference.agents.iter().filter(|((host, _), _)| fabric.nodes.is_honest(*host));
        let agents: Vec<_> = agents.collect();
        agents.into_iter().find_map(|((host, name), agent)| {
            let mut by = fabric.nodes.honest().into_iter();
            by.find_map(|at| self.broken_promise(at, (*host, name), agent, &mut decoded, fabric))
        })
    }

    /// What is served in the end, whatever the reason.
    pub(in crate::sim) fn promises(&self, fabric: &mut Fabric) -> Promises {
        let (mut promises, mut decoded) = (Promises::default(), Decoded::new());
        for ((host, name), agent) in &self.reference.agents {
            if !fabric.nodes.is_honest(*host) {
                continue;
            }
            let honest = fabric.nodes.honest().into_iter();
            let served: Vec<ServedState> =
                honest.filter_map(|at| served(at, (*host, name), agent, &mut decoded, fabric)).collect();
            match agent.operation {
                Operation::Withdrawn => {
                    let is_card = |it: &ServedState| matches!(it, ServedState::Card(..));
                    promises.zombies += usize::from(served.iter().any(is_card));
                }
                Operation::Offered(_) => {
                    let is_right = |it: &ServedState| matches!(it, ServedState::Card(true, _));
                    promises.lost += usize::from(!served.iter().all(is_right));
                }
            }
        }
        promises
    }

    /// Everybody serves what was last promised of an agent. Exempt is also a write whose version its author used twice,
    /// as a restored backup does that writes before it hears of its own head: the node sees and shows the fork, and
    /// cannot know which of the two was its own.
    fn broken_promise(
        &self,
        at: usize,
        (host, full): (usize, &FullName),
        agent: &Acknowledged,
        decoded: &mut Decoded,
        fabric: &mut Fabric,
    ) -> Option<(Check, String)> {
        let wall = fabric.kernel.wall();
        let (zone, name) = (&full.zone, &full.agent);
        if self.reference.is_exempt(zone, agent, wall) || self.reference.is_forked(zone, &agent.order) {
            return None;
        }
        // A host that leaves says so once: who did not hear it cannot ask, and the agent ends with its lease.
        if agent.left && !is_known(zone, agent, &fabric.nodes) {
            return None;
        }
        let own = fabric.nodes[host].node.as_ref().and_then(|node| node.record(zone, &agent.key)).cloned();
        // Written with a clock ahead: refused elsewhere until it is due, also by a host that lost it with its disk.
        let due_until = Timestamp(wall + DUE_MS);
        let served = served(at, (host, full), agent, decoded, fabric)?;
        let shown = own.as_ref().into_iter().chain(match &served {
            ServedState::Card(_, seen) => Some(seen),
            ServedState::Nothing => None,
        });
        if shown.into_iter().any(|record| record.stamp.wall > due_until) && at != host {
            return None;
        }
        match (&agent.operation, served) {
            (Operation::Withdrawn, ServedState::Card(_, seen)) => {
                let detail = format!("node {at} serves {name} of node {host}: {seen:?}; host has {own:?}");
                Some((Check::NoZombie, detail))
            }
            (Operation::Offered(promised), ServedState::Nothing) => {
                let detail =
                    format!("node {at} does not serve {name} of node {host}, {promised:?}; host has {own:?}");
                Some((Check::NoLostWrite, detail))
            }
            (Operation::Offered(promised), ServedState::Card(false, seen)) => {
                let text = seen.card().map(|card| text_of(&card));
                let detail = format!(
                    "node {at} serves {seen:?} ({text:?}) for {name} of node {host}, not {promised:?}; host has {own:?}"
                );
                Some((Check::NoLostWrite, detail))
            }
            (Operation::Withdrawn, ServedState::Nothing)
            | (Operation::Offered(_), ServedState::Card(true, _)) => None,
        }
    }

    /// Every distinct record is verified anew, by nothing that the nodes used.
    fn check_signatures(&mut self, fabric: &mut Fabric) {
        let mut distinct: BTreeMap<RecordHash, (usize, Arc<Record>)> = BTreeMap::new();
        for (at, node) in fabric.nodes.running() {
            for record in node.zones().map(Zone::name).flat_map(|zone| node.records(zone)) {
                distinct.entry(record.hash()).or_insert_with(|| (at, record.clone()));
            }
        }
        for (at, record) in distinct.into_values() {
            self.check_signature(at, &record, fabric);
        }
    }
}

/// What a node that is up and holds its zone serves of an agent.
fn served(
    at: usize,
    (host, name): (usize, &FullName),
    agent: &Acknowledged,
    decoded: &mut Decoded,
    fabric: &mut Fabric,
) -> Option<ServedState> {
    let id = AgentId::of(fabric.nodes[host].key, name);
    let (node, now) = fabric.read(at)?;
    if !holds(node, &name.zone) {
        return None;
    }
    // Mostly it is the very record that was acknowledged.
    if let (Operation::Offered(_), Some(held)) = (&agent.operation, node.record(&name.zone, &agent.key))
        && held.order() == agent.order
        && !held.is_expired(now)
    {
        return Some(ServedState::Card(true, held.clone()));
    }
    let Some(found) = node.agent(now, &id) else { return Some(ServedState::Nothing) };
    let is_right = *decoded.entry(found.record.hash()).or_insert_with(|| match &agent.operation {
        Operation::Offered(text) => text_of(&found.card()) == *text,
        Operation::Withdrawn => false,
    });
    Some(ServedState::Card(is_right, found.record))
}

fn holds(node: &Node, zone: &ZoneName) -> bool {
    node.zones().map(Zone::name).any(|held| held == zone)
}

/// Two nodes that do not hold the same of what all that hold a zone should hold of it.
fn disagreement(zone: &ZoneName, fabric: &mut Fabric) -> Option<String> {
    let wall = fabric.kernel.wall();
    let holders = || fabric.nodes.running().filter(|(_, node)| holds(node, zone));
    // What one holds ahead of its time others may rightly refuse, so its key and its slot count for nobody.
    let mut ahead: BTreeSet<KeyHash> = BTreeSet::new();
    let mut slots: BTreeSet<(Shelf, u16)> = BTreeSet::new();
    for record in holders().flat_map(|(_, node)| node.records(zone)) {
        if record.stamp.wall.0 > wall + DUE_MS {
            ahead.insert(record.key());
            slots.insert((record.shelf(), record.slot));
        }
    }
    let comparable = |record: &&Arc<Record>| {
        record.is_public()
            && record.expires_at.0 > wall + ENDING_MS
            && (ahead.is_empty()
                || !ahead.contains(&record.key()) && !slots.contains(&(record.shelf(), record.slot)))
    };
    let mut nodes = holders();
    // Each against the first is enough: equality is transitive.
    // All are compared with the first: if each agrees with it they agree with each other.
    let (first, one) = nodes.next()?;
    for (at, other) in nodes {
        let mut theirs = other.records(zone).filter(comparable);
        let mut ours = one.records(zone).filter(comparable);
        // Records come in the order of their keys, so equal registries walk in step.
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => break,
                (Some(our), Some(their)) if our == their => {}
                (our, their) => {
                    return Some(format!("node {first} holds {our:?} where node {at} holds {their:?}"));
                }
            }
        }
    }
    // Roots cover also the keys that were left out above.
    // A record that some may refuse is in some fingerprints and not in others, rightly.
    if ahead.is_empty() { different_fingerprints(zone, fabric) } else { None }
}

fn different_fingerprints(zone: &ZoneName, fabric: &mut Fabric) -> Option<String> {
    // At least `ENDING_MS` ahead: what ends before that may be held by some and not by others.
    let as_of = fingerprint::as_of(Timestamp(fabric.kernel.wall() + ENDING_MS / 2));
    let nodes = fabric.nodes.running_mut();
    let roots: BTreeSet<_> = nodes.filter_map(|node| node.fingerprint(zone, as_of)).map(|it| it.0).collect();
    (roots.len() > 1).then(|| format!("{} fingerprints of equal registries", roots.len()))
}
