//! Who is there: beacons of the members of one zone (protocol section 3).
//!
//! A beacon counts only if it is newer than the last of its author and its clock is near ours. Three intervals missed
//! make a member unreachable; a closed connection says so at once, locally, until it is heard again.
//!
//! Keys are free, so what a beacon says counts by whose it is. A **member** has a live record or a connection; whoever has
//! neither is a **stranger**: strangers together may say little, are soon forgotten, and what they claim to have written
//! is looked for and not believed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::identity::PeerKey;
use super::limits::{
    BEACON_INTERVAL_MAX, BEACON_JITTER_MAX, BEACON_SPACING, BEACONS_AT_ONCE, MEMBERS_MAX, STRANGER_SPACING,
    STRANGERS_AT_ONCE, STRANGERS_MAX,
};
use super::message::{Gateway, Heartbeat};
use super::node_name::NodeName;
use super::record::Author;
use super::time::Timestamp;

/// Beacons a member may miss before it counts as unreachable.
const BEACONS_MISSED_MAX: u32 = 3;
/// How far a beacon's clock may be off beyond the intervals it may miss.
const CLOCK_SLACK: Duration = Duration::from_secs(30);

/// Members of a zone as their beacons show them.
#[derive(Clone, Debug, Default)]
pub struct Liveness {
    /// By key. A list, because most beacons are of members that stand in it.
    members: Vec<Member>,
    /// Members that said goodbye or whose connection closed since they were heard.
    gone: BTreeSet<PeerKey>,
    /// Members that had written more than was held when they were last looked at, or were heard since.
    ahead: BTreeSet<PeerKey>,
    /// Whoever claims to have written more than a sync could find: not believed until that is held.
    doubted: BTreeSet<PeerKey>,
    /// Authors the version vector had forgotten when all members were last looked at.
    forgotten: u64,
    /// What strangers may still say.
    strangers: Pace,
}

/// The last beacon of somebody; many nodes of one process share it.
#[derive(Clone, Debug)]
struct Member {
    /// The beacon's, here: each beacon is looked up several times.
    peer: PeerKey,
    heartbeat: Arc<Heartbeat>,
    heard_at: Timestamp,
    standing: Standing,
    pace: Pace,
}

/// What there is of an author beside its beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A live record of an agent that it hosts, or a connection.
    Member,
    /// Nothing.
    Stranger,
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
    /// More than its author, or than strangers together, may send.
    Excess,
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

/// Whether more was written than is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lag {
    /// Nobody says so.
    #[default]
    None,
    /// Strangers say so, or whom a sync did not bear out.
    Doubtful,
    /// A member says so.
    Known,
}

impl Liveness {
    /// Whether a beacon would count, before its signature is checked.
    pub fn classify(&self, heartbeat: &Heartbeat, standing: Standing, now: Timestamp) -> Heard {
        let known = self.get(&heartbeat.peer());
        // Of one epoch only: a node that lost its disk starts to count anew.
        let last = known.map(|it| &it.heartbeat).filter(|it| it.author == heartbeat.author);
        if last.is_some_and(|last| heartbeat.counter <= last.counter) {
            return Heard::Stale;
        }
        let slack = interval(heartbeat) * BEACONS_MISSED_MAX + CLOCK_SLACK;
        if heartbeat.clock.offset_ms(now).unsigned_abs() > slack.as_millis() as u64 {
            return Heard::ClockOff;
        }
        let too_soon = known.is_some_and(|it| !it.pace.allows(BEACON_SPACING, BEACONS_AT_ONCE, now));
        let too_many = standing == Standing::Stranger
            && !self.strangers.allows(STRANGER_SPACING, STRANGERS_AT_ONCE, now);
        if too_soon || too_many { Heard::Excess } else { Heard::Fresh }
    }

    /// Takes a verified beacon that [`Liveness::classify`] found fresh. Only now it costs its author something: anybody can
    /// forge one.
    pub fn hear(&mut self, heartbeat: &Arc<Heartbeat>, standing: Standing, now: Timestamp) {
        let peer = heartbeat.peer();
        match heartbeat.is_goodbye() {
            true => self.gone.insert(peer),
            false => self.gone.remove(&peer),
        };
        let mut pace = self.get(&peer).map(|it| it.pace).unwrap_or_default();
        pace.take(BEACON_SPACING, now);
        if standing == Standing::Stranger {
            self.strangers.take(STRANGER_SPACING, now);
            self.doubted.insert(peer);
        }
        let member = Member { peer, heartbeat: heartbeat.clone(), heard_at: now, standing, pace };
        match self.place(&peer) {
            Ok(at) => self.members[at] = member,
            Err(_) => self.add(member),
        }
        // Compared with the vector when somebody asks: at every beacon of a large zone that would cost more than the beacon.
        self.ahead.insert(peer);
    }

    /// The last connection to a peer closed.
    pub fn lose(&mut self, peer: &PeerKey) {
        if self.get(peer).is_some() {
            self.gone.insert(*peer);
        }
    }

    /// Whether the last that was heard of a peer was its goodbye.
    pub fn has_said_goodbye(&self, peer: &PeerKey) -> bool {
        self.get(peer).is_some_and(|member| member.heartbeat.is_goodbye())
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

    /// What a member is called by itself.
    pub fn name_of(&self, peer: &PeerKey) -> Option<&NodeName> {
        self.get(peer)?.heartbeat.name.as_ref()
    }

    /// A member's clock when it was last heard, minus ours, milliseconds, and when that was.
    pub fn clock_of(&self, peer: &PeerKey) -> Option<(Timestamp, i64)> {
        self.get(peer).map(|it| (it.heard_at, it.heartbeat.clock.offset_ms(it.heard_at)))
    }

    /// Those that answer and that `counts`, this node not included.
    pub fn live(&self, counts: impl Fn(&PeerKey) -> bool, now: Timestamp) -> usize {
        let live = self.members.iter().filter(|member| self.is_live(member, now));
        live.filter(|member| counts(&member.peer)).count()
    }

    /// Those that were heard, said no goodbye and answer no more.
    pub fn unreachable(&self, now: Timestamp) -> usize {
        let silent = |member: &&Member| !member.heartbeat.is_goodbye() && !self.is_live(member, now);
        self.members.iter().filter(silent).count()
    }

    /// Those that answer, and whether they may be gateways.
    pub fn live_members(&self, now: Timestamp) -> impl Iterator<Item = (PeerKey, Gateway)> {
        let live = self.members.iter().filter(move |member| self.is_live(member, now));
        live.map(|member| (member.peer, member.heartbeat.gateway))
    }

    /// Whether somebody claims to have written more than is held, which `held` says of each author; it says less than before
    /// only if it has `forgotten` more authors. Cost follows what changed since the last call: every beacon asks.
    pub fn lag(&mut self, held: impl Fn(&Author) -> u64, forgotten: u64) -> Lag {
        // An author that was forgotten has to be looked at again, though it said nothing new.
        if self.forgotten != forgotten {
            self.forgotten = forgotten;
            self.ahead = self.members.iter().map(|member| member.peer).collect();
        }
        while let Some(peer) = self.ahead.first().copied() {
            let is_ahead = self.is_ahead(&peer, &held);
            if is_ahead && !self.doubted.contains(&peer) {
                return Lag::Known;
            }
            // Who is doubted is heard again, and looked at again then.
            self.ahead.remove(&peer);
            if !is_ahead {
                self.doubted.remove(&peer);
            }
        }
        while let Some(peer) = self.doubted.first().copied() {
            if self.is_ahead(&peer, &held) {
                return Lag::Doubtful;
            }
            self.doubted.remove(&peer);
        }
        Lag::None
    }

    /// A sync is over that left nothing out: who claimed more before it began, and still does, is not believed until that is
    /// held.
    pub fn doubt(&mut self, held: impl Fn(&Author) -> u64, began_at: Timestamp) {
        let (before, since) = std::mem::take(&mut self.ahead)
            .into_iter()
            .partition(|peer| self.heard_at(peer).is_some_and(|at| at <= began_at));
        self.ahead = since;
        let claimed: BTreeSet<PeerKey> = before;
        let claimed = claimed.into_iter().chain(std::mem::take(&mut self.doubted));
        self.doubted = claimed.filter(|peer| self.is_ahead(peer, &held)).collect();
    }

    /// The local clock went back by `step`.
    pub fn shift(&mut self, step: Duration) {
        self.strangers.due = self.strangers.due - step;
        for member in &mut self.members {
            member.heard_at = member.heard_at - step;
            member.pace.due = member.pace.due - step;
        }
    }

    fn is_ahead(&self, peer: &PeerKey, held: impl Fn(&Author) -> u64) -> bool {
        let heartbeat = self.get(peer).map(|member| &member.heartbeat);
        heartbeat.is_some_and(|heartbeat| heartbeat.seq > held(&heartbeat.author))
    }

    fn is_live(&self, member: &Member, now: Timestamp) -> bool {
        now.since(member.heard_at) <= interval(&member.heartbeat) * BEACONS_MISSED_MAX
            && !self.gone.contains(&member.peer)
    }

    fn get(&self, peer: &PeerKey) -> Option<&Member> {
        self.place(peer).ok().map(|at| &self.members[at])
    }

    /// Where a member stands, or would stand.
    fn place(&self, peer: &PeerKey) -> Result<usize, usize> {
        self.members.binary_search_by(|member| member.peer.cmp(peer))
    }

    /// Somebody new, in the place of whoever is not heard longest where there is no room: a stranger never takes a member's.
    fn add(&mut self, member: Member) {
        let of_strangers = |it: &&Member| it.standing == Standing::Stranger;
        let is_full = match member.standing {
            Standing::Stranger => self.members.iter().filter(of_strangers).count() >= STRANGERS_MAX,
            Standing::Member => self.members.len() >= MEMBERS_MAX,
        };
        if is_full {
            let leaves = |it: &Member| member.standing == Standing::Member || of_strangers(&it);
            let quietest = self
                .members
                .iter()
                .enumerate()
                .filter(|(_, it)| leaves(it))
                .min_by_key(|(_, it)| it.heard_at);
            if let Some(at) = quietest.map(|(at, _)| at) {
                let peer = self.members.remove(at).peer;
                self.gone.remove(&peer);
                self.ahead.remove(&peer);
                self.doubted.remove(&peer);
            }
        }
        if let Err(at) = self.place(&member.peer) {
            self.members.insert(at, member);
        }
    }
}

/// A rate with some at once: when the next would be due if none had come early.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    due: Timestamp,
}

impl Pace {
    fn allows(&self, spacing: Duration, at_once: u32, now: Timestamp) -> bool {
        self.due <= now + spacing * (at_once - 1)
    }

    fn take(&mut self, spacing: Duration, now: Timestamp) {
        self.due = self.due.max(now) + spacing;
    }
}

/// The time until a member's next beacon, as far as it is believed.
fn interval(heartbeat: &Heartbeat) -> Duration {
    Duration::from_millis(heartbeat.interval_ms).min(BEACON_INTERVAL_MAX.mul_f64(BEACON_JITTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const INTERVAL: Duration = Duration::from_secs(20);

    fn beacon(counter: u64, clock: Timestamp) -> Heartbeat {
        Heartbeat {
            author: Author { key: PeerKey([1; 32]), epoch: 1 },
            counter,
            clock,
            interval_ms: INTERVAL.as_millis() as u64,
            seq: 1,
            gateway: Gateway::Auto,
            name: None,
        }
    }

    fn of(number: usize, seq: u64) -> Heartbeat {
        let mut key = [2; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        Heartbeat { author: Author { key: PeerKey(key), epoch: 1 }, seq, ..beacon(1, NOW) }
    }

    fn hear_as(liveness: &mut Liveness, beacon: &Heartbeat, standing: Standing, now: Timestamp) -> Heard {
        let heard = liveness.classify(beacon, standing, now);
        if heard == Heard::Fresh {
            liveness.hear(&Arc::new(beacon.clone()), standing, now);
        }
        heard
    }

    fn hear(liveness: &mut Liveness, beacon: &Heartbeat, now: Timestamp) -> Heard {
        hear_as(liveness, beacon, Standing::Member, now)
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
        let (peer, all) = (PeerKey([1; 32]), |_: &PeerKey| true);
        assert_eq!(liveness.presence(&peer, NOW), Presence::Unknown);
        hear(&mut liveness, &beacon(1, NOW), NOW);
        assert_eq!(liveness.presence(&peer, NOW + 3 * INTERVAL), Presence::Reachable);
        assert_eq!(liveness.presence(&peer, NOW + 4 * INTERVAL), Presence::Unreachable);
        liveness.lose(&peer);
        assert_eq!(liveness.presence(&peer, NOW), Presence::Unreachable);
        hear(&mut liveness, &beacon(2, NOW), NOW);
        assert_eq!((liveness.presence(&peer, NOW), liveness.live(all, NOW)), (Presence::Reachable, 1));
        assert_eq!(liveness.live(|_| false, NOW), 0, "who does not count is not counted");
        hear(&mut liveness, &Heartbeat { interval_ms: 0, ..beacon(3, NOW) }, NOW);
        assert_eq!((liveness.presence(&peer, NOW), liveness.live(all, NOW)), (Presence::Unreachable, 0));
        assert!(liveness.has_said_goodbye(&peer));
    }

    #[test]
    fn a_member_is_ahead_until_what_it_wrote_is_held_and_again_when_that_is_forgotten() {
        let mut liveness = Liveness::default();
        assert_eq!(liveness.lag(|_| 0, 0), Lag::None);
        hear(&mut liveness, &Heartbeat { seq: 2, ..beacon(1, NOW) }, NOW);
        assert_eq!(liveness.lag(|_| 1, 0), Lag::Known);
        assert_eq!([liveness.lag(|_| 2, 0), liveness.lag(|_| 2, 0)], [Lag::None; 2]);
        assert_eq!(liveness.lag(|_| 0, 1), Lag::Known);
        let anew =
            Heartbeat { author: Author { epoch: 2, ..beacon(1, NOW).author }, seq: 0, ..beacon(2, NOW) };
        hear(&mut liveness, &anew, NOW);
        assert_eq!(liveness.lag(|_| 0, 1), Lag::None);
    }

    #[test]
    fn who_claimed_in_vain_is_doubted_until_that_is_held_and_who_spoke_since_is_not() {
        let mut liveness = Liveness::default();
        hear(&mut liveness, &of(1, 5), NOW);
        hear(&mut liveness, &of(2, 5), NOW + INTERVAL);
        liveness.doubt(|_| 0, NOW + INTERVAL / 2);
        assert_eq!(liveness.lag(|_| 0, 0), Lag::Known, "the second spoke during the sync");
        liveness.doubt(|_| 0, NOW + INTERVAL);
        assert_eq!(liveness.lag(|_| 0, 0), Lag::Doubtful);
        let again = Heartbeat { counter: 2, ..of(1, 6) };
        hear(&mut liveness, &again, NOW + INTERVAL);
        assert_eq!(liveness.lag(|_| 0, 0), Lag::Doubtful, "more of the same");
        assert_eq!(liveness.lag(|_| 6, 0), Lag::None);
        hear(&mut liveness, &Heartbeat { counter: 3, ..of(1, 7) }, NOW + INTERVAL * 2);
        assert_eq!(liveness.lag(|_| 6, 0), Lag::Known, "it was true, so it is believed again");
        hear_as(&mut liveness, &of(3, 9), Standing::Stranger, NOW + INTERVAL * 2);
        assert_eq!(liveness.lag(|_| 7, 0), Lag::Doubtful);
    }

    #[test]
    fn strangers_are_as_many_as_can_be_there_at_once_and_push_no_member_out() {
        let mut liveness = Liveness::default();
        for number in 0..100 {
            assert_eq!(hear(&mut liveness, &of(number, 1), NOW), Heard::Fresh);
        }
        let mut now = NOW;
        for number in 1_000..3_000 {
            now = now + STRANGER_SPACING;
            let heard =
                hear_as(&mut liveness, &Heartbeat { clock: now, ..of(number, 1) }, Standing::Stranger, now);
            assert_eq!(heard, Heard::Fresh);
        }
        assert_eq!(liveness.members.len(), 100 + STRANGERS_MAX);
        assert_eq!(liveness.doubted.len(), STRANGERS_MAX);
        assert!((0..100).all(|number| liveness.heard_at(&of(number, 1).peer()).is_some()));
        assert!(liveness.heard_at(&of(2_999, 1).peer()).is_some(), "the latest are remembered");
    }
}
