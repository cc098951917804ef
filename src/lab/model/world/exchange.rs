//! What nodes exchange in turns: contacts of push and pull, heartbeats of a mesh, reconciliation.

use super::World;
use crate::lab::model::counter_rng::below;
use crate::lab::model::event::EventKind;
use crate::lab::model::run_metrics::ENVELOPE_BYTES;
use crate::lab::model::transport::ROOT_BYTES;
use crate::lab::scenario::Rounds;

/// Peers beyond its links to which a node says in a heartbeat what it has: the live node's.
const LAZY_PEERS: usize = 3;
/// Draws to find such peers, or one that can be reached for a reconciliation; then the turn is left out.
const TRIES: u64 = 16;
/// Bytes of an author and its version in a digest.
const DIGEST_BYTES: u64 = 10;

impl World<'_> {
    /// A node gives what it spreads to some peers, and asks them for what they spread.
    pub(super) fn contact(&mut self, node: u32) {
        if self.transport.faults.is_up(node) {
            // Lists out of the world, as its methods borrow it whole; going back, they keep their memory.
            let (mut chosen, mut found) = (std::mem::take(&mut self.chosen), std::mem::take(&mut self.found));
            let mut draws = self.peers.draws(u64::from(node), self.transport.now);
            draws.peers(node, self.nodes, self.scenario.protocol.fanout(), &mut chosen);
            self.spoken_of(node, &mut found);
            for peer in &chosen {
                for update in &found {
                    self.transport.send(EventKind::Copy, node, *peer, *update, 0);
                }
            }
            // Before anybody answers, who fills this very list.
            self.found = found;
            for peer in &chosen {
                if self.transport.ask(EventKind::Pull, node, *peer) {
                    self.answer_pull(node, *peer);
                }
            }
            self.chosen = chosen;
        }
        // Rounds of a node that is away pass like those of the others.
        if !self.history.is_empty() {
            self.history.age(node);
        }
    }

    /// What a node spreads by push and pull.
    fn spoken_of(&self, node: u32, found: &mut Vec<u32>) {
        found.clear();
        match self.scenario.protocol.rounds {
            _ if self.transport.faults.is_mute(node) => {}
            Rounds::Times(_) => self.history.list(node, found),
            Rounds::Forever => self.updates_held.list(node, found),
        }
    }

    pub(super) fn answer_pull(&mut self, asker: u32, node: u32) {
        let mut found = std::mem::take(&mut self.found);
        self.spoken_of(node, &mut found);
        for update in found.iter().filter(|update| !self.updates_held.has(asker, **update)) {
            self.transport.send(EventKind::Copy, node, asker, *update, 0);
        }
        self.found = found;
    }

    /// A node tells peers to which it has no link what it learnt in the last heartbeats.
    pub(super) fn heartbeat(&mut self, node: u32) {
        self.history.list(node, &mut self.found);
        let speaks = self.transport.faults.is_up(node) && !self.transport.faults.is_mute(node);
        if speaks && !self.found.is_empty() {
            let links = self.graph.as_ref().map_or(&[][..], |graph| graph.links(node));
            let mut draws = self.peers.draws(u64::from(node), self.transport.now);
            self.chosen.clear();
            for _ in 0..TRIES {
                let peer = below(draws.next_u64(), u64::from(self.nodes)) as u32;
                if peer != node && !links.contains(&peer) && !self.chosen.contains(&peer) {
                    self.chosen.push(peer);
                }
                if self.chosen.len() == LAZY_PEERS {
                    break;
                }
            }
            for peer in &self.chosen {
                self.transport.metrics.bytes += ENVELOPE_BYTES;
                for update in &self.found {
                    self.transport.send(EventKind::IHave, node, *peer, *update, 0);
                }
            }
        }
        self.history.age(node);
    }

    /// A node reconciles with a random peer it is connected to: one that is up, on its side of a partition.
    pub(super) fn begin_reconcile(&mut self, node: u32) {
        // The top bit keeps these draws apart from those of contacts and heartbeats.
        let mut draws = self.peers.draws(u64::from(node), self.transport.now << 1 | 1 << 63);
        let draws = (0..TRIES).map(|_| below(draws.next_u64(), u64::from(self.nodes)) as u32);
        let faults = &self.transport.faults;
        let reaches = |peer: &u32| *peer != node && faults.is_up(*peer) && faults.are_linked(node, *peer);
        let Some(peer) = draws.collect::<Vec<_>>().into_iter().find(reaches) else { return };
        if self.transport.ask(EventKind::Reconcile, node, peer) {
            self.answer_reconcile(node, peer);
        }
    }

    pub(super) fn answer_reconcile(&mut self, asker: u32, node: u32) {
        if self.transport.faults.is_mute(node) {
            return;
        }
        // The answer's own hash, which goes back also where all is equal.
        self.transport.metrics.bytes += ROOT_BYTES + ENVELOPE_BYTES;
        let digest = self.scenario.protocol.digest;
        let gave = self.give(node, asker);
        self.updates_held.lacking(node, asker, digest, &mut self.found);
        let gets = !self.found.is_empty();
        if gave || gets {
            let vector = ENVELOPE_BYTES + DIGEST_BYTES * self.updates_held.authors() as u64;
            // One each way, after the hashes differed.
            self.transport.metrics.bytes += 2 * vector;
        }
        if gets && self.transport.ask(EventKind::Give, node, asker) {
            self.give(asker, node);
        }
    }

    /// A node gives another what that asks for by its digest. Whether there was anything.
    pub(super) fn give(&mut self, node: u32, taker: u32) -> bool {
        if self.transport.faults.is_mute(node) {
            return false;
        }
        self.updates_held.lacking(taker, node, self.scenario.protocol.digest, &mut self.found);
        for update in &self.found {
            self.transport.send(EventKind::Repair, node, taker, *update, 0);
        }
        !self.found.is_empty()
    }
}
