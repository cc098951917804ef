//! Agents and their hosts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::agents::{AgentState, Agents};
use crate::api::{self, ReplicaState};
use crate::document::{CardKeys, CardSignature, content_id};
use crate::host::described::{Described, Descriptions};
use crate::proto::card::{AgentCard, Origin};
use crate::proto::identity::PeerKey;
use crate::proto::liveness::Presence;
use crate::proto::query::{Answer, ChosenBy, Found, KnownOwner, Replica, ZoneAnswer, ZoneStatus};
use crate::proto::record::Record;
use crate::proto::registration::Registered;
use crate::proto::search::{Asked, Why, entry};

/// This node as a host: of its own agents it knows more than that they are reachable.
pub(in crate::host) struct Own<'a> {
    pub(in crate::host) key: PeerKey,
    pub(in crate::host) agents: &'a Agents,
    /// Hosts that it does not reach, whatever others hear of them.
    pub(in crate::host) unreached: BTreeSet<PeerKey>,
    pub(in crate::host) descriptions: &'a Descriptions,
}

/// The end of the JSON of an agent of which nothing is known but its record.
const UNKNOWN: &str = r#""score":0.0,"replicas":[]}"#;

/// An agent as answers show it.
pub(in crate::host) struct Shown<'a> {
    found: &'a Found,
    described: Arc<Described>,
    why: Option<api::Why>,
    replicas: Vec<Host>,
}

/// A host of an agent; serialized as an [`api::Replica`].
#[derive(Serialize)]
struct Host {
    peer: Arc<str>,
    state: ReplicaState,
    seen_ms_ago: Option<u64>,
}

/// What changes while a record stands; serialized as the last members of an [`api::Agent`].
#[derive(Serialize)]
struct Changing<'a> {
    score: f32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    by_meaning: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: &'a Option<api::Why>,
    replicas: &'a [Host],
}

impl Own<'_> {
    /// Results of `find`, each with why it answers the search if that is given, or of a list.
    pub(in crate::host) fn shown<'f>(&self, found: &'f [Found], asked: Option<&Asked>) -> Vec<Shown<'f>> {
        found.iter().map(|found| self.show(found, asked)).collect()
    }

    /// One agent.
    pub(in crate::host) fn show<'f>(&self, found: &'f Found, asked: Option<&Asked>) -> Shown<'f> {
        let described = self.descriptions.of(&found.record);
        let why = |asked: &Asked| why(asked.why(&entry(found.id, &found.record.name, &described.card)));
        Shown {
            why: asked.map(why),
            replicas: found.replicas.iter().map(|it| self.host(it, &described.card)).collect(),
            found,
            described,
        }
    }

    fn host(&self, replica: &Replica, card: &AgentCard) -> Host {
        let peer = replica.peer();
        let here =
            || (peer == self.key).then(|| self.agents.state(&replica.record.name).and_then(shown)).flatten();
        let state = match replica.presence {
            Presence::Reachable | Presence::Unknown if card.callable && self.unreached.contains(&peer) => {
                ReplicaState::Unreachable
            }
            Presence::Unreachable => ReplicaState::Unreachable,
            Presence::Reachable | Presence::Unknown if card.callable => {
                here().unwrap_or(ReplicaState::Active)
            }
            Presence::Reachable | Presence::Unknown => ReplicaState::Listed,
        };
        Host { peer: self.descriptions.peer_id(peer), state, seen_ms_ago: replica.seen_ms_ago }
    }
}

impl Shown<'_> {
    /// For whoever reads it in this process.
    pub(in crate::host) fn agent(self) -> api::Agent {
        let Shown { found, described, why, replicas } = self;
        let replica = |it: Host| api::Replica {
            peer: it.peer.to_string(),
            state: it.state,
            seen_ms_ago: it.seen_ms_ago,
        };
        api::Agent {
            score: found.score,
            by_meaning: found.by_meaning,
            why,
            replicas: replicas.into_iter().map(replica).collect(),
            ..agent(&found.record, &described.card, &described.owner)
        }
    }

    /// The JSON of an [`api::Agent`]; with `detail`, what [`Descriptions::detail`] says, of an [`api::AgentDetail`].
    pub(in crate::host) fn write(&self, detail: &str, json: &mut Vec<u8>) {
        let Shown { found, described, why, replicas } = self;
        json.extend_from_slice(described.members.as_bytes());
        json.extend_from_slice(detail.as_bytes());
        let changing = Changing { score: found.score, by_meaning: found.by_meaning, why, replicas };
        let at = json.len();
        // What goes to memory fails for nothing that these are made of.
        let _written = serde_json::to_writer(&mut *json, &changing);
        // The members go on in an object that has begun.
        json.remove(at);
    }
}

/// What a record says of its agent.
pub(in crate::host) fn agent(record: &Record, card: &AgentCard, owner: &str) -> api::Agent {
    api::Agent {
        agent: record.name.to_string(),
        id: record.agent_id().to_string(),
        description: card.description.clone(),
        tags: card.tags.clone(),
        capabilities: card.capabilities.clone(),
        role: card.role.clone(),
        model: card.model.clone(),
        callable: card.callable,
        owner: owner.to_owned(),
        origin: origin(card.origin),
        original_name: card.original_name.clone(),
        deprecated: card.deprecated.clone(),
        endpoints: endpoints(card),
        ..api::Agent::default()
    }
}

/// The JSON of what a record says, up to where what changes begins.
pub(in crate::host) fn members(agent: &api::Agent) -> Box<str> {
    let mut json = serde_json::to_string(agent).unwrap_or_default();
    debug_assert!(json.ends_with(UNKNOWN), "{json}");
    json.truncate(json.len().saturating_sub(UNKNOWN.len()));
    json.into()
}

/// What [`api::AgentDetail`] says beside the result; its schemas are passed on as they were signed.
pub(in crate::host) fn detail_members(record: &Record, card: &AgentCard, card_keys: &CardKeys) -> String {
    #[derive(Serialize)]
    struct Write {
        version: api::Version,
        expires_at: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        signature: Option<api::CardSignature>,
        #[serde(skip_serializing_if = "Option::is_none")]
        content_id: Option<String>,
    }
    let original: Option<Value> = card.original.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let original = original.as_ref().filter(|original| original.is_object());
    let write = Write {
        version: api::Version {
            author: record.author().to_string(),
            seq: record.seq,
            stamp: format!("{}.{}", record.stamp.wall, record.stamp.counter),
        },
        expires_at: record.expires_at.0,
        signature: original.filter(|_| card.origin == Origin::A2a).map(|it| signature(it, card_keys)),
        content_id: original.filter(|_| card.origin == Origin::Oasf).map(content_id),
    };
    let schema = |text: &Option<String>| text.clone().filter(|text| is_json(text)).unwrap_or("null".into());
    let write = serde_json::to_string(&write).unwrap_or_default();
    format!(
        r#""card":{},"input_schema":{},"output_schema":{},{},"#,
        card_json(card),
        schema(&card.input_schema),
        schema(&card.output_schema),
        write.strip_prefix('{').and_then(|it| it.strip_suffix('}')).unwrap_or_default(),
    )
}

fn why(why: Why) -> api::Why {
    let words = why.words.into_iter().map(|(asked, found)| api::FoundWord { asked, found });
    api::Why { words: words.collect(), meaning: why.meaning }
}

fn signature(document: &Value, card_keys: &CardKeys) -> api::CardSignature {
    // Some wrap the card.
    let card = document.get("card").filter(|card| card.is_object()).unwrap_or(document);
    match card_keys.verify(card) {
        CardSignature::Unsigned => api::CardSignature::Unsigned,
        CardSignature::Unverified => api::CardSignature::Unverified,
        CardSignature::Verified { key, covers_all } => api::CardSignature::Verified { key, covers_all },
    }
}

/// What an answer knows of each zone.
pub(in crate::host) fn zones(answer: &Answer) -> Vec<api::ZoneAnswer> {
    let answered = |it: &ZoneAnswer| api::ZoneAnswer {
        zone: it.zone.to_string(),
        status: zone_status(it.status),
        age_ms: age_ms(it.age),
        by: it.by.map(|peer| peer.to_string()),
        count: (it.count > 1).then_some(it.count),
    };
    answer.zones.iter().map(answered).collect()
}

/// What an answer out of a zone is worth.
pub(super) fn zone_status(status: ZoneStatus) -> api::ZoneStatus {
    match status {
        ZoneStatus::Held => api::ZoneStatus::Held,
        ZoneStatus::Answered => api::ZoneStatus::Answered,
        ZoneStatus::Cached => api::ZoneStatus::Cached,
        ZoneStatus::Stale => api::ZoneStatus::Stale,
        ZoneStatus::Unreachable => api::ZoneStatus::Unreachable,
        ZoneStatus::Skipped => api::ZoneStatus::Skipped,
    }
}

/// Whom a name means.
pub(in crate::host) fn owner(known: &KnownOwner) -> api::Owner {
    api::Owner {
        name: known.name.to_string(),
        owner: known.owner.to_string(),
        by: match known.by {
            ChosenBy::Operator => api::ChosenBy::Operator,
            ChosenBy::FirstCall => api::ChosenBy::FirstCall,
        },
        bare: known.is_bare,
        since: known.since.0,
    }
}

/// An age as the API says it.
pub(in crate::host) fn age_ms(age: Option<Duration>) -> Option<u64> {
    age.map(|age| age.as_millis() as u64)
}

/// A registered agent.
pub(in crate::host) fn registered(registered: &Registered) -> api::Registered {
    api::Registered { agent: registered.name.to_string(), id: registered.id.to_string(), notes: Vec::new() }
}

/// The state as replicas show it; none before it takes calls and after its end.
pub(super) fn shown(state: AgentState) -> Option<ReplicaState> {
    match state {
        AgentState::Active => Some(ReplicaState::Active),
        AgentState::Busy => Some(ReplicaState::Busy),
        AgentState::Error => Some(ReplicaState::Error),
        AgentState::Init | AgentState::Registered | AgentState::Terminated => None,
    }
}

fn origin(origin: Origin) -> api::Origin {
    match origin {
        Origin::Native => api::Origin::Native,
        Origin::ServerJson => api::Origin::ServerJson,
        Origin::A2a => api::Origin::A2a,
        Origin::ServerCard => api::Origin::ServerCard,
        Origin::Oasf => api::Origin::Oasf,
    }
}

pub(super) fn endpoints(card: &AgentCard) -> Vec<api::AgentEndpoint> {
    let endpoint = |it: &crate::proto::card::Endpoint| api::AgentEndpoint {
        kind: it.kind.clone(),
        address: it.address.clone(),
        protocol_version: it.protocol_version.clone(),
        tenant: it.tenant.clone(),
    };
    card.endpoints.iter().map(endpoint).collect()
}

/// The card as JSON, its JSON parts as they were signed instead of as text.
fn card_json(card: &AgentCard) -> String {
    let mut rest = card.clone();
    let parts = [
        ("input_schema", rest.input_schema.take_if(|text| is_json(text))),
        ("output_schema", rest.output_schema.take_if(|text| is_json(text))),
        ("original", rest.original.take_if(|text| is_json(text))),
        ("registry_meta", rest.registry_meta.take_if(|text| is_json(text))),
    ];
    let mut json = serde_json::to_string(&rest).unwrap_or_default();
    for (name, text) in parts {
        let Some(text) = text else { continue };
        // A card has members that are never left out.
        json.pop();
        json.push_str(&format!(r#","{name}":{text}}}"#));
    }
    json
}

/// Whether a text can be passed on as a part of an answer: some who read answers know an end to nesting.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<Value>(&format!("[[[[{text}]]]]")).is_ok()
}
