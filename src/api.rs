//! The JSON shapes of the HTTP API and of `--json`: one definition for the server that writes them and the client
//! that reads them. Field names are a contract with scripts.

mod calls;
mod doctor;
mod documents;
mod events;
mod history;
mod imports;
mod owners;
mod queues;
mod tasks;
mod words;
mod zones;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::calls::{CallsQuery, SeenCall, SeenCalls};
pub use self::doctor::{Check, Diagnosis, Finding};
pub use self::documents::CardSignature;
pub use self::events::Event;
pub use self::history::{History, HistoryQuery};
pub use self::imports::{Import, ImportError, ImportKind, ImportRun, Imports, Skipped, StartImport};
pub use self::owners::{Owner, Owners, TrustOwner};
pub use self::queues::{Queue, Queues};
pub use self::tasks::{Batch, BatchAnswer, BatchCall, Submitted, Task, TaskPage, TaskStatus};
pub use self::words::{
    CallSide, CallState, CheckGroup, CheckStatus, ChosenBy, Health, Origin, QueueChange, ReachState, Removal,
    ReplicaState, Via, ZoneRole, ZoneStatus,
};
pub use self::zones::{JoinZone, Zone, ZoneChange, Zones};
pub use crate::proto::call::Outcome;
pub use crate::proto::code::Code;

/// A question to the registry: `GET /v1/find`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FindQuery {
    /// Words; empty matches everything, ordered by name.
    pub q: String,
    /// Only this zone and those below it.
    pub zone: Option<String>,
    /// All of these tags.
    pub tag: Vec<String>,
    /// All of these capabilities.
    pub capability: Vec<String>,
    /// What their cards say of where data stays.
    pub residency: Option<String>,
    /// Most results, 1 … 1000, default 20.
    pub limit: Option<usize>,
    /// Where an earlier answer stopped.
    pub cursor: Option<String>,
    /// Only what this node holds.
    pub local: bool,
    /// Whether each result says why it is there.
    pub why: bool,
    /// How old what others answered before may be, milliseconds; default 25,000. Nothing is kept for longer than five minutes.
    pub max_age_ms: Option<u64>,
}

/// Answer to [`FindQuery`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FindAnswer {
    /// Best first.
    pub results: Vec<Agent>,
    /// Each zone of the asked scope and how it answered.
    pub zones: Vec<ZoneAnswer>,
    /// Whether every zone of the asked scope answered whole.
    pub complete: bool,
    /// What the zones held this long ago is in the answer; null if that cannot be said of one of them.
    pub age_ms: Option<u64>,
    /// Pass it back for the next page; null on the last.
    pub cursor: Option<String>,
    /// Time the node took.
    pub elapsed_ms: f64,
}

/// A page of `GET /v1/agents`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentPage {
    /// In a stable order.
    pub results: Vec<Agent>,
    /// Each zone of the list and how it answered.
    pub zones: Vec<ZoneAnswer>,
    /// Whether every zone of the list answered whole.
    pub complete: bool,
    /// As in [`FindAnswer`].
    pub age_ms: Option<u64>,
    /// Pass it back for the next page; null on the last.
    pub cursor: Option<String>,
}

/// One agent as `find`, `show` and lists return it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Full name, `agent@zone`.
    pub agent: String,
    /// Stable id.
    pub id: String,
    /// What it does.
    pub description: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its capabilities.
    pub capabilities: Vec<String>,
    /// Its role in a workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Name of its language model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whether `call` reaches it.
    pub callable: bool,
    /// PeerId on whose behalf it is registered.
    pub owner: String,
    /// Where it came from.
    pub origin: Origin,
    /// Its name in the imported document.
    pub original_name: Option<String>,
    /// Its registry advises against it: why, or `deprecated`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<String>,
    /// Addresses of a listing.
    pub endpoints: Vec<AgentEndpoint>,
    /// How well it answers: a record has one score on every node, at most about 5. 0 where nothing was searched for.
    pub score: f32,
    /// Whether it has no word of the search, and means nearly the same; absent where it has one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_meaning: bool,
    /// Why it is there, where that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    /// Hosts that offer it.
    pub replicas: Vec<Replica>,
}

/// Why a result is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// Words of the search that it has.
    pub words: Vec<FoundWord>,
    /// How near its meaning is to that of the search: 1 for the same, 0 for nothing in common.
    pub meaning: f32,
}

/// A word of a search and the one that stands for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FoundWord {
    /// As it stands in the search.
    pub asked: String,
    /// As the result has it: of the same stem, joined, split or corrected.
    pub found: String,
}

/// An address outside the mesh.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentEndpoint {
    /// Transport as the document names it.
    pub kind: String,
    /// URL or package identifier.
    pub address: String,
    /// Version of the protocol spoken there, where the document says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<String>,
    /// What a client names as its tenant there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// One host of an agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Replica {
    /// PeerId of the host.
    pub peer: String,
    /// What it is good for.
    pub state: ReplicaState,
    /// Since the host was last heard; null if never.
    pub seen_ms_ago: Option<u64>,
}

/// How one zone took part in an answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ZoneAnswer {
    /// The zone.
    pub zone: String,
    /// How.
    pub status: ZoneStatus,
    /// What the zone held this long ago is in the answer; null if that cannot be said.
    pub age_ms: Option<u64>,
    /// PeerId of who answered.
    pub by: Option<String>,
    /// For how many zones of the subtree this stands, all of them whole; absent where it is for the zone alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
}

/// Answer of `GET /v1/agents/{name@zone}`: one result and everything known of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentDetail {
    /// The result as `find` shows it.
    #[serde(flatten)]
    pub agent: Agent,
    /// The whole card.
    pub card: serde_json::Value,
    /// Input JSON Schema, null if none was given.
    pub input_schema: serde_json::Value,
    /// Output JSON Schema, null if none was given.
    pub output_schema: serde_json::Value,
    /// The write that holds.
    pub version: Version,
    /// Wall milliseconds at which the lease ends.
    pub expires_at: u64,
    /// Who signed the A2A card that it came from; absent for all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<CardSignature>,
    /// Content identifier of the OASF record that it came from, as directories of such records compute it; absent for all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_id: Option<String>,
}

/// The write that made a record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// `PeerId/epoch`.
    pub author: String,
    /// The author's version counter.
    pub seq: u64,
    /// `wall_ms.counter`.
    pub stamp: String,
}

/// Answer of `POST /v1/agents`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RegisterAnswer {
    /// What was taken, durable.
    pub registered: Vec<Registered>,
    /// What was not, and why.
    pub refused: Vec<Refused>,
    /// What was deregistered, because its registry has deleted it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withdrawn: Vec<Registered>,
}

/// A registered agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Registered {
    /// Full name.
    pub agent: String,
    /// Stable id.
    pub id: String,
    /// What was not taken of the document, or taken otherwise than it is written; one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A document that was not registered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// Position in the request, from 0.
    pub index: usize,
    /// Its name as far as it could be read.
    pub name: String,
    /// Stable code, such as `older_version`.
    pub code: Code,
    /// What, why, and what to do, with the field.
    pub message: String,
}

/// How a call ended: `POST /v1/call/{name@zone}`, `aop call --json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CallAnswer {
    /// What the agent answered; left out where it failed.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub result: serde_json::Value,
    /// Whether there is a result.
    pub success: bool,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<CallError>,
    /// What is known of the work; only beside an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Id of the call, the same in the host's log.
    pub task_id: String,
    /// PeerId of the host that ran it; null where none was reached.
    pub served_by: Option<String>,
    /// How many offers of it were made to hosts; 0 where none was reached or asked. An agent of this node is asked once.
    pub attempts: u32,
    /// Time the call took, seen from this node.
    pub elapsed_ms: f64,
}

/// Why a call gave no result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CallError {
    /// Stable code, such as `deadline`.
    pub code: Code,
    /// What, why, and what to do.
    pub message: String,
    /// After how many milliseconds the same may be tried again; only where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Where a listing is served outside the mesh.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<AgentEndpoint>,
}

/// Answer of `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// PeerId of the node.
    pub peer_id: String,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Version of the program.
    pub version: String,
    /// The table of meanings by which it ranks, as the first digits of its hash: nodes with the same rank alike.
    #[serde(default)]
    pub search_table: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// The world it belongs to.
    pub network: String,
    /// Own clock against the median of the peers'; positive: ours is ahead.
    pub clock_offset_ms: i64,
    /// One entry a zone.
    pub zones: Vec<ZoneReport>,
    /// Multiaddresses with `/p2p/` at which it is reached now: what it announces first, loopback last.
    pub listen: Vec<String>,
    /// The command with which another node joins through this one; null while it listens nowhere.
    pub join: Option<String>,
    /// From where it is reached.
    pub reach: Reach,
    /// Open connections.
    pub connections: usize,
    /// How it is.
    pub health: Health,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Refused records since the start, by reason.
    pub refused: BTreeMap<Code, u64>,
}

/// From where a node is reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reach {
    /// As far as it is known.
    pub state: ReachState,
    /// Addresses at which everybody reaches it: announced ones, and those that others tried.
    pub addresses: Vec<String>,
    /// PeerIds of the relays through which it is reached.
    pub relays: Vec<String>,
}

/// State of one replicated zone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ZoneReport {
    /// The zone.
    pub zone: String,
    /// What this node is to it.
    pub role: ZoneRole,
    /// Records held, tombstones included.
    pub records: usize,
    /// Agents held.
    pub agents: usize,
    /// Root of the fingerprint tree, hex.
    pub fingerprint: String,
    /// Wall milliseconds: records that expire later are covered by the fingerprint.
    pub as_of: String,
    /// Connected members.
    pub peers: usize,
    /// Known live members, this node included.
    pub members: usize,
    /// Age of the oldest write known of but not held.
    pub lag_ms: u64,
    /// Since the last completed sync; null before the first.
    pub last_sync_ms_ago: Option<u64>,
    /// Authors whose versions are known.
    pub authors: usize,
    /// Gap-free prefix of each author, `PeerId/epoch` → version; only where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_vector: Option<BTreeMap<String, u64>>,
}

/// Something an operator should know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable code.
    pub code: Code,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub fix: String,
    /// Wall milliseconds since which it is so.
    pub since: u64,
    /// Whether the node works less well for it; what does not is told and no more.
    pub degrades: bool,
}

/// A connection: `GET /v1/peers` returns `{"peers":[…]}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// PeerId.
    pub peer: String,
    /// What it calls itself, which says nothing of whose it is; left out where it was not heard or has no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its addresses in use.
    pub addresses: Vec<String>,
    /// Whether it is reached through a relay alone: for calls, not for records.
    pub relayed: bool,
    /// Whether it is a configured bootstrap peer.
    pub bootstrap: bool,
    /// Zones it serves, as far as heard.
    pub zones: Vec<String>,
    /// Zones it speaks for, of those that this node takes part in or follows below its own.
    pub gateway_of: Vec<String>,
    /// Last ping round trip; null before the first.
    pub rtt_ms: Option<f64>,
    /// Its clock minus ours; null before its first beacon.
    pub clock_offset_ms: Option<i64>,
    /// Since its last beacon; null before the first.
    pub seen_ms_ago: Option<u64>,
    /// Whether a connection is open now.
    pub connected: bool,
}

/// Answer of `GET /v1/peers`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peers {
    /// Connected peers first.
    pub peers: Vec<Peer>,
}

/// The line `aop node --json` prints when it is ready, and `DATA_DIR/node.json` while it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// Always `ready`.
    pub event: String,
    /// PeerId.
    pub peer_id: String,
    /// Multiaddresses with `/p2p/`, to be used as bootstrap addresses: what it announces first, loopback last.
    pub listen: Vec<String>,
    /// Base URL of the HTTP API.
    pub http: String,
    /// Base URL of the address for metrics and health, if it has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// Zones served.
    pub zones: Vec<String>,
    /// The command with which another node joins through this one; null if it listens nowhere.
    pub join: Option<String>,
    /// Process id; only in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// Body of every HTTP error.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ApiError,
}

/// An error as users meet it: the same code in CLI, HTTP and metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} ({code}); {fix}")]
pub struct ApiError {
    /// Stable code.
    pub code: Code,
    /// What and why.
    pub message: String,
    /// What to do.
    pub fix: String,
    /// Close names, for `not_found`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suggestions: Vec<String>,
}
