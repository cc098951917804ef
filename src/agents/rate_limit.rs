//! How many calls of one caller an agent takes in a time: a token bucket for each caller.
//!
//! A bucket is one point in time, the one at which it is full again (GCRA); who has a full one is forgotten. The clock is given.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::document::run_config::Rate;
use crate::proto::identity::PeerKey;

/// Callers whose buckets are remembered, 200 KiB of them. Beyond it the bucket that would be full soonest is full at once, for
/// which it takes as many other callers.
const CALLERS_MAX: usize = 4_096;

/// The buckets of an agent's callers; a client of this node has none of its own.
#[derive(Debug)]
pub(super) struct RateLimit {
    /// A token comes so often.
    interval: Duration,
    /// So many fit into a bucket.
    burst: u32,
    /// When each bucket is full again.
    full_at: BTreeMap<Option<PeerKey>, Duration>,
}

impl RateLimit {
    /// With full buckets.
    pub(super) fn new(rate: Rate) -> RateLimit {
        RateLimit { interval: rate.per / rate.count.max(1), burst: rate.count, full_at: BTreeMap::new() }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// There is none; how long until there is.
    pub(super) fn take(&mut self, now: Duration, caller: Option<PeerKey>) -> Result<(), Duration> {
        let full_at = self.full_at.get(&caller).copied().unwrap_or_default().max(now) + self.interval;
        let most = now + self.interval * self.burst;
        if full_at > most {
            return Err(full_at - most);
        }
        self.make_room(now, caller);
        self.full_at.insert(caller, full_at);
        Ok(())
    }

    /// Puts a token back: the call did not begin.
    pub(super) fn give_back(&mut self, caller: Option<PeerKey>) {
        if let Some(full_at) = self.full_at.get_mut(&caller) {
            *full_at = full_at.saturating_sub(self.interval);
        }
    }

    fn make_room(&mut self, now: Duration, caller: Option<PeerKey>) {
        if self.full_at.len() < CALLERS_MAX || self.full_at.contains_key(&caller) {
            return;
        }
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() >= CALLERS_MAX {
            let soonest = self.full_at.iter().min_by_key(|(_, full_at)| **full_at).map(|(caller, _)| *caller);
            soonest.map(|caller| self.full_at.remove(&caller));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const NOW: Duration = Duration::from_secs(1_000);

    fn caller(number: u32) -> Option<PeerKey> {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        Some(PeerKey(key))
    }

    #[test]
    fn a_caller_makes_as_many_calls_as_its_rate_says_and_is_told_when_the_next_may_come() {
        let mut limit = RateLimit::new(Rate { count: 3, per: MINUTE });
        for _ in 0..3 {
            assert_eq!(limit.take(NOW, caller(1)), Ok(()));
        }
        assert_eq!(limit.take(NOW, caller(1)), Err(MINUTE / 3));
        assert_eq!(limit.take(NOW + MINUTE / 6, caller(1)), Err(MINUTE / 6));
        assert_eq!(limit.take(NOW + MINUTE / 3, caller(1)), Ok(()), "as it was told");
        assert_eq!(limit.take(NOW + MINUTE / 3, caller(1)), Err(MINUTE / 3));
        // In the long run no more than the rate, and nothing is saved up beyond a bucket.
        let later = NOW + 10 * MINUTE;
        let taken = (0..100).filter(|_| limit.take(later, caller(1)).is_ok()).count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn callers_have_buckets_of_their_own_and_a_call_that_did_not_begin_costs_nothing() {
        let mut limit = RateLimit::new(Rate { count: 1, per: MINUTE });
        for who in [None, caller(1), caller(2)] {
            assert_eq!((limit.take(NOW, who), limit.take(NOW, who)), (Ok(()), Err(MINUTE)), "{who:?}");
        }
        limit.give_back(caller(1));
        limit.give_back(caller(9));
        assert_eq!(limit.take(NOW, caller(1)), Ok(()));
        assert_eq!(limit.take(NOW, caller(1)), Err(MINUTE), "one was given back and not two");
        assert_eq!(limit.take(NOW, None), Err(MINUTE));
    }

    #[test]
    fn a_crowd_of_callers_takes_bounded_memory_and_frees_nobody_who_is_at_the_limit() {
        let mut limit = RateLimit::new(Rate { count: 2, per: MINUTE });
        for _ in 0..2 {
            limit.take(NOW, caller(0)).unwrap();
        }
        for number in 1..3 * CALLERS_MAX as u32 {
            limit.take(NOW, caller(number)).unwrap();
        }
        assert_eq!(limit.full_at.len(), CALLERS_MAX);
        assert!(limit.take(NOW, caller(0)).is_err());
    }
}
