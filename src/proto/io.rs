//! The seam: all that goes into a node and all that comes out of it, on one page.
//!
//! An interpreter gives an [`Input`] with the time, then drains the node's [`Output`]s and performs them **in order**. A
//! [`Output::Persist`] comes before what it justifies: a publication, an answer, a reply. Every [`Input::Gossip`] is followed
//! by one [`Output::Verdict`] and every [`Input::Request`] by one [`Output::Respond`] before the next input.
//!
//! A conversation is a stream of requests and their responses with one peer, in order. What they say is bytes here: the
//! interpreter knows only which [`Protocol`] the stream speaks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_bytes::ByteBuf;

pub use super::alert::NodeAlert;
pub use super::arrival::{Taken, Via};
use super::ask::Contact;
use super::card::Offer;
use super::identity::PeerKey;
use super::name::{FullName, ZoneId, ZoneName};
pub use super::persistence::StoreCondition;
use super::query::{Answer, Find, KnownOwner, OwnerError, Resolution, TreeZone};
use super::record::{NoRoom, Record, Refusal, SignedRecord};
pub use super::registration::ZoneError;
use super::registration::{Registered, Withdraw, WriteError};

/// Identifies a gossip message towards the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GossipId(pub [u8; 20]);

/// Identifies a conversation that this node leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConversationId(pub u64);

/// What a conversation speaks: each has streams of its own, and limits of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Two registries of one zone are made equal ([`super::sync`]).
    Sync,
    /// A node of another zone is asked something ([`super::ask`]).
    Ask,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A local client wants something; the reply carries the same number.
    Command {
        /// Chosen by the interpreter.
        id: u64,
        /// What is wanted.
        command: Command,
    },
    /// The first connection to a peer opened, whatever zones it serves.
    Connected {
        /// Who.
        peer: PeerKey,
        /// Who made the connection.
        dialed: Dialed,
    },
    /// A connected peer serves a zone.
    PeerJoined {
        /// Who.
        peer: PeerKey,
        /// Which zone.
        zone: ZoneName,
        /// Who made the connection.
        dialed: Dialed,
    },
    /// A peer no longer serves a zone, or the last connection to it closed.
    PeerLeft {
        /// Who.
        peer: PeerKey,
        /// Which zone; all if none.
        zone: Option<ZoneName>,
    },
    /// A gossip message; answered with a verdict.
    Gossip {
        /// The mesh's name for it.
        id: GossipId,
        /// Who forwarded it.
        peer: PeerKey,
        /// The topic's zone.
        zone: ZoneName,
        /// An encoded envelope.
        bytes: Vec<u8>,
    },
    /// A peer asks in a conversation that it leads; answered with `Respond` of the same number.
    Request {
        /// Chosen by the interpreter.
        id: u64,
        /// Who asks.
        peer: PeerKey,
        /// What the stream speaks.
        protocol: Protocol,
        /// An encoded request.
        bytes: Vec<u8>,
    },
    /// An answer in a conversation of this node, in the order of its requests.
    Response {
        /// Which conversation.
        conversation: ConversationId,
        /// An encoded answer.
        bytes: Vec<u8>,
    },
    /// A conversation of this node broke.
    RequestFailed {
        /// Which.
        conversation: ConversationId,
    },
    /// A search for peers that serve a zone found these, or nobody.
    ZonePeers {
        /// Which.
        zone: ZoneName,
        /// Who, as the network's word.
        peers: Vec<PeerKey>,
    },
    /// Where this node can be dialed, as far as is known, as multiaddresses without the peer. Without any it is no gateway.
    Addresses(Vec<ByteBuf>),
    /// Where a connected peer can be dialed, by its own word.
    PeerAddresses {
        /// Who.
        peer: PeerKey,
        /// As multiaddresses without the peer.
        addresses: Vec<ByteBuf>,
    },
    /// The process was suspended or frozen for a while: what it missed is asked for at once.
    Resumed,
    /// What the last `Persist` asked for was not done. Of the outputs that came with it, only what
    /// [`Output::without_its_writes`] leaves is performed.
    StoreFailed {
        /// Why.
        reason: String,
        /// All of it.
        writes: Vec<Write>,
    },
    /// What the store can do from now on.
    Store {
        /// See there.
        condition: StoreCondition,
        /// Writes before that were not durable may be missing.
        forgotten: bool,
    },
}

/// An input as a node is given it.
#[derive(Clone, Debug)]
pub struct Received {
    /// What happened.
    pub input: Input,
    /// Records in it that were read and judged before ([`super::ahead`]), in their order.
    pub records: Vec<SignedRecord>,
}

impl From<Input> for Received {
    fn from(input: Input) -> Received {
        Received { input, records: Vec::new() }
    }
}

/// Which side made a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialed {
    /// This node.
    ByUs,
    /// The peer.
    ByThem,
}

/// How this node takes part in a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It serves the zone: it writes there and sends beacons.
    Member,
    /// It replicates the zone and says nothing of itself there.
    Follower,
    /// As a gateway of a zone above it compares itself with the gateways of this one, and keeps what it holds in memory.
    Below,
}

/// What a local client wants. Every command has its [`Reply`], in the same turn if memory alone answers it.
#[derive(Clone, Debug)]
pub enum Command {
    /// Search agents.
    Find(Find),
    /// Every agent of a zone and those below it, by name.
    List(Find),
    /// The zones that there are, as far as this node, or whoever it asks, knows.
    Tree,
    /// One agent and its hosts, by whatever a user calls it.
    Resolve(String),
    /// As `Resolve`, to call it: from then on the name means its owner.
    ResolveForCall(String),
    /// Whom names mean here.
    Owners,
    /// A name means this owner from now on.
    TrustOwner {
        /// Full name, or bare name.
        name: String,
        /// Whose agent it means.
        owner: PeerKey,
    },
    /// A name means nobody in particular any more.
    ForgetOwner(String),
    /// Offer agents, but never in the place of another agent or of a newer version.
    Register(Vec<Offer>),
    /// Withdraw what this node offers as this agent in this version, if it does.
    WithdrawVersion(Box<Offer>),
    /// Offer agents in the place of whatever this node offers under their names.
    Replace(Vec<Offer>),
    /// Offer the agents of the configured files, and withdraw those that were configured before and no longer are.
    OfferFiles {
        /// What the files offer.
        offers: Vec<Offer>,
        /// What of the rest goes.
        withdraw: Withdraw,
    },
    /// Withdraw an agent.
    Deregister(FullName),
    /// From now on the keys of this host's imports are these and no others: what they offer is answered for after the node's own.
    NameImports(BTreeSet<PeerKey>),
    /// Take records that this host signed with keys of its imports, as if they were written here.
    Publish(Vec<SignedRecord>),
    /// Offer an agent again that an earlier data folder offered with the key of this node.
    Adopt(FullName),
    /// Take part in a zone from now on.
    JoinZone {
        /// Which.
        zone: ZoneName,
        /// In which way.
        role: Role,
    },
    /// Take part in a zone no longer: what this node offers there is withdrawn, what it held is forgotten.
    LeaveZone(ZoneName),
    /// Say goodbye to all zones.
    Leave,
}

/// Answer to a [`Command`].
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To `Find` and `List`.
    Found(Answer),
    /// To `Tree`, from the root down.
    Tree(Vec<TreeZone>),
    /// To `Resolve` and `ResolveForCall`.
    Resolved(Resolution),
    /// To `Adopt`.
    Adopted(Result<Registered, WriteError>),
    /// To `Owners`, by name.
    Owners(Vec<KnownOwner>),
    /// To `TrustOwner` and `ForgetOwner`: what is known now, or was until now.
    Owner(Result<KnownOwner, OwnerError>),
    /// To `Register`, `Replace` and `OfferFiles`: one result an offer, in order.
    Registered(Vec<Result<Registered, WriteError>>),
    /// To `Deregister` and `WithdrawVersion`.
    Deregistered(Result<Registered, WriteError>),
    /// To `NameImports`.
    ImportsNamed,
    /// To `Publish`: one result a record, in order.
    Published(Vec<Result<(), WriteError>>),
    /// To `JoinZone` and `LeaveZone`.
    Zone(Result<(), ZoneError>),
    /// To `Leave`.
    Left,
}

/// Something to be done, in order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Change the store. Returns when every durable write is on disk.
    Persist(Vec<Write>),
    /// Give a message to the mesh of a zone.
    Publish {
        /// Whose mesh.
        zone: ZoneName,
        /// An encoded envelope.
        bytes: Vec<u8>,
    },
    /// Judge a gossip message.
    Verdict {
        /// Which.
        id: GossipId,
        /// What of it.
        verdict: Verdict,
    },
    /// This peer is asked now, and will be again within a minute or two: where it is dialed, as somebody says.
    Reach(Contact),
    /// Ask in a conversation; the first request opens its stream.
    Request {
        /// Which conversation.
        conversation: ConversationId,
        /// With whom.
        peer: PeerKey,
        /// What the stream speaks.
        protocol: Protocol,
        /// An encoded request.
        bytes: Vec<u8>,
    },
    /// A conversation is over: close its stream.
    EndConversation {
        /// Which.
        conversation: ConversationId,
    },
    /// Answer a peer's request.
    Respond {
        /// The number it came with.
        id: u64,
        /// An encoded answer.
        bytes: Vec<u8>,
    },
    /// Take part in the mesh of a zone. Of each name a node has one registry, so that its name says which from then on.
    JoinZone(ZoneId),
    /// Take part in it no longer.
    LeaveZone(ZoneName),
    /// Let others find this node by the zone.
    Provide(ZoneName),
    /// Look for peers that serve a zone, connect to them, and tell of them as `ZonePeers`.
    FindPeers(ZoneName),
    /// Answer a local client.
    Reply {
        /// The number the command came with.
        id: u64,
        /// The answer.
        reply: Reply,
    },
    /// A peer broke the protocol.
    Penalize {
        /// Who.
        peer: PeerKey,
        /// What it did.
        offence: Offence,
    },
    /// Tell whoever watches.
    Event(Event),
}

/// What a peer did that no honest peer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// It sent a record, or a message for a whole zone, that is forged or against the rules.
    Record(Refusal),
    /// It asked what cannot be read.
    Request,
    /// Its answers in a sync do not fit what it was asked.
    Sync,
    /// Its answer to a question of another zone is no answer to it.
    Answer,
    /// It takes far more than its share.
    Greedy,
}

/// How long a store may hold back what is not durable, which is what a crash may cost. Peers have those rows, and a sync brings
/// them again. Longer would save little: at a record a second some hundred rows share a flush by then.
pub const UNFLUSHED_MAX: Duration = Duration::from_secs(600);

/// One change of the store, which knows nothing of what it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Row name.
    pub key: Vec<u8>,
    /// Row value; none removes it.
    pub value: Option<Arc<[u8]>>,
    /// Whether it must be on disk before anything that follows.
    pub durable: bool,
}

/// What the mesh is told of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// New here: forward it.
    Accept,
    /// Nothing new, or not for us: do not forward, blame nobody.
    Ignore,
    /// Forged or malformed: do not forward, blame whoever sent it.
    Reject,
}

/// What watchers are told.
#[derive(Clone, Debug)]
pub enum Event {
    /// An agent appeared or changed on a host.
    AgentChanged {
        /// The winning record.
        record: Arc<Record>,
        /// How it came.
        via: Via,
    },
    /// An agent left a host.
    AgentRemoved {
        /// The record that stood for it, or its tombstone.
        record: Arc<Record>,
        /// Why.
        reason: Removal,
    },
    /// A sync of this node ended well.
    Synced {
        /// With whom.
        peer: PeerKey,
        /// Of which zone.
        zone: ZoneName,
        /// Records that came.
        received: usize,
        /// Records that went.
        sent: usize,
    },
    /// Something an operator should know.
    Alert(NodeAlert),
}

/// Why an agent left a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Its host deleted it.
    Deleted,
    /// Its lease ended.
    Expired,
    /// Its owner took it back from the host.
    Revoked,
    /// There is no room for it.
    NoRoom(NoRoom),
}

impl Offence {
    /// For logs and traces.
    pub fn text(self) -> &'static str {
        match self {
            Offence::Record(refusal) => refusal.code().text(),
            Offence::Request => "malformed",
            Offence::Sync => "bad_sync",
            Offence::Answer => "bad_answer",
            Offence::Greedy => "greedy",
        }
    }
}

impl Output {
    /// What of an output is performed although writes of its turn were not made: nothing that shows what they were to keep.
    pub fn without_its_writes(self, reason: &str) -> Option<Output> {
        match self {
            Output::Publish { .. }
            | Output::Event(Event::AgentChanged { .. } | Event::AgentRemoved { .. }) => None,
            Output::Reply { id, reply } => Some(Output::Reply { id, reply: reply.unwritten(reason) }),
            output => Some(output),
        }
    }
}

impl Reply {
    /// The same where its writes were not made.
    fn unwritten(self, reason: &str) -> Reply {
        let failed = || WriteError::StoreFailed(reason.to_owned());
        match self {
            Reply::Registered(results) => {
                let results = results.into_iter().map(|result| result.and_then(|_| Err(failed())));
                Reply::Registered(results.collect())
            }
            Reply::Published(results) => {
                let results = results.into_iter().map(|result| result.and_then(|()| Err(failed())));
                Reply::Published(results.collect())
            }
            Reply::Deregistered(result) => Reply::Deregistered(result.and_then(|_| Err(failed()))),
            Reply::Adopted(result) => Reply::Adopted(result.and_then(|_| Err(failed()))),
            Reply::Owner(result) => {
                Reply::Owner(result.and_then(|_| Err(OwnerError::StoreFailed(reason.to_owned()))))
            }
            // A zone is left whether what was offered there can be withdrawn or not.
            reply @ (Reply::Found(_)
            | Reply::Resolved(_)
            | Reply::Tree(_)
            | Reply::Owners(_)
            | Reply::ImportsNamed
            | Reply::Zone(_)
            | Reply::Left) => reply,
        }
    }
}

impl Command {
    /// Whether it only asks: nothing is written for it.
    pub fn is_question(&self) -> bool {
        matches!(
            self,
            Command::Find(_) | Command::List(_) | Command::Tree | Command::Resolve(_) | Command::Owners
        )
    }
}
