//! The author of an import (protocol section 1): what this host copies from another registry is signed by keys of the import,
//! so that it takes none of the node's slots and goes when the import does.
//!
//! One key has room for as many records as a shelf has slots. The keys of an import follow from its first by number; they send
//! no beacons and so are no members of a zone. What stands in the registry under them is all that an import remembers: a
//! [`Holdings`] is made of it, says what is new, and writes it. Versions are counted in memory alone, because each run of the
//! process takes an epoch of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::card::{AgentCard, Scope};
use super::codec;
use super::identity::{Identity, PeerKey};
use super::limits::{CARD_LIFE, SLOTS, STAMP_AHEAD_MAX, TOMBSTONE_LIFE, TOMBSTONE_LIFE_LONG};
use super::name::{AgentName, ZoneName};
use super::record::{Author, Header, Record, RecordKind, Refusal, Shelf, SignedRecord};
use super::signature::Keys;
use super::time::{Stamp, Timestamp};

/// Keys of one import: ten have room for 200,000 records, the rest for what withdrawals leave behind for a week.
pub const IMPORT_KEYS_MAX: usize = 12;
/// Separates the seeds of further keys from all other hashes.
const KEY_DOMAIN: &[u8] = b"aop-import-key-v1\0";

/// What kind of registry is imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImportKind {
    /// A registry of MCP servers: `GET /v0.1/servers`.
    Mcp,
    /// A catalogue of Agentic Resource Discovery, or a registry that lists such entries: `GET /agents`.
    Ard,
    /// A directory of agents over HTTP: `GET /v1/agents`.
    Agents,
}

/// What is not the name of a kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("none of mcp, ard and agents")]
pub struct NotAKind;

impl ImportKind {
    /// As it is written in settings and answers.
    pub fn text(self) -> &'static str {
        match self {
            ImportKind::Mcp => "mcp",
            ImportKind::Ard => "ard",
            ImportKind::Agents => "agents",
        }
    }
}

impl fmt::Display for ImportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl FromStr for ImportKind {
    type Err = NotAKind;

    fn from_str(text: &str) -> Result<ImportKind, NotAKind> {
        let kinds = [ImportKind::Mcp, ImportKind::Ard, ImportKind::Agents];
        kinds.into_iter().find(|kind| kind.text() == text).ok_or(NotAKind)
    }
}

/// Signs for an import, in one run of the process.
pub struct ImportAuthor {
    network: String,
    identities: Vec<Identity>,
    epoch: u64,
    /// The last version of each key in each zone.
    versions: BTreeMap<(ZoneName, usize), u64>,
    keys: Keys,
}

impl ImportAuthor {
    /// Of the import whose first key is made from `seed`. `epoch` is a random number of this run, so that no version is used
    /// twice whatever an earlier one wrote.
    pub fn new(network: &str, seed: [u8; 32], epoch: u64) -> ImportAuthor {
        let identity = |number: usize| match number {
            0 => Identity::from_seed(seed),
            _ => Identity::from_seed(derived(seed, number)),
        };
        ImportAuthor {
            network: network.to_owned(),
            identities: (0..IMPORT_KEYS_MAX).map(identity).collect(),
            epoch,
            versions: BTreeMap::new(),
            keys: Keys::default(),
        }
    }

    /// All keys that the import may use, the first first.
    pub fn keys(&self) -> impl Iterator<Item = PeerKey> {
        self.identities.iter().map(Identity::key)
    }

    /// Its shelves in any zone, one a key.
    pub fn shelves(&self) -> Vec<Shelf> {
        self.keys().map(|key| Shelf { owner: key, host: key, revocations: false }).collect()
    }
}

fn derived(seed: [u8; 32], number: usize) -> [u8; 32] {
    let hash = Sha256::new_with_prefix(KEY_DOMAIN).chain_update(seed);
    hash.chain_update((number as u32).to_be_bytes()).finalize().into()
}

/// What an import has in one zone, by name.
pub struct Holdings {
    zone: ZoneName,
    /// Tombstones, too: they keep their slots.
    held: BTreeMap<AgentName, Held>,
    /// For each key the slots that are taken.
    taken: Vec<Vec<bool>>,
    /// Of each key no lower slot is free.
    free_from: Vec<u16>,
}

struct Held {
    /// Number of the key.
    key: usize,
    record: Arc<Record>,
}

/// Why nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// It stands there already, as it is, and is not due for renewal.
    Unchanged,
    /// All slots of all keys are taken.
    Full,
    /// The record would be against the rules.
    Refused(Refusal),
}

impl Holdings {
    /// Of the records on [`ImportAuthor::shelves`] of a zone.
    pub fn new(
        author: &ImportAuthor,
        zone: ZoneName,
        records: impl IntoIterator<Item = Arc<Record>>,
    ) -> Holdings {
        let numbers: BTreeMap<PeerKey, usize> = author.keys().zip(0..).collect();
        let mut holdings = Holdings {
            zone,
            held: BTreeMap::new(),
            taken: vec![vec![false; usize::from(SLOTS)]; numbers.len()],
            free_from: vec![0; numbers.len()],
        };
        for record in records {
            if let Some(key) = numbers.get(&record.host) {
                holdings.put(*key, record);
            }
        }
        holdings
    }

    /// Documents that are offered at `now`.
    pub fn live(&self, now: Timestamp) -> usize {
        self.held.values().filter(|held| is_live(&held.record, now)).count()
    }

    /// The card that is offered under a name.
    pub fn card(&self, name: &AgentName, now: Timestamp) -> Option<AgentCard> {
        self.held.get(name).filter(|held| is_live(&held.record, now))?.record.card()
    }

    /// Names of what is to be written again by `now` so that it does not lapse.
    pub fn due(&self, now: Timestamp) -> Vec<AgentName> {
        let is_due = |held: &Held| is_live(&held.record, now) && held.record.renewal_at() <= now;
        self.held.iter().filter(|(_, held)| is_due(held)).map(|(name, _)| name.clone()).collect()
    }

    /// Names of all that is offered.
    pub fn names(&self, now: Timestamp) -> Vec<AgentName> {
        let live = self.held.iter().filter(|(_, held)| is_live(&held.record, now));
        live.map(|(name, _)| name.clone()).collect()
    }

    /// Writes a card under a name, if it is not what stands there.
    ///
    /// # Errors
    /// Why nothing was written; nothing was changed.
    pub fn offer(
        &mut self,
        author: &mut ImportAuthor,
        now: Timestamp,
        name: &AgentName,
        card: &AgentCard,
    ) -> Result<SignedRecord, Unwritten> {
        let body = codec::encode(card);
        let held = self.held.get(name);
        let stands = |held: &Held| {
            is_live(&held.record, now) && held.record.body() == body && held.record.renewal_at() > now
        };
        if held.is_some_and(stands) {
            return Err(Unwritten::Unchanged);
        }
        self.write(author, now, name, &body)
    }

    /// Writes what stands under a name again, with a new lease.
    ///
    /// # Errors
    /// As of [`Holdings::offer`]; `Unchanged` where nothing is offered.
    pub fn renew(
        &mut self,
        author: &mut ImportAuthor,
        now: Timestamp,
        name: &AgentName,
    ) -> Result<SignedRecord, Unwritten> {
        let held = self.held.get(name).filter(|held| is_live(&held.record, now));
        let body = held.ok_or(Unwritten::Unchanged)?.record.body().to_vec();
        self.write(author, now, name, &body)
    }

    /// Withdraws what is offered under a name.
    ///
    /// # Errors
    /// As of [`Holdings::offer`]; `Unchanged` where nothing is offered.
    pub fn withdraw(
        &mut self,
        author: &mut ImportAuthor,
        now: Timestamp,
        name: &AgentName,
    ) -> Result<SignedRecord, Unwritten> {
        self.held.get(name).filter(|held| is_live(&held.record, now)).ok_or(Unwritten::Unchanged)?;
        self.write(author, now, name, &[])
    }

    fn write(
        &mut self,
        author: &mut ImportAuthor,
        now: Timestamp,
        name: &AgentName,
        body: &[u8],
    ) -> Result<SignedRecord, Unwritten> {
        let before = self.held.get(name).map(|held| (held.key, held.record.clone()));
        let (key, slot) = match &before {
            // A tombstone keeps the slot of what it buries, and what comes after it does too.
            Some((key, record)) => (*key, record.slot),
            None => self.lowest_free().ok_or(Unwritten::Full)?,
        };
        let version = author.versions.entry((self.zone.clone(), key)).or_default();
        *version += 1;
        let (stamp, generation, expires_at) =
            lease(now, before.as_ref().map(|(_, record)| &**record), body.is_empty());
        let identity = &author.identities[key];
        let header = Header {
            network: author.network.clone(),
            zone: self.zone.clone(),
            kind: RecordKind::Agent,
            name: name.clone(),
            owner: identity.key(),
            host: identity.key(),
            author: Author { key: identity.key(), epoch: author.epoch },
            seq: *version,
            stamp,
            generation,
            expires_at,
            scope: Scope::Public,
            slot,
            grants: Vec::new(),
        };
        let signed = SignedRecord::sign(header, body, identity).map_err(Unwritten::Refused)?;
        let record = signed.verify_with(now, &mut author.keys).map_err(Unwritten::Refused)?;
        self.put(key, record);
        Ok(signed)
    }

    fn put(&mut self, key: usize, record: Arc<Record>) {
        self.taken[key][usize::from(record.slot)] = true;
        self.held.insert(record.name.agent.clone(), Held { key, record });
    }

    fn lowest_free(&mut self) -> Option<(usize, u16)> {
        for (key, taken) in self.taken.iter().enumerate() {
            let free = (self.free_from[key]..SLOTS).find(|slot| !taken[usize::from(*slot)]);
            self.free_from[key] = free.unwrap_or(SLOTS);
            if let Some(slot) = free {
                return Some((key, slot));
            }
        }
        None
    }
}

fn is_live(record: &Record, now: Timestamp) -> bool {
    !record.is_tombstone() && !record.is_expired(now)
}

/// Stamp, generation and end of a record that takes the place of `before`.
fn lease(now: Timestamp, before: Option<&Record>, is_tombstone: bool) -> (Stamp, u64, Timestamp) {
    let present = Stamp { wall: now, counter: 0 };
    let mut stamp = before.map_or(present, |before| before.stamp.successor().max(present));
    let mut generation = before.map_or(0, |before| before.generation);
    // What a clock far ahead stamped would be refused until it is due; the owner's generation overrules it.
    if stamp.wall > now + STAMP_AHEAD_MAX {
        (stamp, generation) = (present, generation + 1);
    }
    let life = match (is_tombstone, generation) {
        (false, _) => CARD_LIFE,
        (true, 0) => TOMBSTONE_LIFE,
        (true, _) => TOMBSTONE_LIFE_LONG,
    };
    (stamp, generation, stamp.wall + life)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::card::Origin;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn author(epoch: u64) -> ImportAuthor {
        ImportAuthor::new("world", [7; 32], epoch)
    }

    fn card(text: &str) -> AgentCard {
        AgentCard { description: text.into(), origin: Origin::ServerJson, ..AgentCard::default() }
    }

    fn empty(author: &ImportAuthor) -> Holdings {
        Holdings::new(author, ZoneName::root(), [])
    }

    fn record(signed: &SignedRecord, now: Timestamp) -> Record {
        SignedRecord::parse(signed.bytes(), "world").unwrap().verify(now).unwrap()
    }

    #[test]
    fn keys_follow_from_the_first_by_number() {
        let keys: Vec<PeerKey> = author(1).keys().collect();
        assert_eq!(keys[0], Identity::from_seed([7; 32]).key());
        assert_eq!(keys, author(2).keys().collect::<Vec<_>>());
        let others: std::collections::BTreeSet<PeerKey> = keys.iter().copied().collect();
        assert_eq!(others.len(), IMPORT_KEYS_MAX);
        assert!(ImportAuthor::new("world", [8; 32], 1).keys().all(|key| !others.contains(&key)));
    }

    #[test]
    fn a_name_keeps_its_slot_through_withdrawal_and_return_and_a_restart_uses_no_version_twice() {
        let (name, other): (AgentName, AgentName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let mut first = author(1);
        let mut holdings = empty(&first);
        let one = record(&holdings.offer(&mut first, NOW, &name, &card("one")).unwrap(), NOW);
        let beside = record(&holdings.offer(&mut first, NOW, &other, &card("x")).unwrap(), NOW);
        assert_eq!((one.slot, one.seq, beside.slot, beside.seq), (0, 1, 1, 2));
        assert_eq!(holdings.offer(&mut first, NOW, &name, &card("one")).err(), Some(Unwritten::Unchanged));
        let buried = record(&holdings.withdraw(&mut first, NOW, &name).unwrap(), NOW);
        assert!(buried.is_tombstone() && buried.order() > one.order());
        assert_eq!((holdings.live(NOW), holdings.card(&name, NOW)), (1, None));
        assert_eq!(holdings.withdraw(&mut first, NOW, &name).err(), Some(Unwritten::Unchanged));
        // Another run of the process finds it all in the registry.
        let mut second = author(2);
        let mut holdings = Holdings::new(&second, ZoneName::root(), [buried.clone(), beside].map(Arc::new));
        let back = record(&holdings.offer(&mut second, NOW, &name, &card("two")).unwrap(), NOW);
        assert_eq!((back.slot, back.seq, back.author().epoch), (0, 1, 2));
        assert!(back.order() > buried.order(), "in the same millisecond, too");
        let third =
            record(&holdings.offer(&mut second, NOW, &"c".parse().unwrap(), &card("z")).unwrap(), NOW);
        assert_eq!(third.slot, 2);
    }

    #[test]
    fn where_a_key_has_no_slot_left_the_next_key_goes_on() {
        let mut author = author(1);
        let mut holdings = empty(&author);
        let keys: Vec<PeerKey> = author.keys().collect();
        holdings.taken[0].fill(true);
        let next = record(&holdings.offer(&mut author, NOW, &"a".parse().unwrap(), &card("x")).unwrap(), NOW);
        assert_eq!((next.host, next.owner, next.slot, next.seq), (keys[1], keys[1], 0, 1));
        holdings.taken.iter_mut().for_each(|taken| taken.fill(true));
        let full = holdings.offer(&mut author, NOW, &"b".parse().unwrap(), &card("x"));
        assert_eq!(full.err(), Some(Unwritten::Full));
        let again = holdings.offer(&mut author, NOW, &"a".parse().unwrap(), &card("y")).unwrap();
        assert_eq!(record(&again, NOW).host, keys[1], "what stands stays with its key");
    }

    #[test]
    fn leases_are_renewed_past_half_of_their_life_and_nothing_else_changes() {
        let mut author = author(1);
        let mut holdings = empty(&author);
        let name: AgentName = "a".parse().unwrap();
        let first = record(&holdings.offer(&mut author, NOW, &name, &card("one")).unwrap(), NOW);
        assert!(holdings.due(NOW + DAY * 2).is_empty());
        let later = NOW + DAY * 5;
        assert_eq!(holdings.due(later), std::slice::from_ref(&name));
        let renewed = record(&holdings.renew(&mut author, later, &name).unwrap(), later);
        assert_eq!((renewed.body(), renewed.slot), (first.body(), first.slot));
        assert_eq!(renewed.expires_at, later + CARD_LIFE);
        assert!(holdings.due(later).is_empty());
        let over = later + CARD_LIFE;
        assert_eq!(holdings.renew(&mut author, over, &name).err(), Some(Unwritten::Unchanged), "it lapsed");
    }

    #[test]
    fn a_stamp_of_a_clock_far_ahead_is_overruled_by_a_generation() {
        let mut author = author(1);
        let mut holdings = empty(&author);
        let name: AgentName = "a".parse().unwrap();
        let ahead = NOW + DAY;
        holdings.offer(&mut author, ahead, &name, &card("one")).unwrap();
        let right = record(&holdings.offer(&mut author, NOW, &name, &card("two")).unwrap(), NOW);
        assert_eq!((right.generation, right.stamp.wall), (1, NOW));
        let gone = record(&holdings.withdraw(&mut author, NOW, &name).unwrap(), NOW);
        assert_eq!(gone.expires_at, gone.stamp.wall + TOMBSTONE_LIFE_LONG);
    }
}
