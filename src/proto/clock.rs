//! What is known of clocks: the local one may go back, and those of peers judge it (protocol section 2).

use std::collections::BTreeMap;
use std::time::Duration;

use super::config::Config;
use super::context::Outbox;
use super::identity::PeerKey;
use super::io::NodeAlert;
use super::links::Links;
use super::time::Timestamp;
use super::zone::Zones;

/// Clock readings of peers that are kept beside those of their beacons.
const OFFSETS_MAX: usize = 1_024;
/// A step back below this is no more than what a clock service corrects.
const STEP_MIN: Duration = Duration::from_secs(1);

/// A gap between two inputs longer than this is no pause of a process that beacons, but a suspended machine or a jump.
const JUMP_MIN: Duration = Duration::from_secs(600);
/// How long a clock that jumped is not trusted with renewals, unless a peer confirms it: a service that set it wrong has
/// set it right by then.
const JUMP_SETTLES: Duration = Duration::from_secs(600);

/// What is known of clocks.
pub(super) struct Clock {
    last_now: Timestamp,
    /// Clocks of peers minus ours, milliseconds, where something later than their last beacon told them.
    offsets: BTreeMap<PeerKey, i64>,
    /// The local clock's offset from the median of the bootstrap peers, if it is too large to write.
    unsafe_offset: Option<i64>,
    /// Until when a jump forward is not trusted.
    settles: Timestamp,
}

/// What a judgement of the local clock changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClockChange {
    /// Nothing.
    None,
    /// It is right again: what was put off can be done.
    Trusted,
}

impl Clock {
    pub(super) fn new(now: Timestamp) -> Clock {
        Clock { last_now: now, offsets: BTreeMap::new(), unsafe_offset: None, settles: Timestamp::default() }
    }

    /// Takes the time of an input. Answers by how much the clock went back, if that is more than a correction.
    pub(super) fn observe(&mut self, now: Timestamp) -> Option<Duration> {
        let step = self.last_now.since(now);
        if now.since(self.last_now) >= JUMP_MIN {
            self.settles = now + JUMP_SETTLES;
        } else if step >= STEP_MIN {
            // What it showed before is over.
            self.settles = Timestamp::default();
        }
        self.last_now = now;
        (step >= STEP_MIN).then_some(step)
    }

    /// Until when the time after a jump is not used for renewals: a stamp of a clock that is ahead is refused by everybody
    /// for as long as it is ahead.
    pub(super) fn settles(&self) -> Timestamp {
        self.settles
    }

    /// A peer told its clock; if that is what ours shows, a jump was a suspension.
    pub(super) fn confirm(&mut self, offset_ms: i64, config: &Config) {
        if offset_ms.unsigned_abs() <= config.clock_offset_max.as_millis() as u64 {
            self.settles = Timestamp::default();
        }
    }

    /// The local clock went back by `step`.
    pub(super) fn shift(&mut self, step: Duration) {
        for offset in self.offsets.values_mut() {
            *offset = offset.saturating_add_unsigned(step.as_millis() as u64);
        }
    }

    /// A peer told its clock.
    pub(super) fn note(&mut self, peer: PeerKey, clock: Timestamp, now: Timestamp) {
        // Those that are known are kept: a flood of strangers must not push bootstrap peers out.
        if self.offsets.len() < OFFSETS_MAX || self.offsets.contains_key(&peer) {
            self.offsets.insert(peer, clock.offset_ms(now));
        }
    }

    /// A peer's last beacon is the latest that is known of its clock.
    pub(super) fn forget(&mut self, peer: &PeerKey) {
        self.offsets.remove(peer);
    }

    /// The local clock's offset from the median of the bootstrap peers, if it is too large to write.
    pub(super) fn unsafe_offset(&self) -> Option<i64> {
        self.unsafe_offset
    }

    /// Compares the local clock with those of the bootstrap peers, as they were told by sync or by beacons of `zones`; where
    /// none told his, with those of the connected peers, which only warns.
    pub(super) fn check(
        &mut self,
        zones: &Zones,
        links: &Links,
        config: &Config,
        out: &mut Outbox,
    ) -> ClockChange {
        let most = config.clock_offset_max.as_millis() as u64;
        // Only peers that the operator named: a crowd of free identities could move any other median.
        let known = config.bootstrap_peers.iter().filter_map(|peer| self.offset_of(zones, peer));
        let by_bootstrap = median(known.collect());
        let by_others = if by_bootstrap.is_none() { -self.offset_ms(zones, links) } else { 0 };
        self.unsafe_offset = by_bootstrap.filter(|offset| offset.unsigned_abs() > most);
        // One alert of each kind, with the offset at which it began.
        if by_others.unsigned_abs() <= most {
            out.clear_alerts(NodeAlert::is_clock_off);
        } else if !out.alerts().any(|(alert, _)| alert.is_clock_off()) {
            out.alert(NodeAlert::ClockOff(by_others));
        }
        match self.unsafe_offset {
            Some(offset) => {
                if !out.alerts().any(|(alert, _)| alert.is_clock_unsafe()) {
                    out.alert(NodeAlert::ClockUnsafe(offset));
                }
                ClockChange::None
            }
            None if out.clear_alerts(NodeAlert::is_clock_unsafe) => ClockChange::Trusted,
            None => ClockChange::None,
        }
    }

    /// A peer's clock minus ours, milliseconds.
    pub(super) fn offset_of(&self, zones: &Zones, peer: &PeerKey) -> Option<i64> {
        let heard = zones.values().filter_map(|zone| zone.liveness().clock_of(peer));
        self.offsets.get(peer).copied().or_else(|| heard.max().map(|(_, offset)| offset))
    }

    /// The local clock minus the median of the connected peers' clocks, milliseconds: whoever is heard through others alone
    /// may be anybody, as often as he likes.
    pub(super) fn offset_ms(&self, zones: &Zones, links: &Links) -> i64 {
        let offsets = links.iter().filter_map(|peer| self.offset_of(zones, peer));
        median(offsets.collect()).map_or(0, |offset| -offset)
    }
}

fn median(mut offsets: Vec<i64>) -> Option<i64> {
    offsets.sort_unstable();
    // The upper of two: with an even number of clocks one of them is believed, not their mean.
    offsets.get(offsets.len() / 2).copied()
}
