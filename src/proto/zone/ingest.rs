//! The accept pipeline: what becomes of gossip and of the records that come by it, by sync, from here and from the store
//! (protocol section 2).

use std::sync::Arc;

use serde_bytes::ByteBuf;

use super::{Notice, Zone, ZoneRecords};
use crate::proto::code::Code;
use crate::proto::context::Context;
use crate::proto::identity::PeerKey;
use crate::proto::io::{Event, GossipId, Offence, Output, Removal, Taken, Verdict, Via};
use crate::proto::message::Message;
use crate::proto::persistence;
use crate::proto::record::{Blame, NoRoom, Record, RecordKind, Refusal, SignedRecord};
use crate::proto::registry::Merge;

/// What became of bytes that claim to be a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ingested {
    /// Held now.
    New,
    /// A greater one, or the same, is held; or there is no room for it.
    Known,
    /// Not taken.
    Refused(Refusal),
}

impl Zone {
    /// A message of the zone's mesh.
    pub(in crate::proto) fn handle_gossip(
        &mut self,
        ctx: &mut Context<'_>,
        id: GossipId,
        peer: PeerKey,
        bytes: &[u8],
    ) {
        let verdict = match ctx.cache.message(bytes) {
            Err(_) => self.records.reject(ctx, peer, Refusal::Malformed),
            Ok(Message::Records(records)) => self.records.take_batch(ctx, peer, &records),
            Ok(Message::Beacon(Ok(beacon))) => self.take_beacon(ctx, peer, &beacon),
            Ok(Message::Beacon(Err(_))) => self.records.reject(ctx, peer, Refusal::Malformed),
        };
        ctx.out.push(Output::Verdict { id, verdict });
    }
}

impl ZoneRecords {
    /// A batch is forwarded only if half of it is new here; one forged record condemns it.
    fn take_batch(&mut self, ctx: &mut Context<'_>, peer: PeerKey, records: &[ByteBuf]) -> Verdict {
        let mut fresh = 0;
        // Taken from the first record: a batch of several authors would let one peer speak for many at the price of one message.
        let mut author = None;
        for bytes in records {
            let signed = match ctx.cache.record(bytes, &ctx.config.network) {
                Ok(signed) => signed,
                Err(refusal) if refusal.blame() == Blame::Sender => return self.reject(ctx, peer, refusal),
                Err(refusal) => {
                    ctx.out.refuse(refusal);
                    continue;
                }
            };
            // Only an author batches, and only its own records.
            let key = signed.header().author.key;
            if *author.get_or_insert(key) != key {
                return self.reject(ctx, peer, Refusal::BadAuthor);
            }
            match self.ingest(ctx, &signed, Via::Gossip) {
                Ingested::New => fresh += 1,
                Ingested::Refused(refusal) if refusal.blame() == Blame::Sender => {
                    return self.reject(ctx, peer, refusal);
                }
                Ingested::Known | Ingested::Refused(_) => {}
            }
        }
        // Half: a batch that is mostly known has been around, and forwarding it again would only repeat it.
        if fresh > 0 && fresh * 2 >= records.len() { Verdict::Accept } else { Verdict::Ignore }
    }

    pub(super) fn reject(&self, ctx: &mut Context<'_>, peer: PeerKey, refusal: Refusal) -> Verdict {
        ctx.out.refuse(refusal);
        ctx.out.penalize(peer, Offence::Record(refusal));
        Verdict::Reject
    }

    /// Merges records from a conversation; returns those that were new. A forged one ends the conversation.
    pub(super) fn take_records(
        &mut self,
        ctx: &mut Context<'_>,
        peer: PeerKey,
        records: Vec<ByteBuf>,
    ) -> Result<Vec<ByteBuf>, Refusal> {
        let mut fresh = Vec::new();
        for bytes in records {
            let ingested = match ctx.cache.record(&bytes, &ctx.config.network) {
                Ok(signed) => self.ingest(ctx, &signed, Via::Sync),
                Err(refusal) => {
                    ctx.out.refuse(refusal);
                    Ingested::Refused(refusal)
                }
            };
            match ingested {
                Ingested::New => fresh.push(bytes),
                Ingested::Known => {}
                // Time, versions and configuration differ between honest nodes: the conversation goes on.
                Ingested::Refused(refusal) if refusal.blame() == Blame::None => {}
                Ingested::Refused(refusal) => {
                    ctx.out.penalize(peer, Offence::Record(refusal));
                    return Err(refusal);
                }
            }
        }
        Ok(fresh)
    }

    /// One parsed record, cheapest checks first.
    fn ingest(&mut self, ctx: &mut Context<'_>, signed: &SignedRecord, via: Via) -> Ingested {
        // Before anything is verified: equal bytes were verified when they came first, and most that arrive are equal.
        if self.registry.get(&signed.key()).is_some_and(|held| held.hash() == signed.hash()) {
            ctx.out.note_taken(via, Taken::Duplicate);
            return Ingested::Known;
        }
        match self.verify(ctx, signed) {
            Err(refusal) => {
                ctx.out.refuse(refusal);
                ctx.out.note_taken(via, Taken::Refused);
                Ingested::Refused(refusal)
            }
            Ok(record) => match self.merge(ctx, record, via) {
                Merge::New { .. } => Ingested::New,
                Merge::Stale | Merge::Duplicate | Merge::NoRoom(_) => Ingested::Known,
            },
        }
    }

    fn verify(&self, ctx: &mut Context<'_>, signed: &SignedRecord) -> Result<Arc<Record>, Refusal> {
        if signed.header().zone != self.id.zone {
            return Err(Refusal::ForeignZone);
        }
        // The zone first, for it costs a comparison; the scope last, for only a verified one is worth blaming anybody.
        let record = signed.verify_with(ctx.now, &mut ctx.cache.keys)?;
        if !self.is_granted(&record) {
            return Err(Refusal::BadGrant);
        }
        if record.is_public() { Ok(record) } else { Err(Refusal::BadScope) }
    }

    /// Whether the zone's key lets a record in: its chain of grants begins there. An agent's owner is then whom the key grants,
    /// of a delegation whoever has the key of the zone below.
    pub(in crate::proto) fn is_granted(&self, record: &Record) -> bool {
        let Some(key) = self.id.key else { return true };
        record.granted_by == Some(key) && (record.owner != key || record.kind == RecordKind::Delegation)
    }

    /// Merges a verified record and does what follows from it.
    pub(in crate::proto) fn merge(&mut self, ctx: &mut Context<'_>, record: Arc<Record>, via: Via) -> Merge {
        if self.registry.is_fork(&record) {
            ctx.out.count(Code::ForkedAuthor);
            self.notices.push(Notice::Forked(record.author()));
        }
        // Through the registry alone: what stands is what the order of content says, however it came.
        let merged = self.registry.merge(record.clone(), ctx.now);
        // Also one without room: a copied folder goes on with the same slots.
        let is_known = matches!(merged, Merge::Stale | Merge::Duplicate);
        ctx.out.note_taken(via, taken(&merged));
        let is_own = record.author().key == ctx.author.key && record.kind != RecordKind::Delegation;
        if via.is_foreign() && is_own && !is_known {
            self.notices.push(Notice::OwnWrite(record.clone()));
        }
        // Before the record is looked at as an own one: it may be a write that this folder lost.
        if via.is_foreign() && record.author() == ctx.author && record.seq > self.seq {
            self.notices.push(Notice::OwnHead(record.author(), record.seq));
        }
        match &merged {
            Merge::New { replaced, evicted } => {
                if let Some(gone) = replaced {
                    self.reindex(gone, ctx.now);
                }
                for (gone, reason) in evicted {
                    self.evicted(ctx, gone, *reason);
                }
                self.on_accepted(ctx, &record, via);
            }
            Merge::NoRoom(reason) => note_no_room(ctx, *reason),
            Merge::Stale | Merge::Duplicate => {}
        }
        merged
    }

    fn evicted(&mut self, ctx: &mut Context<'_>, gone: &Arc<Record>, reason: NoRoom) {
        self.reindex(gone, ctx.now);
        note_no_room(ctx, reason);
        self.removed(ctx, gone.clone(), Removal::NoRoom(reason));
        self.dropped(ctx, gone);
        // An own one is tried again.
        self.notice_own_key(ctx, gone);
    }

    fn on_accepted(&mut self, ctx: &mut Context<'_>, record: &Arc<Record>, via: Via) {
        self.reindex(record, ctx.now);
        if self.is_kept() && record.is_agent() && via != Via::Store {
            ctx.out.event(match record.is_tombstone() {
                true => Event::AgentRemoved { record: record.clone(), reason: Removal::Deleted },
                false => Event::AgentChanged { record: record.clone(), via },
            });
        }
        for named in self.registry.named_by(record) {
            self.notice_own_key(ctx, &named);
            if self.registry.is_revoked(&named, ctx.now) {
                self.removed(ctx, named, Removal::Revoked);
            }
        }
        if via.is_foreign() && self.is_kept() {
            // Not durable: what is lost with the last blocks of a disk comes again by sync.
            ctx.out.write(persistence::other_row(record));
            self.notice_own_key(ctx, record);
        }
    }
}

fn taken(merged: &Merge) -> Taken {
    match merged {
        Merge::New { .. } => Taken::New,
        Merge::Stale => Taken::Stale,
        Merge::Duplicate => Taken::Duplicate,
        Merge::NoRoom(_) => Taken::NoRoom,
    }
}

fn note_no_room(ctx: &mut Context<'_>, reason: NoRoom) {
    ctx.out.count(match reason {
        NoRoom::SlotTaken => Code::SlotTaken,
        NoRoom::ZoneFull => Code::ZoneFull,
    });
}
