//! Laws of a registry and of the comparison of two: they hold for any records, in any order, and against any peer.

mod calls;
mod generators;
mod strangers;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use aop::proto::fingerprint::{self, Digest, Prefix};
use aop::proto::limits::{
    EXPIRED_KEPT, SYNC_ASKS_MAX, SYNC_BUSY_MAX, SYNC_FRAME_BYTES_MAX, SYNC_LOOKED_MAX, SYNC_WINDOW,
    ZONE_WEIGHT_MAX,
};
use aop::proto::message::{Item, SYNC_ITEMS_MAX, SyncAnswer, SyncFrame, SyncRequest};
use aop::proto::name::{ZoneId, ZoneName};
use aop::proto::record::{KeyHash, Record, RecordHash, RecordKind, SignedRecord};
use aop::proto::registry::{Merge, Registry};
use aop::proto::sync::{Grace, Progress, Sync, SyncError, SyncMode, answer};
use aop::proto::time::Timestamp;
use generators::{By, NOW, Spec, author, card, key, plain, specs};
use proptest::prelude::*;
use serde_bytes::ByteBuf;
use sha2::Digest as _;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Runs of each law: signing is slow, and a minute is the most a test should take.
const CASES: u32 = 48;

type Contents = BTreeMap<KeyHash, RecordHash>;

fn contents(registry: &Registry) -> Contents {
    registry.iter().map(|record| (record.key(), record.hash())).collect()
}

fn filled(records: impl IntoIterator<Item = Record>) -> Registry {
    filled_within(ZONE_WEIGHT_MAX, records)
}

fn filled_within(weight_max: usize, records: impl IntoIterator<Item = Record>) -> Registry {
    let mut registry = Registry::new(weight_max);
    for record in records {
        registry.merge(record, NOW);
    }
    registry
}

/// The greatest record of each key, by definition.
fn winners(records: &[Record]) -> Contents {
    let mut best: BTreeMap<KeyHash, &Record> = BTreeMap::new();
    for record in records {
        let held = best.entry(record.key()).or_insert(record);
        if held.precedence() < record.precedence() {
            *held = record;
        }
    }
    best.into_iter().map(|(key, record)| (key, record.hash())).collect()
}

/// Place in the order of a full zone: the smallest slot first, revocations before others, then by key.
fn rank(record: &Record) -> (u16, bool, KeyHash) {
    (record.slot, record.kind != RecordKind::Revocation, record.key())
}

/// What a zone keeps of records that are offered for ever, by definition: in the order of the rule, newest first, what has
/// its slot free, its key not yet kept, and room.
fn kept_by_definition(records: &[Record], weight_max: usize) -> Contents {
    let mut ranked: Vec<&Record> = records.iter().collect();
    ranked.sort_by_key(|record| (rank(record), Reverse(record.order())));
    let (mut kept, mut slots, mut weight) = (Contents::new(), BTreeSet::new(), 0);
    for record in ranked {
        let is_free = !kept.contains_key(&record.key()) && !slots.contains(&(record.shelf(), record.slot));
        if is_free && weight + record.weight() <= weight_max {
            kept.insert(record.key(), record.hash());
            slots.insert((record.shelf(), record.slot));
            weight += record.weight();
        }
    }
    kept
}

/// A registry to which the same records are offered until nothing changes.
fn replayed(weight_max: usize, records: &[Record]) -> Registry {
    let mut registry = Registry::new(weight_max);
    for _ in 0..100 {
        let before = contents(&registry);
        for record in records {
            registry.merge(record.clone(), NOW);
        }
        if contents(&registry) == before {
            return registry;
        }
    }
    panic!("the same records change the registry for ever");
}

/// Records of few keys in fewer slots, as hostile hosts write them.
fn crowded(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Spec>> {
    let spec = (generators::spec(), 0u16..4).prop_map(|(spec, slot)| Spec { slot, ..spec });
    prop::collection::vec(spec, count)
}

/// The fingerprint by its definition, without a cache.
fn naive_digest(registry: &Registry, prefix: Prefix, as_of: Timestamp) -> [u8; 32] {
    let mut leaves: BTreeMap<usize, Vec<[u8; 32]>> = BTreeMap::new();
    for record in registry.iter().filter(|record| record.is_public() && record.expires_at > as_of) {
        leaves.entry(fingerprint::leaf_of(record.key())).or_default().push(record.hash().0);
    }
    naive_node(&leaves, prefix)
}

fn naive_node(leaves: &BTreeMap<usize, Vec<[u8; 32]>>, prefix: Prefix) -> [u8; 32] {
    if leaves.range(prefix.leaves()).next().is_none() {
        return [0; 32];
    }
    if prefix.is_leaf() {
        return sha2::Sha256::digest(leaves[&prefix.leaves().start].concat()).into();
    }
    let children: Vec<[u8; 32]> = prefix.children().map(|child| naive_node(leaves, child)).collect();
    sha2::Sha256::digest([&b"aop-tree-v1\0"[..], &children.concat()].concat()).into()
}

fn assert_versions_belong_to_held_records(registry: &Registry) {
    let held: BTreeSet<_> =
        registry.iter().filter(|record| record.seq > 0).map(|record| record.author()).collect();
    let entries: BTreeSet<_> = registry.vector().iter().map(|(author, _)| *author).collect();
    assert_eq!(entries, held);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]
    #[test]
    fn any_order_repetition_and_split_of_records_makes_the_same_registry(
        (specs, shuffled) in specs(1..40).prop_flat_map(|specs| {
            let twice = [specs.clone(), specs.clone()].concat();
            (Just(specs), Just(twice).prop_shuffle())
        }),
        cut in any::<prop::sample::Index>(),
    ) {
        let records: Vec<Record> = specs.iter().map(Spec::record).collect();
        let mut one = filled(records.clone());
        prop_assert_eq!(contents(&one), winners(&records));
        let shuffled: Vec<Record> = shuffled.iter().map(Spec::record).collect();
        let (left, right) = shuffled.split_at(cut.index(shuffled.len()));
        let (left, right) = (filled(left.to_vec()), filled(right.to_vec()));
        let held = |registry: &Registry| registry.iter().map(|held| Record::clone(held)).collect::<Vec<_>>();
        let joined = [[held(&left), held(&right)], [held(&right), held(&left)]].map(|parts| filled(parts.concat()));
        for mut other in joined.into_iter().chain([filled(shuffled)]) {
            prop_assert_eq!(contents(&other), contents(&one));
            let as_of = fingerprint::as_of(NOW);
            prop_assert_eq!(other.digest(Prefix::ROOT, as_of), one.digest(Prefix::ROOT, as_of));
            prop_assert_eq!(other.len(), contents(&other).len());
            prop_assert_eq!(other.bytes(), other.iter().map(|record| record.bytes().len()).sum::<usize>());
            assert_versions_belong_to_held_records(&other);
        }
    }

    #[test]
    fn a_merge_says_what_it_did(specs in specs(1..30)) {
        let mut registry = Registry::default();
        for record in specs.iter().map(Spec::record) {
            let held = registry.get(&record.key()).cloned();
            let merged = registry.merge(record.clone(), NOW);
            match held {
                Some(held) if held.hash() == record.hash() => prop_assert_eq!(merged, Merge::Duplicate),
                Some(held) if held.precedence() > record.precedence() => prop_assert_eq!(merged, Merge::Stale),
                replaced => prop_assert_eq!(merged, Merge::New { replaced, evicted: Vec::new() }),
            }
            prop_assert!(registry.get(&record.key()).unwrap().precedence() >= record.precedence());
        }
    }

    #[test]
    fn a_full_zone_keeps_what_the_rule_says_whatever_came_first_or_again(
        (specs, shuffled) in crowded(1..24).prop_flat_map(|specs| (Just(specs.clone()), Just(specs).prop_shuffle())),
        weight_max in 600usize..9_000,
    ) {
        let records: Vec<Record> = specs.iter().map(Spec::record).collect();
        let kept = kept_by_definition(&records, weight_max);
        for order in [specs, shuffled] {
            let order: Vec<Record> = order.iter().map(Spec::record).collect();
            let registry = replayed(weight_max, &order);
            prop_assert_eq!(contents(&registry), kept.clone());
            prop_assert!(registry.weight() <= weight_max);
            assert_versions_belong_to_held_records(&registry);
        }
    }

    #[test]
    fn full_registries_of_any_history_become_equal_by_exchange(
        parts in prop::collection::vec(crowded(0..16), 2..5),
        weight_max in 600usize..9_000,
    ) {
        let part = |specs: &Vec<Spec>| filled_within(weight_max, specs.iter().map(Spec::record));
        let mut registries: Vec<Registry> = parts.iter().map(part).collect();
        let all = |registries: &[Registry]| registries.iter().map(contents).collect::<Vec<_>>();
        let mut rounds = 0;
        while registries.iter().any(|other| contents(other) != contents(&registries[0])) {
            let before = all(&registries);
            for (one, other) in (0..registries.len()).flat_map(|one| (0..one).map(move |other| (one, other))) {
                let held = [one, other].map(|at| registries[at].iter().cloned().collect::<Vec<_>>());
                for (to, from) in [(other, 0), (one, 1)] {
                    for record in &held[from] { registries[to].merge(record.clone(), NOW); }
                }
            }
            prop_assert_ne!(before, all(&registries), "an exchange changed nothing and left a difference");
            rounds += 1;
            prop_assert!(rounds < 100, "the exchange does not end");
        }
    }

    #[test]
    fn a_merge_loses_nothing_that_comes_before_it(specs in crowded(1..30), weight_max in 600usize..6_000) {
        let mut registry = Registry::new(weight_max);
        for record in specs.iter().map(Spec::record) {
            let before = contents(&registry);
            match registry.merge(record.clone(), NOW) {
                Merge::New { evicted, .. } => {
                    prop_assert!(evicted.iter().all(|(gone, _)| rank(gone) > rank(&record)));
                    prop_assert_eq!(registry.get(&record.key()).map(|held| held.hash()), Some(record.hash()));
                }
                Merge::Stale | Merge::Duplicate | Merge::NoRoom(_) => prop_assert_eq!(contents(&registry), before),
            }
        }
    }

    #[test]
    fn what_an_owner_revoked_stays_so_whatever_its_host_writes(
        (written, later) in (crowded(1..20), crowded(1..20)),
        generation in 0u64..2,
    ) {
        let revoked = Spec { host: 2, owner: 1, by: By::OwnerRevokes, generation, slot: 9, ..plain(1, 0) };
        // The owner itself may take back what it took back.
        let by_others = |spec: &&Spec| spec.by != By::OwnerRevokes;
        let (written, later) = (written.iter().filter(by_others), later.iter().filter(by_others));
        let all = written.clone().chain([&revoked]).chain(later.clone()).chain(written).chain(later);
        let registry = filled(all.map(Spec::record));
        let of_host = |record: &Record| record.owner == key(1) && record.host == key(2);
        let shown = registry.iter().filter(|record| record.is_agent() && of_host(record));
        for record in shown.filter(|record| !record.is_tombstone() && record.name.agent.as_str() == "agent-0") {
            let id = record.agent_id();
            let is_shown = registry.replicas(&id, NOW).any(|replica| replica.host == key(2));
            prop_assert_eq!(is_shown, record.generation > generation, "{:?}", record);
        }
    }

    #[test]
    fn the_fingerprint_is_the_naive_one_after_any_changes_at_any_time(
        steps in prop::collection::vec((generators::spec(), 0u32..10_200, prop::collection::vec(0u32..10_200, 1..4)), 1..16),
    ) {
        let mut registry = Registry::default();
        for (spec, expired_at, asked) in steps {
            let record = spec.record();
            let leaf = Prefix::try_from((3, fingerprint::leaf_of(record.key()) as u16)).unwrap();
            registry.merge(record, NOW);
            for as_of in asked.into_iter().map(|minutes| NOW + MINUTE * minutes) {
                for prefix in [leaf, Prefix::ROOT] {
                    let naive = naive_digest(&registry, prefix, as_of);
                    prop_assert_eq!(registry.digest(prefix, as_of).0, naive, "{:?} at {}", prefix, as_of);
                }
            }
            registry.expire(NOW + MINUTE * (expired_at / 8));
        }
    }

    #[test]
    fn pages_after_a_key_hold_exactly_everything(specs in specs(1..40), page in 1usize..5, depth in 0u8..4) {
        let registry = filled(specs.iter().map(Spec::record));
        let as_of = fingerprint::as_of(NOW);
        let first = registry.iter().next().unwrap().key();
        let path = (fingerprint::leaf_of(first) >> (4 * (3 - usize::from(depth)))) as u16;
        let prefix = Prefix::try_from((depth, path)).unwrap();
        let expected: Vec<RecordHash> = registry
            .iter()
            .filter(|record| prefix.leaves().contains(&fingerprint::leaf_of(record.key())))
            .filter(|record| record.expires_at > as_of)
            .map(|record| record.hash())
            .collect();
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let part: Vec<_> = registry.covered(prefix, as_of, after).take(page).collect();
            let Some(last) = part.last() else { break };
            after = Some(last.key());
            paged.extend(part.iter().map(|record| record.hash()));
        }
        prop_assert_eq!(paged, expected);
    }

    #[test]
    fn time_hides_shows_and_drops_as_each_lease_says(
        specs in specs(1..20),
        times in prop::collection::vec((any::<prop::sample::Index>(), -420i64..420), 1..20),
    ) {
        let records: Vec<Record> = specs.iter().map(Spec::record).collect();
        let mut registry = filled(records.clone());
        let mut shown: BTreeSet<KeyHash> = contents(&registry).into_keys().collect();
        let mut latest = NOW;
        // Times around the ends of leases, in any order: the clock goes back as often as not.
        let near_an_end = |(at, seconds): (prop::sample::Index, i64)| {
            Timestamp(at.get(&records).expires_at.0.saturating_add_signed(seconds * 1_000)).max(NOW)
        };
        for now in times.into_iter().map(near_an_end) {
            latest = latest.max(now);
            let expirations = registry.expire(now);
            for record in &expirations.hidden { shown.remove(&record.key()); }
            for record in &expirations.shown { prop_assert!(shown.insert(record.key())); }
            let live: BTreeSet<KeyHash> =
                registry.iter().filter(|record| !record.is_expired(now)).map(|record| record.key()).collect();
            prop_assert_eq!(&shown, &live);
            prop_assert!(registry.iter().all(|record| record.expires_at + EXPIRED_KEPT > latest));
            prop_assert!(registry.next_expiry().is_none_or(|at| at > now));
            assert_versions_belong_to_held_records(&registry);
        }
    }
}

#[test]
fn a_lease_that_ended_by_a_wrong_clock_runs_again_and_is_taken_again() {
    let record = card(1, 1);
    let mut registry = filled([record.clone()]);
    let ends = record.expires_at;
    assert_eq!(registry.expire(ends).hidden.len(), 1);
    assert_eq!(registry.expire(ends - SECOND).shown.len(), 1);
    assert_eq!(registry.expire(ends + EXPIRED_KEPT).dropped.len(), 1);
    assert!(registry.is_empty() && registry.vector().is_empty());
    assert_eq!(registry.merge(record, NOW), Merge::New { replaced: None, evicted: Vec::new() });
}

#[test]
fn a_lapsed_lease_leaves_no_memory() {
    let greater = Spec { generation: 1, life: MINUTE * 61, ..plain(1, 1) }.record();
    let lesser = Spec { seq: 7, ..plain(1, 1) }.record();
    assert!(greater.order() > lesser.order());
    let mut registry = filled([greater.clone()]);
    assert_eq!(registry.merge(lesser.clone(), greater.expires_at - SECOND), Merge::Stale);
    let merged = registry.merge(lesser, greater.expires_at);
    assert!(matches!(merged, Merge::New { replaced: Some(_), .. }), "{merged:?}");
}

#[test]
fn a_tombstone_outlives_and_outranks_all_that_it_buries() {
    for generation in [0, 1] {
        let tombstone = Spec { by: By::HostBuries, age_ms: 1_000, generation, ..plain(1, 1) }.record();
        let buried = [(1_001, 0), (1_000, 0), (2_000, generation), (0, 0)]
            .map(|(age_ms, generation)| Spec { age_ms, generation, seq: 9, ..plain(1, 1) }.record());
        for card in buried.into_iter().filter(|card| card.order() < tombstone.order()) {
            assert!(card.expires_at < tombstone.expires_at);
            let mut registry = filled([tombstone.clone()]);
            for now in [NOW, card.expires_at - SECOND] {
                registry.expire(now);
                assert_eq!(registry.merge(card.clone(), now), Merge::Stale);
            }
        }
    }
}

#[test]
fn two_records_of_one_version_prove_a_fork_until_neither_is_held() {
    let [one, two] = [1, 2].map(|name| Spec { seq: 5, ..generators::plain(1, name) }.record());
    let mut registry = filled([one.clone()]);
    assert!(!registry.is_fork(&one) && registry.is_fork(&two));
    registry.merge(two.clone(), NOW);
    assert!(registry.is_fork(&one) && registry.is_fork(&two));
    registry.merge(Spec { seq: 6, counter: 1, ..plain(1, 1) }.record(), NOW);
    assert!(registry.is_fork(&one) && !registry.is_fork(&two));
    assert_versions_belong_to_held_records(&registry);
    registry.merge(Spec { seq: 7, counter: 1, ..generators::plain(1, 2) }.record(), NOW);
    assert!(!registry.is_fork(&one));
}

/// What a conversation cost.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    bytes: usize,
    rounds: usize,
    frames: usize,
    records: usize,
}

/// Leads a whole conversation as two nodes do, each frame encoded and read back.
fn converse(ours: &mut Registry, theirs: &mut Registry, grace: Grace, now: Timestamp) -> Cost {
    let mode = SyncMode { grace, republish_max: 256 };
    let mut sync =
        Sync::new(key(9), ZoneId::open(ZoneName::root()), author(8, 1), fingerprint::as_of(now), mode, now);
    let (mut cost, mut now) = (Cost::default(), now);
    // Hashed before: whoever compares first with a large registry waits for that.
    theirs.digest(Prefix::ROOT, fingerprint::as_of(now));
    loop {
        let frames: Vec<SyncFrame> = std::iter::from_fn(|| sync.poll(ours, now)).collect();
        assert!(frames.len() <= SYNC_WINDOW, "the window was overrun");
        if let Some(at) = sync.resume_at().filter(|at| frames.is_empty() && *at > now) {
            now = at;
            continue;
        }
        if frames.is_empty() && sync.progress(ours) == Progress::Finished {
            cost.records = sync.received + sync.sent;
            return cost;
        }
        cost.rounds += usize::from(!frames.is_empty());
        cost.frames += frames.len();
        for frame in frames {
            let asked = frame.encode();
            let frame = SyncFrame::decode(&asked).unwrap();
            let answered = answer(&frame, theirs, now).encode();
            assert!(asked.len().max(answered.len()) <= SYNC_FRAME_BYTES_MAX);
            cost.bytes += asked.len() + answered.len();
            if let SyncRequest::Give { records, .. } = frame.request {
                take(theirs, records, now);
            }
            let step = sync.handle(SyncAnswer::decode(&answered).unwrap(), ours, now).unwrap();
            for (author, prefix) in step.adopt {
                ours.adopt(author, prefix);
            }
            take(ours, step.records, now);
        }
    }
}

fn take(registry: &mut Registry, records: Vec<ByteBuf>, now: Timestamp) {
    for bytes in records {
        registry.merge(SignedRecord::parse(&bytes, "world").unwrap().verify(now).unwrap(), now);
    }
}

fn assert_equal(one: &mut Registry, other: &mut Registry) {
    assert_eq!(contents(one), contents(other));
    let as_of = fingerprint::as_of(NOW);
    assert_eq!(one.digest(Prefix::ROOT, as_of), other.digest(Prefix::ROOT, as_of));
}

/// `count` cards of hosts 10 and up, twenty names each.
fn many(count: usize) -> Vec<Record> {
    let spec = |at: usize| Spec {
        name: (at % 250) as u8,
        seq: 1 + (at % 250) as u64,
        slot: (at % 250) as u16,
        ..generators::plain(10 + (at / 250) as u8, 0)
    };
    (0..count).map(|at| Spec { padding: 300, ..spec(at) }.record()).collect()
}

fn copy(records: &[Record]) -> Registry {
    filled(records.iter().cloned())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]
    #[test]
    fn one_conversation_makes_any_two_registries_equal(
        common in specs(0..20), ours in specs(0..20), theirs in specs(0..20),
    ) {
        let is_covered = |record: &Record| record.expires_at > fingerprint::as_of(NOW);
        let records = |specs: &[Spec]| specs.iter().map(Spec::record).filter(is_covered).collect::<Vec<_>>();
        let (common, ours, theirs) = (records(&common), records(&ours), records(&theirs));
        let mut one = filled(common.iter().chain(&ours).cloned());
        let mut other = filled(common.iter().chain(&theirs).cloned());
        converse(&mut one, &mut other, Grace::None, NOW);
        assert_equal(&mut one, &mut other);
        let again = converse(&mut one, &mut other, Grace::None, NOW);
        prop_assert!(again.records == 0 && again.bytes < 800, "{again:?}");
    }
}

#[test]
fn registries_of_any_sizes_become_equal() {
    let records = many(3_000);
    let parts = [0..0, 0..1, 0..3, 0..3_000, 1_000..3_000, 0..2_000, 2_999..3_000];
    for ours in parts.clone() {
        for theirs in parts.clone() {
            let (mut one, mut other) = (copy(&records[ours.clone()]), copy(&records[theirs.clone()]));
            let cost = converse(&mut one, &mut other, Grace::None, NOW);
            assert_equal(&mut one, &mut other);
            let differ = (0..3_000).filter(|at| ours.contains(at) != theirs.contains(at)).count();
            assert_eq!(cost.records, differ, "{ours:?} {theirs:?}");
        }
    }
}

#[test]
fn cost_follows_the_difference_and_not_the_size() {
    let records = many(5_200);
    for common in [500, 5_000] {
        for differ in [0, 1, 10, 100] {
            let extra = &records[5_000..5_000 + differ];
            let mut one = copy(&records[..common]);
            let mut other = copy(&records[..common]);
            for (at, record) in extra.iter().enumerate() {
                let side = if at % 2 == 0 { &mut one } else { &mut other };
                side.merge(record.clone(), NOW);
            }
            let cost = converse(&mut one, &mut other, Grace::None, NOW);
            assert_equal(&mut one, &mut other);
            let payload: usize = extra.iter().map(|record| record.bytes().len()).sum();
            println!("{common} common, {differ} differ: {payload} bytes of records, {cost:?}");
            // Three levels of 16 hashes and a few items for each record, what is shared counted once.
            assert!(cost.bytes <= payload * 11 / 10 + differ * 2_100 + 400, "{cost:?}");
            assert!(cost.rounds <= 8 + differ / 4, "{cost:?}");
        }
    }
}

#[test]
fn equal_registries_cost_two_small_frames() {
    let records = many(1_000);
    let (mut one, mut other) = (copy(&records), copy(&records));
    let cost = converse(&mut one, &mut other, Grace::None, NOW);
    assert!(cost.frames == 1 && cost.bytes < 260, "{cost:?}");
}

#[test]
fn a_stream_to_a_joiner_costs_hardly_more_than_its_records() {
    let records = many(5_000);
    let (mut one, mut other) = (copy(&[]), copy(&records));
    let cost = converse(&mut one, &mut other, Grace::None, NOW);
    let payload = other.bytes();
    println!("joiner: {payload} bytes of records, {cost:?}");
    assert!(cost.bytes < payload * 102 / 100, "{cost:?}");
    let cost = converse(&mut copy(&records), &mut copy(&[]), Grace::None, NOW);
    println!("giver: {cost:?}");
    assert!(cost.bytes < payload * 102 / 100, "{cost:?}");
}

#[test]
fn grace_leaves_the_newest_keys_to_the_mesh_both_ways() {
    let grace = Grace::Of(5 * SECOND);
    for common in [0, 1_000] {
        let base = many(common);
        let fresh = |host| Spec { age_ms: 4_999, seq: 300, ..generators::plain(host, 251) }.record();
        let old = |host| Spec { age_ms: 5_000, seq: 299, ..generators::plain(host, 252) }.record();
        let (mut one, mut other) = (copy(&base), copy(&base));
        for (side, host) in [(&mut one, 1), (&mut other, 2)] {
            side.merge(fresh(host), NOW);
            side.merge(old(host), NOW);
        }
        let cost = converse(&mut one, &mut other, grace, NOW);
        assert_eq!(cost.records, 2, "the two older ones");
        assert!(one.get(&old(2).key()).is_some() && other.get(&old(1).key()).is_some());
        assert!(one.get(&fresh(2).key()).is_none() && other.get(&fresh(1).key()).is_none());
        converse(&mut one, &mut other, grace, NOW + SECOND);
        assert_eq!(contents(&one), contents(&other));
    }
}

#[test]
fn a_leaf_of_any_size_is_compared_in_bounded_frames() {
    // Keys may be chosen so that they share a leaf: here every record does.
    let crowded = generators::crowd(3_000);
    let (mut one, mut other) = (copy(&crowded[..1_700]), copy(&crowded[1_500..]));
    let cost = converse(&mut one, &mut other, Grace::None, NOW);
    assert_equal(&mut one, &mut other);
    assert_eq!(cost.records, 1_500 + 1_300);
}

/// Asks on until an answer says that it was all; how many records came in how many answers.
fn ask_all(registry: &mut Registry, mut request: SyncRequest) -> (usize, usize) {
    let (mut came, as_of) = (0, fingerprint::as_of(NOW));
    for answers in 1.. {
        let frame = SyncFrame { zone: ZoneId::open(ZoneName::root()), as_of, request: request.clone() };
        let (count, next) = match answer(&frame, registry, NOW) {
            SyncAnswer::Items { items, next } => (items.len(), next),
            SyncAnswer::Records { records, next } => (records.len(), next),
            other => panic!("{other:?}"),
        };
        came += count;
        let Some(next) = next else { return (came, answers) };
        match &mut request {
            SyncRequest::Items { after, .. } | SyncRequest::Subtree { after, .. } => *after = Some(next),
            _ => unreachable!(),
        }
    }
    unreachable!()
}

#[test]
fn an_answer_looks_at_a_bounded_number_of_records_whether_or_not_they_are_wanted() {
    let ends_soon = Duration::from_secs(3_630);
    let spec = |at: usize| Spec {
        name: (at % 250) as u8,
        seq: 1 + (at % 250) as u64,
        slot: (at % 250) as u16,
        ..generators::plain(10 + (at / 250) as u8, 0)
    };
    let count = 2 * SYNC_LOOKED_MAX + 100;
    // Held, and not covered by what is compared.
    let mut ended = filled((0..count).map(|at| Spec { life: ends_soon, ..spec(at) }.record()));
    let leaves = |first: usize| {
        let mut prefixes = vec![Prefix::ROOT];
        for _ in 0..3 {
            prefixes = prefixes.into_iter().flat_map(Prefix::children).collect();
        }
        prefixes[first * 256..(first + 1) * 256].to_vec()
    };
    let subtree = SyncRequest::Subtree { prefix: Prefix::ROOT, after: None, stamped_by: None };
    assert_eq!(ask_all(&mut ended, subtree), (0, 3));
    let (came, answers) = (0..16)
        .map(|part| ask_all(&mut ended, SyncRequest::Items { leaves: leaves(part), after: None }))
        .fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
    assert_eq!((came, answers), (0, 16));
    // Covered, and stamped too late for who asks.
    let mut held = filled((0..count).map(|at| spec(at).record()));
    let old = SyncRequest::Subtree { prefix: Prefix::ROOT, after: None, stamped_by: Some(Timestamp(0)) };
    assert_eq!(ask_all(&mut held, old), (0, 3));
    let all = SyncRequest::Subtree { prefix: Prefix::ROOT, after: None, stamped_by: None };
    assert_eq!(ask_all(&mut held, all), (count, count.div_ceil(64)));
}

#[test]
fn a_tree_that_takes_long_to_hash_is_hashed_in_turns_and_the_asker_comes_again() {
    let records = many(SYNC_LOOKED_MAX * 2 + 100);
    let mut registry = copy(&records);
    let ask = |registry: &mut Registry, as_of: Timestamp| {
        let request = SyncRequest::Children { prefixes: vec![Prefix::ROOT] };
        let frame = SyncFrame { zone: ZoneId::open(ZoneName::root()), as_of, request };
        (0..10).take_while(|_| matches!(answer(&frame, registry, NOW), SyncAnswer::Busy { .. })).count()
    };
    let as_of = fingerprint::as_of(NOW);
    assert_eq!(ask(&mut registry, as_of), 2);
    // Any time at which the same records are covered is answered from what was hashed.
    for minutes in [0, 1, 3, 0, 2] {
        assert_eq!(ask(&mut registry, Timestamp(as_of.0 + 60_000 * minutes - 120_000)), 0, "{minutes}");
    }
    let mut fresh = copy(&records);
    assert_eq!(registry.digest(Prefix::ROOT, as_of), fresh.digest(Prefix::ROOT, as_of));
}

#[test]
fn a_leaf_of_any_size_is_hashed_in_turns_also_for_two_who_ask_at_different_times() {
    // Some of them end between the two times.
    let crowded = generators::crowd(1_000);
    let mut registry = copy(&crowded);
    let first = Prefix::try_from((3, 0)).unwrap();
    let soon = Spec { life: Duration::from_secs(3_600 + 90), ..generators::plain(1, 0) };
    registry.merge(soon.record(), NOW);
    let times = [60_000, 120_000].map(|ahead| Timestamp((NOW.0 / 60_000) * 60_000 + ahead));
    let mut made = [None; 2];
    let mut turns = 0;
    while made.contains(&None) {
        for (at, as_of) in times.into_iter().enumerate() {
            turns += usize::from(made[at].is_none());
            made[at] = made[at].or(registry.digest_within(Prefix::ROOT, as_of, &mut 64));
        }
        assert!(turns < 100, "neither comes to an end");
    }
    let mut fresh = copy(&crowded);
    fresh.merge(soon.record(), NOW);
    assert_eq!(made, times.map(|as_of| Some(fresh.digest(Prefix::ROOT, as_of))));
    // A record that comes meanwhile is not forgotten.
    let mut late = copy(&crowded[..999]);
    assert_eq!(late.digest_within(first, times[0], &mut 64), None);
    late.merge(crowded[999].clone(), NOW);
    late.merge(soon.record(), NOW);
    assert_eq!(late.digest(first, times[0]), fresh.digest(first, times[0]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]
    #[test]
    fn a_peer_that_is_busy_now_and_then_is_compared_with_all_the_same(
        ours in specs(0..20), theirs in specs(0..20), busy in prop::collection::vec(0u64..6_000, 1..6),
    ) {
        let is_covered = |record: &Record| record.expires_at > fingerprint::as_of(NOW);
        let records = |specs: &[Spec]| specs.iter().map(Spec::record).filter(is_covered).collect::<Vec<_>>();
        let (mut one, mut other) = (filled(records(&ours)), filled(records(&theirs)));
        let mode = SyncMode { grace: Grace::None, republish_max: 256 };
        let mut sync = Sync::new(key(9), ZoneId::open(ZoneName::root()), author(8, 1), fingerprint::as_of(NOW), mode, NOW);
        let (mut now, mut asked) = (NOW, 0);
        let ended = loop {
            let mut frames: Vec<SyncFrame> = std::iter::from_fn(|| sync.poll(&one, now)).collect();
            if frames.is_empty() {
                if sync.progress(&one) == Progress::Finished {
                    break Ok(());
                }
                frames.extend(sync.poll(&one, now));
            }
            prop_assert!(!frames.is_empty() || sync.resume_at().is_some_and(|at| at > now), "it stands still");
            now = sync.resume_at().filter(|_| frames.is_empty()).unwrap_or(now);
            let mut failed = None;
            for frame in frames {
                asked += 1;
                // Every other time at most, or it would never end.
                let wait = if asked % 2 == 0 { busy[asked % busy.len()] } else { 0 };
                let said = if wait > 0 {
                    SyncAnswer::Busy { wait_ms: wait }
                } else {
                    let answered = answer(&frame, &mut other, NOW);
                    if let SyncRequest::Give { records, .. } = frame.request {
                        take(&mut other, records, NOW);
                    }
                    answered
                };
                match sync.handle(said, &mut one, now) {
                    Ok(step) => take(&mut one, step.records, NOW),
                    Err(error) => failed = failed.or(Some(error)),
                }
                if failed.is_some() {
                    break;
                }
            }
            if let Some(error) = failed {
                break Err(error);
            }
        };
        match ended {
            Ok(()) => assert_equal(&mut one, &mut other),
            Err(error) => {
                prop_assert!(matches!(error, SyncError::Busy(wait) if wait > SYNC_BUSY_MAX) && !error.is_offence());
            }
        }
    }
}

#[test]
fn prefixes_are_adopted_only_from_an_equal_registry_and_never_above_what_was_signed() {
    let written = |name, seq| Spec { seq, ..generators::plain(1, name) }.record();
    let (ours, theirs) = ([written(1, 5)], [written(1, 5)]);
    let (mut one, mut other) = (copy(&ours), copy(&theirs));
    for seq in 1..=4 {
        // Seen there, and overwritten since.
        other.merge(Spec { age_ms: 7_200_000, seq, ..plain(1, 1) }.record(), NOW);
    }
    assert_eq!((one.vector().prefix(&author(1, 1)), other.vector().prefix(&author(1, 1))), (0, 5));
    let mut different = copy(&theirs);
    different.merge(card(2, 1), NOW);
    let mut early = Sync::new(
        key(9),
        ZoneId::open(ZoneName::root()),
        author(8, 1),
        fingerprint::as_of(NOW),
        SyncMode { grace: Grace::None, republish_max: 0 },
        NOW,
    );
    let as_of = fingerprint::as_of(NOW);
    let root = one.digest(Prefix::ROOT, as_of);
    early.poll(&one, NOW).unwrap();
    early.handle(opened(root), &mut one, NOW).unwrap();
    assert_eq!(early.progress(&one), Progress::Running);
    assert!(matches!(early.poll(&one, NOW).unwrap().request, SyncRequest::Versions { .. }));
    let word = SyncAnswer::Versions { root: different.digest(Prefix::ROOT, as_of), prefixes: vec![5] };
    assert!(early.handle(word, &mut one, NOW).unwrap().adopt.is_empty());
    converse(&mut one, &mut other, Grace::None, NOW);
    assert_eq!(one.vector().prefix(&author(1, 1)), 5);
    one.adopt(author(1, 1), 9);
    assert_eq!(one.vector().prefix(&author(1, 1)), 5);
}

/// A peer that answers anything, and where its lies lead.
fn lied_to(mut lie: impl FnMut(&SyncFrame, usize) -> SyncAnswer) -> (Result<(), SyncError>, usize) {
    let mut registry = copy(&many(300));
    let mode = SyncMode { grace: Grace::None, republish_max: 256 };
    let mut sync =
        Sync::new(key(9), ZoneId::open(ZoneName::root()), author(8, 1), fingerprint::as_of(NOW), mode, NOW);
    let (mut asked, mut now) = (VecDeque::new(), NOW);
    for count in 0.. {
        asked.extend(std::iter::from_fn(|| sync.poll(&registry, now)));
        let Some(frame) = asked.pop_front() else {
            if sync.progress(&registry) == Progress::Finished {
                return (Ok(()), count);
            }
            // It says that it is busy.
            now = now + SECOND;
            continue;
        };
        if let Err(error) = sync.handle(lie(&frame, count), &mut registry, now) {
            return (Err(error), count);
        }
        assert!(count <= SYNC_ASKS_MAX + SYNC_WINDOW, "the conversation does not end");
    }
    unreachable!()
}

#[test]
fn answers_of_a_wrong_shape_end_the_conversation() {
    let digest = |byte| Digest([byte; 32]);
    let root = SyncAnswer::Opened {
        root: digest(1),
        head: 0,
        clock: NOW,
        heard: None,
        whole: true,
        alive: Vec::new(),
    };
    let item = |byte| item(KeyHash([byte; 32]), 0, byte);
    let wrong = [
        SyncAnswer::Taken,
        SyncAnswer::Children(vec![digest(1); 15]),
        SyncAnswer::Children(Vec::new()),
        SyncAnswer::Items { items: Vec::new(), next: Some(KeyHash([1; 32])) },
        SyncAnswer::Items { items: vec![item(2), item(1)], next: None },
        SyncAnswer::Records { records: Vec::new(), next: Some(KeyHash([1; 32])) },
        SyncAnswer::Versions { root: digest(1), prefixes: vec![1] },
        SyncAnswer::Refused,
    ];
    for wrong in wrong {
        let (ended, count) = lied_to(|frame, _| match frame.request {
            SyncRequest::Open { .. } => root.clone(),
            _ => wrong.clone(),
        });
        assert!(ended.is_err() && count <= 2, "{wrong:?}");
    }
}

/// The first words of a peer with this registry.
fn opened(root: Digest) -> SyncAnswer {
    SyncAnswer::Opened { root, head: 0, clock: NOW, heard: None, whole: true, alive: Vec::new() }
}

#[test]
fn a_peer_that_always_has_more_is_given_up() {
    let growing = |count: usize| KeyHash(key_at(count));
    let endless = |frame: &SyncFrame, count: usize| match &frame.request {
        SyncRequest::Open { .. } => opened(Digest([1; 32])),
        SyncRequest::Children { prefixes } => {
            SyncAnswer::Children(vec![Digest([7; 32]); prefixes.len() * 16])
        }
        SyncRequest::Items { .. } => {
            let item = item(growing(count), 0, 1);
            SyncAnswer::Items { items: vec![item], next: Some(growing(count)) }
        }
        SyncRequest::Subtree { .. } | SyncRequest::Records { .. } => {
            SyncAnswer::Records { records: vec![ByteBuf::from(vec![1])], next: Some(growing(count)) }
        }
        SyncRequest::Give { .. } => SyncAnswer::Taken,
        SyncRequest::Versions { authors } => {
            SyncAnswer::Versions { root: Digest([1; 32]), prefixes: vec![u64::MAX; authors.len()] }
        }
    };
    let (ended, count) = lied_to(endless);
    println!("given up after {count} answers: {ended:?}");
    assert!(ended.is_err());
}

#[test]
fn who_lists_what_it_does_not_have_is_given_up_before_much_of_it_is_asked_for() {
    let mut listed = 0;
    let (ended, count) = lied_to(|frame, count| match &frame.request {
        SyncRequest::Open { .. } => opened(Digest([1; 32])),
        SyncRequest::Children { prefixes } => {
            SyncAnswer::Children(vec![Digest([7; 32]); prefixes.len() * 16])
        }
        SyncRequest::Items { leaves, after } => {
            // A full page in the first leaf that was asked, and more behind it.
            let at = |at: usize| {
                let mut key = KeyHash(key_at(count * SYNC_ITEMS_MAX + at));
                key.0[..2].copy_from_slice(&((leaves[0].leaves().start as u16) << 4).to_be_bytes());
                item(key, 0, 1)
            };
            let items: Vec<Item> = (0..SYNC_ITEMS_MAX)
                .map(at)
                .filter(|item| after.is_none_or(|after| item.key > after))
                .collect();
            listed += items.len();
            SyncAnswer::Items { next: items.last().map(|item| item.key), items }
        }
        SyncRequest::Give { .. } => SyncAnswer::Taken,
        _ => SyncAnswer::Records { records: Vec::new(), next: None },
    });
    assert_eq!(ended, Err(SyncError::Endless));
    // As many pages as are asked for at once, before the first of what they list is missed.
    assert!(listed <= (SYNC_WINDOW + 1) * SYNC_ITEMS_MAX && count < SYNC_ASKS_MAX / 10, "{listed} {count}");
}

#[test]
fn keys_and_places_beyond_what_was_asked_end_the_conversation() {
    let first = |byte: u8| [&[byte], &[0; 31][..]].concat().try_into().map(KeyHash).unwrap();
    let lies: [fn(KeyHash, KeyHash) -> SyncAnswer; 3] = [
        // Of another leaf.
        |_, beyond| SyncAnswer::Items { items: vec![item(beyond, 0, 1)], next: None },
        // Beyond the place where the answer ends.
        |asked, _| {
            let [one, two] = [1, 2].map(|last| {
                let mut key = asked;
                key.0[31] = last;
                key
            });
            SyncAnswer::Items { items: vec![item(two, 0, 1)], next: Some(one) }
        },
        // More than was asked for.
        |asked, _| {
            let mut key = asked;
            key.0[31] = 1;
            SyncAnswer::Items { items: vec![item(key, 0, 1)], next: None }
        },
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let (ended, _) = lied_to(|frame, _| match &frame.request {
            SyncRequest::Open { .. } => opened(Digest([1; 32])),
            SyncRequest::Children { prefixes } => {
                SyncAnswer::Children(vec![Digest([7; 32]); prefixes.len() * 16])
            }
            SyncRequest::Items { leaves, .. } => {
                let mut asked = first(0);
                asked.0[..2].copy_from_slice(&((leaves[0].leaves().start as u16) << 4).to_be_bytes());
                lie(asked, first(if leaves[0].leaves().start < 2_048 { 0xff } else { 0 }))
            }
            SyncRequest::Records { keys } => {
                // Only the last of them is found out by what it brings.
                let records = if number == 2 { keys.len() + 1 } else { 0 };
                SyncAnswer::Records { records: vec![ByteBuf::new(); records], next: None }
            }
            SyncRequest::Give { .. } => SyncAnswer::Taken,
            _ => SyncAnswer::Records { records: Vec::new(), next: None },
        });
        assert_eq!(ended, Err(SyncError::Unfitting), "lie {number}");
    }
}

/// Keys that grow with `count`, within the first leaf.
fn key_at(count: usize) -> [u8; 32] {
    let mut key = [0; 32];
    key[24..].copy_from_slice(&(count as u64 + 1).to_be_bytes());
    key
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]
    #[test]
    fn random_answers_never_panic_and_always_end(
        answers in prop::collection::vec((0u8..8, any::<u8>(), 0usize..300, any::<bool>()), 1..12),
    ) {
        let (_, count) = lied_to(|frame, count| {
            let (shape, byte, length, flag) = answers[count % answers.len()];
            let next = flag.then_some(KeyHash([byte; 32]));
            let item = |at: usize| item(KeyHash(key_at(at)), u64::from(byte), byte);
            match (shape, &frame.request) {
                (_, SyncRequest::Open { .. }) if shape > 0 => {
                    let (root, clock) = (Digest([byte; 32]), Timestamp(u64::MAX));
                    let (heard, whole, alive) = (None, true, Vec::new());
                    SyncAnswer::Opened { root, head: u64::MAX, clock, heard, whole, alive }
                }
                (1 | 2, SyncRequest::Children { prefixes }) => SyncAnswer::Children(
                    (0..prefixes.len() * 16).map(|at| Digest([if at % 3 == 0 { 0 } else { byte }; 32])).collect(),
                ),
                (1..=3, SyncRequest::Items { .. }) => SyncAnswer::Items { items: (0..length).map(item).collect(), next },
                (1..=5, SyncRequest::Records { .. } | SyncRequest::Subtree { .. }) => {
                    SyncAnswer::Records { records: vec![ByteBuf::from(vec![byte]); length % 5], next }
                }
                (1..=6, SyncRequest::Give { .. }) => SyncAnswer::Taken,
                (2, _) => SyncAnswer::Children(vec![Digest([byte; 32]); length]),
                (3, _) => SyncAnswer::Records { records: vec![ByteBuf::new(); length], next },
                (4, _) => SyncAnswer::Versions { root: Digest([byte; 32]), prefixes: vec![u64::MAX; length] },
                (5, _) => SyncAnswer::Taken,
                _ => SyncAnswer::Refused,
            }
        });
        prop_assert!(count <= SYNC_ASKS_MAX);
    }
}

fn item(key: KeyHash, generation: u64, byte: u8) -> Item {
    Item { key, slot: 0, generation, wall: NOW, counter: 0, hash: RecordHash([byte; 32]) }
}
