//! Nodes of an adversary. They act through the same links and streams as everybody, and know all that is to know.
//!
//! A hostile host runs a real node; between it and the network stands its [`Behaviour`]: `filter_input` decides what the
//! node hears, `tamper_output` what becomes of what it says, `tick` what the host does by itself. Nobody cuts a hostile
//! node off, however often it is blamed: the live node would, so its world here is worse than it is.
//!
//! What honest nodes are promised among hostile ones is what `checkers` checks. Below: `lying_peer` has the lies, `forger`
//! what is signed with keys that are no nodes.

mod forger;
mod hollow;
mod lying_peer;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rand::RngExt;
use rand::seq::IteratorRandom;
use serde_bytes::ByteBuf;

use super::checkers::Check;
use super::clients::registration;
use super::fabric::Fabric;
use super::mesh::{self, Packet};
use super::queue::Due;
use crate::proto::codec;
use crate::proto::fingerprint::{self, Digest};
use crate::proto::identity::{Identity, PeerKey};
use crate::proto::io::{Command, Input, Output, Protocol, Verdict};
use crate::proto::limits::SLOTS;
use crate::proto::message::{Envelope, SyncAnswer, SyncFrame, SyncRequest};
use crate::proto::name::{AgentName, ZoneName};
use crate::proto::node::Node;
use crate::proto::record::{Record, SignedRecord};
use crate::proto::zone::Zone;
pub use forger::Names;
use hollow::hollow;
use lying_peer::LyingPeer;

/// Time between two batches of a Sybil, or of what is forged, milliseconds.
const SYBIL_MS: u64 = 200;
/// Time between two repetitions of a liar, milliseconds.
const REPEAT_MS: u64 = 3_000;
/// Agents that a Sybil offers at once: fifty a second, each signed, merged and spread.
const SYBIL_BATCH: u32 = 10;
/// How long a staller says that it is busy, milliseconds: as long as an asker sits out, so that it asks again and again.
const STALLED_MS: u64 = 5_000;
/// Messages that a liar keeps to repeat them later.
const REPLAY_BUFFER_MAX: usize = 256;

/// How a node deals with others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// As the protocol says.
    #[default]
    Honest,
    /// Takes every message and forwards none; compares registries as others do.
    Mute,
    /// Hears nothing new, forwards nothing and asks nobody: it answers from what it held when it became so, which is
    /// nothing if it was so from the start.
    Stale,
    /// Offers this many agents as fast as it can. Its own node knows no end of room, if it started so.
    Sybil {
        /// How many.
        offers: u32,
    },
    /// Signs two records with each version and shows one to each half of the world.
    Equivocate,
    /// Lies when registries are compared, forges what it forwards, repeats what is old.
    Lie,
    /// Gives the mesh records of fresh keys, each of which takes its slots from the first one up.
    Fill {
        /// How many, of all keys.
        records: u32,
        /// Of so many keys.
        identities: u32,
        /// And their names.
        names: Names,
    },
    /// Gives the mesh so many beacons of fresh keys, that ask not to be missed for hours.
    FalseBeacons {
        /// How many.
        beacons: u32,
    },
    /// Says to whoever asks that it speaks for its zones and all below, and that nothing is there. Compares registries as others
    /// do, and says there that it speaks for them.
    Hollow,
    /// Says to whoever asks that it speaks for its home zone and all below, and that nothing lies below.
    Hide,
    /// Gives the mesh delegations of zones below its home that nobody serves, by hosts that nobody is.
    Invent {
        /// How many.
        zones: u32,
    },
    /// As an earlier version: it knows no questions of others, answers none and asks none.
    Older,
    /// Answers no comparison in time: says nothing, is busy for ever, or brings one record after the other.
    Stall,
}

impl Behaviour {
    /// What the records of a zone may weigh on a node that behaves so.
    pub(super) fn zone_weight_max(self, honest: usize) -> usize {
        match self {
            Behaviour::Sybil { .. } => usize::MAX,
            _ => honest,
        }
    }
}

/// What hostile nodes came to. An honest node that is blamed by another ends the run, so there is no number of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdversaryReport {
    /// Times that an honest node blamed a hostile one, by the reason it gave.
    pub blamed: BTreeMap<&'static str, u64>,
    /// Records of hostile authors held by an honest node, mean over those that are up.
    pub foreign_records: f64,
    /// Share of the honest nodes that are up which saw the proof of a forked hostile author.
    pub forks_seen: f64,
}

/// What a hostile node needs for its behaviour.
#[derive(Default)]
struct AdversaryState {
    /// Agents offered, or records and beacons forged, so far.
    offered: u32,
    /// The keys that it forges with.
    identities: Vec<Identity>,
    replay_buffer: VecDeque<Arc<Packet>>,
    is_ticking: bool,
}

/// The adversary: what its nodes need, and how often they were found out.
pub(super) struct Adversary {
    states: Vec<AdversaryState>,
    /// Times that an honest node blamed a hostile one, by reason.
    blamed: BTreeMap<&'static str, u64>,
}

/// What a hostile node does by itself.
pub(super) struct Tick {
    /// What it tells its own node first.
    pub(super) input: Option<Input>,
    /// When its next turn is.
    pub(super) again_ms: u64,
}

impl Adversary {
    pub(super) fn new(nodes: usize) -> Adversary {
        let states = (0..nodes).map(|_| AdversaryState::default()).collect();
        Adversary { states, blamed: BTreeMap::new() }
    }

    /// A node deals with others in another way from now on.
    pub(super) fn corrupt(&mut self, at: usize, behaviour: Behaviour, fabric: &mut Fabric) {
        fabric.nodes[at].behaviour = behaviour;
        // One chain of ticks a node, which serves whatever behaviour it has by then.
        if !std::mem::replace(&mut self.states[at].is_ticking, true) {
            fabric.kernel.schedule(SYBIL_MS, Due::AdversaryTick(at));
        }
    }

    /// A node blames another: an honest one only ever a hostile one. What a hostile one says of others counts for nothing.
    pub(super) fn note_blame(
        &mut self,
        at: usize,
        peer: &PeerKey,
        reason: &'static str,
        fabric: &mut Fabric,
    ) {
        if !fabric.nodes.is_honest(at) {
            return;
        }
        if fabric.nodes.is_honest_key(peer) {
            let peer = fabric.nodes.number_of(peer);
            fabric.kernel.metrics.blamed.extend(peer);
            fabric.kernel.fail(Check::NobodyBlamed, format!("node {at} penalises node {peer:?}: {reason}"));
        } else {
            *self.blamed.entry(reason).or_default() += 1;
        }
    }

    /// What hostile nodes came to so far.
    pub(super) fn report(&self, fabric: &Fabric) -> AdversaryReport {
        let up: Vec<_> = fabric.nodes.running().map(|(_, node)| node).collect();
        let foreign = up.iter().flat_map(|node| held(node));
        let foreign = foreign.filter(|record| !fabric.nodes.is_honest_key(&record.author().key)).count();
        let is_hostile = |key: &PeerKey| !fabric.nodes.is_honest_key(key);
        let saw = up.iter().filter(|node| node.forks().any(|(author, _)| is_hostile(&author.key)));
        let saw = saw.count();
        let share = |count: usize| count as f64 / up.len().max(1) as f64;
        AdversaryReport {
            blamed: self.blamed.clone(),
            foreign_records: share(foreign),
            forks_seen: share(saw),
        }
    }

    /// What a node hears of an input.
    pub(super) fn filter_input(&mut self, at: usize, input: Input, fabric: &mut Fabric) -> Option<Input> {
        match fabric.nodes[at].behaviour {
            Behaviour::Stale | Behaviour::Equivocate => {}
            Behaviour::Honest
            | Behaviour::Mute
            | Behaviour::Sybil { .. }
            | Behaviour::Lie
            | Behaviour::Fill { .. }
            | Behaviour::FalseBeacons { .. }
            | Behaviour::Hollow
            | Behaviour::Hide
            | Behaviour::Invent { .. }
            | Behaviour::Stall => return Some(input),
            Behaviour::Older => return without_questions(input, fabric),
        }
        match input {
            Input::Gossip { id, .. } => {
                // The mesh waits for no verdict on what was never heard.
                fabric.mesh.take_awaiting(at, id);
                None
            }
            Input::Request { id, bytes, .. } if is_push(&bytes) => {
                // Answered as if it were taken: silence would be noticed.
                if let Some(stream) = fabric.network.take_asked(id) {
                    fabric.respond(stream, SyncAnswer::Taken.encode());
                }
                None
            }
            input => Some(input),
        }
    }

    /// What becomes of an output of a node.
    pub(super) fn tamper_output(&mut self, at: usize, output: Output, fabric: &mut Fabric) -> Option<Output> {
        let host = &fabric.nodes[at];
        match (host.behaviour, output) {
            (
                Behaviour::Honest
                | Behaviour::Sybil { .. }
                | Behaviour::Fill { .. }
                | Behaviour::FalseBeacons { .. }
                | Behaviour::Invent { .. },
                output,
            ) => Some(output),
            (Behaviour::Lie, output) => self.lie(at, output, fabric),
            (Behaviour::Hollow, Output::Respond { id, bytes }) => {
                Some(Output::Respond { id, bytes: hollow(bytes, |_| false) })
            }
            (Behaviour::Hide, Output::Respond { id, bytes }) => {
                let (home, network) = (host.home_zone(), &host.config.network);
                let is_home = |record: &[u8]| {
                    SignedRecord::parse(record, network).is_ok_and(|it| it.header().zone == home)
                };
                Some(Output::Respond { id, bytes: hollow(bytes, is_home) })
            }
            (Behaviour::Older, Output::Request { protocol: Protocol::Ask, conversation, .. }) => {
                fabric.refuse(at, conversation);
                None
            }
            (Behaviour::Hollow | Behaviour::Hide | Behaviour::Older, output) => Some(output),
            (Behaviour::Stall, Output::Respond { id, bytes }) => {
                stall(id, &bytes, fabric);
                None
            }
            (Behaviour::Stall, output) => Some(output),
            (Behaviour::Equivocate, Output::Publish { zone, bytes }) if !is_beacon(&bytes) => {
                equivocate(at, &zone, &bytes, fabric);
                None
            }
            // Comparing registries would bring it what it is not to hear.
            (Behaviour::Stale | Behaviour::Equivocate, Output::Request { .. }) => None,
            // What is ignored is not forwarded, and its sender not blamed.
            (_, Output::Verdict { id, verdict: Verdict::Accept }) => {
                Some(Output::Verdict { id, verdict: Verdict::Ignore })
            }
            // Repairs are published again by the node itself, which would be forwarding, too.
            (_, Output::Publish { bytes, .. }) if !is_own(&bytes, &host.identity, &host.config.network) => {
                None
            }
            (_, output) => Some(output),
        }
    }

    /// What a node does by itself, now and then; none if it has no more to do.
    pub(super) fn tick(&mut self, at: usize, fabric: &mut Fabric) -> Option<Tick> {
        match fabric.nodes[at].behaviour {
            Behaviour::Sybil { offers } if self.states[at].offered < offers => {
                Some(Tick { input: self.flood(at, offers, fabric), again_ms: SYBIL_MS })
            }
            Behaviour::Lie => {
                self.repeat(at, fabric);
                Some(Tick { input: None, again_ms: REPEAT_MS })
            }
            Behaviour::Fill { records, identities, names } if self.states[at].offered < records => {
                self.fill(at, records, identities, names, fabric);
                Some(Tick { input: None, again_ms: SYBIL_MS })
            }
            Behaviour::FalseBeacons { beacons } if self.states[at].offered < beacons => {
                self.pretend(at, beacons, fabric);
                Some(Tick { input: None, again_ms: SYBIL_MS })
            }
            Behaviour::Invent { zones } if self.states[at].offered < zones => {
                self.invent(at, zones, fabric);
                Some(Tick { input: None, again_ms: SYBIL_MS })
            }
            Behaviour::Honest
            | Behaviour::Mute
            | Behaviour::Stale
            | Behaviour::Equivocate
            | Behaviour::Sybil { .. }
            | Behaviour::Fill { .. }
            | Behaviour::FalseBeacons { .. }
            | Behaviour::Hollow
            | Behaviour::Hide
            | Behaviour::Invent { .. }
            | Behaviour::Older
            | Behaviour::Stall => {
                self.states[at].is_ticking = false;
                None
            }
        }
    }

    fn flood(&mut self, at: usize, offers: u32, fabric: &Fabric) -> Option<Input> {
        // Offers are not used up while nobody is there to make them.
        fabric.nodes[at].node.as_ref()?;
        let from = self.states[at].offered;
        let until = offers.min(from + SYBIL_BATCH);
        self.states[at].offered = until;
        let names = (from..until).filter_map(|number| format!("sybil-{number}").parse().ok());
        let offers = names.map(|name: AgentName| registration((name, "worthless".into()), None)).collect();
        // Number 0 is nobody's: the reference model promises nothing to a Sybil.
        Some(Input::Command { id: 0, command: Command::Register(offers) })
    }

    /// A liar sends something again that it heard at some time.
    fn repeat(&mut self, at: usize, fabric: &mut Fabric) {
        // Over a full buffer whatever it holds, so the draw does not depend on what was heard.
        // Drawn over the whole buffer: a young liar mostly has nothing to repeat.
        let choice = fabric.kernel.rng.random_range(0..REPLAY_BUFFER_MAX);
        if let Some(old) = self.states[at].replay_buffer.get(choice) {
            fabric.spread(at, None, old);
        }
    }

    fn lie(&mut self, at: usize, output: Output, fabric: &mut Fabric) -> Option<Output> {
        match output {
            Output::Respond { id, bytes } => answer_falsely(at, id, &bytes, fabric),
            Output::Request { conversation, peer, protocol, bytes } => {
                let bytes = liar(at, fabric).question(bytes);
                return Some(Output::Request { conversation, peer, protocol, bytes });
            }
            Output::Verdict { id, verdict } => {
                // The mesh has the message only until the verdict reaches it.
                if let Some(heard) = fabric.mesh.awaiting().cloned() {
                    if verdict == Verdict::Accept {
                        let forged = liar(at, fabric).message(&heard.bytes);
                        let forged = fabric.packet(heard.zone.clone(), forged, heard.has_records);
                        fabric.spread(at, None, &forged);
                    }
                    // Also what its own node rejected: an old forgery is a forgery still.
                    self.keep_for_replay(at, heard);
                }
                return Some(Output::Verdict { id, verdict });
            }
            output => return Some(output),
        }
        None
    }

    fn keep_for_replay(&mut self, at: usize, packet: Arc<Packet>) {
        let buffer = &mut self.states[at].replay_buffer;
        if buffer.len() >= REPLAY_BUFFER_MAX {
            buffer.pop_front();
        }
        buffer.push_back(packet);
    }
}

/// What a node hears that knows no questions: whoever opens a stream for one is refused.
fn without_questions(input: Input, fabric: &mut Fabric) -> Option<Input> {
    let Input::Request { id, protocol: Protocol::Ask, .. } = input else { return Some(input) };
    if let Some((asker, conversation)) = fabric.network.asked_in(id) {
        fabric.network.take_asked(id);
        fabric.refuse(asker, conversation);
    }
    None
}

/// Shows each half of the world another record of one version: now one of the same key, now one of another.
fn equivocate(at: usize, zone: &ZoneName, bytes: &[u8], fabric: &mut Fabric) {
    let Ok(Envelope::Records(records)) = Envelope::decode(bytes) else { return };
    let host = &fabric.nodes[at];
    let signed = records.iter().filter_map(|it| SignedRecord::parse(it, &host.config.network).ok());
    // It can sign in its own name alone.
    let signed = signed.filter(|signed| signed.header().author.key == host.key);
    let twins: Vec<ByteBuf> = signed.filter_map(|it| twin(it, &host.identity)).collect();
    // Both halves hear a message of their own; neither can tell without the other.
    let shown = [bytes.to_vec(), Envelope::Records(twins).encode()];
    let shown = shown.map(|bytes| fabric.packet(zone.clone(), bytes, true));
    let Fabric { network, kernel, nodes, .. } = fabric;
    for number in 0..network.links.degree(at) {
        let (other, link) = network.links.at(at, number);
        let half = usize::from(other >= nodes.count() / 2);
        mesh::send_copies(at, (other, link), &shown[half], nodes, network, kernel);
    }
}

/// Answers a question with none, one or two frames. The asker's own root is known to a liar that guesses well.
fn answer_falsely(at: usize, id: u64, bytes: &[u8], fabric: &mut Fabric) {
    let Some(stream) = fabric.network.take_asked(id) else { return };
    let asker = fabric.network.asker_of(stream);
    let root = asker.map_or(Digest::default(), |asker| root_of(asker, fabric));
    for bytes in liar(at, fabric).answers(bytes, root) {
        fabric.respond(stream, bytes);
    }
}

/// Answers a question with nothing, with a promise, or with as little as there is to an answer.
fn stall(id: u64, bytes: &[u8], fabric: &mut Fabric) {
    let Some(stream) = fabric.network.take_asked(id) else { return };
    match fabric.kernel.rng.random_range(0..3) {
        // The asker waits until it gives up.
        0 => {}
        1 => fabric.respond(stream, SyncAnswer::Busy { wait_ms: STALLED_MS }.encode()),
        _ => fabric.respond(stream, trickle(bytes)),
    }
}

/// The first of what an answer brings; for the rest the asker has to come again.
fn trickle(bytes: &[u8]) -> Vec<u8> {
    match SyncAnswer::decode(bytes) {
        Ok(SyncAnswer::Items { items, .. }) if items.len() > 1 => {
            SyncAnswer::Items { next: Some(items[0].key), items: items[..1].to_vec() }.encode()
        }
        Ok(_) | Err(_) => bytes.to_vec(),
    }
}

fn root_of(at: usize, fabric: &mut Fabric) -> Digest {
    let home = fabric.nodes[at].home_zone();
    let Some((node, now)) = fabric.read(at) else { return Digest::default() };
    node.fingerprint(&home, fingerprint::as_of(now)).unwrap_or_default()
}

fn liar(at: usize, fabric: &mut Fabric) -> LyingPeer<'_> {
    let wall = fabric.kernel.wall();
    let (host, rng) = (&mut fabric.nodes[at], &mut fabric.kernel.rng);
    let now = host.clock.read(wall);
    let model = host.node.iter().flat_map(held).choose(rng).cloned();
    let zone = host.home_zone();
    LyingPeer { rng, identity: &host.identity, network: &host.config.network, zone, now, model }
}

/// All records that a node holds.
fn held(node: &Node) -> impl Iterator<Item = &Arc<Record>> {
    node.zones().map(Zone::name).flat_map(|zone| node.records(zone))
}

/// Another record of the same version: of the same key if the version is odd, else of a key of its own.
fn twin(signed: SignedRecord, author: &Identity) -> Option<ByteBuf> {
    let mut header = signed.header().clone();
    let mut card = signed.trust_sealed().card()?;
    card.description.push_str(", or so they say");
    if header.seq.is_multiple_of(2) {
        header.name = format!("{}-twin", header.name).parse().ok()?;
        // Of every second pair both have room.
        if header.seq.is_multiple_of(4) {
            header.slot = (header.slot + SLOTS / 2) % SLOTS;
        }
    }
    let twin = SignedRecord::sign(header, &codec::encode(&card), author).ok()?;
    Some(ByteBuf::from(twin.bytes().to_vec()))
}

fn is_push(bytes: &[u8]) -> bool {
    matches!(SyncFrame::decode(bytes), Ok(SyncFrame { request: SyncRequest::Give { .. }, .. }))
}

/// Whether a message is a beacon.
pub(super) fn is_beacon(bytes: &[u8]) -> bool {
    matches!(Envelope::decode(bytes), Ok(Envelope::Beacon(_)))
}

/// Whether a message is a beacon or carries a node's own records.
fn is_own(bytes: &[u8], identity: &Identity, network: &str) -> bool {
    match Envelope::decode(bytes) {
        Ok(Envelope::Records(records)) => {
            let first = records.first().and_then(|bytes| SignedRecord::parse(bytes, network).ok());
            first.is_some_and(|first| first.header().author.key == identity.key())
        }
        Ok(Envelope::Beacon(_)) => true,
        Err(_) => false,
    }
}
