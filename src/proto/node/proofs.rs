//! Below a zone whose key the operator named only what that key vouches for is believed (protocol section 4): answers bring
//! the delegations that lead from such keys to the zones of their records.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_bytes::ByteBuf;

use super::ask::Questions;
use crate::proto::context::Context;
use crate::proto::identity::PeerKey;
use crate::proto::name::ZoneName;
use crate::proto::overlay::delegated;
use crate::proto::record::{KeyHash, Record, RecordKind, Refusal};

/// Delegations that lead to one zone: one or two for each of eight labels.
const PER_ZONE_MAX: usize = 12;

impl Questions<'_, '_> {
    /// The delegations with grants of a zone and of those above it, as far as they are held here.
    pub(super) fn proofs_of(&self, zone: &ZoneName) -> Vec<Arc<Record>> {
        let way = std::iter::once(zone.clone()).chain(zone.ancestors()).filter(|name| !name.is_root());
        let mut proofs: BTreeMap<KeyHash, Arc<Record>> = BTreeMap::new();
        for name in way {
            for above in name.ancestors() {
                for registry in self.zones.named(&above) {
                    let keys = registry.records.delegations.of(&name);
                    let held = keys.filter_map(|key| registry.registry().get(key));
                    let live = held.filter(|it| {
                        let is_over =
                            it.is_expired(self.ctx.now) || registry.registry().is_revoked(it, self.ctx.now);
                        it.granted_by.is_some() && !is_over
                    });
                    // One of each key that is claimed.
                    let mut newest: BTreeMap<(Option<PeerKey>, PeerKey), &Arc<Record>> = BTreeMap::new();
                    for record in live {
                        let of = newest.entry((record.granted_by, record.owner)).or_insert(record);
                        if record.order() > of.order() {
                            *of = record;
                        }
                    }
                    proofs.extend(newest.into_values().map(|record| (record.key(), record.clone())));
                }
            }
        }
        let told = self.overlay.proofs(zone).iter().filter(|it| !it.is_expired(self.ctx.now));
        proofs.extend(told.map(|record| (record.key(), record.clone())));
        // The deepest first: what is claimed above, where a zone may be open to strangers, pushes out nothing that stands below.
        let mut proofs: Vec<Arc<Record>> = proofs.into_values().collect();
        proofs.sort_by_key(|record| Reverse(record.name.zone.ancestors().count()));
        proofs.truncate(PER_ZONE_MAX);
        proofs
    }
}

/// What the keys that the operator named vouch for.
pub(super) struct Vouched<'a> {
    anchors: &'a BTreeMap<ZoneName, PeerKey>,
    proofs: Vec<Arc<Record>>,
}

impl<'a> Vouched<'a> {
    /// By these delegations, all of which must be what they claim to be; they are read only where some key is named.
    pub(super) fn by(ctx: &'a mut Context<'_>, proofs: &[ByteBuf]) -> Result<Vouched<'a>, Refusal> {
        let mut verified = Vec::new();
        for bytes in proofs.iter().filter(|_| !ctx.config.zone_keys.is_empty()) {
            match ctx.record_of_peer(bytes)? {
                Some(record) if record.kind == RecordKind::Delegation => verified.push(record),
                Some(_) => return Err(Refusal::BadDelegation),
                None => {}
            }
        }
        Ok(Vouched { anchors: &ctx.config.zone_keys, proofs: verified })
    }

    /// Whether a record may stand in its zone.
    pub(super) fn admits(&self, record: &Record) -> bool {
        match self.keys_of(&record.name.zone) {
            None => true,
            Some(keys) => keys.iter().any(|key| key.is_none() || record.granted_by == *key),
        }
    }

    /// The keys that a zone may have, none among them where it is vouched for as open; none at all where no key is named for it
    /// or above it.
    fn keys_of(&self, zone: &ZoneName) -> Option<BTreeSet<Option<PeerKey>>> {
        if let Some(key) = self.anchors.get(zone) {
            return Some(BTreeSet::from([Some(*key)]));
        }
        let (anchor, key) =
            zone.ancestors().find_map(|above| Some((above.clone(), self.anchors.get(&above)?)))?;
        let of = self.proofs.iter().filter_map(|proof| Some((delegated(proof)?, proof)));
        let vouched = of.filter(|(id, proof)| {
            let found_in = &proof.name.zone;
            let is_between = *found_in != anchor && found_in.is_within(&anchor);
            // Each step is nearer to the anchor, so that this ends.
            let by = match is_between && zone.is_within(found_in) && zone != found_in {
                true => self.keys_of(found_in).unwrap_or_default(),
                false => BTreeSet::from([Some(*key)]),
            };
            id.zone == *zone && proof.granted_by.is_some() && by.contains(&proof.granted_by)
        });
        Some(vouched.map(|(id, _)| id.key).collect())
    }
}
