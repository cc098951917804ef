//! What conversations of peers may take of this node: questions, bytes of answers, and time of the driver.
//!
//! Whoever took more waits: for a moment without a word, which paces the stream, and then it is told that this node is
//! busy, and for how long. Nobody is blamed: an honest peer may well lack all that there is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::net::budget::{Allowance, Budgets};
use crate::proto::address_block::AddressBlock;
use crate::proto::identity::PeerKey;

/// Questions, bytes of answers and microseconds of the driver that one peer may take. Of each a burst that a joiner needs for
/// 100,000 records of 2 KiB, at the speed at which it can merge them, and a giver for as many to be merged here.
const PER_PEER: Allowance<3> = Allowance {
    per_second: [200.0, 8.0 * 1024.0 * 1024.0, 250_000.0],
    burst: [16_384.0, 128.0 * 1024.0 * 1024.0, 15_000_000.0],
};
/// The longest wait without a word: shorter ones are over before a message about them would have paid.
const PACE_MAX: Duration = Duration::from_secs(1);

/// The budgets of all peers. Clones share them.
#[derive(Clone)]
pub(crate) struct RequestBudget(Arc<Mutex<State>>);

struct State {
    budgets: Budgets<PeerKey, 3>,
    waited: BTreeMap<Waited, u64>,
}

/// Why a question was not answered at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waited {
    /// Its answer was held back for a moment.
    Paced,
    /// The peer was told to come again.
    Busy,
}

/// When a peer may ask.
#[derive(Debug, PartialEq)]
enum Turn {
    Now,
    Soon(Duration),
    Later(Duration),
}

impl Waited {
    /// All.
    pub const ALL: [Waited; 2] = [Waited::Paced, Waited::Busy];

    /// For metrics.
    pub fn text(self) -> &'static str {
        match self {
            Waited::Paced => "paced",
            Waited::Busy => "busy",
        }
    }
}

impl Default for RequestBudget {
    fn default() -> RequestBudget {
        let state = State { budgets: Budgets::new(PER_PEER), waited: BTreeMap::new() };
        RequestBudget(Arc::new(Mutex::new(state)))
    }
}

impl RequestBudget {
    /// A peer is connected.
    pub(crate) fn connected(&self, peer: PeerKey, block: Option<AddressBlock>, now: Instant) {
        self.lock().budgets.connected(peer, block, now);
    }

    /// A peer has left.
    pub(crate) fn disconnected(&self, peer: &PeerKey) {
        self.lock().budgets.disconnected(peer);
    }

    /// Waits until a peer may ask; how much longer it has to wait, if that is too long to be waited for here.
    pub(crate) async fn turn(&self, peer: &PeerKey) -> Option<Duration> {
        let since = Instant::now();
        let mut now = since;
        loop {
            match self.poll_turn(peer, since, now) {
                Turn::Now => return None,
                Turn::Soon(wait) => sleep(wait).await,
                Turn::Later(wait) => return Some(wait),
            }
            now = Instant::now();
        }
    }

    fn poll_turn(&self, peer: &PeerKey, since: Instant, now: Instant) -> Turn {
        let mut state = self.lock();
        // Of a peer that has just left nothing is known, and its stream ends by itself.
        let wait = state.budgets.wait(peer, now).unwrap_or_default();
        let left = (since + PACE_MAX).saturating_duration_since(now);
        if wait.is_zero() {
            return Turn::Now;
        }
        if left.is_zero() {
            *state.waited.entry(Waited::Busy).or_default() += 1;
            return Turn::Later(wait);
        }
        if now == since {
            *state.waited.entry(Waited::Paced).or_default() += 1;
        }
        Turn::Soon(wait.min(left))
    }

    /// Takes off what a question cost.
    pub(crate) fn charge(&self, peer: &PeerKey, questions: usize, bytes: usize, worked: Duration) {
        let cost = [questions as f64, bytes as f64, worked.as_secs_f64() * 1e6];
        self.lock().budgets.charge(peer, cost);
    }

    /// How often a peer had to wait since the start.
    pub(crate) fn waited(&self) -> BTreeMap<Waited, u64> {
        self.lock().waited.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one step, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::identity::Identity;

    const MIB: usize = 1024 * 1024;

    fn keys() -> [PeerKey; 2] {
        [1, 2].map(|seed| Identity::from_seed([seed; 32]).key())
    }

    /// Waits for a turn on a clock of its own; how long in all it is told to wait beyond that.
    fn wait(budget: &RequestBudget, peer: &PeerKey, clock: &mut Instant) -> Option<Duration> {
        let since = *clock;
        loop {
            match budget.poll_turn(peer, since, *clock) {
                Turn::Now => return None,
                Turn::Soon(wait) => *clock += wait,
                Turn::Later(wait) => return Some(wait),
            }
        }
    }

    #[test]
    fn a_joiner_takes_a_whole_zone_and_who_takes_it_again_and_again_is_paced_and_then_told() {
        let (budget, [peer, _], began) = (RequestBudget::default(), keys(), Instant::now());
        budget.connected(peer, None, began);
        let mut clock = began;
        let take = |clock: &mut Instant| {
            assert_eq!(wait(&budget, &peer, clock), None);
            budget.charge(&peer, 1, MIB / 8, Duration::from_micros(300));
        };
        (0..1_024).for_each(|_| take(&mut clock));
        assert_eq!(clock, began);
        // From here on at 8 MiB a second.
        (0..640).for_each(|_| take(&mut clock));
        let seconds = (clock - began).as_secs_f64();
        assert!((9.9..10.1).contains(&seconds), "{seconds}");
        budget.charge(&peer, 1, 80 * MIB, Duration::ZERO);
        let rest = wait(&budget, &peer, &mut clock).expect("too long to be waited for");
        assert!(rest > Duration::from_secs(8) && rest < Duration::from_secs(10), "{rest:?}");
        assert_eq!(budget.waited()[&Waited::Busy], 1);
        clock += rest;
        assert_eq!(budget.poll_turn(&peer, clock, clock), Turn::Now);
    }

    #[test]
    fn the_debt_of_one_is_not_the_wait_of_another_and_does_not_end_with_a_connection() {
        let mut clock = Instant::now();
        let taken = [(1 << 20, 0, 0), (0, 1 << 30, 0), (0, 0, 60)];
        for (questions, bytes, seconds) in taken {
            let (budget, [one, other]) = (RequestBudget::default(), keys());
            budget.connected(one, None, clock);
            budget.connected(other, None, clock);
            budget.charge(&one, questions, bytes, Duration::from_secs(seconds));
            assert!(wait(&budget, &one, &mut clock).is_some());
            assert_eq!(wait(&budget, &other, &mut clock), None);
            budget.disconnected(&one);
            budget.connected(one, None, clock);
            assert!(wait(&budget, &one, &mut clock).is_some());
        }
    }
}
