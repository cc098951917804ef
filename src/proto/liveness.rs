//! Who is there: beacons of the members of one zone (protocol section 3).
//!
//! A beacon counts only if it is newer than the last of its author and its clock is near ours. Three intervals missed
//! make a member unreachable; a closed connection says so at once, locally, until it is heard again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::config::MEMBERS_MAX;
use super::identity::PeerKey;
use super::message::Beacon;
use super::record::Author;
use super::time::Timestamp;

/// Beacons a member may miss before it counts as unreachable.
const BEACONS_MISSED_MAX: u32 = 3;
/// How far a beacon's clock may be off beyond the intervals it may miss.
const CLOCK_SLACK: Duration = Duration::from_secs(30);
/// Longest interval that is believed.
const INTERVAL_MAX: Duration = Duration::from_secs(6 * 3_600);

/// Members of a zone as their beacons show them.
#[derive(Clone, Debug, Default)]
pub struct Liveness {
    members: BTreeMap<PeerKey, Member>,
}

#[derive(Clone, Debug)]
struct Member {
    author: Author,
    counter: u64,
    interval: Duration,
    heard_at: Timestamp,
    seq: u64,
    presence: Told,
}

/// What the member or its connection told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Here,
    Gone,
}

/// What became of a beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It counts.
    Fresh,
    /// Not newer than the last one.
    Stale,
    /// Its clock is too far from ours; nobody's fault.
    ClockOff,
}

/// Whether a member answers, as far as is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Heard in time.
    Reachable,
    /// Said goodbye, missed three beacons, or its connection closed.
    Unreachable,
    /// Never heard.
    Unknown,
}

impl Liveness {
    /// Whether a beacon would count, before its signature is checked.
    pub fn judge(&self, beacon: &Beacon, now: Timestamp) -> Heard {
        let known = self.members.get(&beacon.peer());
        if known.is_some_and(|it| it.author == beacon.author && beacon.counter <= it.counter) {
            return Heard::Stale;
        }
        let interval = Duration::from_millis(beacon.interval_ms).min(INTERVAL_MAX);
        let slack = interval * BEACONS_MISSED_MAX + CLOCK_SLACK;
        if beacon.clock.offset_ms(now).unsigned_abs() > slack.as_millis() as u64 {
            return Heard::ClockOff;
        }
        Heard::Fresh
    }

    /// Takes a verified beacon that [`Liveness::judge`] found fresh.
    pub fn hear(&mut self, beacon: &Beacon, now: Timestamp) {
        if self.members.len() >= MEMBERS_MAX && !self.members.contains_key(&beacon.peer()) {
            let quietest = self.members.iter().min_by_key(|(_, it)| it.heard_at).map(|(peer, _)| *peer);
            quietest.map(|peer| self.members.remove(&peer));
        }
        let member = Member {
            author: beacon.author,
            counter: beacon.counter,
            interval: Duration::from_millis(beacon.interval_ms).min(INTERVAL_MAX),
            heard_at: now,
            seq: beacon.seq,
            presence: if beacon.is_goodbye() { Told::Gone } else { Told::Here },
        };
        self.members.insert(beacon.peer(), member);
    }

    /// The last connection to a peer closed.
    pub fn lose(&mut self, peer: &PeerKey) {
        if let Some(member) = self.members.get_mut(peer) {
            member.presence = Told::Gone;
        }
    }

    /// Whether a member answers.
    pub fn presence(&self, peer: &PeerKey, now: Timestamp) -> Presence {
        match self.members.get(peer) {
            None => Presence::Unknown,
            Some(member) if member.is_live(now) => Presence::Reachable,
            Some(_) => Presence::Unreachable,
        }
    }

    /// When a member was last heard.
    pub fn heard_at(&self, peer: &PeerKey) -> Option<Timestamp> {
        self.members.get(peer).map(|member| member.heard_at)
    }

    /// Live members, this node not included.
    pub fn live(&self, now: Timestamp) -> usize {
        self.members.values().filter(|member| member.is_live(now)).count()
    }

    /// The last version each member claims to have written.
    pub fn heads(&self) -> impl Iterator<Item = (Author, u64)> {
        self.members.values().map(|member| (member.author, member.seq))
    }

    /// The local clock went back by `step`.
    pub fn shift(&mut self, step: Duration) {
        for member in self.members.values_mut() {
            member.heard_at = member.heard_at - step;
        }
    }
}

impl Member {
    fn is_live(&self, now: Timestamp) -> bool {
        self.presence == Told::Here && now.since(self.heard_at) <= self.interval * BEACONS_MISSED_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::name::ZoneName;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const INTERVAL: Duration = Duration::from_secs(20);

    fn beacon(counter: u64, clock: Timestamp) -> Beacon {
        Beacon {
            network: "world".into(),
            zone: ZoneName::root(),
            author: Author { key: PeerKey([1; 32]), epoch: 1 },
            counter,
            clock,
            interval_ms: INTERVAL.as_millis() as u64,
            seq: 1,
        }
    }

    fn hear(liveness: &mut Liveness, beacon: &Beacon, now: Timestamp) -> Heard {
        let heard = liveness.judge(beacon, now);
        if heard == Heard::Fresh {
            liveness.hear(beacon, now);
        }
        heard
    }

    #[test]
    fn a_beacon_counts_only_once_and_only_with_a_near_clock() {
        let mut liveness = Liveness::default();
        assert_eq!(hear(&mut liveness, &beacon(5, NOW), NOW), Heard::Fresh);
        assert_eq!(hear(&mut liveness, &beacon(5, NOW), NOW), Heard::Stale);
        assert_eq!(hear(&mut liveness, &beacon(4, NOW), NOW), Heard::Stale);
        let slack = INTERVAL * BEACONS_MISSED_MAX + CLOCK_SLACK;
        assert_eq!(hear(&mut liveness, &beacon(6, NOW + slack), NOW), Heard::Fresh);
        let off = NOW - slack - Duration::from_millis(1);
        assert_eq!(hear(&mut liveness, &beacon(7, off), NOW), Heard::ClockOff);
    }

    #[test]
    fn three_missed_beacons_a_goodbye_or_a_closed_connection_make_a_member_unreachable() {
        let mut liveness = Liveness::default();
        let peer = PeerKey([1; 32]);
        assert_eq!(liveness.presence(&peer, NOW), Presence::Unknown);
        hear(&mut liveness, &beacon(1, NOW), NOW);
        assert_eq!(liveness.presence(&peer, NOW + 3 * INTERVAL), Presence::Reachable);
        assert_eq!(liveness.presence(&peer, NOW + 4 * INTERVAL), Presence::Unreachable);
        liveness.lose(&peer);
        assert_eq!(liveness.presence(&peer, NOW), Presence::Unreachable);
        hear(&mut liveness, &beacon(2, NOW), NOW);
        assert_eq!((liveness.presence(&peer, NOW), liveness.live(NOW)), (Presence::Reachable, 1));
        hear(&mut liveness, &Beacon { interval_ms: 0, ..beacon(3, NOW) }, NOW);
        assert_eq!((liveness.presence(&peer, NOW), liveness.live(NOW)), (Presence::Unreachable, 0));
    }
}
