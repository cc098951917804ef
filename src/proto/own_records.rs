//! This node's own records: offers, withdrawals, renewals, and the guard over its own keys (protocol section 2).
//!
//! A write is acknowledged only if it passed the whole pipeline here and won the local merge. A host speaks for its own
//! keys: what stands under its PeerId and is not its last write is overruled, never against the owner's revocation. What an
//! earlier folder wrote with its key, and this one does not know, it leaves alone until the operator says what becomes of it.
//!
//! Files below: `write` (how a record of this node is made), `replacing` (what a registration may take the place of), `shelf`
//! (in which slot), `guard` (what is written again), `renewals` (when), `epoch` (what this folder wrote and lost), `restored`
//! (what an earlier folder wrote), `replicas` (whether enough hosts offer the same), `unkept` (what the store did not keep),
//! `key_use` (who else writes under this key), `publish` (what this host signed with other keys: those of its imports).

mod epoch;
mod guard;
mod key_use;
mod publish;
mod renewals;
mod replacing;
mod replicas;
mod restored;
mod shelf;
mod unkept;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_bytes::ByteBuf;

use self::key_use::KeyUse;
pub(super) use self::key_use::note_written;
pub(super) use self::publish::publish;
use self::renewals::Renewals;
use self::replacing::check_replaced;
pub(super) use self::replacing::{Replace, withdraw_version};
use self::replicas::ReplicaWatch;
use self::restored::Restored;
use self::shelf::{Knowledge, Shelves};
use self::unkept::Unkept;
use self::write::Draft;
use super::card::{Offer, Scope};
use super::codec;
use super::config::Config;
use super::context::Context;
use super::directory::Directory;
use super::grant::Grant;
use super::identity::{AgentId, PeerKey};
use super::io::Role;
use super::limits::SLOTS_UNKNOWN_FROM;
use super::name::{FullName, ZoneName};
use super::persistence::{self, LostRanges};
use super::record::{Author, KeyHash, Record, RecordKind};
use super::registration::{Registered, Withdraw, WriteError};
use super::time::Timestamp;
use super::zone::{Zone, Zones};

/// The wait between the first finished sync of a run and the first renewal: one peer may know nothing, or keep to itself
/// what it knows. By then all that were dialed were compared with, and some that dialed have brought what is lacking here.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(60);

/// On whose behalf an offer is made. In a zone with a key it is the first whom that key grants.
fn owner_of(ctx: &Context<'_>, zone: &ZoneName, grants: &[Vec<u8>]) -> Result<PeerKey, WriteError> {
    let first = grants.first().map(|grant| Grant::read(grant).map_err(WriteError::BadGrant)).transpose()?;
    match (ctx.config.zone_keys.get(zone), first) {
        (Some(key), Some(grant)) if grant.issuer == *key => Ok(grant.subject),
        (Some(_), _) => Err(WriteError::NotGranted(zone.clone())),
        (None, Some(grant)) => Ok(grant.issuer),
        (None, None) => Ok(ctx.key()),
    }
}

/// The own records of one node, in all its zones.
pub(super) struct OwnRecords {
    author: Author,
    /// Versions of earlier epochs of this folder that were lost with its last writes.
    retired_epochs: BTreeMap<u64, LostRanges>,
    /// The last own write of each key: tombstones too, until they expire.
    records: BTreeMap<KeyHash, Arc<Record>>,
    /// The last version in each zone that this node takes no part in now: it goes on from there when it comes back.
    parted: BTreeMap<ZoneName, u64>,
    /// Names that configured files offer.
    file_offers: BTreeSet<FullName>,
    /// When a key was last written again because another writer had changed it.
    reasserted_at: BTreeMap<KeyHash, Timestamp>,
    /// Live cards under this node's key that this folder neither wrote nor was told of.
    pub(super) restored: Restored,
    shelves: Shelves,
    renewals: Renewals,
    unkept: Unkept,
    pub(super) key_use: KeyUse,
    pub(super) replicas: ReplicaWatch,
    /// The keys of this host's imports.
    pub(super) imports: BTreeSet<PeerKey>,
    /// Whether this run was told that an earlier one wrote more than this folder holds: a peer's word alone counts no more.
    pub(super) is_told_of_head: bool,
}

impl OwnRecords {
    /// This node, and whoever owns what it offers.
    pub(super) fn owners(&self) -> impl Iterator<Item = PeerKey> {
        self.records.values().map(|own| own.owner).chain([self.author.key])
    }

    pub(super) fn new(key: PeerKey, now: Timestamp) -> OwnRecords {
        OwnRecords {
            author: Author { key, epoch: 0 },
            retired_epochs: BTreeMap::new(),
            records: BTreeMap::new(),
            parted: BTreeMap::new(),
            file_offers: BTreeSet::new(),
            reasserted_at: BTreeMap::new(),
            restored: Restored::default(),
            shelves: Shelves::default(),
            renewals: Renewals::default(),
            unkept: Unkept::default(),
            key_use: KeyUse::new(now),
            replicas: ReplicaWatch::new(now),
            imports: BTreeSet::new(),
            is_told_of_head: false,
        }
    }

    /// This node as an author, in the present epoch.
    pub(super) fn author(&self) -> Author {
        self.author
    }

    pub(super) fn register(
        &mut self,
        ctx: &mut Context<'_>,
        zones: &mut Zones,
        offers: Vec<Offer>,
        replace: Replace,
    ) -> Vec<Result<Registered, WriteError>> {
        offers.into_iter().map(|offer| self.register_one(ctx, zones, offer, replace)).collect()
    }

    pub(super) fn offer_files(
        &mut self,
        ctx: &mut Context<'_>,
        zones: &mut Zones,
        directory: &mut Directory,
        offers: Vec<Offer>,
        withdraw: &Withdraw,
    ) -> Vec<Result<Registered, WriteError>> {
        // A name that the files still hold stays, even if its new card is refused.
        let home = ctx.config.home_zone();
        let name = |offer: &Offer| FullName {
            agent: offer.name.clone(),
            zone: offer.zone.clone().unwrap_or_else(|| home.clone()),
        };
        let mut names: BTreeSet<FullName> = offers.iter().map(name).collect();
        // New offers before withdrawals: an agent that moved to another name is not gone in between.
        let registered = self.register(ctx, zones, offers, Replace::Anything);
        let others = self.file_offers.difference(&names).cloned();
        let (gone, kept): (Vec<FullName>, Vec<FullName>) = others.partition(|name| withdraw.includes(name));
        names.extend(kept);
        let before = std::mem::replace(&mut self.file_offers, names);
        for name in gone {
            // One that is no longer held needs no tombstone; one whose tombstone is not kept goes at another time.
            let withdrawn = self.deregister(ctx, zones, directory, &name);
            if let Err(WriteError::StoreFailed(_)) = withdrawn {
                self.file_offers.insert(name);
            }
        }
        if before != self.file_offers {
            ctx.out.write(persistence::file_offers_row(&self.file_offers));
            self.unkept.note_file_offers(before);
        }
        registered
    }

    fn register_one(
        &mut self,
        ctx: &mut Context<'_>,
        zones: &mut Zones,
        offer: Offer,
        replace: Replace,
    ) -> Result<Registered, WriteError> {
        let zone = offer.zone.clone().unwrap_or_else(|| ctx.config.home_zone());
        if !zones.get(&zone).is_some_and(|zone| zone.role() == Role::Member) {
            return Err(WriteError::ZoneNotServed(zone));
        }
        if offer.scope == Scope::Zone {
            return Err(WriteError::OpenZone(zone));
        }
        let owner = owner_of(ctx, &zone, &offer.grants)?;
        let name = FullName { agent: offer.name, zone };
        let mut draft = Draft {
            owner,
            host: ctx.key(),
            kind: RecordKind::Agent,
            scope: offer.scope,
            generation: 0,
            grants: offer.grants.into_iter().map(ByteBuf::from).collect(),
            body: Vec::new(),
            name: name.clone(),
        };
        let before = self.records.get(&draft.key()).and_then(|own| own.card());
        let card = offer.card.dated(ctx.now, before.as_ref());
        draft.body = codec::encode(&card);
        if replace == Replace::Versions {
            check_replaced(&self.records, ctx.now, zones, &draft, &card)?;
        }
        let registered = Registered { id: AgentId::of(owner, &name), name };
        // A restart offers everything again, and should write nothing that is still good.
        if !self.is_offered_already(ctx.now, zones, &draft) {
            let elsewhere = draft.keys_in_other_scopes();
            self.write(ctx, zones, draft)?;
            // After the write: if that was refused the agent stays where it was.
            for key in elsewhere {
                self.bury_own(ctx, zones, &key, &registered.name)?;
            }
        }
        Ok(registered)
    }

    pub(super) fn deregister(
        &mut self,
        ctx: &mut Context<'_>,
        zones: &mut Zones,
        directory: &mut Directory,
        name: &FullName,
    ) -> Result<Registered, WriteError> {
        // By name and not by own key: an owner may withdraw what other hosts offer for it.
        let ids = directory.by_name(zones, name);
        let zone = zones.get(&name.zone).ok_or_else(|| WriteError::ZoneNotServed(name.zone.clone()))?;
        let held: Vec<Arc<Record>> =
            ids.iter().flat_map(|id| zone.registry().replicas(id, ctx.now)).cloned().collect();
        let key = ctx.key();
        // An own offer goes whether it is held or not: one that lapsed or has no room now would come back.
        let mut mine = offers_named(&self.records, name);
        let others = held.iter().filter(|record| record.host == key || record.owner == key);
        mine.extend(others.filter(|record| !self.records.contains_key(&record.key())).cloned());
        let Some(first) = mine.first() else {
            return Err(match held.first() {
                Some(record) => WriteError::NotYours(name.clone(), record.host),
                None => WriteError::NotFound(name.clone()),
            });
        };
        let registered = Registered { name: name.clone(), id: first.agent_id() };
        // A tombstone far up would not stand over what an earlier folder may have written below.
        if self.shelves.knowledge() != Knowledge::Complete
            && mine.iter().any(|record| record.slot >= SLOTS_UNKNOWN_FROM)
        {
            return Err(WriteError::Pending(name.clone()));
        }
        for record in mine {
            match record.host == key {
                true => self.bury(ctx, zones, &record)?,
                false => self.write(ctx, zones, Draft::revocation(&record))?,
            }
        }
        Ok(registered)
    }

    /// An agent that became public or private is no longer what it was before.
    fn bury_own(
        &mut self,
        ctx: &mut Context<'_>,
        zones: &mut Zones,
        key: &KeyHash,
        name: &FullName,
    ) -> Result<(), WriteError> {
        let held = zones.get(&name.zone).and_then(|zone| zone.registry().get(key)).cloned();
        match held.filter(|held| !held.is_tombstone() && !held.is_expired(ctx.now)) {
            Some(held) => self.bury(ctx, zones, &held),
            None => Ok(()),
        }
    }

    /// Writes a tombstone.
    fn bury(&mut self, ctx: &mut Context<'_>, zones: &mut Zones, record: &Record) -> Result<(), WriteError> {
        // The owner needs no grant; anybody else buries with the grants that the card came with.
        let grants = if record.owner == ctx.key() { Vec::new() } else { record.grants() };
        self.write(ctx, zones, Draft { grants, body: Vec::new(), ..Draft::again(record) })
    }

    /// Withdraws all that is offered in a zone. What cannot be buried lapses by itself.
    pub(super) fn withdraw_from(&mut self, ctx: &mut Context<'_>, zones: &mut Zones, zone: &ZoneName) {
        let offered = self.records.values().filter(|own| own.name.zone == *zone && is_offer(own));
        for own in offered.cloned().collect::<Vec<_>>() {
            _ = self.bury(ctx, zones, &own);
        }
    }

    /// This node takes no part in a zone any more. Its tombstones are kept: they come back with it.
    pub(super) fn leave(&mut self, zone: &Zone) {
        self.parted.insert(zone.name().clone(), zone.records.seq());
    }

    /// This node takes part in a zone again, or for the first time.
    pub(super) fn join(&mut self, ctx: &mut Context<'_>, zones: &mut Zones, name: &ZoneName) {
        let (Some(seq), Some(zone)) = (self.parted.remove(name), zones.get_mut(name)) else { return };
        // Its row holds the same.
        _ = zone.records.set_seq(seq);
        let own = self.records.values().filter(|own| own.name.zone == *name);
        for record in own.cloned().collect::<Vec<_>>() {
            let key = record.key();
            epoch::merge_stored(ctx, zones, record);
            self.plan_renewal(ctx.now, zones, &key);
            self.guard(ctx, zones, &key, name);
        }
    }

    /// A record was dropped for good: an own tombstone has nothing left to bury.
    pub(super) fn forget(&mut self, ctx: &mut Context<'_>, key: &KeyHash) {
        // An offer stays, though its record was dropped: it is written again when its renewal comes.
        if self.records.get(key).is_some_and(|own| !is_offer(own) && own.is_expired(ctx.now)) {
            self.remove(ctx, key);
        }
        self.restored.forget(ctx, key);
    }

    /// The last own write of a key, in its slot.
    fn keep(&mut self, record: Arc<Record>) {
        self.shelves.take(&record);
        self.replicas.note(&record);
        if let Some(before) = self.records.insert(record.key(), record.clone())
            && before.slot != record.slot
        {
            self.shelves.release(&before);
        }
    }

    fn remove(&mut self, ctx: &mut Context<'_>, key: &KeyHash) {
        if let Some(own) = self.records.remove(key) {
            self.shelves.release(&own);
            ctx.out.write(persistence::remove_own(*key));
        }
    }

    /// The local clock went back by `step`: what was put off under it is tried again at once.
    pub(super) fn shift(&mut self, step: Duration) {
        for at in self.reasserted_at.values_mut() {
            *at = *at - step;
        }
        self.key_use.shift(step);
        self.replicas.shift(step);
    }

    /// When [`OwnRecords::renew`] has something to do.
    pub(super) fn poll_timeout(
        &self,
        config: &Config,
        zones: &Zones,
        settles: Timestamp,
    ) -> Option<Timestamp> {
        let renewal = renews_from(config, zones).and_then(|from| {
            let from = from.max(settles);
            let shelf = (self.shelves.knowledge() == Knowledge::Incomplete).then_some(from);
            shelf.or_else(|| self.renewals.first().map(|at| at.max(from)))
        });
        renewal.into_iter().chain(self.key_use.until()).min()
    }
}

fn offers_named(records: &BTreeMap<KeyHash, Arc<Record>>, name: &FullName) -> Vec<Arc<Record>> {
    records.values().filter(|own| own.name == *name && is_offer(own)).cloned().collect()
}

/// What this host offers.
pub(super) fn offers(own: &OwnRecords) -> impl Iterator<Item = &Arc<Record>> {
    own.records.values().filter(|own| is_offer(own))
}

/// Whether it offers an agent, and is renewed; tombstones and revocations end with their lease.
fn is_offer(own: &Record) -> bool {
    own.is_agent() && !own.is_tombstone()
}

/// Before others were heard an own agent may have been deleted elsewhere (a restored backup), and after a jump of the clock
/// a new stamp may be wrong for as long as the jump was: do not renew it.
fn may_renew(ctx: &Context<'_>, zones: &Zones) -> bool {
    let heard = renews_from(ctx.config, zones).is_some_and(|from| from <= ctx.now);
    heard && ctx.now >= ctx.clock_settles
}

/// Since when this node may renew what nobody asked it to write; none before it was compared with anybody.
pub(super) fn renews_from(config: &Config, zones: &Zones) -> Option<Timestamp> {
    if !config.expects_peers {
        return Some(Timestamp::default());
    }
    zones.values().try_fold(Timestamp::default(), |latest, zone| {
        Some(latest.max(zone.first_synced_at()? + RENEWAL_PATIENCE))
    })
}

fn is_synced(config: &Config, zones: &Zones) -> bool {
    !config.expects_peers || zones.values().all(|zone| zone.first_synced_at().is_some())
}
