//! A few nodes wired by hand: what one puts out reaches the others at once, stores are kept, links can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aop::proto::card::{AgentCard, Offer, Scope};
use aop::proto::config::Config;
use aop::proto::grant::{Grant, Reach};
use aop::proto::identity::{Identity, PeerKey};
use aop::proto::io::{
    Command, Dialed, GossipId, Input, NodeAlert, Output, Reply, StoreCondition, Verdict, Write,
};
use aop::proto::limits::ZONE_WEIGHT_MAX;
use aop::proto::name::{FullName, ZoneName};
use aop::proto::node::Node;
use aop::proto::persistence::Stored;
use aop::proto::query::Find;
use aop::proto::record::{Record, RecordKind, SignedRecord};
use aop::proto::registration::{Registered, WriteError};
use aop::proto::time::Timestamp;

pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// Nodes, their stores, who is linked with whom, and all that was put out.
pub(crate) struct Cluster {
    pub(crate) now: Timestamp,
    /// What each node's clock adds to the time, milliseconds.
    pub(crate) clocks: Vec<i64>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) rows: Vec<Rows>,
    pub(crate) log: Vec<(usize, Output)>,
    /// Why the store of a node keeps nothing, where that is so.
    pub(crate) full: Vec<Option<String>>,
    configs: Vec<Config>,
    links: BTreeSet<(usize, usize)>,
    next_id: u64,
}

pub(crate) fn identity(at: usize) -> Identity {
    Identity::from_seed([at as u8 + 1; 32])
}

pub(crate) fn key(at: usize) -> PeerKey {
    identity(at).key()
}

pub(crate) fn name(agent: &str) -> FullName {
    FullName { agent: agent.parse().unwrap(), zone: ZoneName::root() }
}

pub(crate) fn offer(agent: &str, description: &str) -> Offer {
    let card = AgentCard { description: description.into(), ..AgentCard::default() };
    Offer { name: agent.parse().unwrap(), zone: None, scope: Scope::Public, card, grants: Vec::new() }
}

/// That a key lets another write one kind in a zone and below it, and pass that on.
pub(crate) fn grant(issuer: &Identity, subject: PeerKey, zone: ZoneName, kind: RecordKind) -> Grant {
    Grant {
        network: "world".into(),
        issuer: issuer.key(),
        subject,
        zone,
        reach: Reach::Subtree,
        kinds: vec![kind],
        may_delegate: true,
        issued_at: NOW - DAY,
        expires_at: NOW + 30 * DAY,
        generation: 0,
        slots: None,
    }
}

impl Cluster {
    pub(crate) fn new(count: usize) -> Cluster {
        Cluster::with(vec![Config::default(); count])
    }

    /// The first was given peers, is connected to the second, and may renew.
    pub(crate) fn given_peers(count: usize) -> Cluster {
        let mut configs = vec![Config::default(); count];
        configs[0].expects_peers = true;
        let mut cluster = Cluster::with(configs);
        cluster.link(0, 1);
        cluster.pass(SECOND * 120);
        cluster
    }

    pub(crate) fn with(configs: Vec<Config>) -> Cluster {
        let count = configs.len();
        let mut cluster = Cluster {
            now: NOW,
            clocks: vec![0; count],
            nodes: Vec::new(),
            rows: vec![Rows::new(); count],
            log: Vec::new(),
            full: vec![None; count],
            links: BTreeSet::new(),
            next_id: 0,
            configs,
        };
        for at in 0..count {
            let node = cluster.open(at, ZONE_WEIGHT_MAX);
            cluster.nodes.push(node);
        }
        cluster.settle();
        cluster
    }

    pub(crate) fn open(&self, at: usize, zone_weight_max: usize) -> Node {
        let mut stored = Stored::default();
        for (row, value) in &self.rows[at] {
            assert!(stored.take_row(row, value, true, "world", self.clock(at)));
        }
        let config = Config { zone_weight_max, ..self.configs[at].clone() };
        // Another run draws other numbers.
        let mut seed = [at as u8; 32];
        seed[..8].copy_from_slice(&self.log.len().to_be_bytes());
        Node::new(identity(at), config, seed, stored, self.clock(at))
    }

    pub(crate) fn clock(&self, at: usize) -> Timestamp {
        Timestamp(self.now.0.saturating_add_signed(self.clocks[at]))
    }

    /// Ends a node as a crash does and starts it again from `rows`.
    pub(crate) fn restart(&mut self, at: usize, rows: Rows) {
        for other in 0..self.nodes.len() {
            self.cut(at, other);
        }
        self.rows[at] = rows;
        self.nodes[at] = self.open(at, ZONE_WEIGHT_MAX);
        self.settle();
    }

    pub(crate) fn link(&mut self, one: usize, other: usize) {
        self.links.extend([(one, other), (other, one)]);
        for (at, peer, dialed) in [(one, other, Dialed::ByUs), (other, one, Dialed::ByThem)] {
            self.give(at, Input::PeerJoined { peer: key(peer), zone: ZoneName::root(), dialed });
        }
        self.settle();
    }

    pub(crate) fn cut(&mut self, one: usize, other: usize) {
        for (at, peer) in [(one, other), (other, one)] {
            if self.links.remove(&(at, peer)) {
                self.give(at, Input::PeerLeft { peer: key(peer), zone: None });
            }
        }
        self.settle();
    }

    pub(crate) fn give(&mut self, at: usize, input: Input) {
        let now = self.clock(at);
        self.nodes[at].handle(now, input);
    }

    /// Performs outputs until there are none.
    pub(crate) fn settle(&mut self) {
        while let Some((at, output)) =
            (0..self.nodes.len()).find_map(|at| self.nodes[at].poll_output().map(|output| (at, output)))
        {
            match (output, self.full[at].clone()) {
                (Output::Persist(writes), Some(reason)) => self.lose(at, writes, reason),
                (output, _) => {
                    self.log.push((at, output.clone()));
                    self.perform(at, output);
                }
            }
        }
    }

    /// A store that keeps nothing was given something.
    fn lose(&mut self, at: usize, writes: Vec<Write>, reason: String) {
        let mut rest = Vec::new();
        while let Some(output) = self.nodes[at].poll_output() {
            rest.extend(output.without_its_writes(&reason));
        }
        self.give(at, Input::StoreFailed { reason, writes });
        for output in rest {
            self.log.push((at, output.clone()));
            self.perform(at, output);
        }
    }

    /// The store of a node keeps what it is given again, or tells what it can do.
    pub(crate) fn tell_store(&mut self, at: usize, condition: StoreCondition) {
        self.full[at] = match &condition {
            StoreCondition::Failed(reason) => Some(reason.clone()),
            StoreCondition::Well | StoreCondition::Short(_) => None,
        };
        self.give(at, Input::Store { condition, forgotten: false });
        self.settle();
    }

    fn perform(&mut self, at: usize, output: Output) {
        let peers: Vec<usize> = self.links.iter().filter(|link| link.0 == at).map(|link| link.1).collect();
        match output {
            Output::Persist(writes) => {
                for write in writes {
                    match write.value {
                        Some(value) => drop(self.rows[at].insert(write.key, value.to_vec())),
                        None => drop(self.rows[at].remove(&write.key)),
                    }
                }
            }
            Output::Publish { zone, bytes } => {
                for peer in peers {
                    self.gossip_in(peer, at, &zone, bytes.clone());
                }
            }
            Output::Request { conversation, peer, protocol, bytes } => {
                let Some(to) = peers.into_iter().find(|to| key(*to) == peer) else {
                    return self.give(at, Input::RequestFailed { conversation });
                };
                self.next_id += 1;
                let id = self.next_id;
                self.give(to, Input::Request { id, peer: key(at), protocol, bytes });
                while let Some(output) = self.nodes[to].poll_output() {
                    self.log.push((to, output.clone()));
                    match output {
                        Output::Respond { id: answered, bytes } if answered == id => {
                            return self.give(at, Input::Response { conversation, bytes });
                        }
                        other => self.perform(to, other),
                    }
                }
            }
            _ => {}
        }
    }

    fn gossip_in(&mut self, at: usize, from: usize, zone: &ZoneName, bytes: Vec<u8>) {
        self.next_id += 1;
        let mut id = [0; 20];
        id[..8].copy_from_slice(&self.next_id.to_be_bytes());
        self.give(at, Input::Gossip { id: GossipId(id), peer: key(from), zone: zone.clone(), bytes });
    }

    /// A gossip message to one node, and what it says of it.
    pub(crate) fn gossip(&mut self, at: usize, from: usize, bytes: Vec<u8>) -> Verdict {
        self.gossip_of(at, from, &ZoneName::root(), bytes)
    }

    /// The same of a zone.
    pub(crate) fn gossip_of(&mut self, at: usize, from: usize, zone: &ZoneName, bytes: Vec<u8>) -> Verdict {
        let since = self.log.len();
        self.gossip_in(at, from, zone, bytes);
        self.settle();
        let verdict = |(node, output): &(usize, Output)| match output {
            Output::Verdict { verdict, .. } if *node == at => Some(*verdict),
            _ => None,
        };
        self.log[since..].iter().find_map(verdict).unwrap()
    }

    /// Lets time pass, every timer in its turn.
    pub(crate) fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            let due = (0..self.nodes.len()).filter_map(|at| {
                let due = self.nodes[at].poll_timeout()?;
                Some(Timestamp(due.0.saturating_add_signed(-self.clocks[at])))
            });
            let next = due.min().unwrap_or(end).max(self.now + Duration::from_millis(1)).min(end);
            self.now = next;
            for at in 0..self.nodes.len() {
                let now = self.clock(at);
                if self.nodes[at].poll_timeout().is_some_and(|due| due <= now) {
                    self.nodes[at].handle_timeout(now);
                }
            }
            self.settle();
        }
    }

    /// What is read beside the node is what the node itself answers.
    pub(crate) fn command(&mut self, at: usize, command: Command) -> Reply {
        self.next_id += 1;
        let read = self.nodes[at].memory(self.clock(at)).answer(&command);
        let (id, since) = (self.next_id, self.log.len());
        self.give(at, Input::Command { id, command });
        self.settle();
        let reply = |(_, output): &(usize, Output)| match output {
            Output::Reply { id: answered, reply } if *answered == id => Some(reply.clone()),
            _ => None,
        };
        let answered = self.log[since..].iter().find_map(reply).unwrap();
        if let Some(read) = read {
            assert_eq!(read, answered);
        }
        answered
    }

    pub(crate) fn register(&mut self, at: usize, offer: Offer) -> Result<Registered, WriteError> {
        match self.command(at, Command::Register(vec![offer])) {
            Reply::Registered(mut results) => results.remove(0),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn deregister(&mut self, at: usize, agent: &str) -> Result<Registered, WriteError> {
        match self.command(at, Command::Deregister(name(agent))) {
            Reply::Deregistered(result) => result,
            other => panic!("{other:?}"),
        }
    }

    /// The held record of an agent of host `host` at node `at`.
    pub(crate) fn held(&self, at: usize, host: usize, agent: &str) -> Option<Record> {
        let root = ZoneName::root();
        let mut records = self.nodes[at].records(&root);
        let found = records.find(|record| record.host == key(host) && record.name == name(agent));
        found.map(|record| Record::clone(record))
    }

    pub(crate) fn shows(&mut self, at: usize, agent: &str) -> bool {
        let find = Find { limit: 100, ..Find::default() };
        let Reply::Found(answer) = self.command(at, Command::List(find)) else { panic!("no answer") };
        answer.found.iter().any(|found| found.record.name == name(agent))
    }

    pub(crate) fn problems(&self, at: usize) -> Vec<NodeAlert> {
        self.nodes[at].alerts().into_iter().map(|(alert, _)| alert).collect()
    }

    /// Outputs of one node since a place in the log.
    pub(crate) fn outputs(&self, at: usize, since: usize) -> Vec<&Output> {
        self.log[since..].iter().filter(|(node, _)| *node == at).map(|(_, output)| output).collect()
    }

    pub(crate) fn published_since(&self, at: usize, since: usize) -> Vec<Vec<u8>> {
        let bytes = |output: &&Output| match output {
            Output::Publish { bytes, .. } => Some(bytes.clone()),
            _ => None,
        };
        self.outputs(at, since).iter().filter_map(bytes).collect()
    }

    pub(crate) fn fingerprint(&mut self, at: usize) -> aop::proto::fingerprint::Digest {
        let now = self.clock(at);
        self.nodes[at].fingerprint(&ZoneName::root(), aop::proto::fingerprint::as_of(now)).unwrap()
    }
}

/// Bytes of a record as its author signs it.
pub(crate) fn signed(header: aop::proto::record::Header, body: &[u8], author: usize) -> SignedRecord {
    SignedRecord::sign(header, body, &identity(author)).unwrap()
}
