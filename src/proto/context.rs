//! What a machine is given for one turn, and where what it decides goes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_bytes::ByteBuf;

use super::backlog::Backlog;
use super::code::Code;
use super::config::Config;
use super::identity::{Identity, PeerKey};
use super::io::{ConversationId, Event, NodeAlert, Offence, Output, StoreCondition, Taken, Via, Write};
use super::message::Gateway;
use super::record::{Author, Blame, Record, Refusal};
use super::time::Timestamp;
use super::verification_cache::VerificationCache;

/// What a machine may use in one turn.
pub(super) struct Context<'a> {
    /// The time on the local clock.
    pub(super) now: Timestamp,
    pub(super) identity: &'a Identity,
    /// Where others are told to dial this node, as multiaddresses; none where nobody can.
    pub(super) addresses: &'a [ByteBuf],
    /// This node as an author, in the present epoch.
    pub(super) author: Author,
    pub(super) config: &'a Config,
    pub(super) rng: &'a mut ChaCha8Rng,
    pub(super) cache: &'a mut VerificationCache,
    /// The local clock's offset from the bootstrap peers', milliseconds, if it is too large to write.
    pub(super) unsafe_offset: Option<i64>,
    /// Since the local clock jumped, its time is not used for renewals before this.
    pub(super) clock_settles: Timestamp,
    pub(super) out: &'a mut Outbox,
}

/// What a node wants done, in order, and what it counted and noticed on the way.
#[derive(Default)]
pub(super) struct Outbox {
    outputs: VecDeque<Output>,
    writes: Vec<Write>,
    /// What the store could not be given.
    backlog: Backlog,
    refused: BTreeMap<Code, u64>,
    taken: BTreeMap<(Via, Taken), u64>,
    /// Each with the time since which it stands. Few: all are about this node, one for an own name at most.
    alerts: BTreeMap<NodeAlert, Timestamp>,
    /// The time of the turn.
    pub(super) now: Timestamp,
    next_conversation: u64,
}

impl Context<'_> {
    /// Key of this node.
    pub(super) fn key(&self) -> PeerKey {
        self.author.key
    }

    /// Whether this node may be a gateway of its zones: not where nobody can dial it.
    pub(super) fn own_gateway(&self) -> Gateway {
        if self.addresses.is_empty() { Gateway::Never } else { self.config.gateway }
    }

    /// A record that a peer sent; none where an honest peer may have sent it all the same, whose clock or version is another.
    pub(super) fn record_of_peer(&mut self, bytes: &[u8]) -> Result<Option<Arc<Record>>, Refusal> {
        let signed = self.cache.record(bytes, &self.config.network);
        match signed.and_then(|signed| signed.verify_with(self.now, &mut self.cache.keys)) {
            Ok(record) => Ok(Some(record)),
            Err(refusal) if refusal.blame() == Blame::None => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// `duration` ± 20 %, so that nodes started together drift apart.
    pub(super) fn jitter(&mut self, duration: Duration) -> Duration {
        duration.mul_f64(self.rng.random_range(0.8..1.2))
    }
}

impl Outbox {
    pub(super) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn pop(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) fn event(&mut self, event: Event) {
        self.push(Output::Event(event));
    }

    pub(super) fn penalize(&mut self, peer: PeerKey, offence: Offence) {
        self.push(Output::Penalize { peer, offence });
    }

    /// A change of the store, made before anything that this turn shows.
    pub(super) fn write(&mut self, write: Write) {
        self.writes.push(write);
    }

    /// As [`Outbox::write`], where there may be nothing to change.
    pub(super) fn writes(&mut self, writes: impl IntoIterator<Item = Write>) {
        self.writes.extend(writes);
    }

    /// Own writes go to the store first.
    pub(super) fn persist(&mut self) {
        let writes = std::mem::take(&mut self.writes);
        let writes = self.backlog.admit(writes);
        if writes.is_empty() {
            return;
        }
        // Before everything already queued, but for earlier writes: what is shown must be kept first.
        match self.outputs.front_mut() {
            Some(Output::Persist(earlier)) => earlier.extend(writes),
            Some(_) | None => self.outputs.push_front(Output::Persist(writes)),
        }
    }

    /// Whether everything that was asked for has been taken.
    pub(super) fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Why the store keeps nothing, if that is so.
    pub(super) fn store_failure(&self) -> Option<&str> {
        match self.backlog.condition() {
            StoreCondition::Failed(reason) => Some(reason),
            StoreCondition::Well | StoreCondition::Short(_) => None,
        }
    }

    /// What the store can do from now on. Answers whether it keeps own writes again.
    pub(super) fn set_store(&mut self, condition: StoreCondition) -> bool {
        if *self.backlog.condition() == condition {
            return false;
        }
        self.clear_alerts(|alert| matches!(alert, NodeAlert::StoreFailed(_) | NodeAlert::StoreShort(_)));
        match &condition {
            StoreCondition::Well => {}
            StoreCondition::Short(text) => self.alert(NodeAlert::StoreShort(text.clone())),
            StoreCondition::Failed(reason) => self.alert(NodeAlert::StoreFailed(reason.clone())),
        }
        let before = self.backlog.set_condition(condition);
        matches!(before, StoreCondition::Failed(_)) && self.store_failure().is_none()
    }

    /// What the store did not keep, and what waits for it.
    pub(super) fn backlog(&mut self) -> &mut Backlog {
        &mut self.backlog
    }

    /// When the store can be given something that waits for it.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.backlog.poll_timeout()
    }

    /// Gives the store what waits for it, as much as is due.
    pub(super) fn catch_up(&mut self, now: Timestamp) {
        let due = self.backlog.take_due(now);
        self.writes.extend(due);
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.count(refusal.code());
    }

    pub(super) fn count(&mut self, code: Code) {
        *self.refused.entry(code).or_default() += 1;
    }

    /// A record came this way, and this was made of it.
    pub(super) fn note_taken(&mut self, via: Via, taken: Taken) {
        *self.taken.entry((via, taken)).or_default() += 1;
    }

    /// Records that came since the start.
    pub(super) fn taken(&self) -> &BTreeMap<(Via, Taken), u64> {
        &self.taken
    }

    /// Refused records since the start, by reason.
    pub(super) fn refused(&self) -> &BTreeMap<Code, u64> {
        &self.refused
    }

    /// Tells an alert, once.
    pub(super) fn alert(&mut self, alert: NodeAlert) {
        if !self.alerts.contains_key(&alert) {
            self.alerts.insert(alert.clone(), self.now);
            self.event(Event::Alert(alert));
        }
    }

    /// The cause of some alerts is gone; whether there were any.
    pub(super) fn clear_alerts(&mut self, gone: impl Fn(&NodeAlert) -> bool) -> bool {
        let before = self.alerts.len();
        self.alerts.retain(|alert, _| !gone(alert));
        self.alerts.len() < before
    }

    pub(super) fn has_alert(&self, alert: &NodeAlert) -> bool {
        self.alerts.contains_key(alert)
    }

    /// What stands, and since when.
    pub(super) fn alerts(&self) -> impl Iterator<Item = (&NodeAlert, Timestamp)> {
        self.alerts.iter().map(|(alert, since)| (alert, *since))
    }

    pub(super) fn next_conversation(&mut self) -> ConversationId {
        let id = ConversationId(self.next_conversation);
        self.next_conversation += 1;
        id
    }
}
