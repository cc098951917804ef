//! How long a message is on its way, and whether it arrives.

use super::counter_rng::{Chance, CounterRng, Purpose, below};
use crate::lab::scenario::{Loss, LossMode, Network, Regions};
use crate::sim::regions::{LAST_MILE_MS, ROUND_TRIP_MS, region};

/// Ticks of a millisecond: time is counted in steps of 100 µs.
pub(super) const TICKS_MS: u64 = 10;
/// Jitter of one message, as a share of the way between regions: it comes up to a sixteenth later.
const JITTER_SHIFT: u32 = 4;
/// A sender misses an acknowledgement after three times the one-way latency and this much, as QUIC's probe timeout
/// does with an acknowledgement delay of 25 ms; each further loss doubles the wait.
const ACK_DELAY_TICKS: u64 = 25 * TICKS_MS;
/// Copies of one message that may be lost in turn; at a loss of 0.5 the next one is not lost but once in 65,536.
const LOSSES_MAX: u32 = 16;

/// The links of a world.
#[derive(Debug)]
pub(super) struct Links {
    length: Length,
    chance: Chance,
    mode: LossMode,
    link: CounterRng,
    mile: CounterRng,
    transit: CounterRng,
}

#[derive(Debug)]
enum Length {
    /// What is sent in a round of this many ticks arrives at its end.
    Round(u64),
    /// Ticks: least, and how many more at most. Both directions of a link are alike.
    Between(u64, u64),
    /// As far as regions lie apart.
    Regions,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// It is there at this tick, after this many losses.
    Arrives(u64, u32),
    /// It is gone.
    Lost,
}

impl Links {
    /// Links as a scenario wants them; `round` is the length of a round, ticks, where links have no latency.
    pub(super) fn new(network: &Network, round: u64, seed: u64) -> Links {
        let length = match (network.regions, network.latency) {
            (Some(Regions::Cloud8), _) => Length::Regions,
            (None, Some(latency)) => {
                // A tick at least: the queue has already given out all that is due at the present one.
                let ticks = |time: std::time::Duration| (time.as_micros() as u64 / 100).max(1);
                let least = ticks(latency.least);
                Length::Between(least, ticks(latency.most) - least)
            }
            (None, None) => Length::Round(round),
        };
        let Loss { rate, mode } = network.loss;
        Links {
            length,
            chance: Chance::new(rate),
            mode,
            link: CounterRng::new(seed, Purpose::Link),
            mile: CounterRng::new(seed, Purpose::Mile),
            transit: CounterRng::new(seed, Purpose::Transit),
        }
    }

    /// Length of a round, if time is counted in rounds.
    pub(super) fn round(&self) -> Option<u64> {
        match self.length {
            Length::Round(ticks) => Some(ticks),
            Length::Between(..) | Length::Regions => None,
        }
    }

    /// What becomes of a message that is sent now; `content` tells it from others on the same link.
    pub(super) fn deliver(&self, now: u64, from: u32, to: u32, content: u64) -> Delivery {
        // By link, time and content: a message more or less does not change which others are lost.
        let mut draws = self.transit.draws(u64::from(from) << 32 | u64::from(to), content << 32 ^ now);
        let mut losses = 0;
        while draws.happens(self.chance) && losses < LOSSES_MAX {
            if self.mode == LossMode::Drop {
                return Delivery::Lost;
            }
            losses += 1;
        }
        let way = match &self.length {
            Length::Round(ticks) => {
                // A loss is noticed by the end of the round, so each costs one.
                return Delivery::Arrives((now / ticks + 1 + u64::from(losses)) * ticks, losses);
            }
            Length::Between(least, 0) => *least,
            Length::Between(least, more) => {
                let (low, high) = (u64::from(from.min(to)), u64::from(from.max(to)));
                least + below(self.link.draw(low, high), more + 1)
            }
            Length::Regions => {
                let round_trip_ms = ROUND_TRIP_MS[region(from as usize)][region(to as usize)];
                let way = u64::from(round_trip_ms) * TICKS_MS / 2;
                let jitter = below(draws.next_u64(), (way >> JITTER_SHIFT) + 1);
                way + jitter + self.mile(from) + self.mile(to)
            }
        };
        // 1 + 2 + 4 …: the sum of waits that double.
        let waits = (1 << losses) - 1;
        Delivery::Arrives(now + way + waits * (3 * way + ACK_DELAY_TICKS), losses)
    }

    fn mile(&self, node: u32) -> u64 {
        let (least, most) = (u64::from(LAST_MILE_MS.0) * TICKS_MS, u64::from(LAST_MILE_MS.1) * TICKS_MS);
        least + below(self.mile.draw(u64::from(node), 0), most - least + 1)
    }
}
