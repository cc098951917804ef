//! Answers of others, kept for whoever asks the same (paper section 7.5): for clients of this node (L1) and for peers that ask
//! it as a gateway (L2). The replicas of what lies below are the third level.
//!
//! Ages are added up, so that nobody is told less than they are; the times of the paper are the longest that anything is kept
//! for, and how old an answer may be is said by whoever asks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::heard::Consulted;
use crate::proto::time::Timestamp;

/// Longest time for which a client is told what others answered.
const L1_KEPT: Duration = Duration::from_secs(60);
/// And a peer.
const L2_KEPT: Duration = Duration::from_secs(300);
/// Whoever asks again so soon means the same question, unless he wants no old answer at all.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Longest time for which an answer counts from which something is missing.
const PARTIAL_KEPT: Duration = Duration::from_secs(5);
const ENTRIES_MAX: usize = 65_536;
/// What all entries together may take, bytes.
const WEIGHT_MAX: usize = 64 * 1024 * 1024;

/// For whom an answer is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proto) enum Level {
    /// A client of this node.
    L1,
    /// A peer.
    L2,
}

/// What is kept of an answer.
pub(super) enum Recalled {
    /// The answer.
    Young(Arc<Consulted>),
    /// It is too old, or lacks something.
    Old,
    /// Nothing.
    Nothing,
}

/// The answers that are kept.
#[derive(Default)]
pub(super) struct Cache {
    entries: BTreeMap<Vec<u8>, (u64, Arc<Consulted>)>,
    /// The entries as they came, some of which were replaced since.
    order: VecDeque<(u64, Vec<u8>)>,
    weight: usize,
    next: u64,
}

impl Cache {
    /// What others said to a question, if it is no older than the asker will have it.
    pub(super) fn get(&self, question: &[u8], level: Level, max_age: Duration, now: Timestamp) -> Recalled {
        let Some((_, consulted)) = self.entries.get(&key(question, level)) else { return Recalled::Nothing };
        let passed = consulted.passed(now);
        let kept = match (consulted.age(now), level) {
            (None, _) => PARTIAL_KEPT,
            (Some(_), Level::L1) => L1_KEPT,
            (Some(_), Level::L2) => L2_KEPT,
        };
        let is_young =
            consulted.age(now).unwrap_or(passed) <= max_age || passed <= AT_ONCE && max_age > Duration::ZERO;
        if is_young && passed <= kept { Recalled::Young(consulted.clone()) } else { Recalled::Old }
    }

    pub(super) fn put(&mut self, question: &[u8], level: Level, consulted: Arc<Consulted>, now: Timestamp) {
        if consulted.heard.is_empty() || consulted.is_denial() {
            return;
        }
        let question = key(question, level);
        self.weight += consulted.weight();
        self.next += 1;
        self.order.push_back((self.next, question.clone()));
        if let Some((_, replaced)) = self.entries.insert(question, (self.next, consulted)) {
            self.weight -= replaced.weight();
        }
        while let Some((number, first)) = self.order.front() {
            let held = self.entries.get(first).filter(|(held, _)| held == number);
            let is_over = held.is_none_or(|(_, held)| held.passed(now) > L2_KEPT);
            let has_room = self.entries.len() <= ENTRIES_MAX && self.order.len() <= 2 * ENTRIES_MAX;
            if !is_over && has_room && self.weight <= WEIGHT_MAX {
                break;
            }
            if held.is_some()
                && let Some((_, gone)) = self.entries.remove(first)
            {
                self.weight -= gone.weight();
            }
            self.order.pop_front();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Cache { next: self.next, ..Cache::default() };
    }
}

/// Clients ask in two ways where one could lie, peers in one: what these were told is not kept for those.
fn key(question: &[u8], level: Level) -> Vec<u8> {
    [&[level as u8], question].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ask::Cover;
    use crate::proto::identity::PeerKey;
    use crate::proto::name::ZoneName;
    use crate::proto::resolver::heard::{Heard, Told};

    fn found(asked_at: u64, cover: Cover) -> Arc<Consulted> {
        let scope = ZoneName::root();
        let told = Told::Found { is_referred: false, scope, more: false, cover };
        let heard = vec![Heard {
            peer: PeerKey([1; 32]),
            records: Vec::new(),
            alive: Vec::new(),
            proofs: Vec::new(),
            told,
        }];
        Arc::new(Consulted { heard, ..Consulted::new(Timestamp(asked_at)) })
    }

    fn fine(age_ms: u32) -> Cover {
        Cover { fine: 3, age_ms, ..Cover::default() }
    }

    #[test]
    fn an_answer_counts_for_as_long_as_the_asker_will_have_it_and_no_longer_than_is_allowed() {
        let mut cache = Cache::default();
        for level in [Level::L1, Level::L2] {
            cache.put(b"q", level, found(0, fine(20_000)), Timestamp(0));
        }
        let has = |level, max_age_s, now_ms| {
            let recalled = cache.get(b"q", level, Duration::from_secs(max_age_s), Timestamp(now_ms));
            matches!(recalled, Recalled::Young(_))
        };
        assert!(has(Level::L1, 25, 5_000) && !has(Level::L1, 25, 5_001), "what a replica held is as old");
        assert!(has(Level::L1, 1, 2_000) && !has(Level::L1, 1, 2_001), "as if it were one question");
        assert!(has(Level::L1, 1_000, 60_000) && !has(Level::L1, 1_000, 60_001));
        assert!(has(Level::L2, 1_000, 300_000) && !has(Level::L2, 1_000, 300_001));
        assert!(!has(Level::L1, 0, 1), "who wants it fresh is told nothing old");
    }

    #[test]
    fn what_lacks_something_counts_for_a_moment() {
        let mut cache = Cache::default();
        let partial = Cover { rest: vec![("a.org".parse().unwrap(), None)], ..fine(0) };
        cache.put(b"q", Level::L2, found(0, partial), Timestamp(0));
        let get = |level, now_ms| cache.get(b"q", level, Duration::from_secs(99), Timestamp(now_ms));
        assert!(matches!(get(Level::L2, 5_000), Recalled::Young(_)));
        assert!(matches!(get(Level::L2, 5_001), Recalled::Old));
        assert!(matches!(get(Level::L1, 0), Recalled::Nothing), "what a peer was told is no client's");
    }

    #[test]
    fn there_are_so_many_and_the_oldest_go_first() {
        let mut cache = Cache::default();
        let one = found(0, fine(0)).weight();
        for number in 0..ENTRIES_MAX + 10 {
            cache.put(&number.to_be_bytes(), Level::L1, found(0, fine(0)), Timestamp(0));
        }
        assert_eq!(cache.entries.len(), ENTRIES_MAX);
        assert_eq!((cache.order.len(), cache.weight), (ENTRIES_MAX, ENTRIES_MAX * one));
        assert!(!cache.entries.contains_key(&key(&9usize.to_be_bytes(), Level::L1)));
        cache.put(b"late", Level::L1, found(400_000, fine(0)), Timestamp(400_000));
        assert_eq!((cache.entries.len(), cache.order.len(), cache.weight), (1, 1, one), "what is over goes");
        for _ in 0..1_000 {
            cache.put(b"late", Level::L1, found(400_000, fine(0)), Timestamp(400_000));
        }
        assert_eq!((cache.entries.len(), cache.weight), (1, one));
        assert!(cache.order.len() <= 2, "{}", cache.order.len());
    }
}
