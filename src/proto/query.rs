//! Questions about agents, and their answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::card::AgentCard;
use super::identity::{AgentId, PeerKey};
use super::io::Role;
use super::limits::ANSWER_AGE;
use super::liveness::Presence;
use super::name::{FullName, NameError, ZoneId, ZoneName};
use super::record::Record;
use super::search::{Cursor, Query};
use super::time::Timestamp;

/// An agent with its hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its id.
    pub id: AgentId,
    /// The greatest of its live records.
    pub record: Arc<Record>,
    /// Rank; 0 where nothing was searched for.
    pub score: f32,
    /// Whether it has no word of the question, and means nearly the same.
    pub by_meaning: bool,
    /// Its hosts, reachable ones first.
    pub replicas: Vec<Replica>,
}

/// One host of an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Replica {
    /// What it says of the agent.
    pub record: Arc<Record>,
    /// Whether it answers.
    pub presence: Presence,
    /// Milliseconds since it was last heard; none if never.
    pub seen_ms_ago: Option<u64>,
}

impl Replica {
    /// The host.
    pub fn peer(&self) -> PeerKey {
        self.record.host
    }
}

/// What a search asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Find {
    /// What matches, and in which zone and those below it.
    pub query: Query,
    /// Most results.
    pub limit: usize,
    /// Where an earlier page ended.
    pub after: Option<Cursor>,
    /// Whether what is not held here is left out of the question.
    pub local: bool,
    /// How old what others answered before may be, with the age that it had then.
    pub max_age: Duration,
}

impl Default for Find {
    fn default() -> Find {
        Find { query: Query::default(), limit: 0, after: None, local: false, max_age: ANSWER_AGE }
    }
}

/// Some of the agents that match, and of which zones that is all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Best first.
    pub found: Vec<Found>,
    /// Where the next page begins.
    pub next: Option<Cursor>,
    /// What is known of each zone of the asked scope.
    pub zones: Vec<ZoneAnswer>,
}

/// How often others were asked, and how often that was not needed, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuestionCounts {
    /// Questions of local clients.
    pub of_clients: u64,
    /// Questions of peers.
    pub of_peers: u64,
    /// Messages sent for clients.
    pub asked: u64,
    /// Messages sent for peers.
    pub asked_for_peers: u64,
    /// Clients that were told what others answered before.
    pub l1: Uses,
    /// Peers that were.
    pub l2: Uses,
    /// Answers out of replicas of zones below.
    pub l3: Uses,
}

/// How often a cache had what was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// It had it.
    pub hits: u64,
    /// It had something too old, or with something missing.
    pub stale: u64,
    /// It had nothing.
    pub misses: u64,
}

/// What an answer knows of one zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneAnswer {
    /// The zone.
    pub zone: ZoneName,
    /// How it was answered.
    pub status: ZoneStatus,
    /// What the zone held this long ago is in the answer; none if that cannot be said of any time.
    pub age: Option<Duration>,
    /// Who answered for it, where that was not this node.
    pub by: Option<PeerKey>,
    /// For how many zones of the subtree it stands, all of which were answered; 1 for the zone alone.
    pub count: usize,
}

/// How the part of an answer that concerns one zone came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneStatus {
    /// From the replica held here, which nothing is known to be missing from.
    Held,
    /// By a gateway of a zone above it, which follows it, from what its gateways lately held.
    Answered,
    /// As `Answered`, to an equal question of a moment ago.
    Cached,
    /// From the replica held here, which was not compared with anybody for too long, or is known to lack something.
    Stale,
    /// The replica held here was never compared with anybody, or none is held: all of the zone may be missing.
    Unreachable,
    /// Whoever follows it has no room for it, and too many zones had to be asked one by one.
    Skipped,
}

/// A registry of the tree of zones, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeZone {
    /// Which.
    pub id: ZoneId,
    /// How this node takes part; none of what it knows from others alone.
    pub role: Option<Role>,
    /// What an answer out of it is worth.
    pub status: ZoneStatus,
    /// See [`ZoneAnswer::age`].
    pub age: Option<Duration>,
    /// Who told of it, where that was not this node.
    pub by: Option<PeerKey>,
    /// Live agents.
    pub agents: usize,
    /// Bytes of its records.
    pub bytes: usize,
    /// Live members, this node included; none where that is not known.
    pub members: Option<usize>,
    /// Who speaks for it, as far as is known here.
    pub gateways: Vec<PeerKey>,
    /// Whether this node does.
    pub is_gateway: bool,
    /// The zone above that names it to the rest of the world, as far as is known: of a zone of which this node is a gateway the
    /// nearest that answered its last walk, of one below the nearest in which its delegation is held.
    pub parent: Option<ZoneId>,
}

/// What a name given by a user stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolution {
    /// One agent.
    One(Found),
    /// One name, and nothing says which of its owners is meant: a caller must pick by id.
    Ambiguous {
        /// Some of them, owners that other names stand for first.
        candidates: Vec<AgentId>,
        /// How many there are.
        count: usize,
        /// Whom the name meant until now, where that is none of them.
        known: Option<KnownOwner>,
    },
    /// No such agent in what is held here.
    Unknown,
    /// Not held here, and no peer was heard yet that could know it.
    NotSynced,
}

/// Whom a name means here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownOwner {
    /// The name.
    pub name: FullName,
    /// Its owner.
    pub owner: PeerKey,
    /// Who said so.
    pub by: ChosenBy,
    /// Whether the name without its zone means it, too.
    pub is_bare: bool,
    /// Since when.
    pub since: Timestamp,
}

/// Who said whom a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChosenBy {
    /// The operator, or a client in his name.
    Operator,
    /// The first call by that name.
    FirstCall,
}

/// Why the owner of a name was not changed. Nothing was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// It is no name of an agent.
    #[error("owners are known by the names of agents, and {0}")]
    BadName(NameError),
    /// No owner is known.
    #[error("no owner of {0} is known here")]
    Unknown(FullName),
    /// The operator named so many.
    #[error("the owners of {0} names are known, and there is room for no more")]
    Full(usize),
    /// The store keeps nothing. What failed just then is known until the node ends, and kept if the store keeps again before.
    #[error(
        "the store of this node takes no writes ({0}); free disk space or check the disk, then try again"
    )]
    StoreFailed(String),
}

/// What a peer is, as far as the records and beacons held here tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerProfile {
    /// The owners on whose behalf it offers agents; their grants were verified with the records.
    pub owners: BTreeSet<PeerKey>,
    /// The zones it serves, of those replicated here. In an open zone this is its own word.
    pub zones: BTreeSet<ZoneName>,
}

impl Found {
    /// The card of the record. Decoded here and not where the node answers: that is one task for all askers.
    pub fn card(&self) -> AgentCard {
        self.record.card().unwrap_or_default()
    }
}

impl ZoneStatus {
    /// Whether nothing of the zone is missing.
    pub fn is_fine(self) -> bool {
        match self {
            ZoneStatus::Held | ZoneStatus::Answered | ZoneStatus::Cached => true,
            ZoneStatus::Stale | ZoneStatus::Unreachable | ZoneStatus::Skipped => false,
        }
    }
}

impl ZoneAnswer {
    /// Of a registry that is held here.
    pub(super) fn here(zone: ZoneName, status: ZoneStatus, age: Option<Duration>) -> ZoneAnswer {
        ZoneAnswer { zone, status, age, by: None, count: 1 }
    }
}

impl Answer {
    /// Whether no zone of the asked scope is missing.
    pub fn is_complete(&self) -> bool {
        self.zones.iter().all(|zone| zone.status.is_fine())
    }

    /// What every zone of the asked scope held this long ago is in the answer; none if that cannot be said.
    pub fn age(&self) -> Option<Duration> {
        self.zones.iter().map(|zone| zone.age).try_fold(Duration::ZERO, |age, zone| Some(age.max(zone?)))
    }
}
