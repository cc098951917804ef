//! The one task that changes the node, and owns network and store. It turns what happens into inputs of the node and
//! performs the node's outputs in order; it decides nothing.
//!
//! A turn, with all that it wants performed, has the node to itself: whoever looks at it beside the driver sees nothing
//! that is not kept. The lock lets in who asks first, so neither many readers nor many writes hold up the other.
//!
//! Outputs of the commands that were ready at one time are performed together: all their store writes first, with one
//! sync of the disk, then everything they justify. A store that fails ends nothing: the node is told, and the store is looked
//! after until it keeps writes again.

mod arrivals;
mod conversation;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use libp2p::Multiaddr;
use tokio::sync::{RwLock, broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use self::arrivals::{Arrival, Arrivals};
use self::conversation::{Answer, converse, is_traced};
use crate::agents::AgentState;
use crate::net::addresses::as_contact;
use crate::net::store::{Recovery, StoreError, StoreIncident};
use crate::net::store_keeper::StoreKeeper;
use crate::net::streams::InboundRequest;
use crate::net::swarm::{Network, NetworkAlert, NetworkEvent, reach};
use crate::net::verifier::{Judged, Verifier};
use crate::net::wall_clock;
use crate::proto::identity::PeerKey;
use crate::proto::io::{self, Command, ConversationId, Dialed, Input, Output, Protocol, Received, Reply};
use crate::proto::limits::SYNC_WINDOW;
use crate::proto::name::{FullName, ZoneName};
use crate::proto::node::Node;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names;

/// Commands whose writes share one sync of the disk.
const COMMANDS_AT_ONCE: usize = 64;
/// Answers of sync streams that wait for the driver, all conversations together.
const ANSWERS_MAX: usize = 64;
/// How long a goodbye may take to leave.
const GOODBYE: Duration = Duration::from_millis(200);
/// Longest sleep: bounds what a wrong deadline could cost.
const SLEEP_MAX: Duration = Duration::from_secs(3_600);

/// What a [`NodeClient`](super::client::NodeClient) asks.
pub(crate) enum Request {
    /// A wish of a client.
    Command(Box<Command>, oneshot::Sender<Reply>),
    /// A look at the state of node and network.
    Read(Box<dyn FnOnce(&mut ReadContext<'_>) + Send>),
}

/// What watchers are told.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The first connection to a peer opened.
    Connected(PeerKey),
    /// The last connection to a peer closed.
    Disconnected(PeerKey),
    /// The node tells it.
    Node(io::Event),
    /// The network tells it.
    Alert(NetworkAlert),
    /// The numbers of the last minutes show it.
    Noticed(Trend),
    /// An agent of this host is in another state.
    AgentState(FullName, AgentState),
}

/// What the numbers of the last minutes show.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Trend {
    /// This share of the calls failed, percent.
    CallsFailing { share: f64 },
    /// The 95th percentile of calls, and what it was on the last day, seconds.
    CallsSlow { seconds: f64, usual: f64 },
    /// A zone was compared with nobody for so long.
    SyncStale { zone: ZoneName, seconds: u64 },
    /// So many of the last runs of an own agent failed.
    AgentFailing { agent: FullName, failed: u64, runs: u64 },
}

/// What may be looked at.
pub(crate) struct ReadContext<'a> {
    pub(crate) node: &'a mut Node,
    pub(crate) network: &'a mut Network,
    pub(crate) incidents: &'a [StoreIncident],
    pub(crate) started: Instant,
}

/// What ends the driver's wait.
enum Happened {
    Asked(Request),
    Network(Arrival),
    Answered(ConversationId, Option<Answer>),
    Recovered(Recovery),
    /// This node is reached elsewhere.
    Moved,
    /// The node has something to do at this time.
    Due,
}

/// A conversation that this node leads.
struct Conversation {
    questions: mpsc::Sender<Vec<u8>>,
    protocol: Protocol,
    began: Instant,
}

pub(crate) struct Driver {
    node: Arc<RwLock<Node>>,
    network: Network,
    arrivals: Arrivals,
    verifier: Verifier,
    store: StoreKeeper,
    requests: mpsc::Receiver<Request>,
    events: broadcast::Sender<Event>,
    incidents: Vec<StoreIncident>,
    started: Instant,
    next_id: u64,
    replies: BTreeMap<u64, oneshot::Sender<Reply>>,
    /// Questions of peers that the node answers within the same turn.
    asked: BTreeMap<u64, oneshot::Sender<Vec<u8>>>,
    /// Whose request is at work, and since when.
    at_work: Option<(PeerKey, Instant)>,
    conversations: BTreeMap<ConversationId, Conversation>,
    responses: mpsc::Sender<(ConversationId, Option<Answer>)>,
    responded: mpsc::Receiver<(ConversationId, Option<Answer>)>,
    dialed: BTreeMap<PeerKey, Dialed>,
    /// Where this node is reached, as it changes.
    addresses: watch::Receiver<Vec<Multiaddr>>,
    metrics: Arc<Metrics>,
}

impl Driver {
    pub(crate) fn new(
        node: Arc<RwLock<Node>>,
        network: Network,
        verifier: Verifier,
        store: StoreKeeper,
        requests: mpsc::Receiver<Request>,
        events: broadcast::Sender<Event>,
        incidents: Vec<StoreIncident>,
    ) -> Driver {
        let (responses, responded) = mpsc::channel(ANSWERS_MAX);
        let (addresses, metrics) = (network.addresses.clone(), network.metrics.clone());
        Driver {
            node,
            network,
            arrivals: Arrivals::new(verifier.clone()),
            verifier,
            store,
            requests,
            events,
            incidents,
            started: Instant::now(),
            next_id: 0,
            replies: BTreeMap::new(),
            asked: BTreeMap::new(),
            at_work: None,
            conversations: BTreeMap::new(),
            responses,
            responded,
            dialed: BTreeMap::new(),
            addresses,
            metrics,
        }
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// The store did not close well.
    pub(crate) async fn run(mut self, mut stop: oneshot::Receiver<()>) -> Result<(), StoreError> {
        let shared = self.node.clone();
        let mut wake = {
            let mut node = shared.write().await;
            self.tell_addresses(&mut node);
            // The node wants things from its making on; they do not wait for the first event.
            self.perform(&mut node);
            wake(&node)
        };
        loop {
            // No `biased`: a flood from one source must not starve the timer or the stop.
            let happened = tokio::select! {
                _ = &mut stop => break,
                Some(request) = self.requests.recv() => Happened::Asked(request),
                arrival = self.arrivals.next(&mut self.network) => Happened::Network(arrival),
                Some((conversation, answer)) = self.responded.recv() => Happened::Answered(conversation, answer),
                recovery = self.store.recovery() => Happened::Recovered(recovery),
                Ok(()) = self.addresses.changed() => Happened::Moved,
                () = tokio::time::sleep_until(wake) => Happened::Due,
            };
            let began = Instant::now();
            let mut node = shared.write().await;
            self.handle(&mut node, happened);
            self.perform(&mut node);
            wake = self::wake(&node);
            drop(node);
            // With all that it led to: what a peer gives is stored and published as well.
            if let Some((peer, since)) = self.at_work.take() {
                self.network.charge_request(&peer, since.elapsed());
            }
            self.metrics.driver_turn.observe(began.elapsed());
        }
        let mut node = shared.write().await;
        self.command(&mut node, Command::Leave, None);
        self.perform(&mut node);
        drop(node);
        self.leave().await
    }

    fn handle(&mut self, node: &mut Node, happened: Happened) {
        match happened {
            Happened::Asked(request) => self.handle_requests(node, request),
            Happened::Network((event, judged)) => self.handle_network(node, event, judged),
            Happened::Answered(conversation, answer) => self.handle_response(node, conversation, answer),
            Happened::Recovered(recovery) => self.handle_recovery(node, recovery),
            Happened::Moved => self.tell_addresses(node),
            Happened::Due => node.handle_timeout(wall_clock()),
        }
    }

    fn tell_addresses(&mut self, node: &mut Node) {
        let addresses = as_contact(&self.addresses.borrow_and_update());
        node.handle(wall_clock(), Input::Addresses(addresses));
    }

    /// Commands that are ready share one sync of the disk. A question before the first change does not wait for it.
    fn handle_requests(&mut self, node: &mut Node, first: Request) {
        let (mut request, mut changes) = (first, false);
        for taken in 1.. {
            // Once a change waits for the sync, what comes behind it waits too: replies keep their order.
            changes |= matches!(&request, Request::Command(command, _) if !command.is_question());
            self.handle_request(node, request);
            if !changes {
                self.perform(node);
            }
            // Clients that never pause must not keep the network waiting.
            if taken == COMMANDS_AT_ONCE {
                break;
            }
            match self.requests.try_recv() {
                Ok(next) => request = next,
                Err(_) => break,
            }
        }
    }

    fn handle_request(&mut self, node: &mut Node, request: Request) {
        match request {
            Request::Command(command, reply) => self.command(node, *command, Some(reply)),
            Request::Read(read) => read(&mut ReadContext {
                node,
                network: &mut self.network,
                incidents: &self.incidents,
                started: self.started,
            }),
        }
    }

    fn command(&mut self, node: &mut Node, command: Command, reply: Option<oneshot::Sender<Reply>>) {
        self.next_id += 1;
        let id = self.next_id;
        if let Some(reply) = reply {
            // Before the node is asked: it may reply within the same turn.
            self.replies.insert(id, reply);
        }
        node.handle(wall_clock(), Input::Command { id, command });
    }

    fn handle_network(&mut self, node: &mut Node, event: NetworkEvent, judged: Judged) {
        let now = wall_clock();
        match event {
            NetworkEvent::Connected { peer, outbound, addresses } => {
                tracing::info!(event = "peer_connected", %peer, outbound, "peer connected");
                // Kept for the subscriptions that follow: they do not say who dialed.
                let dialed = if outbound { Dialed::ByUs } else { Dialed::ByThem };
                self.dialed.insert(peer, dialed);
                node.handle(now, Input::Connected { peer, dialed });
                node.handle(now, Input::PeerAddresses { peer, addresses: as_contact(&addresses) });
                self.tell(Event::Connected(peer));
            }
            NetworkEvent::Disconnected { peer } => {
                tracing::info!(event = "peer_disconnected", %peer, "peer disconnected");
                self.dialed.remove(&peer);
                node.handle(now, Input::PeerLeft { peer, zone: None });
                self.tell(Event::Disconnected(peer));
            }
            NetworkEvent::Subscribed { peer, zone } => {
                // Unknown counts as theirs: this side then only looks for itself a little later.
                let dialed = self.dialed.get(&peer).copied().unwrap_or(Dialed::ByThem);
                node.handle(now, Input::PeerJoined { peer, zone, dialed });
            }
            NetworkEvent::Unsubscribed { peer, zone } => {
                node.handle(now, Input::PeerLeft { peer, zone: Some(zone) });
            }
            NetworkEvent::ZonePeers { zone, peers } => {
                node.handle(now, Input::ZonePeers { zone, peers });
            }
            NetworkEvent::Gossip { id, peer, zone, bytes } => {
                let input = Input::Gossip { id, peer, zone, bytes };
                node.handle(now, Received { input, records: judged.records });
            }
            NetworkEvent::Request(InboundRequest { peer, protocol, bytes, reply }) => {
                self.next_id += 1;
                let now_at_work = Instant::now();
                // What judging its records took is charged as well.
                self.at_work = Some((peer, now_at_work.checked_sub(judged.took).unwrap_or(now_at_work)));
                // From the same counter as commands, so no id ever stands for two things.
                self.asked.insert(self.next_id, reply);
                let input = Input::Request { id: self.next_id, peer, protocol, bytes };
                node.handle(now, Received { input, records: judged.records });
            }
            NetworkEvent::Alert(alert) => self.handle_alert(node, alert),
        }
    }

    fn handle_alert(&mut self, node: &mut Node, alert: NetworkAlert) {
        if matches!(alert, NetworkAlert::Suspended { .. }) {
            // The node first: what it asks of peers after a suspension waits for no watcher.
            node.handle(wall_clock(), Input::Resumed);
        }
        tracing::warn!(event = "network_problem", code = %alert.code(), "{alert}");
        self.tell(Event::Alert(alert));
    }

    fn handle_response(&mut self, node: &mut Node, conversation: ConversationId, answer: Option<Answer>) {
        let (input, records) = match answer {
            Some((bytes, records)) => (Input::Response { conversation, bytes }, records),
            None => {
                let failed = self.conversations.get(&conversation);
                if failed.is_some_and(|failed| failed.protocol == Protocol::Sync) {
                    self.metrics.synced("failed", 0, 0);
                }
                (Input::RequestFailed { conversation }, Vec::new())
            }
        };
        node.handle(wall_clock(), Received { input, records });
    }

    /// Performs what the node wants: what is kept first, then the rest in order.
    fn perform(&mut self, node: &mut Node) {
        loop {
            let (mut writes, mut rest) = (Vec::new(), Vec::new());
            while let Some(output) = node.poll_output() {
                match output {
                    Output::Persist(batch) => writes.extend(batch),
                    other => rest.push(other),
                }
            }
            if writes.is_empty() && rest.is_empty() && !self.tell_condition(node, false) {
                return;
            }
            let writing = Instant::now();
            let kept = self.store.write(&writes);
            if !writes.is_empty() {
                self.metrics.store_write.observe(writing.elapsed());
            }
            if let Err(reason) = kept {
                // Nothing of what the writes justify has left yet.
                rest = rest.into_iter().filter_map(|output| output.without_its_writes(&reason)).collect();
                node.handle(wall_clock(), Input::StoreFailed { reason, writes });
            }
            for output in rest {
                self.perform_one(output);
            }
        }
    }

    /// The store was looked after.
    fn handle_recovery(&mut self, node: &mut Node, recovery: Recovery) {
        self.incidents.extend(recovery.incidents);
        self.tell_condition(node, recovery.forgotten);
    }

    /// Tells the node what the store can do, if that is news to it. Answers whether it was.
    fn tell_condition(&mut self, node: &mut Node, forgotten: bool) -> bool {
        let news = self.store.news().or_else(|| forgotten.then(|| self.store.condition()));
        let is_news = news.is_some();
        if let Some(condition) = news {
            node.handle(wall_clock(), Input::Store { condition, forgotten });
        }
        is_news
    }

    fn perform_one(&mut self, output: Output) {
        match output {
            Output::Persist(_) => unreachable!("persisted before"),
            Output::Publish { zone, bytes } => {
                let published = self.network.publish(&zone, bytes);
                tracing::trace!(%zone, ?published, "published");
            }
            Output::Verdict { id, verdict } => self.network.report(&id, verdict),
            Output::Reach(contact) => reach(&mut self.network, &contact),
            Output::Request { conversation, peer, protocol, bytes } => {
                self.ask(conversation, peer, protocol, bytes)
            }
            // The task of the conversation ends with the last sender of its questions.
            Output::EndConversation { conversation } => {
                let ended = self.conversations.remove(&conversation);
                if let Some(ended) = ended.filter(|ended| ended.protocol == Protocol::Sync) {
                    self.metrics.sync_took(ended.began.elapsed());
                }
            }
            Output::Respond { id, bytes } => {
                if let Some(reply) = self.asked.remove(&id) {
                    // The peer may have gone meanwhile.
                    let _gone = reply.send(bytes);
                }
            }
            Output::JoinZone(zone) => self.network.join_zone(&zone),
            Output::LeaveZone(zone) => self.network.leave_zone(&zone),
            Output::Provide(zone) => self.network.provide(&zone),
            Output::FindPeers(zone) => self.network.find_peers(&zone),
            Output::Reply { id, reply } => {
                if let Some(waiting) = self.replies.remove(&id) {
                    // The client may have gone meanwhile; its write stands.
                    let _gone = waiting.send(reply);
                }
            }
            Output::Penalize { peer, offence } => {
                tracing::warn!(event = "peer_offended", %peer, reason = offence.text(), "peer broke the protocol");
                self.network.penalize(peer, offence);
            }
            Output::Event(event) => {
                tracing::debug!(?event);
                self.count(&event);
                self.tell(Event::Node(event));
            }
        }
    }

    fn count(&self, event: &io::Event) {
        match event {
            io::Event::AgentChanged { record, via } => {
                self.metrics.propagated(*via, wall_clock().since(record.stamp.wall));
                if *via == io::Via::Local {
                    tracing::info!(event = "agent_registered", agent = %record.name, "agent registered");
                }
            }
            io::Event::Synced { received, sent, .. } => {
                let result = if received + sent == 0 { "equal" } else { "repaired" };
                self.metrics.synced(result, *received, *sent);
            }
            io::Event::AgentRemoved { .. } | io::Event::Alert(_) => {}
        }
    }

    fn ask(&mut self, conversation: ConversationId, peer: PeerKey, protocol: Protocol, bytes: Vec<u8>) {
        let client = self.network.request_client(protocol);
        let conversation = self.conversations.entry(conversation).or_insert_with(|| {
            let (questions, asked) = mpsc::channel(SYNC_WINDOW);
            let is_sync = protocol == Protocol::Sync;
            let counted = is_sync.then(|| self.metrics.clone());
            let verifier = is_sync.then(|| self.verifier.clone());
            let span = if is_traced(protocol, conversation) { names::sync(&peer) } else { Span::none() };
            let responses = self.responses.clone();
            let conversing = converse(client, peer, conversation, asked, responses, verifier, counted);
            tokio::spawn(conversing.instrument(span));
            Conversation { questions, protocol, began: Instant::now() }
        });
        // The node keeps at most SYNC_WINDOW questions waiting; a conversation that ended tells so by itself.
        let _ended = conversation.questions.try_send(bytes);
    }

    fn tell(&self, event: Event) {
        // Nobody may be watching.
        let _unwatched = self.events.send(event);
    }

    async fn leave(mut self) -> Result<(), StoreError> {
        // Publishing only queues the goodbye: the network has to be polled for it to leave.
        let on_its_way = async {
            loop {
                self.network.next().await;
            }
        };
        let _elapsed = tokio::time::timeout(GOODBYE, on_its_way).await;
        self.network.shutdown().await;
        // The store last: peers need not wait for this disk.
        self.store.close().await
    }
}

/// When the node has something to do. It counts in wall time; a sleep is a duration, so a clock that is set meanwhile does not
/// stretch it.
fn wake(node: &Node) -> Instant {
    let wait = node.poll_timeout().map_or(SLEEP_MAX, |due| due.since(wall_clock()));
    Instant::now() + wait.min(SLEEP_MAX)
}
