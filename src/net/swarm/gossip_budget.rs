//! What gossip of one peer is listened to: a budget that is asked before the library knows a message at all.
//!
//! The library keeps the id of every message for two minutes, whatever becomes of it, and its tables never shrink. So
//! [`BudgetedGossip`] says whose messages come, and [`GossipBudget`], as the library's transform of payloads, turns one
//! beyond the budget into [the same message every time](GossipBudget::nothing): a duplicate, which leaves no trace.
//!
//! A neighbour in the mesh forwards what others wrote, and every neighbour the same. So a message costs its sender nearly
//! all the less once it turns out to be new and valid, and each peer may send one copy of it for that price: whatever is
//! accepted is credited to everybody. Only what no honest peer forwards costs in full: what is stale, expired, from the
//! future, of an unknown format, or sent twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::gossipsub::{self, DataTransform, Message, RawMessage, TopicHash};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use super::behaviour::Gossip;
use super::direct_only::DirectOnly;
use crate::net::budget::{Allowance, Bucket, Budgets};
use crate::proto::address_block::AddressBlock;

/// Messages and bytes of one peer that come to nothing. The burst takes all that a sync may publish again (256 records)
/// twice, of usual sizes; a zone where nothing goes wrong has a few a minute.
const PER_PEER: Allowance<2> =
    Allowance { per_second: [50.0, 256.0 * 1024.0], burst: [512.0, 8.0 * 1024.0 * 1024.0] };
/// What a message that was accepted costs its sender: 2,500 a second pass without end.
const ACCEPTED_COST: f64 = 0.02;
/// Messages beyond the budget that are an offence: not many at once and not few for long, which a wrong clock of this node
/// may turn an honest peer's into, but what nobody sends who reads on.
const PATIENCE: Allowance<1> = Allowance { per_second: [200.0], burst: [2_000.0] };
/// Messages of which the library remembers something, 50 MiB of it. Beyond it none is taken from anybody: what is lost
/// comes by sync. Eight hundred new messages in every second stay below.
const REMEMBERED_MAX: usize = 98_304;
/// How long it remembers: as its scores do, and longer than its cache of duplicates.
const REMEMBERED_FOR: Duration = Duration::from_secs(120);
/// How exactly that is counted.
const SLICE: Duration = Duration::from_secs(1);

/// Why a message was dropped before anybody looked at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// Its sender sent too much that came to nothing.
    OverBudget,
    /// It is of a zone in which this node takes no part.
    ForeignZone,
    /// As many messages are remembered as there is room for.
    Full,
}

/// What happens in the gossip of a node.
#[derive(Debug)]
pub(super) enum GossipEvent {
    /// The library tells it.
    Library(gossipsub::Event),
    /// A peer goes far beyond its budget.
    Greedy(PeerId),
}

/// The library's gossip behind the budget.
pub(super) struct BudgetedGossip {
    gossip: DirectOnly<Gossip>,
    budget: GossipBudget,
}

/// What every peer has left. Clones share one.
#[derive(Clone)]
pub(super) struct GossipBudget(Arc<Mutex<State>>);

struct State {
    topics: BTreeSet<TopicHash>,
    budgets: Budgets<PeerId, 2>,
    /// How much more than its budget each connected peer may send before that is an offence.
    patience: BTreeMap<PeerId, Bucket<1>>,
    /// Whose messages the library is given now.
    sending: Option<PeerId>,
    remembered: Remembered,
    dropped: BTreeMap<Dropped, u64>,
    greedy: VecDeque<PeerId>,
}

/// How many messages were new in the last while, in slices of time.
#[derive(Default)]
struct Remembered {
    slices: VecDeque<(Instant, usize)>,
    count: usize,
}

impl Dropped {
    /// All.
    pub const ALL: [Dropped; 3] = [Dropped::OverBudget, Dropped::ForeignZone, Dropped::Full];

    /// For metrics.
    pub fn text(self) -> &'static str {
        match self {
            Dropped::OverBudget => "over_budget",
            Dropped::ForeignZone => "foreign_zone",
            Dropped::Full => "full",
        }
    }
}

impl Default for GossipBudget {
    fn default() -> GossipBudget {
        GossipBudget(Arc::new(Mutex::new(State {
            topics: BTreeSet::new(),
            budgets: Budgets::new(PER_PEER),
            patience: BTreeMap::new(),
            sending: None,
            remembered: Remembered::default(),
            dropped: BTreeMap::new(),
            greedy: VecDeque::new(),
        })))
    }
}

impl GossipBudget {
    /// Messages of this topic are wanted from now on, or no more.
    pub(super) fn want(&self, topic: TopicHash, wanted: bool) {
        let topics = &mut self.lock().topics;
        _ = if wanted { topics.insert(topic) } else { topics.remove(&topic) };
    }

    /// A peer is connected.
    pub(super) fn connected(&self, peer: PeerId, block: Option<AddressBlock>, now: Instant) {
        let mut state = self.lock();
        state.budgets.connected(peer, block, now);
        state.patience.entry(peer).or_insert_with(|| Bucket::new(PATIENCE, now));
    }

    /// A peer has left.
    pub(super) fn disconnected(&self, peer: &PeerId) {
        let mut state = self.lock();
        state.budgets.disconnected(peer);
        state.patience.remove(peer);
    }

    /// A message was new: the library remembers it from now on.
    pub(super) fn remember(&self, now: Instant) {
        self.lock().remembered.add(now);
    }

    /// A message of `bytes` is forwarded, by this node too: everybody may send a copy of it.
    pub(super) fn accepted(&self, bytes: usize) {
        self.lock().budgets.credit([1.0, bytes as f64].map(|cost| cost * (1.0 - ACCEPTED_COST)));
    }

    /// Messages that were dropped since the start, by reason.
    pub(super) fn dropped(&self) -> BTreeMap<Dropped, u64> {
        self.lock().dropped.clone()
    }

    /// What stands for every message that is dropped: of no topic and without content.
    fn nothing() -> Message {
        Message { source: None, data: Vec::new(), sequence_number: None, topic: TopicHash::from_raw("") }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one step, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether the library is to know of a message that the present sender sent.
    fn admit(&mut self, topic: &TopicHash, bytes: usize, now: Instant) -> Result<(), Dropped> {
        // A message may still be read after the last connection of its sender was closed.
        let sender = self.sending.and_then(|peer| Some((peer, self.budgets.wait(&peer, now)?)));
        let Some((peer, wait)) = sender else { return Err(Dropped::OverBudget) };
        if !wait.is_zero() {
            self.note_excess(peer, now);
            return Err(Dropped::OverBudget);
        }
        // Whatever becomes of it: it costs as much to receive as any other.
        self.budgets.charge(&peer, [1.0, bytes as f64]);
        if !self.topics.contains(topic) {
            return Err(Dropped::ForeignZone);
        }
        if self.remembered.is_full(now) { Err(Dropped::Full) } else { Ok(()) }
    }

    fn note_excess(&mut self, peer: PeerId, now: Instant) {
        let Some(patience) = self.patience.get_mut(&peer) else { return };
        patience.charge([1.0]);
        if !patience.wait(now).is_zero() {
            // Full again: an offence that goes on is one more each time.
            *patience = Bucket::new(PATIENCE, now);
            self.greedy.push_back(peer);
        }
    }
}

impl Remembered {
    fn add(&mut self, now: Instant) {
        match self.slices.back_mut().filter(|(begun, _)| now.saturating_duration_since(*begun) < SLICE) {
            Some((_, count)) => *count += 1,
            None => self.slices.push_back((now, 1)),
        }
        self.count += 1;
    }

    fn is_full(&mut self, now: Instant) -> bool {
        let is_over = |begun: Instant| now.saturating_duration_since(begun) >= REMEMBERED_FOR + SLICE;
        while let Some((_, count)) = self.slices.pop_front_if(|(begun, _)| is_over(*begun)) {
            self.count -= count;
        }
        self.count >= REMEMBERED_MAX
    }
}

impl DataTransform for GossipBudget {
    fn inbound_transform(&self, raw: RawMessage) -> Result<Message, io::Error> {
        let mut state = self.lock();
        if let Err(reason) = state.admit(&raw.topic, raw.data.len(), Instant::now()) {
            *state.dropped.entry(reason).or_default() += 1;
            // No error: the library would take it for a fault of the sender, who may only forward.
            return Ok(GossipBudget::nothing());
        }
        let RawMessage { source, data, sequence_number, topic, .. } = raw;
        Ok(Message { source, data, sequence_number, topic })
    }

    fn outbound_transform(&self, _: &TopicHash, data: Vec<u8>) -> Result<Vec<u8>, io::Error> {
        Ok(data)
    }
}

impl BudgetedGossip {
    pub(super) fn new(gossip: Gossip, budget: GossipBudget) -> BudgetedGossip {
        BudgetedGossip { gossip: DirectOnly::new(gossip), budget }
    }

    pub(super) fn budget(&self) -> &GossipBudget {
        &self.budget
    }
}

impl Deref for BudgetedGossip {
    type Target = Gossip;

    fn deref(&self) -> &Gossip {
        &self.gossip
    }
}

impl DerefMut for BudgetedGossip {
    fn deref_mut(&mut self) -> &mut Gossip {
        &mut self.gossip
    }
}

impl NetworkBehaviour for BudgetedGossip {
    type ConnectionHandler = THandler<DirectOnly<Gossip>>;
    type ToSwarm = GossipEvent;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.gossip.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.gossip.handle_established_outbound_connection(connection, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.gossip.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        // The transform is not told who sent what it transforms, and is called by nobody else.
        self.budget.lock().sending = Some(peer);
        self.gossip.on_connection_handler_event(peer, connection, event);
        self.budget.lock().sending = None;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(peer) = self.budget.lock().greedy.pop_front() {
            return Poll::Ready(ToSwarm::GenerateEvent(GossipEvent::Greedy(peer)));
        }
        self.gossip.poll(cx).map(|event| event.map_out(GossipEvent::Library))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> TopicHash {
        TopicHash::from_raw("zone")
    }

    /// A budget that wants one topic, with some connected peers.
    fn budget<const COUNT: usize>(now: Instant) -> (GossipBudget, [PeerId; COUNT]) {
        let (budget, peers) = (GossipBudget::default(), [(); COUNT].map(|()| PeerId::random()));
        budget.want(topic(), true);
        peers.iter().for_each(|peer| budget.connected(*peer, None, now));
        (budget, peers)
    }

    /// Sends `count` messages of `bytes`; how many are taken.
    fn send(budget: &GossipBudget, peer: PeerId, count: usize, bytes: usize, now: Instant) -> usize {
        let mut state = budget.lock();
        state.sending = Some(peer);
        (0..count).filter(|_| state.admit(&topic(), bytes, now).is_ok()).count()
    }

    fn accept(budget: &GossipBudget, count: usize, bytes: usize) {
        (0..count).for_each(|_| budget.accepted(bytes));
    }

    #[test]
    fn what_comes_to_nothing_is_taken_at_its_rate_and_costs_nobody_else() {
        let now = Instant::now();
        let (budget, [loud, quiet]) = budget(now);
        assert_eq!(send(&budget, loud, 5_000, 24, now), 512);
        assert_eq!(send(&budget, loud, 5_000, 24, now + Duration::from_secs(1)), 50);
        assert_eq!(send(&budget, quiet, 300, 24, now), 300);
        // Of full size it is the bytes that end first.
        assert_eq!(send(&budget, quiet, 300, 56 * 1_024, now + Duration::from_secs(60)), 147);
    }

    #[test]
    fn an_honest_burst_passes_whole_by_every_neighbour() {
        let now = Instant::now();
        let (budget, [first, second]) = budget(now);
        for sent in 0..20_000 {
            let at = now + Duration::from_micros(400) * sent;
            assert_eq!(send(&budget, first, 1, 2_048, at), 1, "{sent}");
            accept(&budget, 1, 2_048);
            // The other forwards a copy of each, a thousand messages later.
            if sent >= 1_000 {
                assert_eq!(send(&budget, second, 1, 2_048, at), 1, "{sent}");
            }
        }
        assert!(budget.lock().greedy.is_empty());
    }

    #[test]
    fn what_others_sent_first_buys_nobody_a_flood() {
        let now = Instant::now();
        let (budget, [peer]) = budget(now);
        accept(&budget, 1_000_000, 2_048);
        assert_eq!(send(&budget, peer, 100_000, 24, now), 4_096);
    }

    #[test]
    fn far_beyond_the_budget_is_an_offence_and_a_little_for_ever_is_none() {
        let now = Instant::now();
        let (budget, [flooding, noisy]) = budget(now);
        send(&budget, flooding, 512 + 4 * 2_000, 24, now);
        assert_eq!(std::mem::take(&mut budget.lock().greedy), [flooding; 4]);
        for second in 0..1_000 {
            send(&budget, noisy, 200, 24, now + Duration::from_secs(second));
        }
        assert!(budget.lock().greedy.is_empty());
    }

    #[test]
    fn a_message_of_a_zone_that_is_not_served_leaves_no_trace_and_is_charged() {
        let now = Instant::now();
        let (budget, [peer]) = budget(now);
        let mut state = budget.lock();
        state.sending = Some(peer);
        let other = TopicHash::from_raw("other");
        for _ in 0..512 {
            assert_eq!(state.admit(&other, 24, now), Err(Dropped::ForeignZone));
        }
        assert_eq!(state.admit(&topic(), 24, now), Err(Dropped::OverBudget));
    }

    #[test]
    fn no_number_of_peers_makes_more_be_remembered_than_there_is_room_for() {
        let now = Instant::now();
        let (budget, [peer]) = budget(now);
        let mut state = budget.lock();
        for _ in 0..REMEMBERED_MAX {
            state.remembered.add(now);
        }
        state.sending = Some(peer);
        assert_eq!(state.admit(&topic(), 24, now), Err(Dropped::Full));
        let later = now + REMEMBERED_FOR + SLICE;
        assert_eq!(state.admit(&topic(), 24, later), Ok(()));
        assert_eq!(state.remembered.count, 0);
    }
}
