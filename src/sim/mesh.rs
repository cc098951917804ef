//! The modelled mesh: what gossipsub does with eager push alone.
//!
//! A first copy goes to the node, and onward only after it was accepted; later copies are dropped by content hash. Lazy
//! repair is left out, which makes loss worse than it is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rand::RngExt;
use sha2::{Digest, Sha256};

use super::{Cargo, Check, Due, World};
use crate::proto::io::{GossipId, Input, Verdict};
use crate::proto::name::ZoneName;

/// How long the mesh remembers the ids of messages, as in gossipsub, milliseconds. Counted from when a message was first
/// seen anywhere: it reaches everybody within seconds.
const SEEN_MS: u64 = 60_000;
/// How long a sender waits at least before it sends a lost message again, as TCP, milliseconds.
const RETRANSMIT_MS: u64 = 200;
/// Times a message is sent again at most; the wait doubles each time.
const RETRANSMITS_MAX: u32 = 8;

/// What happens to a message that is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossMode {
    /// It is gone, as from a full queue.
    #[default]
    Drop,
    /// It comes later, as over TCP and QUIC.
    Retransmit,
}

/// A mesh message on its way.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) id: GossipId,
    pub(super) bytes: Box<[u8]>,
    /// Whether it is no beacon.
    pub(super) has_records: bool,
    /// Its place among all messages of a run.
    number: u64,
}

/// A message that waits for its verdict.
pub(super) struct Awaiting {
    pub(super) at: usize,
    pub(super) from: usize,
    pub(super) packet: Arc<Packet>,
}

/// Who saw which message.
#[derive(Default)]
pub(super) struct Mesh {
    /// Numbers of the messages that are remembered.
    numbers: BTreeMap<GossipId, u64>,
    /// When each was first seen, its id, and a bit for each machine that saw it; the first has number `first`.
    seen: VecDeque<(u64, GossipId, Box<[u64]>)>,
    first: u64,
    pub(super) awaiting: Option<Awaiting>,
}

/// Whether a message is new to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    First,
    Again,
}

impl Mesh {
    /// The number of a message; a new one if it is not remembered.
    fn number(&mut self, now: u64, id: GossipId, machines: usize) -> u64 {
        while let Some((_, old, _)) = self.seen.pop_front_if(|(at, ..)| *at + SEEN_MS <= now) {
            self.numbers.remove(&old);
            self.first += 1;
        }
        let next = self.first + self.seen.len() as u64;
        let number = *self.numbers.entry(id).or_insert(next);
        if number == next {
            self.seen.push_back((now, id, vec![0; machines.div_ceil(64)].into()));
        }
        number
    }

    /// Notes that a machine has a message.
    fn see(&mut self, number: u64, machine: usize) -> Option<Seen> {
        let at = number.checked_sub(self.first)?;
        let (_, _, seen) = self.seen.get_mut(at as usize)?;
        let (word, bit) = (&mut seen[machine / 64], 1 << (machine % 64));
        let before = *word & bit;
        *word |= bit;
        Some(if before == 0 { Seen::First } else { Seen::Again })
    }

    /// A machine stopped: it remembers no message.
    pub(super) fn forget(&mut self, machine: usize) {
        for (_, _, seen) in &mut self.seen {
            seen[machine / 64] &= !(1 << (machine % 64));
        }
    }
}

impl World {
    /// The mesh takes a message from the node that made it.
    pub(super) fn publish(&mut self, at: usize, bytes: Vec<u8>, has_records: bool) {
        let packet = self.packet(bytes, has_records);
        if self.mesh.see(packet.number, at) == Some(Seen::First) {
            self.spread(at, None, &packet);
        }
    }

    /// A message for the mesh.
    pub(super) fn packet(&mut self, bytes: Vec<u8>, has_records: bool) -> Arc<Packet> {
        let id = gossip_id(&bytes);
        let number = self.mesh.number(self.now, id, self.machines.len());
        Arc::new(Packet { id, bytes: bytes.into(), has_records, number })
    }

    /// A copy reached a machine.
    pub(super) fn arrive_packet(&mut self, from: usize, to: usize, packet: Arc<Packet>) {
        let seen = self.mesh.see(packet.number, to).or_else(|| {
            // Forgotten on its way, to a machine that slept.
            let number = self.mesh.number(self.now, packet.id, self.machines.len());
            self.mesh.see(number, to)
        });
        if seen == Some(Seen::Again) && packet.has_records {
            self.tally.duplicates += 1;
        }
        if seen == Some(Seen::First) {
            let (id, peer) = (packet.id, self.machines[from].key);
            let bytes = packet.bytes.to_vec();
            self.mesh.awaiting = Some(Awaiting { at: to, from, packet });
            self.tell(to, Input::Gossip { id, peer, zone: ZoneName::root(), bytes });
            if self.mesh.awaiting.is_some() {
                self.fail(Check::QueuesBounded, format!("machine {to} gives no verdict"));
            }
        }
    }

    /// A message is forwarded only after its verdict. Nobody honest may be blamed.
    pub(super) fn judge(&mut self, at: usize, id: GossipId, verdict: Verdict) {
        let Some(Awaiting { from, packet, .. }) =
            self.mesh.awaiting.take_if(|it| it.at == at && it.packet.id == id)
        else {
            return self.fail(Check::QueuesBounded, format!("machine {at} judges a message twice"));
        };
        match verdict {
            Verdict::Accept => self.spread(at, Some(from), &packet),
            Verdict::Ignore => {}
            Verdict::Reject if !(self.is_honest(at) && self.is_honest(from)) => {}
            Verdict::Reject => {
                self.fail(Check::NobodyBlamed, format!("machine {at} rejects a message of machine {from}"));
            }
        }
    }

    pub(super) fn spread(&mut self, at: usize, source: Option<usize>, packet: &Arc<Packet>) {
        for number in 0..self.network.links.degree(at) {
            let (other, link) = self.network.links.at(at, number);
            if Some(other) != source {
                self.send_copies(at, other, link, packet);
            }
        }
    }

    /// Sends a message over one link, if it is up: once or twice.
    pub(super) fn send_copies(&mut self, at: usize, other: usize, link: usize, packet: &Arc<Packet>) {
        let Some(epoch) = self.network.links.epoch(link) else { return };
        let copies = 1 + u64::from(self.chance(self.network.conditions.duplication));
        for _ in 0..copies {
            self.send_packet(at, other, link, epoch, packet.clone());
        }
    }

    fn send_packet(&mut self, from: usize, to: usize, link: usize, epoch: u32, packet: Arc<Packet>) {
        let mut latency = self.latency(from, to);
        let wait = RETRANSMIT_MS.max(3 * latency);
        self.network.counts.sent += 1;
        self.tally.sent(&packet);
        let (loss, mode) = (self.network.conditions.loss, self.network.conditions.loss_mode);
        let mut losses = 0;
        while losses < RETRANSMITS_MAX && self.chance(loss) {
            match mode {
                LossMode::Drop => return self.lose(to, &Cargo::Packet(packet)),
                LossMode::Retransmit => latency += wait << losses,
            }
            losses += 1;
        }
        let (to, link, cargo) = (to as u32, link as u32, Cargo::Packet(packet));
        self.schedule(latency, Due::Arrive { to, link, epoch, cargo });
    }

    /// Whether something of this probability happens. What never happens draws nothing.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.random_bool(probability)
    }
}

fn gossip_id(bytes: &[u8]) -> GossipId {
    let mut id = [0; 20];
    id.copy_from_slice(&Sha256::digest(bytes)[..20]);
    GossipId(id)
}
