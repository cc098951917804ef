//! Time as the protocol sees it: plain integers, always given from outside.
//!
//! [`Timestamp`] is wall time in milliseconds since the Unix epoch. [`Stamp`] orders the writes of one key (paper 6.2,
//! timestamp-based last write wins): the wall clock and a counter for writes within one millisecond.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Wall time, milliseconds since the Unix epoch. Arithmetic saturates, so a hostile value cannot overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Milliseconds since the Unix epoch.
    pub fn as_millis(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`, zero if `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Signed distance `self - other` in milliseconds, saturating.
    pub fn offset_ms(self, other: Timestamp) -> i64 {
        let offset = i128::from(self.0) - i128::from(other.0);
        offset.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(duration.as_millis() as u64))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;
    fn sub(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(duration.as_millis() as u64))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// When a write happened: wall clock first, counter second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Wall time of the author.
    pub wall: Timestamp,
    /// Distinguishes writes of one millisecond.
    pub counter: u32,
}

impl Stamp {
    /// The smallest stamp greater than `self`.
    pub fn successor(self) -> Stamp {
        match self.counter.checked_add(1) {
            Some(counter) => Stamp { wall: self.wall, counter },
            None => Stamp { wall: Timestamp(self.wall.0.saturating_add(1)), counter: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successor_is_greater_even_when_the_counter_is_full() {
        let full = Stamp { wall: Timestamp(7), counter: u32::MAX };
        assert!(full.successor() > full);
        assert_eq!(full.successor().wall, Timestamp(8));
    }

    #[test]
    fn hostile_times_saturate() {
        assert_eq!(Timestamp(u64::MAX) + Duration::from_secs(1), Timestamp(u64::MAX));
        assert_eq!(Timestamp(0) - Duration::from_secs(1), Timestamp(0));
        assert_eq!(Timestamp(u64::MAX).offset_ms(Timestamp(0)), i64::MAX);
        assert_eq!(Timestamp(0).offset_ms(Timestamp(u64::MAX)), i64::MIN);
    }
}
