//! A run as lines of text, for whoever looks for the cause of a broken promise.
//!
//! Told are faults, what nodes were asked to do, what they wrote and published, and what they saw change; left out is
//! traffic that changed nothing.

use std::collections::VecDeque;

use super::clock::START;
use super::fault::Fault;
use super::nodes::Nodes;
use super::sim_node::RestartFrom;
use crate::proto::identity::PeerKey;
use crate::proto::io::{Event, Input, Output, Write};
use crate::proto::message::Envelope;
use crate::proto::record::SignedRecord;

/// Lines that are kept; the first ones go when there are more.
const LINES_MAX: usize = 200_000;

/// Lines of a run, if they are wanted.
#[derive(Debug, Default)]
pub(super) struct EventLog(Option<VecDeque<String>>);

/// When and where something happens.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) node: usize,
    pub(super) now: u64,
    pub(super) wall: u64,
}

impl EventLog {
    /// From now on lines are kept.
    pub(super) fn begin(&mut self) {
        self.0 = Some(VecDeque::new());
    }

    /// All lines so far; none are kept after that.
    pub(super) fn take(&mut self) -> Vec<String> {
        self.0.take().into_iter().flatten().collect()
    }

    pub(super) fn fault(&mut self, now: u64, fault: &Fault) {
        if self.0.is_some() {
            self.add(format!("{now} {fault:?}"));
        }
    }

    pub(super) fn start(&mut self, now: u64, node: usize, from: RestartFrom) {
        if self.0.is_some() {
            self.add(format!("{now} node {node} starts, {from:?}"));
        }
    }

    pub(super) fn input(&mut self, at: At, input: &Input, nodes: &Nodes) {
        // Making text costs more than playing the event, and most runs have no listener.
        if self.0.is_none() {
            return;
        }
        let what = match input {
            // Whole cards are in it; names stand at the beginning.
            Input::Command { command, .. } => format!("{command:?}").chars().take(120).collect(),
            Input::Connected { peer, dialed } => format!("connected by {}, {dialed:?}", name(peer, nodes)),
            Input::PeerJoined { peer, dialed, .. } => format!("joined by {}, {dialed:?}", name(peer, nodes)),
            Input::PeerLeft { peer, .. } => format!("left by {}", name(peer, nodes)),
            Input::RequestFailed { conversation } => format!("{conversation:?} failed"),
            Input::ZonePeers { zone, peers } => format!("{} peers found of {zone}", peers.len()),
            Input::Addresses(addresses) => format!("is dialed at {} addresses", addresses.len()),
            Input::Resumed => "resumed".into(),
            Input::StoreFailed { reason, writes } => {
                format!("{} writes are not kept: {reason}", writes.len())
            }
            Input::Store { condition, .. } => format!("its store: {condition:?}"),
            Input::Gossip { .. }
            | Input::Request { .. }
            | Input::Response { .. }
            | Input::PeerAddresses { .. } => return,
        };
        self.add_at(at, "<", &what, nodes);
    }

    pub(super) fn output(&mut self, at: At, output: &Output, nodes: &Nodes) {
        if self.0.is_none() {
            return;
        }
        let what = match output {
            Output::Persist(writes) => {
                writes.iter().map(|write| row(write, nodes)).collect::<Vec<_>>().join("; ")
            }
            Output::Publish { bytes, .. } => match Envelope::decode(bytes) {
                Ok(Envelope::Records(records)) => {
                    let records: Vec<String> = records.iter().map(|it| record(it, nodes)).collect();
                    format!("publish {}", records.join("; "))
                }
                Ok(Envelope::Beacon(_)) | Err(_) => return,
            },
            Output::Event(Event::Synced { received: 0, sent: 0, .. }) => return,
            Output::Event(Event::Synced { peer, received, sent, .. }) => {
                format!("synced with {}: {received} received, {sent} sent", name(peer, nodes))
            }
            Output::Event(event) => format!("{event:?}"),
            Output::Reply { reply, .. } => format!("{reply:?}").chars().take(120).collect(),
            Output::Penalize { peer, offence } => {
                format!("penalize {}: {}", name(peer, nodes), offence.text())
            }
            Output::JoinZone(zone) => format!("joins {zone}"),
            Output::LeaveZone(zone) => format!("leaves {zone}"),
            Output::Provide(_)
            | Output::FindPeers(_)
            | Output::Verdict { .. }
            | Output::Reach(_)
            | Output::Request { .. }
            | Output::EndConversation { .. }
            | Output::Respond { .. } => return,
        };
        self.add_at(at, ">", &what, nodes);
    }

    /// Something happened to the calls of a node, or is to be done for them.
    pub(super) fn call(&mut self, at: At, way: &str, what: &impl std::fmt::Debug, nodes: &Nodes) {
        if self.0.is_some() {
            self.add_at(at, way, &format!("{what:?}").chars().take(200).collect::<String>(), nodes);
        }
    }

    /// A client was told what is not so, in a world where somebody lies.
    pub(super) fn misled(&mut self, now: u64, detail: &str) {
        if self.0.is_some() {
            self.add(format!("{now} misled: {detail}"));
        }
    }

    fn add_at(&mut self, At { node, now, wall }: At, way: &str, what: &str, nodes: &Nodes) {
        let clock = nodes[node].clock.peek(wall).offset_ms(START);
        self.add(format!("{now} {node} (+{clock}) {way} {what}"));
    }

    fn add(&mut self, line: String) {
        if let Some(lines) = &mut self.0 {
            // Why a run broke stands near its end.
            if lines.len() >= LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(line);
        }
    }
}

fn name(peer: &PeerKey, nodes: &Nodes) -> String {
    nodes.number_of(peer).map_or_else(|| peer.to_string(), |at| at.to_string())
}

fn row(write: &Write, nodes: &Nodes) -> String {
    let kind = write.key.first().map_or('?', |kind| char::from(*kind));
    match &write.value {
        Some(value) if matches!(kind, 'o' | 'r') => format!("{kind} {}", record(value, nodes)),
        Some(value) => format!("{kind} {value:02x?}"),
        None => format!("{kind} removed"),
    }
}

fn record(bytes: &[u8], nodes: &Nodes) -> String {
    // All nodes of a world are in one network.
    let Ok(signed) = SignedRecord::parse(bytes, &nodes[0].config.network) else {
        return "no record".into();
    };
    let author = signed.header().author;
    let record = signed.trust_sealed();
    let (epoch, generation) = (author.epoch & 0xffff, record.generation);
    format!("[{record:?} by {} epoch …{epoch:04x} generation {generation}]", name(&author.key, nodes))
}
