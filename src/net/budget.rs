//! Token buckets: how much one peer, and one block of addresses, may take of this node, refilled with time.
//!
//! Whoever has something left of every unit may take; what it took is charged afterwards and may leave a debt, which it
//! waits off. So a cost need not be known before, and one large thing is never refused for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::proto::address_block::AddressBlock;

/// How much more a block of addresses may take than a peer: some honest nodes of one provider, not a hundred keys of one.
const BLOCK_SHARE: f64 = 4.0;
/// How many bursts may be saved up from what is credited.
const CREDIT_MAX: f64 = 8.0;
/// Accounts kept of peers that have left, and of blocks. Who comes back to it finds its debt; when there are more, all that
/// nobody uses are forgotten.
const IDLE_ACCOUNTS_MAX: usize = 4_096;

/// How fast a bucket of `N` units fills, and how much it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance<const N: usize> {
    pub(crate) per_second: [f64; N],
    pub(crate) burst: [f64; N],
}

/// What is left to one party.
#[derive(Clone, Debug)]
pub(crate) struct Bucket<const N: usize> {
    allowance: Allowance<N>,
    level: [f64; N],
    at: Instant,
}

impl<const N: usize> Allowance<N> {
    /// `share` times as much.
    pub(crate) fn times(self, share: f64) -> Allowance<N> {
        Allowance {
            per_second: self.per_second.map(|rate| rate * share),
            burst: self.burst.map(|burst| burst * share),
        }
    }
}

impl<const N: usize> Bucket<N> {
    /// A full one.
    pub(crate) fn new(allowance: Allowance<N>, now: Instant) -> Bucket<N> {
        Bucket { allowance, level: allowance.burst, at: now }
    }

    /// How long until something is left of every unit; zero if that is so now.
    pub(crate) fn wait(&mut self, now: Instant) -> Duration {
        self.refill(now);
        let units = self.level.iter().zip(self.allowance.per_second);
        let debts = units.filter(|(level, _)| **level <= 0.0);
        // A little more than the debt, so that who comes then finds something.
        let longest = debts.map(|(level, rate)| (1.0 - level) / rate).fold(0.0, f64::max);
        Duration::try_from_secs_f64(longest).unwrap_or(Duration::MAX)
    }

    /// Takes a cost off.
    pub(crate) fn charge(&mut self, cost: [f64; N]) {
        self.level.iter_mut().zip(cost).for_each(|(level, cost)| *level -= cost);
    }

    /// Gives something back, up to [`CREDIT_MAX`] bursts.
    fn credit(&mut self, amount: [f64; N]) {
        let units = self.level.iter_mut().zip(amount).zip(self.allowance.burst);
        units.for_each(|((level, amount), burst)| {
            *level = level.max((*level + amount).min(burst * CREDIT_MAX))
        });
    }

    /// Every level moves towards its burst: what was credited beyond it is not kept for ever.
    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        for (at, level) in self.level.iter_mut().enumerate() {
            let (step, burst) = (self.allowance.per_second[at] * seconds, self.allowance.burst[at]);
            *level = if *level < burst { burst.min(*level + step) } else { burst.max(*level - step) };
        }
    }
}

/// The buckets of peers and of the blocks they come from. Peers of trusted nets belong to no block.
#[derive(Debug)]
pub(crate) struct Budgets<P, const N: usize> {
    per_peer: Allowance<N>,
    peers: BTreeMap<P, (Account<N>, Option<AddressBlock>)>,
    blocks: BTreeMap<AddressBlock, Account<N>>,
    /// What everybody was credited since the start.
    credited: [f64; N],
}

#[derive(Debug)]
struct Account<const N: usize> {
    bucket: Bucket<N>,
    /// What of [`Budgets::credited`] it was given.
    credited: [f64; N],
    /// Connected peers whose account it is.
    users: usize,
}

impl<P: Ord + Copy, const N: usize> Budgets<P, N> {
    pub(crate) fn new(per_peer: Allowance<N>) -> Budgets<P, N> {
        Budgets { per_peer, peers: BTreeMap::new(), blocks: BTreeMap::new(), credited: [0.0; N] }
    }

    /// A peer is connected.
    pub(crate) fn connected(&mut self, peer: P, block: Option<AddressBlock>, now: Instant) {
        self.forget_idle();
        let (per_peer, credited) = (self.per_peer, self.credited);
        let account = |allowance| Account { bucket: Bucket::new(allowance, now), credited, users: 0 };
        let (own, of) = self.peers.entry(peer).or_insert_with(|| (account(per_peer), None));
        // Seen at another address by another connection: the first counts as long as it is connected.
        if own.users > 0 {
            return;
        }
        (own.users, *of) = (1, block);
        if let Some(block) = block {
            self.blocks.entry(block).or_insert_with(|| account(per_peer.times(BLOCK_SHARE))).users += 1;
        }
    }

    /// A peer has left. What it took is remembered.
    pub(crate) fn disconnected(&mut self, peer: &P) {
        let Some((own, block)) = self.peers.get_mut(peer) else { return };
        own.users = 0;
        if let Some(account) = block.take().and_then(|block| self.blocks.get_mut(&block)) {
            account.users = account.users.saturating_sub(1);
        }
    }

    /// How long until the peer may take something; none if it is not connected.
    pub(crate) fn wait(&mut self, peer: &P, now: Instant) -> Option<Duration> {
        let credited = self.credited;
        let (own, block) = self.peers.get_mut(peer).filter(|(own, _)| own.users > 0)?;
        let block = block.and_then(|block| self.blocks.get_mut(&block));
        [Some(own), block].into_iter().flatten().map(|account| account.wait(credited, now)).max()
    }

    /// Takes a cost off.
    pub(crate) fn charge(&mut self, peer: &P, cost: [f64; N]) {
        let Some((own, block)) = self.peers.get_mut(peer) else { return };
        own.bucket.charge(cost);
        if let Some(account) = block.and_then(|block| self.blocks.get_mut(&block)) {
            account.bucket.charge(cost);
        }
    }

    /// Gives everybody something.
    pub(crate) fn credit(&mut self, amount: [f64; N]) {
        self.credited.iter_mut().zip(amount).for_each(|(credited, amount)| *credited += amount);
    }

    fn forget_idle(&mut self) {
        if self.peers.len() + self.blocks.len() > IDLE_ACCOUNTS_MAX {
            self.peers.retain(|_, (own, _)| own.users > 0);
            self.blocks.retain(|_, account| account.users > 0);
        }
    }
}

impl<const N: usize> Account<N> {
    fn wait(&mut self, credited: [f64; N], now: Instant) -> Duration {
        let due = std::array::from_fn(|unit| credited[unit] - self.credited[unit]);
        self.credited = credited;
        self.bucket.credit(due);
        self.bucket.wait(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCE: Allowance<2> = Allowance { per_second: [10.0, 1_000.0], burst: [20.0, 4_000.0] };

    fn seconds(count: f64) -> Duration {
        Duration::from_secs_f64(count)
    }

    /// Takes until nothing is left.
    fn taken(bucket: &mut Bucket<2>, cost: [f64; 2], now: Instant) -> usize {
        let mut taken = 0;
        while bucket.wait(now).is_zero() {
            bucket.charge(cost);
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_burst_passes_and_then_as_much_as_time_brings_of_whichever_unit_is_short() {
        let now = Instant::now();
        // What one costs, how many pass at once, and how many in each second after.
        for (cost, at_once, then) in [([1.0, 10.0], 20, 10), ([1.0, 1_000.0], 4, 1), ([0.5, 0.0], 40, 20)] {
            let mut bucket = Bucket::new(ALLOWANCE, now);
            assert_eq!(taken(&mut bucket, cost, now), at_once, "{cost:?}");
            assert_eq!(taken(&mut bucket, cost, now), 0, "{cost:?}");
            for second in 1..5 {
                assert_eq!(taken(&mut bucket, cost, now + seconds(second.into())), then, "{cost:?}");
            }
            // A long silence brings no more than the burst.
            assert_eq!(taken(&mut bucket, cost, now + seconds(1e6)), at_once, "{cost:?}");
        }
    }

    #[test]
    fn a_debt_is_waited_off_and_who_waited_as_long_as_told_may_take() {
        let now = Instant::now();
        let mut bucket = Bucket::new(ALLOWANCE, now);
        bucket.charge([0.0, 64_000.0]);
        let wait = bucket.wait(now);
        assert!(wait > seconds(60.0) && wait < seconds(60.1), "{wait:?}");
        assert!(!bucket.wait(now + wait / 2).is_zero());
        assert!(bucket.wait(now + wait).is_zero());
        assert_eq!(taken(&mut bucket, [1.0, 1.0], now + wait), 1);
    }

    #[test]
    fn what_is_credited_beyond_the_burst_is_bounded_and_fades() {
        let now = Instant::now();
        let mut bucket = Bucket::new(ALLOWANCE, now);
        bucket.credit([1e9, 0.0]);
        assert_eq!(bucket.level, [160.0, 4_000.0]);
        assert!(bucket.wait(now + seconds(3.0)).is_zero());
        assert_eq!(bucket.level, [130.0, 4_000.0]);
        assert!(bucket.wait(now + seconds(60.0)).is_zero());
        assert_eq!(bucket.level, [20.0, 4_000.0]);
    }

    fn block(text: &str) -> Option<AddressBlock> {
        Some(AddressBlock::of(text.parse().unwrap()))
    }

    /// Each peer takes as often as it may; how often all do.
    fn all_taken(budgets: &mut Budgets<u8, 2>, peers: std::ops::Range<u8>, now: Instant) -> usize {
        let mut take = |peer: u8| {
            let may = budgets.wait(&peer, now).is_some_and(|wait| wait.is_zero());
            budgets.charge(&peer, if may { [1.0, 0.0] } else { [0.0; 2] });
            may
        };
        peers.map(|peer| (0..100).filter(|_| take(peer)).count()).sum()
    }

    #[test]
    fn any_number_of_keys_of_a_block_take_what_a_block_may_and_nobody_elses() {
        let now = Instant::now();
        let mut budgets = Budgets::<u8, 2>::new(ALLOWANCE);
        (0..50).for_each(|peer| budgets.connected(peer, block(&format!("198.51.100.{peer}")), now));
        budgets.connected(50, block("198.51.101.1"), now);
        (51..53).for_each(|peer| budgets.connected(peer, None, now));
        assert_eq!(all_taken(&mut budgets, 0..50, now), 80);
        // New keys of the block find it empty, another block and trusted peers do not.
        budgets.connected(60, block("198.51.100.200"), now);
        assert_eq!(all_taken(&mut budgets, 60..61, now), 0);
        assert_eq!(all_taken(&mut budgets, 50..53, now), 60);
    }

    #[test]
    fn who_comes_back_finds_what_it_left() {
        let now = Instant::now();
        let mut budgets = Budgets::<u8, 2>::new(ALLOWANCE);
        for _ in 0..3 {
            budgets.connected(1, block("198.51.100.1"), now);
            all_taken(&mut budgets, 1..2, now);
            budgets.disconnected(&1);
            assert_eq!(budgets.wait(&1, now), None, "it is not there");
        }
        budgets.connected(1, block("198.51.100.1"), now);
        assert_eq!(all_taken(&mut budgets, 1..2, now), 0);
        assert_eq!(all_taken(&mut budgets, 1..2, now + seconds(1.0)), 10);
    }

    #[test]
    fn the_table_of_those_who_left_is_bounded() {
        let now = Instant::now();
        let mut budgets = Budgets::<u32, 2>::new(ALLOWANCE);
        budgets.connected(0, block("203.0.113.1"), now);
        for peer in 1..10_000 {
            budgets.connected(peer, block(&format!("10.{}.{}.1", peer / 250, peer % 250)), now);
            budgets.disconnected(&peer);
            assert!(budgets.peers.len() + budgets.blocks.len() <= IDLE_ACCOUNTS_MAX + 2);
        }
        assert!(budgets.wait(&0, now).is_some());
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_brings_nothing() {
        let now = Instant::now();
        let mut bucket = Bucket::new(ALLOWANCE, now);
        taken(&mut bucket, [1.0, 0.0], now);
        assert!(!bucket.wait(now - seconds(5.0)).is_zero());
        assert!(!bucket.wait(now).is_zero());
    }
}
