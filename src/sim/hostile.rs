//! Machines of an adversary. They act through the same links and streams as everybody, and know all that is to know.
//!
//! A hostile machine runs a real node; between it and the network stands its [`Conduct`]: `withhold` decides what the
//! node hears, `distort` what becomes of what it says, `scheme` what the machine does by itself. Nobody cuts a hostile
//! machine off, however often it is blamed: the live node would, so its world here is worse than it is.
//!
//! What honest machines are promised among hostile ones is what `check` checks. `lie` below has the lies.

mod lie;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rand::RngExt;
use rand::seq::IteratorRandom;
use serde_bytes::ByteBuf;

use super::fault::Fault;
use super::mesh::Packet;
use super::network::Toward;
use super::workload::offer;
use super::{Check, Due, Frame, Outcome, Plan, Violation, World};
use crate::proto::codec;
use crate::proto::config::Quota;
use crate::proto::fingerprint::{self, Digest};
use crate::proto::identity::{Identity, PeerKey};
use crate::proto::io::{Command, Input, NodeAlert, Output, Verdict};
use crate::proto::message::{Envelope, SyncAnswer, SyncFrame, SyncRequest};
use crate::proto::name::{AgentName, ZoneName};
use crate::proto::record::{Header, SignedRecord};
use lie::Liar;

/// Time between two batches of a Sybil, milliseconds.
const SYBIL_MS: u64 = 200;
/// Time between two repetitions of a liar, milliseconds.
const REPEAT_MS: u64 = 3_000;
/// Agents that a Sybil offers at once: fifty a second, each signed, merged and spread.
const SYBIL_BATCH: u32 = 10;
/// Messages that a liar keeps to repeat them later.
const HOARD_MAX: usize = 256;

/// How a machine deals with others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conduct {
    /// As the protocol says.
    #[default]
    Honest,
    /// Takes every message and forwards none; compares registries as others do.
    Mute,
    /// Hears nothing new, forwards nothing and asks nobody: it answers from what it held when it became so, which is
    /// nothing if it was so from the start.
    Stale,
    /// Offers this many agents as fast as it can. Its own node knows no quota, if it started so.
    Sybil {
        /// How many.
        offers: u32,
    },
    /// Signs two records with each version and shows one to each half of the world.
    Equivocate,
    /// Lies when registries are compared, forges what it forwards, repeats what is old.
    Lie,
}

/// A machine's conduct, and what it needs for that.
#[derive(Debug, Default)]
pub(super) struct Malice {
    pub(super) conduct: Conduct,
    /// Agents offered so far.
    offered: u32,
    hoard: VecDeque<Arc<Packet>>,
    is_scheming: bool,
}

impl Malice {
    /// What the machine's node may hold.
    pub(super) fn quota(&self, honest: Quota) -> Quota {
        match self.conduct {
            Conduct::Sybil { .. } => Quota { records_per_author: usize::MAX, bytes: usize::MAX },
            _ => honest,
        }
    }
}

/// What hostile machines came to. An honest machine that is blamed by another ends the run, so there is no number of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hostilities {
    /// Times that an honest machine blamed a hostile one, by the reason it gave.
    pub blamed: BTreeMap<&'static str, u64>,
    /// Records of hostile authors held by an honest node, mean over those that are up.
    pub foreign_records: f64,
    /// Share of the honest nodes that are up which saw the proof of a forked hostile author.
    pub forks_seen: f64,
}

impl Plan {
    /// Draws a run in which one to three of five to seven machines are hostile.
    pub fn draw_hostile(rng: &mut impl rand::Rng) -> Plan {
        let hostile = rng.random_range(1..=3);
        let machines = 4 + hostile;
        let mut plan = Plan::draw_of(machines, rng);
        let victim = rng.random_range(0..machines);
        let others = (0..machines).filter(|at| *at != victim);
        for at in others.sample(rng, hostile) {
            let conduct = match rng.random_range(0..6) {
                0 => Conduct::Mute,
                1 => Conduct::Stale,
                2 => Conduct::Sybil { offers: 40 },
                3 => Conduct::Equivocate,
                _ => Conduct::Lie,
            };
            // Some are hostile from the start, some turn.
            let at_ms = if rng.random() { 0 } else { rng.random_range(0..plan.span_ms) };
            plan.faults.push((at_ms, Fault::Corrupt(at, conduct)));
        }
        if rng.random_bool(0.3) {
            let (from, until) = (rng.random_range(0..plan.span_ms), rng.random_range(0..plan.span_ms));
            plan.faults.push((from.min(until), Fault::Eclipse(Some(victim))));
            plan.faults.push((from.max(until), Fault::Eclipse(None)));
        }
        // More than the honest machines of a plan write, and less than a Sybil.
        plan.setup.quota.records_per_author = 12;
        plan
    }
}

impl World {
    /// As [`World::play`], among hostile machines.
    pub fn play_hostile(seed: u64) -> Result<Outcome, Violation> {
        let plan = Plan::draw_hostile(&mut World::rng_of_plans(seed));
        World::new(seed, plan.setup.clone()).play_plan(&plan)
    }

    /// As [`World::play_hostile`], with the story of the run.
    pub fn play_hostile_told(seed: u64) -> (Vec<String>, Result<Outcome, Violation>) {
        let plan = Plan::draw_hostile(&mut World::rng_of_plans(seed));
        let mut world = World::new(seed, plan.setup.clone());
        world.listen();
        let played = world.play_plan(&plan);
        (world.told(), played)
    }

    /// Changes how a machine deals with others, now.
    pub fn corrupt(&mut self, machine: usize, conduct: Conduct) {
        self.fault(Fault::Corrupt(machine, conduct));
    }

    /// A hostile machine gives a message of its own making to the mesh, now.
    pub fn inject(&mut self, machine: usize, bytes: Vec<u8>) {
        let has_records = !is_beacon(&bytes);
        self.publish(machine, bytes, has_records);
    }

    /// What hostile machines came to so far.
    pub fn hostilities(&self) -> Hostilities {
        let root = ZoneName::root();
        let up = (0..self.machines.len()).filter(|at| self.is_honest(*at));
        let up: Vec<_> = up.filter_map(|at| self.machines[at].node.as_ref()).collect();
        let foreign = up.iter().flat_map(|node| node.records(&root));
        let foreign = foreign.filter(|record| !self.is_honest_key(&record.author.key)).count();
        let saw = up.iter().filter(|node| {
            node.alerts()
                .any(|it| matches!(it, NodeAlert::ForkedAuthor(author) if !self.is_honest_key(&author.key)))
        });
        let saw = saw.count();
        let share = |count: usize| count as f64 / up.len().max(1) as f64;
        Hostilities { blamed: self.blamed.clone(), foreign_records: share(foreign), forks_seen: share(saw) }
    }

    /// Whether a machine deals with others as the protocol says.
    pub fn is_honest(&self, at: usize) -> bool {
        self.machines[at].malice.conduct == Conduct::Honest
    }

    /// Whether a key is that of an honest machine.
    pub(super) fn is_honest_key(&self, key: &PeerKey) -> bool {
        self.by_key.get(key).is_some_and(|at| self.is_honest(*at))
    }

    /// Whether some machine lies: then a prefix of versions may be a liar's word, until the next comparison.
    pub(super) fn is_lied_to(&self) -> bool {
        self.machines.iter().any(|machine| machine.malice.conduct == Conduct::Lie)
    }

    pub(super) fn turn(&mut self, at: usize, conduct: Conduct) {
        let malice = &mut self.machines[at].malice;
        malice.conduct = conduct;
        if !std::mem::replace(&mut malice.is_scheming, true) {
            self.schedule(SYBIL_MS, Due::Scheme(at));
        }
    }

    /// All links of a machine lead to hostile machines from now on; none ends it.
    pub(super) fn eclipse(&mut self, victim: Option<usize>) {
        let before = std::mem::replace(&mut self.network.eclipsed, victim);
        if let Some(victim) = victim {
            let hostile: Vec<usize> = (0..self.machines.len()).filter(|at| !self.is_honest(*at)).collect();
            for other in hostile {
                self.network.links.add(victim, other);
            }
            self.sever_all(victim);
            self.connect_all(victim);
        }
        if let Some(before) = before {
            self.connect_all(before);
        }
    }

    /// Whether an eclipse keeps two machines apart.
    pub(super) fn is_eclipsed(&self, a: usize, b: usize) -> bool {
        match self.network.eclipsed {
            Some(victim) if victim == a => self.is_honest(b),
            Some(victim) if victim == b => self.is_honest(a),
            Some(_) | None => false,
        }
    }

    /// A machine blames another: an honest one only ever a hostile one. What a hostile one says of others counts for nothing.
    pub(super) fn note_blame(&mut self, at: usize, peer: &PeerKey, reason: &'static str) {
        if !self.is_honest(at) {
            return;
        }
        if self.is_honest_key(peer) {
            let peer = self.by_key.get(peer).copied();
            self.tally.blamed.extend(peer);
            self.fail(Check::NobodyBlamed, format!("machine {at} penalises machine {peer:?}: {reason}"));
        } else {
            *self.blamed.entry(reason).or_default() += 1;
        }
    }

    /// What a machine's node hears of an input.
    pub(super) fn withhold(&mut self, at: usize, input: Input) -> Option<Input> {
        match self.machines[at].malice.conduct {
            Conduct::Stale | Conduct::Equivocate => {}
            Conduct::Honest | Conduct::Mute | Conduct::Sybil { .. } | Conduct::Lie => return Some(input),
        }
        match input {
            Input::Gossip { id, .. } => {
                self.mesh.awaiting.take_if(|it| it.packet.id == id);
                None
            }
            Input::Request { id, bytes, .. } if is_gift(&bytes) => {
                self.answer(at, id, SyncAnswer::Taken.encode());
                None
            }
            input => Some(input),
        }
    }

    /// What becomes of an output of a machine's node.
    pub(super) fn distort(&mut self, at: usize, output: Output) -> Option<Output> {
        match (self.machines[at].malice.conduct, output) {
            (Conduct::Honest | Conduct::Sybil { .. }, output) => Some(output),
            (Conduct::Lie, output) => self.lie(at, output),
            (Conduct::Equivocate, Output::Publish { bytes, .. }) if !is_beacon(&bytes) => {
                self.equivocate(at, &bytes);
                None
            }
            (Conduct::Stale | Conduct::Equivocate, Output::Request { .. }) => None,
            (_, Output::Verdict { id, verdict: Verdict::Accept }) => {
                Some(Output::Verdict { id, verdict: Verdict::Ignore })
            }
            (_, Output::Publish { bytes, .. }) if !is_own(&bytes, &self.machines[at].identity) => None,
            (_, output) => Some(output),
        }
    }

    /// What a machine does by itself, now and then.
    pub(super) fn scheme(&mut self, at: usize) {
        let again_ms = match self.machines[at].malice.conduct {
            Conduct::Sybil { offers } if self.machines[at].malice.offered < offers => {
                self.flood(at, offers);
                SYBIL_MS
            }
            Conduct::Lie => {
                self.repeat(at);
                REPEAT_MS
            }
            Conduct::Honest
            | Conduct::Mute
            | Conduct::Stale
            | Conduct::Equivocate
            | Conduct::Sybil { .. } => {
                self.machines[at].malice.is_scheming = false;
                return;
            }
        };
        self.schedule(again_ms, Due::Scheme(at));
    }

    fn flood(&mut self, at: usize, offers: u32) {
        if self.machines[at].node.is_none() {
            return;
        }
        let from = self.machines[at].malice.offered;
        let until = offers.min(from + SYBIL_BATCH);
        self.machines[at].malice.offered = until;
        let names = (from..until).filter_map(|number| format!("sybil-{number}").parse().ok());
        let offers = names.map(|name: AgentName| offer((name, "worthless".into()))).collect();
        // Number 0 is nobody's: the reference model promises nothing to a Sybil.
        self.tell(at, Input::Command { id: 0, command: Command::Register(offers) });
    }

    /// A liar sends something again that it heard at some time.
    fn repeat(&mut self, at: usize) {
        let choice = self.rng.random_range(0..HOARD_MAX);
        if let Some(old) = self.machines[at].malice.hoard.get(choice).cloned() {
            self.spread(at, None, &old);
        }
    }

    /// Shows each half of the world another record of one version: now one of the same key, now one of another.
    fn equivocate(&mut self, at: usize, bytes: &[u8]) {
        let Ok(Envelope::Records(records)) = Envelope::decode(bytes) else { return };
        let machine = &self.machines[at];
        let signed = records.iter().filter_map(|it| SignedRecord::parse(it, &machine.config.network).ok());
        let signed = signed.filter(|signed| signed.header().author.key == machine.key);
        let twins: Vec<ByteBuf> = signed.filter_map(|it| twin(it, &machine.identity)).collect();
        let shown = [bytes.to_vec(), Envelope::Records(twins).encode()];
        let shown = shown.map(|bytes| self.packet(bytes, true));
        for number in 0..self.network.links.degree(at) {
            let (other, link) = self.network.links.at(at, number);
            let half = usize::from(other >= self.machines.len() / 2);
            self.send_copies(at, other, link, &shown[half]);
        }
    }

    fn lie(&mut self, at: usize, output: Output) -> Option<Output> {
        match output {
            Output::Respond { id, bytes } => self.answer_falsely(at, id, &bytes),
            Output::Request { conversation, peer, protocol, bytes } => {
                let bytes = self.liar(at).question(bytes);
                return Some(Output::Request { conversation, peer, protocol, bytes });
            }
            Output::Verdict { id, verdict } => {
                if let Some(heard) = self.mesh.awaiting.as_ref().map(|awaiting| awaiting.packet.clone()) {
                    if verdict == Verdict::Accept {
                        let forged = self.liar(at).message(&heard.bytes);
                        let forged = self.packet(forged, heard.has_records);
                        self.spread(at, None, &forged);
                    }
                    self.hoard(at, heard);
                }
                return Some(Output::Verdict { id, verdict });
            }
            output => return Some(output),
        }
        None
    }

    fn hoard(&mut self, at: usize, packet: Arc<Packet>) {
        let hoard = &mut self.machines[at].malice.hoard;
        if hoard.len() >= HOARD_MAX {
            hoard.pop_front();
        }
        hoard.push_back(packet);
    }

    /// Answers a question with none, one or two frames. The asker's own root is known to a liar that guesses well.
    fn answer_falsely(&mut self, at: usize, id: u64, bytes: &[u8]) {
        let Some(stream) = self.network.asked.remove(&id) else { return };
        let root = self.network.asker_of(stream).map_or(Digest::default(), |asker| self.root_of(asker));
        for bytes in self.liar(at).answers(bytes, root) {
            self.send_frame(Frame { stream, toward: Toward::Asker, bytes });
        }
    }

    fn root_of(&mut self, at: usize) -> Digest {
        let Some((node, now)) = self.node(at) else { return Digest::default() };
        node.fingerprint(&ZoneName::root(), fingerprint::as_of(now)).unwrap_or_default()
    }

    fn liar(&mut self, at: usize) -> Liar<'_> {
        let wall = self.wall();
        let machine = &mut self.machines[at];
        let now = machine.clock(wall);
        let root = ZoneName::root();
        let held = machine.node.iter().flat_map(|node| node.records(&root));
        let model = held.choose(&mut self.rng).cloned();
        let (identity, network) = (&machine.identity, &machine.config.network);
        Liar { rng: &mut self.rng, identity, network, now, model }
    }
}

/// Another record of the same version: of the same key if the version is odd, else of a key of its own.
fn twin(signed: SignedRecord, author: &Identity) -> Option<ByteBuf> {
    let header = signed.header().clone();
    let mut card = signed.trust_sealed().card()?;
    card.description.push_str(", or so they say");
    let name =
        if header.seq % 2 == 1 { header.name } else { format!("{}-twin", header.name).parse().ok()? };
    let twin = SignedRecord::sign(Header { name, ..header }, &codec::encode(&card), author).ok()?;
    Some(ByteBuf::from(twin.bytes().to_vec()))
}

fn is_gift(bytes: &[u8]) -> bool {
    matches!(SyncFrame::decode(bytes), Ok(SyncFrame { request: SyncRequest::Give { .. }, .. }))
}

fn is_beacon(bytes: &[u8]) -> bool {
    matches!(Envelope::decode(bytes), Ok(Envelope::Beacon(_)))
}

/// Whether a message is a beacon or carries a node's own records.
fn is_own(bytes: &[u8], identity: &Identity) -> bool {
    match Envelope::decode(bytes) {
        Ok(Envelope::Records(records)) => {
            let first = records.first().and_then(|bytes| SignedRecord::parse(bytes, "world").ok());
            first.is_some_and(|first| first.header().author.key == identity.key())
        }
        Ok(Envelope::Beacon(_)) => true,
        Err(_) => false,
    }
}
