//! What must hold once the world is repaired and quiet: all agree, and everybody serves what clients were promised.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::World;
use super::check::{Acknowledged, Check, Operation, Violation};
use super::hostile::Conduct;
use super::workload::{full_name, text_of};
use crate::proto::fingerprint;
use crate::proto::identity::AgentId;
use crate::proto::name::{AgentName, ZoneName};
use crate::proto::record::{KeyHash, Record, RecordHash};
use crate::proto::time::Timestamp;

/// Records that end within this are not compared: some hold them and some do not, rightly.
pub(super) const ENDING_MS: u64 = 120_000;
/// Records stamped further ahead than this may be refused by a clock a little behind: less than the time bound by more
/// than twice the largest skew.
pub(super) const DUE_MS: u64 = 50_000;

/// What is served in the end against what was promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Withdrawn agents that some node still serves.
    pub zombies: usize,
    /// Offered agents that some node does not serve as they were offered last.
    pub lost: usize,
}

/// What a machine serves of an agent.
enum Served {
    Nothing,
    /// Whether it is what was offered last, with the record.
    Card(bool, Arc<Record>),
}

impl World {
    /// What must hold once the world is repaired and quiet.
    pub fn check_settled(&mut self) -> Result<(), Violation> {
        self.check_all_machines();
        self.check_signatures();
        for at in self.honest() {
            self.check_claims_of_all(at);
            self.check_forks(at);
            self.check_own_keys(at);
        }
        if let Some((check, detail)) = self.unsettled() {
            self.fail(check, detail);
        }
        self.violated()
    }

    /// What does not hold yet of what must hold in the end.
    pub fn unsettled(&mut self) -> Option<(Check, String)> {
        if let Some(detail) = self.disagreement() {
            return Some((Check::Agreement, detail));
        }
        let mut checked = BTreeMap::new();
        let agents: Vec<_> = self.reference.agents.keys().cloned().collect();
        agents.iter().find_map(|(host, name)| {
            let by = if self.is_honest(*host) { self.honest() } else { Vec::new() };
            by.into_iter().find_map(|at| self.broken_promise(at, *host, name, &mut checked))
        })
    }

    /// What is served in the end, whatever the reason.
    pub fn kept(&mut self) -> Kept {
        let (mut kept, mut checked) = (Kept::default(), BTreeMap::new());
        for ((host, name), agent) in self.reference.agents.clone() {
            if !self.is_honest(host) {
                continue;
            }
            let served: Vec<Served> = self
                .honest()
                .into_iter()
                .filter_map(|at| self.served(at, host, &name, &agent, &mut checked))
                .collect();
            match agent.operation {
                Operation::Withdrawn => {
                    kept.zombies += usize::from(served.iter().any(|it| matches!(it, Served::Card(..))));
                }
                Operation::Offered(_) => {
                    kept.lost += usize::from(served.iter().any(|it| !matches!(it, Served::Card(true, _))));
                }
            }
        }
        kept
    }

    /// Everybody serves what was last promised of an agent. Exempt is also a write whose version its author used twice,
    /// as a restored backup does that writes before it hears of its own head: the node sees and shows the fork, and
    /// cannot know which of the two was its own.
    fn broken_promise(
        &mut self,
        at: usize,
        host: usize,
        name: &AgentName,
        checked: &mut BTreeMap<RecordHash, bool>,
    ) -> Option<(Check, String)> {
        let agent = self.reference.agents.get(&(host, name.clone()))?;
        if self.reference.is_exempt(agent, self.wall()) || self.reference.is_forked(&agent.order) {
            return None;
        }
        let agent = agent.clone();
        let due_until = Timestamp(self.wall() + DUE_MS);
        let own =
            self.machines[host].node.as_ref().and_then(|node| node.record(&ZoneName::root(), &agent.key));
        // Written with a clock ahead: refused elsewhere until it is due.
        let due = own.is_none_or(|own| own.stamp.wall <= due_until);
        let own = own.cloned();
        if !due && at != host {
            return None;
        }
        match (&agent.operation, self.served(at, host, name, &agent, checked)?) {
            (Operation::Withdrawn, Served::Card(_, seen)) => {
                let detail =
                    format!("machine {at} serves {name} of machine {host}: {seen:?}; host has {own:?}");
                Some((Check::NoZombie, detail))
            }
            (Operation::Offered(promised), Served::Nothing) => {
                let detail = format!(
                    "machine {at} does not serve {name} of machine {host}, {promised:?}; host has {own:?}"
                );
                Some((Check::NoLostWrite, detail))
            }
            (Operation::Offered(promised), Served::Card(false, seen)) => {
                let text = seen.card().map(|card| text_of(&card));
                let detail = format!(
                    "machine {at} serves {seen:?} ({text:?}) for {name} of machine {host}, not {promised:?}; host has {own:?}"
                );
                Some((Check::NoLostWrite, detail))
            }
            (Operation::Withdrawn, Served::Nothing) | (Operation::Offered(_), Served::Card(true, _)) => None,
        }
    }

    /// What a machine that is up serves of an agent; cards are decoded once for all machines.
    fn served(
        &mut self,
        at: usize,
        host: usize,
        name: &AgentName,
        agent: &Acknowledged,
        checked: &mut BTreeMap<RecordHash, bool>,
    ) -> Option<Served> {
        let id = AgentId::of(self.machines[host].key, &full_name(name.clone()));
        let (node, now) = self.node(at)?;
        // Mostly it is the very record that was acknowledged.
        if let (Operation::Offered(_), Some(held)) =
            (&agent.operation, node.record(&ZoneName::root(), &agent.key))
            && held.order() == agent.order
            && !held.is_expired(now)
        {
            return Some(Served::Card(true, held.clone()));
        }
        let Some(found) = node.agent(now, &id) else { return Some(Served::Nothing) };
        let is_right = *checked.entry(found.record.hash()).or_insert_with(|| match &agent.operation {
            Operation::Offered(text) => text_of(&found.card()) == *text,
            Operation::Withdrawn => false,
        });
        Some(Served::Card(is_right, found.record))
    }

    /// Two machines that do not hold the same of what all should hold.
    pub(super) fn disagreement(&mut self) -> Option<String> {
        let wall = self.wall();
        let root = ZoneName::root();
        let ahead: BTreeSet<KeyHash> = self
            .nodes()
            .flat_map(|(_, node)| node.records(&root))
            .filter(|record| record.stamp.wall.0 > wall + DUE_MS)
            .map(|record| record.key())
            .collect();
        let comparable = |record: &&Arc<Record>| {
            record.is_public()
                && record.expires_at.0 > wall + ENDING_MS
                && (ahead.is_empty() || !ahead.contains(&record.key()))
        };
        let mut nodes = self.nodes();
        let (first, one) = nodes.next()?;
        for (at, other) in nodes {
            let mut theirs = other.records(&root).filter(comparable);
            let mut ours = one.records(&root).filter(comparable);
            loop {
                match (ours.next(), theirs.next()) {
                    (None, None) => break,
                    (Some(our), Some(their)) if our == their => {}
                    (our, their) => {
                        return Some(format!(
                            "machine {first} holds {our:?} where machine {at} holds {their:?}"
                        ));
                    }
                }
            }
        }
        if ahead.is_empty() { self.different_fingerprints() } else { None }
    }

    fn different_fingerprints(&mut self) -> Option<String> {
        let as_of = fingerprint::as_of(Timestamp(self.wall() + ENDING_MS / 2));
        let honest = self.machines.iter_mut().filter(|machine| machine.malice.conduct == Conduct::Honest);
        let nodes = honest.filter_map(|machine| machine.node.as_mut());
        let roots: BTreeSet<_> =
            nodes.filter_map(|node| node.fingerprint(&ZoneName::root(), as_of)).map(|root| root.0).collect();
        (roots.len() > 1).then(|| format!("{} fingerprints of equal registries", roots.len()))
    }

    /// Every distinct record is verified anew, by nothing that the nodes used.
    fn check_signatures(&mut self) {
        let root = ZoneName::root();
        let held = self.nodes().flat_map(|(at, node)| node.records(&root).map(move |record| (at, record)));
        let mut distinct: BTreeMap<RecordHash, (usize, Arc<Record>)> = BTreeMap::new();
        for (at, record) in held {
            distinct.entry(record.hash()).or_insert_with(|| (at, record.clone()));
        }
        for (at, record) in distinct.into_values() {
            self.check_signature(at, &record);
        }
    }
}
