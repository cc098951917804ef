//! What a node holds of one zone: the registry, and what follows from each change of it. It knows no peers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_bytes::ByteBuf;

use super::{Delegations, Notice};
use crate::proto::context::Context;
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::io::{Event, NodeAlert, Output, Removal, Role, Write};
use crate::proto::limits::{BATCH_BYTES_MAX, MESSAGE_RECORDS_MAX};
use crate::proto::liveness::Standing;
use crate::proto::message::Envelope;
use crate::proto::name::ZoneId;
use crate::proto::persistence;
use crate::proto::record::{KeyHash, Record, RecordKind};
use crate::proto::registry::Registry;
use crate::proto::time::Timestamp;

/// The records of one zone, own writes that wait for the mesh, and notices for the node.
pub(in crate::proto) struct ZoneRecords {
    pub(super) id: ZoneId,
    pub(super) registry: Registry,
    role: Role,
    pub(in crate::proto) delegations: Delegations,
    /// Agents with a live card.
    pub(super) agents: BTreeSet<AgentId>,
    /// Hosts of live cards, with the agents of each.
    hosts: BTreeSet<(PeerKey, AgentId)>,
    /// Agents whose entry in the index waits, and the time as of which their cards are judged.
    unindexed: BTreeMap<AgentId, Timestamp>,
    /// Last version of this node in the zone.
    pub(super) seq: u64,
    /// Own records that the mesh was not given yet.
    unpublished: Vec<Arc<Record>>,
    pub(super) notices: Vec<Notice>,
}

impl ZoneRecords {
    pub(super) fn new(id: ZoneId, weight_max: usize, role: Role) -> ZoneRecords {
        ZoneRecords {
            id,
            registry: Registry::new(weight_max),
            role,
            delegations: Delegations::default(),
            agents: BTreeSet::new(),
            hosts: BTreeSet::new(),
            unindexed: BTreeMap::new(),
            seq: 0,
            unpublished: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// Hides and drops what ended.
    pub(in crate::proto) fn expire(&mut self, ctx: &mut Context<'_>) {
        let expirations = self.registry.expire(ctx.now);
        // Shown again is possible: the clock may have been set back.
        for record in expirations.hidden.iter().chain(&expirations.shown) {
            self.reindex(record, ctx.now);
        }
        for record in expirations.hidden {
            // An own lease that ended is written again, if this node still offers the agent.
            self.notice_own_key(ctx, &record);
            self.removed(ctx, record, Removal::Expired);
        }
        for record in expirations.dropped {
            self.dropped(ctx, &record);
        }
        if self.registry.has_ample_room() {
            ctx.out.clear_alerts(|alert| matches!(alert, NodeAlert::ZoneFull(zone) if *zone == self.id.zone));
        }
    }

    /// What the node must answer to since it was last asked, in order.
    pub(in crate::proto) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Own records travel in batches: all that one turn wrote, in messages of bounded size.
    pub(in crate::proto) fn publish_own(&mut self, ctx: &mut Context<'_>) {
        let unpublished = std::mem::take(&mut self.unpublished);
        for records in batches(&unpublished) {
            self.publish(ctx, &Envelope::Records(records));
        }
    }

    pub(super) fn publish(&self, ctx: &mut Context<'_>, envelope: &Envelope) {
        ctx.out.push(Output::Publish { zone: self.id.zone.clone(), bytes: envelope.encode() });
    }

    /// The best live card of an agent is to stand in the index, or the agent is to leave it. That waits until somebody
    /// asks: a record that is replaced before costs nothing, and a node that nobody asks keeps no index.
    pub(super) fn reindex(&mut self, record: &Record, now: Timestamp) {
        // A revocation that comes or goes changes what may be shown of others.
        for named in self.registry.named_by(record) {
            self.reindex(&named, now);
        }
        if record.kind == RecordKind::Delegation {
            self.delegations.remove(record);
            if let Some(held) = self.registry.get(&record.key()).filter(|held| !held.is_expired(now)) {
                self.delegations.insert(held);
            }
        }
        if !record.is_agent() {
            return;
        }
        let id = record.agent_id();
        match self.registry.replicas(&id, now).next() {
            Some(_) => self.agents.insert(id),
            None => self.agents.remove(&id),
        };
        match self.registry.replicas(&id, now).any(|replica| replica.host == record.host) {
            true => self.hosts.insert((record.host, id)),
            false => self.hosts.remove(&(record.host, id)),
        };
        // The time as of which it is judged: a later question must not index what ended in between.
        self.unindexed.insert(id, now);
    }

    /// A card is not shown any more.
    pub(super) fn removed(&self, ctx: &mut Context<'_>, record: Arc<Record>, reason: Removal) {
        if self.is_kept() && record.is_agent() && !record.is_tombstone() {
            ctx.out.event(Event::AgentRemoved { record, reason });
        }
    }

    pub(super) fn notice_own_key(&mut self, ctx: &Context<'_>, record: &Record) {
        // Delegations are written where this node is no member: nothing is guarded, and what is lost is written anew.
        if record.host == ctx.key() && record.kind != RecordKind::Delegation {
            self.notices.push(Notice::OwnKey(record.key()));
        }
    }

    /// The row of a dropped record goes; an own offer stays, to be written again.
    pub(super) fn dropped(&mut self, ctx: &mut Context<'_>, record: &Record) {
        if self.is_kept() {
            ctx.out.write(persistence::remove_other(record.key()));
        }
        self.notices.push(Notice::Dropped(record.key()));
    }

    /// Whether records are kept on disk, and told of: not those of a replica below.
    pub(super) fn is_kept(&self) -> bool {
        self.role != Role::Below
    }

    pub(in crate::proto) fn agents(&self) -> &BTreeSet<AgentId> {
        &self.agents
    }

    /// What there is of an author beside its beacons.
    pub(super) fn standing(&self, peer: &PeerKey, connected: &BTreeSet<PeerKey>) -> Standing {
        let is_member = connected.contains(peer) || self.is_host(peer);
        if is_member { Standing::Member } else { Standing::Stranger }
    }

    /// Whether a peer has a live card here.
    pub(super) fn is_host(&self, peer: &PeerKey) -> bool {
        let first = (*peer, AgentId([0; 20]));
        self.hosts.range(first..).next().is_some_and(|(host, _)| host == peer)
    }

    /// Hosts of live cards, each once.
    pub(super) fn host_keys(&self) -> Vec<PeerKey> {
        let mut hosts: Vec<PeerKey> = self.hosts.iter().map(|(host, _)| *host).collect();
        hosts.dedup();
        hosts
    }

    /// Whether this host has a live card of the agent.
    pub(in crate::proto) fn hosts(&self, peer: &PeerKey, agent: &AgentId) -> bool {
        self.hosts.contains(&(*peer, *agent))
    }

    pub(in crate::proto) fn seq(&self) -> u64 {
        self.seq
    }

    pub(in crate::proto) fn set_seq(&mut self, seq: u64) -> Write {
        self.seq = seq;
        persistence::seq_row(&self.id.zone, seq)
    }

    /// An own record was written: it leaves with the next publication.
    pub(in crate::proto) fn written(&mut self, record: &Arc<Record>) -> Write {
        self.unpublished.push(record.clone());
        self.set_seq(record.seq)
    }

    /// A record of this host that is no new version of the node leaves with the next publication.
    pub(in crate::proto) fn publish_later(&mut self, record: Arc<Record>) {
        if record.is_public() {
            self.unpublished.push(record);
        }
    }

    /// An own record was not kept: what stood under its key before stands there again.
    pub(in crate::proto) fn take_back(&mut self, key: &KeyHash, before: Option<Arc<Record>>, now: Timestamp) {
        self.unpublished.retain(|record| record.key() != *key);
        let restored = before.clone();
        for record in self.registry.take_back(key, before).iter().chain(&restored) {
            self.reindex(record, now);
        }
    }

    /// Agents whose entry in the index waits.
    pub(in crate::proto) fn take_unindexed(&mut self) -> BTreeMap<AgentId, Timestamp> {
        std::mem::take(&mut self.unindexed)
    }

    pub(in crate::proto) fn unindexed(&self) -> usize {
        self.unindexed.len()
    }
}

/// Messages of own records, each of one author and within the batch size; one record of full size travels alone.
fn batches(records: &[Arc<Record>]) -> Vec<Vec<ByteBuf>> {
    let mut batches: Vec<Vec<ByteBuf>> = Vec::new();
    // Too many for any batch, so that the first record opens one.
    let (mut bytes, mut author) = (usize::MAX, None);
    for record in records {
        // Four bytes for the list's own marks around each record.
        let size = record.bytes().len() + 4;
        let full = batches.last().is_some_and(|batch| batch.len() == MESSAGE_RECORDS_MAX);
        let is_other = author.replace(record.host) != Some(record.host);
        if full || is_other || bytes.saturating_add(size) > BATCH_BYTES_MAX {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(batch) = batches.last_mut() {
            batch.push(ByteBuf::from(record.bytes().to_vec()));
        }
    }
    batches
}
