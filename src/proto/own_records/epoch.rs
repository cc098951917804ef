//! Epochs of a data folder: what it wrote, what of that it lost, and how it tells its lost writes from those of another
//! process with its key (protocol section 1).

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::RngExt;

use super::OwnRecords;
use super::shelf::Knowledge;
use crate::proto::codec;
use crate::proto::context::Context;
use crate::proto::io::{NodeAlert, Via, Write};
use crate::proto::name::ZoneName;
use crate::proto::persistence::{self, Damage, LostRange, LostRanges, Stored};
use crate::proto::record::Record;
use crate::proto::zone::Zones;

impl OwnRecords {
    /// Takes what the store held. The registries get their records before own keys are guarded.
    pub(in crate::proto) fn load(&mut self, ctx: &mut Context<'_>, zones: &mut Zones, stored: Stored) {
        self.retired_epochs = stored.retired_epochs;
        self.file_offers = stored.file_offers;
        self.parted = stored.seqs.iter().map(|(name, seq)| (name.clone(), *seq)).collect();
        self.parted.retain(|name, _| !zones.contains_key(name));
        // Others first: an own record that lost to one of them must find it there.
        for record in stored.others {
            merge_stored(ctx, zones, record);
        }
        for record in stored.own {
            let key = record.key();
            if self.records.get(&key).is_none_or(|held| held.precedence() < record.precedence()) {
                self.keep(record.clone());
            }
            merge_stored(ctx, zones, record);
        }
        if stored.incomplete {
            // Its row is there.
            _ = self.shelves.set_knowledge(Knowledge::Incomplete);
        }
        // Without peers nobody holds what this folder does not; a key as new as its folder wrote nothing before.
        let knowledge = match (stored.epoch, stored.damage) {
            _ if !ctx.config.expects_peers => Knowledge::Complete,
            (None, _) if ctx.config.new_key => Knowledge::Complete,
            (None, _) | (Some(_), Damage::OwnWritesMissing) => Knowledge::Incomplete,
            (Some(_), Damage::None) if stored.incomplete => Knowledge::Incomplete,
            (Some(_), Damage::None) => Knowledge::Unconfirmed,
        };
        ctx.out.writes(self.shelves.set_knowledge(knowledge));
        match stored.epoch {
            None => self.take_new_epoch(ctx, zones),
            Some(epoch) => {
                self.author.epoch = epoch;
                ctx.author = self.author;
                self.take_versions(zones, &stored.seqs);
                if stored.damage == Damage::OwnWritesMissing {
                    self.retire_epoch(ctx, zones, &BTreeMap::new());
                }
            }
        }
        self.guard_all(ctx, zones);
    }

    /// Where the versions of the present epoch go on.
    fn take_versions(&self, zones: &mut Zones, seqs: &BTreeMap<ZoneName, u64>) {
        for zone in zones.values_mut() {
            let name = zone.name().clone();
            let written = self
                .records
                .values()
                .filter(|own| own.name.zone == name && own.author().epoch == self.author.epoch);
            // Whichever is greater, the records or the row: either may be the one that the last crash spared.
            let highest = written.map(|own| own.seq).max().unwrap_or(0);
            // Its row holds the same or a greater one.
            _ = zone.records.set_seq(highest.max(seqs.get(&name).copied().unwrap_or(0)));
        }
    }

    /// Another incarnation of this folder was ahead of it, as `alert` tells.
    pub(in crate::proto) fn note_head(
        &mut self,
        ctx: &mut Context<'_>,
        zones: &mut Zones,
        zone: &ZoneName,
        head: u64,
        alert: NodeAlert,
    ) {
        if zones.get(zone).is_some_and(|own| head > own.records.seq()) {
            self.is_told_of_head = true;
            // It is not this folder that wrote on: nothing was lost, and the two are told apart from now on.
            if ctx.out.has_alert(&NodeAlert::KeyInUse) {
                return self.take_new_epoch(ctx, zones);
            }
            self.retire_epoch(ctx, zones, &[(zone.clone(), head)].into());
            ctx.out.writes(self.shelves.set_knowledge(Knowledge::Incomplete));
            ctx.out.alert(alert);
        }
    }

    /// The present epoch ends: this folder wrote more in it than it holds, at least up to `heads` where that is known.
    fn retire_epoch(&mut self, ctx: &mut Context<'_>, zones: &mut Zones, heads: &BTreeMap<ZoneName, u64>) {
        let known = zones.values().map(|zone| (zone.name(), zone.records.seq()));
        let parted = self.parted.iter().map(|(name, seq)| (name, *seq));
        let lost: LostRanges = known
            .chain(parted)
            .map(|(name, known)| {
                // How much was lost elsewhere nobody said: everything beyond what is held may be.
                let head = heads.get(name).copied().unwrap_or(u64::MAX);
                (name.clone(), LostRange { known, head, ended_at: ctx.now })
            })
            .collect();
        ctx.out.write(Write {
            key: [b"f", &self.author.epoch.to_be_bytes()[..]].concat(),
            value: Some(codec::encode(&lost).into()),
            durable: true,
        });
        self.retired_epochs.insert(self.author.epoch, lost);
        self.take_new_epoch(ctx, zones);
    }

    /// Whether this folder wrote the record and lost it.
    pub(super) fn is_lost_write(&self, record: &Record) -> bool {
        record.author().key == self.author.key
            && self
                .retired_epochs
                .get(&record.author().epoch)
                .and_then(|lost| lost.get(&record.name.zone))
                .is_some_and(|lost| lost.contains(record))
    }

    fn take_new_epoch(&mut self, ctx: &mut Context<'_>, zones: &mut Zones) {
        self.author.epoch = ctx.rng.random();
        ctx.author = self.author;
        let value = self.author.epoch.to_be_bytes();
        ctx.out.write(Write { key: b"e".to_vec(), value: Some(value[..].into()), durable: true });
        // Versions are dense in each epoch: a restart must not go on from those of the last one.
        for zone in zones.values_mut() {
            ctx.out.write(zone.records.set_seq(0));
        }
        for (name, seq) in &mut self.parted {
            *seq = 0;
            ctx.out.write(persistence::seq_row(name, 0));
        }
    }
}

impl LostRange {
    fn contains(&self, record: &Record) -> bool {
        // By stamp too: peers may hold later versions than the one that told of the loss.
        record.seq > self.known && (record.seq <= self.head || record.stamp.wall <= self.ended_at)
    }
}

pub(super) fn merge_stored(ctx: &mut Context<'_>, zones: &mut Zones, record: Arc<Record>) {
    if !record.is_expired(ctx.now)
        && let Some(zone) = zones.get_mut(&record.name.zone)
    {
        zone.records.merge(ctx, record, Via::Store);
    }
}
