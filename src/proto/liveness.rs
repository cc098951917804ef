//! Who is there: beacons of the members of one zone (protocol section 3).
//!
//! A beacon counts only if it is newer than the last of its author and its clock is near ours. Three intervals missed
//! make a member unreachable; a closed connection says so at once, locally, until it is heard again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::identity::PeerKey;
use super::limits::MEMBERS_MAX;
use super::message::Heartbeat;
use super::time::Timestamp;
use super::version::VersionVector;

/// Beacons a member may miss before it counts as unreachable.
const BEACONS_MISSED_MAX: u32 = 3;
/// How far a beacon's clock may be off beyond the intervals it may miss.
const CLOCK_SLACK: Duration = Duration::from_secs(30);
/// Longest interval that is believed.
const INTERVAL_MAX: Duration = Duration::from_secs(6 * 3_600);

/// Members of a zone as their beacons show them.
#[derive(Clone, Debug, Default)]
pub struct Liveness {
    /// By key. A list, because most beacons are of members that stand in it.
    members: Vec<Member>,
    /// Members that said goodbye or whose connection closed since they were heard.
    gone: BTreeSet<PeerKey>,
    /// Members that had written more than was held when they were last looked at, or were heard since.
    ahead: BTreeSet<PeerKey>,
    /// Authors the version vector had forgotten when all members were last looked at.
    forgotten: u64,
}

/// A member's last beacon; many nodes of one process share it.
#[derive(Clone, Debug)]
struct Member {
    heartbeat: Arc<Heartbeat>,
    heard_at: Timestamp,
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
    pub fn classify(&self, heartbeat: &Heartbeat, now: Timestamp) -> Heard {
        let known = self.get(&heartbeat.peer()).map(|it| &it.heartbeat);
        // Of one epoch only: a node that lost its disk starts to count anew.
        if known.is_some_and(|it| it.author == heartbeat.author && heartbeat.counter <= it.counter) {
            return Heard::Stale;
        }
        let slack = interval(heartbeat) * BEACONS_MISSED_MAX + CLOCK_SLACK;
        if heartbeat.clock.offset_ms(now).unsigned_abs() > slack.as_millis() as u64 {
            return Heard::ClockOff;
        }
        Heard::Fresh
    }

    /// Takes a verified beacon that [`Liveness::classify`] found fresh.
    pub fn hear(&mut self, heartbeat: &Arc<Heartbeat>, now: Timestamp) {
        match heartbeat.is_goodbye() {
            true => self.gone.insert(heartbeat.peer()),
            false => self.gone.remove(&heartbeat.peer()),
        };
        let member = Member { heartbeat: heartbeat.clone(), heard_at: now };
        match self.place(&heartbeat.peer()) {
            Ok(at) => self.members[at] = member,
            Err(_) if self.members.len() >= MEMBERS_MAX => self.replace_quietest(member),
            Err(at) => self.members.insert(at, member),
        }
        // Compared with the vector when somebody asks: at every beacon of a large zone that would cost more than the beacon.
        self.ahead.insert(heartbeat.peer());
    }

    /// The last connection to a peer closed.
    pub fn lose(&mut self, peer: &PeerKey) {
        if self.get(peer).is_some() {
            self.gone.insert(*peer);
        }
    }

    /// Whether a member answers.
    pub fn presence(&self, peer: &PeerKey, now: Timestamp) -> Presence {
        match self.get(peer) {
            None => Presence::Unknown,
            Some(member) if self.is_live(member, now) => Presence::Reachable,
            Some(_) => Presence::Unreachable,
        }
    }

    /// When a member was last heard.
    pub fn heard_at(&self, peer: &PeerKey) -> Option<Timestamp> {
        self.get(peer).map(|member| member.heard_at)
    }

    /// When each member was last heard, and its clock then, minus ours, milliseconds.
    pub fn clocks(&self) -> impl Iterator<Item = (PeerKey, Timestamp, i64)> {
        self.members.iter().map(Member::clock)
    }

    /// As [`Liveness::clocks`], of one member.
    pub fn clock_of(&self, peer: &PeerKey) -> Option<(PeerKey, Timestamp, i64)> {
        self.get(peer).map(Member::clock)
    }

    /// Live members, this node not included.
    pub fn live(&self, now: Timestamp) -> usize {
        self.members.iter().filter(|member| self.is_live(member, now)).count()
    }

    /// Whether some member claims to have written more than `vector` covers. Cost follows what changed since the last
    /// call: every beacon asks.
    pub fn is_ahead(&mut self, vector: &VersionVector) -> bool {
        // An author that the vector forgot has to be looked at again, though it said nothing new.
        if self.forgotten != vector.forgotten() {
            self.forgotten = vector.forgotten();
            self.ahead = self.members.iter().map(|member| member.heartbeat.peer()).collect();
        }
        while let Some(peer) = self.ahead.first() {
            let heartbeat = self.get(peer).map(|member| &member.heartbeat);
            if heartbeat.is_some_and(|heartbeat| heartbeat.seq > vector.prefix(&heartbeat.author)) {
                return true;
            }
            self.ahead.pop_first();
        }
        false
    }

    fn is_live(&self, member: &Member, now: Timestamp) -> bool {
        now.since(member.heard_at) <= interval(&member.heartbeat) * BEACONS_MISSED_MAX
            && !self.gone.contains(&member.heartbeat.peer())
    }

    /// The local clock went back by `step`.
    pub fn shift(&mut self, step: Duration) {
        for member in &mut self.members {
            member.heard_at = member.heard_at - step;
        }
    }

    fn get(&self, peer: &PeerKey) -> Option<&Member> {
        self.place(peer).ok().map(|at| &self.members[at])
    }

    /// Where a member stands, or would stand.
    fn place(&self, peer: &PeerKey) -> Result<usize, usize> {
        self.members.binary_search_by(|member| member.heartbeat.author.key.cmp(peer))
    }

    fn replace_quietest(&mut self, member: Member) {
        let quietest = self.members.iter().enumerate().min_by_key(|(_, it)| it.heard_at);
        if let Some(at) = quietest.map(|(at, _)| at) {
            let gone = self.members.remove(at);
            self.gone.remove(&gone.heartbeat.peer());
        }
        if let Err(at) = self.place(&member.heartbeat.peer()) {
            self.members.insert(at, member);
        }
    }
}

impl Member {
    fn clock(&self) -> (PeerKey, Timestamp, i64) {
        (self.heartbeat.peer(), self.heard_at, self.heartbeat.clock.offset_ms(self.heard_at))
    }
}

/// The time until a member's next beacon, as far as it is believed.
fn interval(heartbeat: &Heartbeat) -> Duration {
    Duration::from_millis(heartbeat.interval_ms).min(INTERVAL_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::record::Author;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const INTERVAL: Duration = Duration::from_secs(20);

    fn beacon(counter: u64, clock: Timestamp) -> Heartbeat {
        Heartbeat {
            author: Author { key: PeerKey([1; 32]), epoch: 1 },
            counter,
            clock,
            interval_ms: INTERVAL.as_millis() as u64,
            seq: 1,
        }
    }

    fn hear(liveness: &mut Liveness, beacon: &Heartbeat, now: Timestamp) -> Heard {
        let heard = liveness.classify(beacon, now);
        if heard == Heard::Fresh {
            liveness.hear(&Arc::new(*beacon), now);
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
        hear(&mut liveness, &Heartbeat { interval_ms: 0, ..beacon(3, NOW) }, NOW);
        assert_eq!((liveness.presence(&peer, NOW), liveness.live(NOW)), (Presence::Unreachable, 0));
    }

    #[test]
    fn a_member_is_ahead_until_what_it_wrote_is_held_and_again_when_that_is_forgotten() {
        let (mut liveness, mut vector) = (Liveness::default(), VersionVector::default());
        let author = beacon(1, NOW).author;
        assert!(!liveness.is_ahead(&vector));
        hear(&mut liveness, &Heartbeat { seq: 2, ..beacon(1, NOW) }, NOW);
        vector.observe(author, 1);
        assert!(liveness.is_ahead(&vector));
        vector.observe(author, 2);
        assert!(!liveness.is_ahead(&vector) && !liveness.is_ahead(&vector));
        vector.remove(&author);
        assert!(liveness.is_ahead(&vector));
        hear(
            &mut liveness,
            &Heartbeat { author: Author { epoch: 2, ..author }, seq: 0, ..beacon(2, NOW) },
            NOW,
        );
        assert!(!liveness.is_ahead(&vector));
    }
}
