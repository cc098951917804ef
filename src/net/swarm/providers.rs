//! Provider records of the DHT: which peers say that they serve which zone. Values are not kept here, for nobody.
//!
//! Peers put records of themselves only, so each limit holds for one connection's owner at a time: so many keys of a peer,
//! so many peers of a key, so many records in all. Who comes when a limit is reached is not kept, and nobody who was kept
//! makes room for him: a flood of new names cannot push out those that are known.

use std::borrow::Cow;
use std::collections::BTreeMap;

use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey};
use sha2::{Digest, Sha256};

use super::ZoneTopics;
use crate::net::addresses::ADDRESSES_PER_PEER_MAX;
use crate::proto::name::ZoneName;

/// Bytes of a zone's key.
const KEY_BYTES: usize = 32;
/// Records of others in all: at about 1 KB each some 2 MB.
const PROVIDERS_MAX: usize = 2_048;
/// Records of one key: twice what one answer holds.
const PROVIDERS_PER_KEY_MAX: usize = 16;
/// Records of one peer. A gateway that serves more zones is found through the first of them.
const KEYS_PER_PEER_MAX: usize = 64;
/// Longest address that is kept, bytes; a name of 253 bytes with port, transport and peer fits.
const ADDRESS_BYTES_MAX: usize = 320;

/// The key under which providers of a zone are found: a hash of its topic, which names network and zone.
pub(super) fn zone_key(topics: &ZoneTopics, zone: &ZoneName) -> RecordKey {
    RecordKey::new(&Sha256::digest(topics.topic(zone).hash().as_str()))
}

/// The provider records of one node.
pub(super) struct ProviderStore {
    own: PeerId,
    /// Its own records, one for each zone that it provides.
    provided: BTreeMap<Vec<u8>, ProviderRecord>,
    /// Those of others, by key.
    others: BTreeMap<Vec<u8>, Vec<ProviderRecord>>,
    /// How many records each of the others has.
    records_of: BTreeMap<PeerId, usize>,
}

impl ProviderStore {
    /// An empty store of this peer.
    pub(super) fn new(own: PeerId) -> ProviderStore {
        ProviderStore { own, provided: BTreeMap::new(), others: BTreeMap::new(), records_of: BTreeMap::new() }
    }

    fn has_room(&self, key: &[u8], provider: &PeerId) -> bool {
        // Summed when somebody asks: a total kept beside the counts could drift from them.
        self.records_of.values().sum::<usize>() < PROVIDERS_MAX
            && self.records_of.get(provider).is_none_or(|records| *records < KEYS_PER_PEER_MAX)
            && self.others.get(key).is_none_or(|records| records.len() < PROVIDERS_PER_KEY_MAX)
    }

    /// Keeps the records that `keep` picks, and counts what goes.
    fn retain(&mut self, keep: impl Fn(&ProviderRecord) -> bool) {
        let records_of = &mut self.records_of;
        self.others.retain(|_, records| {
            for gone in records.extract_if(.., |record| !keep(record)) {
                // Every record was counted when it came, so a count is at least one here.
                let left = records_of.get(&gone.provider).map_or(0, |records| records - 1);
                if left == 0 {
                    records_of.remove(&gone.provider);
                } else {
                    records_of.insert(gone.provider, left);
                }
            }
            !records.is_empty()
        });
    }
}

impl RecordStore for ProviderStore {
    type RecordsIter<'a> = std::iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::vec::IntoIter<Cow<'a, ProviderRecord>>;

    fn get(&self, _key: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    fn put(&mut self, _record: Record) -> Result<()> {
        // Values would be memory that any peer fills with anything; nothing of this network needs them.
        Err(Error::MaxRecords)
    }

    fn remove(&mut self, _key: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        std::iter::empty()
    }

    fn add_provider(&mut self, mut record: ProviderRecord) -> Result<()> {
        let key = record.key.to_vec();
        // Keys of zones are hashes. Any other length is somebody else's use of this memory.
        if key.len() != KEY_BYTES {
            return Err(Error::ValueTooLarge);
        }
        record.addresses.retain(|address| address.len() <= ADDRESS_BYTES_MAX);
        record.addresses.truncate(ADDRESSES_PER_PEER_MAX);
        // Own records count against no limit, or a flood could keep this node from being found.
        if record.provider == self.own {
            self.provided.insert(key, record);
            return Ok(());
        }
        let records = self.others.get_mut(&key);
        // Equal are key and provider alone, so a record told again replaces the old one and needs no room.
        let known = records.and_then(|records| records.iter_mut().find(|known| **known == record));
        if let Some(known) = known {
            *known = record;
            return Ok(());
        }
        if !self.has_room(&key, &record.provider) {
            // Expired records cost a walk over everything, so they go only when their room is needed.
            self.retain(|record| !is_expired(record));
        }
        if !self.has_room(&key, &record.provider) {
            return Err(Error::MaxProvidedKeys);
        }
        *self.records_of.entry(record.provider).or_default() += 1;
        self.others.entry(key).or_default().push(record);
        Ok(())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let own = self.provided.get(key.as_ref());
        own.into_iter().chain(self.others.get(key.as_ref()).into_iter().flatten()).cloned().collect()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        self.provided.values().map(Cow::Borrowed).collect::<Vec<_>>().into_iter()
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        if *provider == self.own {
            self.provided.remove(key.as_ref());
        } else {
            self.retain(|record| record.key != *key || record.provider != *provider);
        }
    }
}

/// Whether the time is past until which a record was told. The time itself says so: whose clock it is of, libp2p's own or the
/// virtual one of the mesh tier, need not be named.
fn is_expired(record: &ProviderRecord) -> bool {
    record.expires.is_some_and(|expires| !expires.elapsed().is_zero())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn key(number: u64) -> RecordKey {
        RecordKey::new(&Sha256::digest(number.to_le_bytes()))
    }

    fn added(store: &mut ProviderStore, number: u64, provider: PeerId, expires: Option<Instant>) -> bool {
        let record = ProviderRecord { expires, ..ProviderRecord::new(key(number), provider, Vec::new()) };
        store.add_provider(record).is_ok()
    }

    fn total(store: &ProviderStore) -> usize {
        store.others.values().map(Vec::len).sum()
    }

    #[test]
    fn a_peer_that_says_it_provides_everything_is_kept_for_a_few_keys() {
        let (own, peer) = (PeerId::random(), PeerId::random());
        let mut store = ProviderStore::new(own);
        let kept = (0..5_000).filter(|number| added(&mut store, *number, peer, None)).count();
        assert_eq!((kept, total(&store)), (KEYS_PER_PEER_MAX, KEYS_PER_PEER_MAX));
        assert!(added(&mut store, 3, peer, None), "what is kept may be put again");
        assert!(added(&mut store, 9_999, PeerId::random(), None), "others have their own room");
        assert!(added(&mut store, 9_999, own, None) && added(&mut store, 8_888, own, None));
        assert_eq!(store.provided().count(), 2);
        assert_eq!(store.providers(&key(9_999)).len(), 2);
    }

    #[test]
    fn a_crowd_fills_neither_a_key_nor_the_store_beyond_its_limit_and_pushes_nobody_out() {
        let mut store = ProviderStore::new(PeerId::random());
        let first = PeerId::random();
        assert!(added(&mut store, 0, first, None));
        for _ in 0..100 {
            added(&mut store, 0, PeerId::random(), None);
        }
        assert_eq!(store.providers(&key(0)).len(), PROVIDERS_PER_KEY_MAX);
        for number in 1..10_000 {
            added(&mut store, number, PeerId::random(), None);
        }
        assert_eq!(total(&store), PROVIDERS_MAX);
        assert_eq!(store.providers(&key(0))[0].provider, first);
    }

    #[test]
    fn what_has_expired_makes_room() {
        let (mut store, peer, now) = (ProviderStore::new(PeerId::random()), PeerId::random(), Instant::now());
        for number in 0..KEYS_PER_PEER_MAX as u64 {
            assert!(added(&mut store, number, peer, now.checked_sub(Duration::from_secs(1))));
        }
        assert!(added(&mut store, 7_777, peer, now.checked_add(Duration::from_secs(60))));
        assert_eq!((total(&store), store.records_of[&peer]), (1, 1));
        store.remove_provider(&key(7_777), &peer);
        assert!(store.others.is_empty() && store.records_of.is_empty());
    }

    #[test]
    fn a_record_keeps_few_and_short_addresses_and_has_a_key_of_a_zone() {
        let mut store = ProviderStore::new(PeerId::random());
        let long = format!("/dns/{}/tcp/1", "a".repeat(400)).parse().unwrap();
        let addresses = std::iter::repeat_n("/ip4/1.2.3.4/tcp/1".parse().unwrap(), 500).chain([long]);
        let record = ProviderRecord::new(key(1), PeerId::random(), addresses.rev().collect());
        store.add_provider(record).unwrap();
        assert_eq!(store.providers(&key(1))[0].addresses.len(), ADDRESSES_PER_PEER_MAX);
        let odd = ProviderRecord::new(RecordKey::new(&[7; 1_000]), PeerId::random(), Vec::new());
        store.add_provider(odd).unwrap_err();
    }
}
