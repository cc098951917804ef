//! Randomness that is counted, not drawn in turn: a draw is a function of the seed and of what it is for.
//!
//! So a draw depends neither on the order in which events are worked off nor on how often something else was drawn, and
//! two settings that are compared share their luck.

/// What a draw is for: draws for different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Author = 1,
    Graph,
    Heartbeat,
    Reconcile,
    Contact,
    Peer,
    Link,
    Mile,
    Transit,
    Group,
    Victim,
    Churn,
}

/// A source of draws.
#[derive(Clone, Copy, Debug)]
pub(super) struct CounterRng(u64);

/// 2^64 divided by the golden ratio: multiples of it are spread evenly.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl CounterRng {
    /// Draws of a seed for a purpose.
    pub(super) fn new(seed: u64, purpose: Purpose) -> CounterRng {
        // Mixed each for itself: neighbouring seeds and purposes would cancel out in the XOR.
        CounterRng(mix(mix(seed.wrapping_add(GOLDEN)) ^ mix(purpose as u64)))
    }

    /// The draw for two numbers.
    pub(super) fn draw(self, a: u64, b: u64) -> u64 {
        // The two take different ways in, so that exchanging them is another draw.
        mix(mix(self.0.wrapping_add(a.wrapping_mul(GOLDEN))) ^ b.wrapping_mul(GOLDEN))
    }

    /// Many draws for two numbers.
    pub(super) fn draws(self, a: u64, b: u64) -> Draws {
        Draws(self.draw(a, b))
    }
}

/// A sequence of draws.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draws(u64);

impl Draws {
    /// The next one.
    pub(super) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// Whether something of this chance happens; without a draw if it cannot.
    pub(super) fn happens(&mut self, chance: Chance) -> bool {
        // A share of 1 saturates at the greatest number, which one draw in 2^64 is not below.
        chance.0 != 0 && self.next_u64() < chance.0
    }

    /// `count` different numbers below `most` other than `but`, by Floyd's method; all there are if these are fewer.
    pub(super) fn peers(&mut self, but: u32, most: u32, count: usize, chosen: &mut Vec<u32>) {
        chosen.clear();
        // Drawn from one number less and moved past `but` in the end, so that no draw is in vain.
        let others = most - 1;
        for last in others.saturating_sub(count as u32)..others {
            let pick = below(self.next_u64(), u64::from(last) + 1) as u32;
            // A fan-out is a handful, and a list of it is searched faster than a set is made.
            chosen.push(if chosen.contains(&pick) { last } else { pick });
        }
        for peer in chosen {
            *peer += u32::from(*peer >= but);
        }
    }
}

/// A probability, as what a draw must lie below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chance(u64);

impl Chance {
    /// Of a share, 0 to 1.
    pub(super) fn new(share: f64) -> Chance {
        Chance((share * 2f64.powi(64)) as u64)
    }
}

/// A draw as a number below `most`.
pub(super) fn below(draw: u64, most: u64) -> u64 {
    // Quicker than a remainder, and no number is likelier than another by more than 2^-64.
    ((u128::from(draw) * u128::from(most)) >> 64) as u64
}

/// A draw as a number above 0, at most 1.
pub(super) fn unit(draw: u64) -> f64 {
    // 53 bits are exact in a float; 0 is left out as it has no logarithm.
    ((draw >> 11) + 1) as f64 / (1u64 << 53) as f64
}

/// The finalizer of SplitMix64: neighbouring numbers become unlike ones.
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The numbers below `count` in a scrambled order, each once, without a table: multiples of a step that shares no
/// factor with `count`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    count: u64,
    start: u64,
    step: u64,
}

impl Order {
    /// An order of `count` numbers for a purpose.
    pub(super) fn new(rng: CounterRng, number: u64, count: usize) -> Order {
        let count = count as u64;
        let start = below(rng.draw(number, 0), count);
        let mut step = 1 + below(rng.draw(number, 1), count);
        // This ends: going round, it comes to 1 at the latest.
        while gcd(step, count) != 1 {
            step = step % count + 1;
        }
        Order { count, start, step }
    }

    /// The number at a place.
    pub(super) fn at(self, place: usize) -> u32 {
        // Both factors are below 2^30, so the product fits.
        ((self.start + place as u64 % self.count * self.step) % self.count) as u32
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A running hash over what happens, in order: it tells runs apart and guards against nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct TraceHash(u64);

impl TraceHash {
    /// Of a seed.
    pub(super) fn new(seed: u64) -> TraceHash {
        TraceHash(mix(seed ^ GOLDEN))
    }

    /// Something happened.
    pub(super) fn note(&mut self, a: u64, b: u64) {
        // Rotated, so that exchanging the two is seen.
        let what =
            a.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ b.wrapping_mul(0x94d0_49bb_1331_11eb).rotate_left(29);
        self.0 = (self.0.rotate_left(5) ^ what).wrapping_mul(GOLDEN);
    }

    /// The hash so far.
    pub(super) fn value(self) -> u64 {
        mix(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_different_and_never_oneself() {
        let rng = CounterRng::new(1, Purpose::Peer);
        let mut chosen = Vec::new();
        let mut met = [0u32; 7];
        for round in 0..7_000 {
            rng.draws(3, round).peers(3, 7, 2, &mut chosen);
            assert!(chosen.len() == 2 && chosen[0] != chosen[1] && !chosen.contains(&3), "{chosen:?}");
            chosen.iter().for_each(|peer| met[*peer as usize] += 1);
        }
        let fair = 7_000 * 2 / 6;
        assert!(met.iter().enumerate().all(|(at, met)| at == 3 || met.abs_diff(fair) < 200), "{met:?}");
        rng.draws(0, 0).peers(0, 3, 9, &mut chosen);
        chosen.sort_unstable();
        assert_eq!(chosen, [1, 2]);
    }

    #[test]
    fn an_order_holds_every_number_once() {
        for count in [1, 2, 8, 97, 1_000] {
            let order = Order::new(CounterRng::new(7, Purpose::Victim), 0, count);
            let mut all: Vec<u32> = (0..count).map(|place| order.at(place)).collect();
            all.sort_unstable();
            assert!(all.iter().enumerate().all(|(at, number)| at == *number as usize), "{count}: {all:?}");
        }
    }

    #[test]
    fn a_trace_tells_the_order_of_things() {
        let (mut a, mut b) = (TraceHash::new(1), TraceHash::new(1));
        a.note(1, 2);
        a.note(3, 4);
        b.note(3, 4);
        b.note(1, 2);
        assert_ne!(a.value(), b.value());
        let mut c = TraceHash::new(1);
        c.note(1, 3);
        c.note(3, 4);
        assert_ne!(a.value(), c.value(), "what came first still counts");
    }
}
