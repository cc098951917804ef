//! A run as lines of text, for whoever looks for the cause of a broken promise.
//!
//! Told are faults, what machines were asked to do, what they wrote and published, and what they saw change; left out
//! is traffic that changed nothing.

use super::{Fault, START, World};
use crate::proto::identity::PeerKey;
use crate::proto::io::{Event, Input, Output, Write};
use crate::proto::message::Envelope;
use crate::proto::record::SignedRecord;

/// Lines that are kept; the first ones go when there are more.
const LINES_MAX: usize = 200_000;

/// Lines of a run, if they are wanted.
#[derive(Debug, Default)]
pub(super) struct Story(Option<std::collections::VecDeque<String>>);

impl Story {
    fn wanted() -> Story {
        Story(Some(std::collections::VecDeque::new()))
    }

    fn lines(self) -> Vec<String> {
        self.0.into_iter().flatten().collect()
    }

    fn add(&mut self, line: String) {
        if let Some(lines) = &mut self.0 {
            if lines.len() >= LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(line);
        }
    }
}

impl World {
    /// From now on the run is told.
    pub fn listen(&mut self) {
        self.story = Story::wanted();
    }

    /// What was told of the run.
    pub fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.story).lines()
    }

    pub(super) fn tell_fault(&mut self, fault: &Fault) {
        if self.story.0.is_some() {
            self.story.add(format!("{} {fault:?}", self.now));
        }
    }

    pub(super) fn tell_start(&mut self, at: usize, memory: super::Memory) {
        if self.story.0.is_some() {
            self.story.add(format!("{} machine {at} starts, {memory:?}", self.now));
        }
    }

    pub(super) fn tell_input(&mut self, at: usize, input: &Input) {
        if self.story.0.is_none() {
            return;
        }
        let what = match input {
            Input::Command { command, .. } => format!("{command:?}").chars().take(120).collect(),
            Input::PeerJoined { peer, dialed, .. } => format!("joined by {}, {dialed:?}", self.name(peer)),
            Input::PeerLeft { peer, .. } => format!("left by {}", self.name(peer)),
            Input::RequestFailed { conversation } => format!("{conversation:?} failed"),
            Input::ZonePeers { zone, peers } => format!("{} peers found of {zone}", peers.len()),
            Input::Resumed => "resumed".into(),
            Input::Gossip { .. } | Input::Request { .. } | Input::Response { .. } => return,
        };
        self.add_line(at, "<", &what);
    }

    pub(super) fn tell_output(&mut self, at: usize, output: &Output) {
        if self.story.0.is_none() {
            return;
        }
        let what = match output {
            Output::Persist(writes) => {
                writes.iter().map(|write| self.row(write)).collect::<Vec<_>>().join("; ")
            }
            Output::Publish { bytes, .. } => match Envelope::decode(bytes) {
                Ok(Envelope::Records(records)) => {
                    let records: Vec<String> = records.iter().map(|record| self.record(record)).collect();
                    format!("publish {}", records.join("; "))
                }
                Ok(Envelope::Beacon(_)) | Err(_) => return,
            },
            Output::Event(Event::Synced { received: 0, sent: 0, .. }) => return,
            Output::Event(Event::Synced { peer, received, sent, .. }) => {
                format!("synced with {}: {received} received, {sent} sent", self.name(peer))
            }
            Output::Event(event) => format!("{event:?}"),
            Output::Reply { reply, .. } => format!("{reply:?}").chars().take(120).collect(),
            Output::Penalize { peer, offence } => {
                format!("penalize {}: {}", self.name(peer), offence.code())
            }
            Output::JoinZone(zone) => format!("joins {zone}"),
            Output::LeaveZone(zone) => format!("leaves {zone}"),
            Output::Provide(_)
            | Output::FindPeers(_)
            | Output::Verdict { .. }
            | Output::Request { .. }
            | Output::EndConversation { .. }
            | Output::Respond { .. } => return,
        };
        self.add_line(at, ">", &what);
    }

    fn add_line(&mut self, at: usize, way: &str, what: &str) {
        let wall = self.wall();
        let clock = self.machines[at].clock(wall).offset_ms(START);
        self.story.add(format!("{} {at} (+{clock}) {way} {what}", self.now));
    }

    fn name(&self, peer: &PeerKey) -> String {
        self.by_key.get(peer).map_or_else(|| peer.to_string(), ToString::to_string)
    }

    fn row(&self, write: &Write) -> String {
        let kind = write.key.first().map_or('?', |kind| char::from(*kind));
        match &write.value {
            Some(value) if matches!(kind, 'o' | 'r') => format!("{kind} {}", self.record(value)),
            Some(value) => format!("{kind} {value:02x?}"),
            None => format!("{kind} removed"),
        }
    }

    fn record(&self, bytes: &[u8]) -> String {
        let Ok(signed) = SignedRecord::parse(bytes, &self.machines[0].config.network) else {
            return "no record".into();
        };
        let author = signed.header().author;
        let record = signed.trust_sealed();
        let (epoch, generation) = (author.epoch & 0xffff, record.generation);
        format!("[{record:?} by {} epoch …{epoch:04x} generation {generation}]", self.name(&author.key))
    }
}
