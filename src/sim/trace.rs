//! A running hash over everything that is delivered and decided: equal for equal runs, and only for them.

use super::Cargo;
use crate::proto::node::{Event, Input, Output, Reply};

/// FNV-1a, 64 bits: it tells runs apart and guards against nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace(u64);

impl Default for Trace {
    fn default() -> Trace {
        Trace(0xcbf2_9ce4_8422_2325)
    }
}

impl Trace {
    /// The hash so far.
    pub(super) fn value(&self) -> u64 {
        self.0
    }

    /// Something reached a machine.
    pub(super) fn input(&mut self, now: u64, machine: usize, input: &Input) {
        self.place(now, machine);
        match input {
            Input::Command { id, .. } => self.part(1, &id.to_be_bytes()),
            Input::PeerJoined { peer, .. } => self.part(2, &peer.0),
            Input::PeerLeft { peer, .. } => self.part(3, &peer.0),
            Input::Gossip { bytes, .. } => self.part(4, bytes),
            Input::SyncAsked { bytes, .. } => self.part(5, bytes),
            Input::SyncAnswered { bytes, .. } => self.part(6, bytes),
            Input::SyncFailed { session } => self.part(7, &session.0.to_be_bytes()),
            Input::Resumed => self.part(10, &[]),
        }
    }

    /// A machine's timer fired.
    pub(super) fn timer(&mut self, now: u64, machine: usize) {
        self.place(now, machine);
        self.part(8, &[]);
    }

    /// A message was lost on its way.
    pub(super) fn lost(&mut self, now: u64, machine: usize, cargo: &Cargo) {
        self.place(now, machine);
        self.part(9, cargo.bytes());
    }

    /// A machine decided something.
    pub(super) fn output(&mut self, now: u64, machine: usize, output: &Output) {
        self.place(now, machine);
        match output {
            Output::Persist(writes) => {
                for write in writes {
                    self.part(20, &write.key);
                    self.part(21, write.value.as_deref().unwrap_or_default());
                }
            }
            Output::Publish { bytes, .. } => self.part(22, bytes),
            Output::Verdict { id, verdict } => {
                self.part(23, &id.0);
                self.part(23, &[*verdict as u8]);
            }
            Output::SyncAsk { bytes, .. } => self.part(24, bytes),
            Output::SyncClose { session } => self.part(25, &session.0.to_be_bytes()),
            Output::SyncAnswer { bytes, .. } => self.part(26, bytes),
            Output::Reply { id, reply } => {
                self.part(27, &id.to_be_bytes());
                self.part(27, &[is_success(reply)]);
            }
            Output::Penalize { reason, .. } => self.part(28, reason.as_bytes()),
            Output::Event(event) => self.event(event),
        }
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::AgentChanged { record, .. } => self.part(30, &record.hash().0),
            Event::AgentRemoved { record, .. } => self.part(31, &record.hash().0),
            Event::Synced { received, sent, .. } => self.part(32, &[*received as u8, *sent as u8]),
            Event::Problem(_) => self.part(33, &[]),
        }
    }

    fn place(&mut self, now: u64, machine: usize) {
        self.bytes(&now.to_be_bytes());
        self.bytes(&(machine as u64).to_be_bytes());
    }

    fn part(&mut self, kind: u8, bytes: &[u8]) {
        self.bytes(&[kind]);
        self.bytes(&(bytes.len() as u64).to_be_bytes());
        self.bytes(bytes);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

fn is_success(reply: &Reply) -> u8 {
    match reply {
        Reply::Registered(results) => u8::from(results.iter().all(Result::is_ok)),
        Reply::Deregistered(result) => u8::from(result.is_ok()),
        Reply::Left => 2,
    }
}
