//! Agents and their hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::agents::{AgentState, Agents};
use crate::api::{self, ReplicaState};
use crate::document::{CardKeys, CardSignature, content_id};
use crate::proto::card::{AgentCard, Origin};
use crate::proto::identity::PeerKey;
use crate::proto::liveness::Presence;
use crate::proto::query::{Answer, ChosenBy, Found, KnownOwner, Replica, ZoneAnswer, ZoneStatus};
use crate::proto::registration::Registered;
use crate::proto::search::{Asked, Why, entry};

/// PeerIds of one answer: many results share a host, and base58 is the dearest part of a result.
#[derive(Default)]
pub(in crate::host) struct PeerIds(BTreeMap<PeerKey, String>);

impl PeerIds {
    fn text(&mut self, key: PeerKey) -> String {
        self.0.entry(key).or_insert_with(|| key.to_string()).clone()
    }
}

/// This node as a host: of its own agents it knows more than that they are reachable.
pub(in crate::host) struct Own<'a> {
    pub(in crate::host) key: PeerKey,
    pub(in crate::host) agents: &'a Agents,
    /// Hosts that it does not reach, whatever others hear of them.
    pub(in crate::host) unreached: BTreeSet<PeerKey>,
}

/// Results of `find` or a list.
pub(in crate::host) fn agents(found: &[Found], own: &Own<'_>) -> Vec<api::Agent> {
    let mut ids = PeerIds::default();
    found.iter().map(|found| agent(found, found.card(), own, &mut ids)).collect()
}

/// The same, each with why it answers a search.
pub(in crate::host) fn agents_with_why(found: &[Found], asked: &Asked, own: &Own<'_>) -> Vec<api::Agent> {
    let whys = found.iter().map(|found| why(asked.why(&entry(found.id, &found.record.name, &found.card()))));
    agents(found, own)
        .into_iter()
        .zip(whys)
        .map(|(agent, why)| api::Agent { why: Some(why), ..agent })
        .collect()
}

fn why(why: Why) -> api::Why {
    let words = why.words.into_iter().map(|(asked, found)| api::FoundWord { asked, found });
    api::Why { words: words.collect(), meaning: why.meaning }
}

fn agent(found: &Found, card: AgentCard, own: &Own<'_>, ids: &mut PeerIds) -> api::Agent {
    let here = || own.agents.state(&found.record.name).and_then(shown);
    api::Agent {
        agent: found.record.name.to_string(),
        id: found.id.to_string(),
        score: found.score,
        by_meaning: found.by_meaning,
        why: None,
        callable: card.callable,
        owner: ids.text(found.record.owner),
        origin: origin(card.origin),
        endpoints: endpoints(&card),
        replicas: found
            .replicas
            .iter()
            .map(|it| {
                let here = (it.peer() == own.key).then(here).flatten();
                replica(it, card.callable, here, own.unreached.contains(&it.peer()), ids)
            })
            .collect(),
        description: card.description,
        tags: card.tags,
        capabilities: card.capabilities,
        role: card.role,
        model: card.model,
        original_name: card.original_name,
        deprecated: card.deprecated,
    }
}

/// Everything known of one agent.
pub(in crate::host) fn detail(found: &Found, own: &Own<'_>, card_keys: &CardKeys) -> api::AgentDetail {
    let (record, card) = (&found.record, found.card());
    let json = card_json(&card);
    let original = json.get("original").filter(|original| original.is_object());
    let schema = |text: &Option<String>| {
        text.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    };
    api::AgentDetail {
        signature: original.filter(|_| card.origin == Origin::A2a).map(|it| signature(it, card_keys)),
        content_id: original.filter(|_| card.origin == Origin::Oasf).map(content_id),
        card: json,
        input_schema: schema(&card.input_schema),
        output_schema: schema(&card.output_schema),
        version: api::Version {
            author: record.author().to_string(),
            seq: record.seq,
            stamp: format!("{}.{}", record.stamp.wall, record.stamp.counter),
        },
        expires_at: record.expires_at.0,
        agent: agent(found, card, own, &mut PeerIds::default()),
    }
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

fn replica(
    replica: &Replica,
    callable: bool,
    here: Option<ReplicaState>,
    is_unreached: bool,
    ids: &mut PeerIds,
) -> api::Replica {
    let state = match replica.presence {
        Presence::Reachable | Presence::Unknown if callable && is_unreached => ReplicaState::Unreachable,
        Presence::Unreachable => ReplicaState::Unreachable,
        Presence::Reachable | Presence::Unknown if callable => here.unwrap_or(ReplicaState::Active),
        Presence::Reachable | Presence::Unknown => ReplicaState::Listed,
    };
    api::Replica { peer: ids.text(replica.peer()), state, seen_ms_ago: replica.seen_ms_ago }
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

/// The card as JSON, its JSON parts as JSON instead of text.
fn card_json(card: &AgentCard) -> Value {
    let mut json = serde_json::to_value(card).unwrap_or_default();
    for field in ["input_schema", "output_schema", "original", "registry_meta"] {
        if let Some(value) = json.get_mut(field)
            && let Some(parsed) = value.as_str().and_then(|text| serde_json::from_str(text).ok())
        {
            *value = parsed;
        }
    }
    json
}
