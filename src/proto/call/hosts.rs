//! What a caller knows of the hosts that it calls: how many calls each has of it, how far it is, whether it can be reached, and
//! of each agent there how much it has to do and whether it fails (protocol section 5).
//!
//! A host that was not reached pauses, longer each time, for all its agents: others are asked before it. After the pause one
//! call tries it, while the rest still go elsewhere; that costs this one call no more than the patience of an offer. An agent
//! whose runs fail one after the other pauses at its host, for a host that fails at once would otherwise draw all calls.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::balance::weighted;
use super::candidates::Candidate;
use super::{CallId, Word};
use crate::proto::card::Balance;
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::limits::{
    CALL_ACCEPT_PATIENCE, CALL_ACCEPT_PATIENCE_MAX, CALL_AGENT_PAUSE, CALL_AGENT_PAUSE_MAX,
    CALL_FAILING_PAUSES, CALL_HOSTS_KNOWN_MAX, CALL_PAUSE, CALL_PAUSE_MAX, CALL_WORD_KEPT,
    CALLS_PER_AGENT_MAX, CALLS_PER_HOST_MAX,
};
use crate::proto::liveness::Presence;

/// Agents of one host of which something is kept beside those with calls under way.
const AGENTS_KNOWN_MAX: usize = 64;
/// How long after its pause a host that was not reached counts as one that is not: nobody may call it for hours.
const UNREACHED_FOR: Duration = Duration::from_secs(60);

/// The hosts that were called, at most [`CALL_HOSTS_KNOWN_MAX`] beside those with calls under way.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    hosts: BTreeMap<PeerKey, Host>,
    /// Counts the calls that had a host's stream.
    asked: u64,
}

#[derive(Debug, Default)]
struct Host {
    agents: BTreeMap<AgentId, Agent>,
    /// Calls that wait for a stream, in the order in which they came.
    waiting: VecDeque<(CallId, AgentId)>,
    /// How long its last word to an offer took.
    round_trip: Option<Duration>,
    reach: Breaker,
}

/// An agent at one host.
#[derive(Debug, Default)]
struct Agent {
    /// Calls that have one of the host's streams.
    taken: usize,
    /// What the host said of its load last, and how many of these calls it counted.
    word: Option<(Duration, Word, usize)>,
    /// Which of all calls was the last that went to it.
    asked: u64,
    /// What its runs take that this node saw, in the mean.
    mean: Option<Duration>,
    /// How many of these in a row failed.
    failing: u32,
    fails: Breaker,
}

/// Something that failed is not asked for a time, and then by one call first.
#[derive(Debug, Default)]
struct Breaker {
    /// How often in a row it failed.
    failures: u32,
    paused_until: Duration,
    /// Which call tries whether it works again.
    trial: Option<CallId>,
}

/// Which of several hosts is asked first: the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Whether the host pauses, or its agent.
    pub(super) is_paused: bool,
    /// Whether its agent does.
    pub(super) is_failing: bool,
    is_silent: bool,
    is_full: bool,
    is_proven: bool,
    order: u64,
    /// Of equals any, so that callers who know nothing of each other do not all take the same.
    draw: u32,
}

impl Breaker {
    fn is_tried(&self, now: Duration) -> bool {
        self.failures > 0 && self.paused_until <= now && self.trial.is_none()
    }

    fn is_paused(&self, now: Duration) -> bool {
        self.failures > 0 && !self.is_tried(now)
    }

    fn fail(&mut self, now: Duration, pause: Duration, pause_max: Duration) {
        self.trial = None;
        // Of the many calls that one failure harms the first counts.
        if self.failures > 0 && self.paused_until > now {
            return;
        }
        let pause = pause * 2u32.saturating_pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.paused_until = now + pause.min(pause_max);
    }

    fn try_by(&mut self, now: Duration, call: CallId) {
        if self.is_tried(now) {
            self.trial = Some(call);
        }
    }

    fn leave(&mut self, call: CallId) {
        self.trial.take_if(|trial| *trial == call);
    }
}

impl Hosts {
    /// Those that the last call in vain looked for, a moment ago.
    pub(super) fn all_unreached(&self, now: Duration) -> impl Iterator<Item = PeerKey> {
        let is_unreached =
            move |host: &Host| host.reach.failures > 0 && now < host.reach.paused_until + UNREACHED_FOR;
        self.hosts.iter().filter(move |(_, host)| is_unreached(host)).map(|(host, _)| *host)
    }

    /// Where a host stands among others.
    pub(super) fn rank(
        &self,
        now: Duration,
        candidate: &Candidate,
        agent: &AgentId,
        balance: Balance,
    ) -> Rank {
        let host = self.hosts.get(&candidate.replica.host);
        let known = host.and_then(|host| host.agents.get(agent));
        let is_tried = host.is_some_and(|host| host.reach.is_tried(now))
            || known.is_some_and(|known| known.fails.is_tried(now));
        Rank {
            is_paused: host.is_some_and(|host| host.reach.is_paused(now))
                || known.is_some_and(|known| known.fails.is_paused(now)),
            is_failing: known.is_some_and(|known| known.fails.is_paused(now)),
            is_silent: candidate.replica.presence == Presence::Unreachable,
            is_full: host.is_some_and(|host| !host.has_room(agent)),
            // A host is tried when its pause is over, or it would stay paused as long as there are others.
            is_proven: !is_tried,
            order: candidate.turn.unwrap_or_else(|| match balance {
                Balance::Load => known.map_or(0, |known| known.load(now)),
                Balance::RoundRobin => known.map_or(0, |known| known.asked),
                Balance::LeastConnections => known.map_or(0, |known| known.taken as u64),
                Balance::Weighted if candidate.replica.weight == 0 => u64::MAX,
                Balance::Weighted => weighted(candidate.draw, candidate.replica.weight),
                // Two are compared, or all callers would hurry to the fastest.
                Balance::Latency if candidate.nth < 2 => known.map_or(0, Agent::latency),
                Balance::Latency => u64::MAX,
            }),
            draw: candidate.draw,
        }
    }

    /// Until when none of these hosts is asked before others, if all of them pause.
    pub(super) fn paused_until<'a>(
        &self,
        now: Duration,
        hosts: impl Iterator<Item = &'a PeerKey>,
    ) -> Option<Duration> {
        let until = |peer: &PeerKey| {
            let host = self.hosts.get(peer)?;
            (host.reach.failures > 0).then_some(host.reach.paused_until.max(now))
        };
        hosts.map(until).min().flatten()
    }

    /// Gives a call one of the streams of a host, or none if all are taken: then it waits for one.
    pub(super) fn take(&mut self, now: Duration, peer: PeerKey, agent: AgentId, call: CallId) -> bool {
        if self.hosts.len() >= CALL_HOSTS_KNOWN_MAX {
            self.hosts.retain(|_, host| host.is_in_use() || host.reach.paused_until > now);
        }
        let host = self.hosts.entry(peer).or_default();
        if host.agents.len() >= AGENTS_KNOWN_MAX {
            host.agents.retain(|_, agent| agent.taken > 0 || agent.fails.paused_until > now);
        }
        if !host.has_room(&agent) {
            host.waiting.push_back((call, agent));
            return false;
        }
        self.asked += 1;
        host.reach.try_by(now, call);
        let known = host.agents.entry(agent).or_default();
        known.fails.try_by(now, call);
        (known.taken, known.asked) = (known.taken + 1, self.asked);
        true
    }

    /// A call waits no more.
    pub(super) fn leave(&mut self, peer: &PeerKey, call: CallId) {
        if let Some(host) = self.hosts.get_mut(peer) {
            host.waiting.retain(|(waiting, _)| *waiting != call);
        }
    }

    /// A call needs its stream no more; whose it is from now on. Handed on without being counted as free, so that no new
    /// call steps in between.
    pub(super) fn release(&mut self, peer: &PeerKey, agent: &AgentId, call: CallId) -> Option<CallId> {
        let host = self.hosts.get_mut(peer)?;
        host.reach.leave(call);
        if let Some(known) = host.agents.get_mut(agent) {
            known.fails.leave(call);
            known.taken -= 1;
        }
        let at = host.waiting.iter().position(|(_, agent)| host.has_room(agent))?;
        let (next, agent) = host.waiting.remove(at)?;
        self.asked += 1;
        let known = host.agents.entry(agent).or_default();
        (known.taken, known.asked) = (known.taken + 1, self.asked);
        Some(next)
    }

    /// It said a word, so long after it was spoken to.
    pub(super) fn reached(&mut self, peer: &PeerKey, round_trip: Duration) {
        if let Some(host) = self.hosts.get_mut(peer) {
            (host.round_trip, host.reach) = (Some(round_trip), Breaker::default());
        }
    }

    /// What it says of the load of an agent.
    pub(super) fn heard(&mut self, now: Duration, peer: &PeerKey, agent: &AgentId, word: Word) {
        let known = self.hosts.get_mut(peer).and_then(|host| host.agents.get_mut(agent));
        if let Some(known) = known {
            known.word = Some((now, word, known.taken));
            if u32::from(word.failing) >= CALL_FAILING_PAUSES {
                known.fails.fail(now, CALL_AGENT_PAUSE, CALL_AGENT_PAUSE_MAX);
            } else if known.failing < CALL_FAILING_PAUSES {
                known.fails = Breaker::default();
            }
        }
    }

    /// A run of an agent ended there, as far as this node knows.
    pub(super) fn ran(
        &mut self,
        now: Duration,
        peer: &PeerKey,
        agent: &AgentId,
        took: Duration,
        has_failed: bool,
    ) {
        let known = self.hosts.get_mut(peer).and_then(|host| host.agents.get_mut(agent));
        let Some(known) = known else { return };
        known.mean = Some(known.mean.map_or(took, |mean| (mean * 7 + took) / 8));
        if !has_failed {
            (known.failing, known.fails) = (0, Breaker::default());
            return;
        }
        known.failing = known.failing.saturating_add(1);
        if known.failing >= CALL_FAILING_PAUSES {
            known.fails.fail(now, CALL_AGENT_PAUSE, CALL_AGENT_PAUSE_MAX);
        }
    }

    /// It could not be reached, or said nothing.
    pub(super) fn unreached(&mut self, now: Duration, peer: &PeerKey) {
        if let Some(host) = self.hosts.get_mut(peer) {
            host.reach.fail(now, CALL_PAUSE, CALL_PAUSE_MAX);
        }
    }

    /// No stream to it was opened in time. One that was never spoken to may be dialed at this moment: the next call tries it.
    pub(super) fn slow_to_open(&mut self, now: Duration, peer: &PeerKey) {
        match self.hosts.get_mut(peer) {
            Some(host) if host.round_trip.is_none() && host.reach.failures == 0 => {
                (host.reach.failures, host.reach.paused_until) = (1, now);
            }
            _ => self.unreached(now, peer),
        }
    }

    /// How long its word may take where others can be asked instead: from the wish to speak to it.
    pub(super) fn patience(&self, peer: &PeerKey) -> Duration {
        let round_trip = self.hosts.get(peer).and_then(|host| host.round_trip).unwrap_or_default();
        (round_trip * 2).clamp(CALL_ACCEPT_PATIENCE, CALL_ACCEPT_PATIENCE_MAX)
    }
}

impl Host {
    fn is_in_use(&self) -> bool {
        self.taken() > 0 || !self.waiting.is_empty()
    }

    fn taken(&self) -> usize {
        self.agents.values().map(|agent| agent.taken).sum()
    }

    /// Whether a call of an agent may have one more stream: a slow agent leaves some to others.
    fn has_room(&self, agent: &AgentId) -> bool {
        let of_agent = self.agents.get(agent).map_or(0, |agent| agent.taken);
        of_agent < CALLS_PER_AGENT_MAX && self.taken() < CALLS_PER_HOST_MAX
    }
}

impl Agent {
    /// Calls that it has, per thousand of its places: as the host said, with those of this node that came and went since.
    fn load(&self, now: Duration) -> u64 {
        let said = self.word.filter(|(at, ..)| now.saturating_sub(*at) < CALL_WORD_KEPT);
        let (calls, places) = match said {
            Some((_, word, counted)) => {
                let said = usize::from(word.running) + usize::from(word.queued);
                ((said + self.taken).saturating_sub(counted), usize::from(word.places.max(1)))
            }
            None => (self.taken, 1),
        };
        (calls * 1_000 / places) as u64
    }

    fn latency(&self) -> u64 {
        self.mean.map_or(0, |mean| u64::try_from(mean.as_micros()).unwrap_or(u64::MAX - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::call::Replica;

    const NOW: Duration = Duration::from_secs(1_000);
    const AGENT: AgentId = AgentId([0; 20]);
    const PEERS: [PeerKey; 2] = [PeerKey([1; 32]), PeerKey([2; 32])];

    fn id(number: u8) -> CallId {
        CallId([number; 16])
    }

    fn candidate(host: PeerKey, presence: Presence) -> Candidate {
        Candidate::new(Replica { host, presence, weight: 1 }, 0, 7)
    }

    /// Which of the two is asked first.
    fn first(hosts: &Hosts, now: Duration) -> usize {
        let rank =
            |at: &usize| hosts.rank(now, &candidate(PEERS[*at], Presence::Reachable), &AGENT, Balance::Load);
        (0..2).min_by_key(rank).unwrap()
    }

    #[test]
    fn a_host_that_was_not_reached_pauses_longer_each_time_and_is_then_tried_by_one_call() {
        let mut hosts = Hosts::default();
        let mut now = NOW;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            hosts.take(now, PEERS[0], AGENT, id(1));
            hosts.unreached(now, &PEERS[0]);
            // What the same failure does to other calls does not count again.
            hosts.unreached(now, &PEERS[0]);
            hosts.release(&PEERS[0], &AGENT, id(1));
            let pause = Duration::from_secs(seconds);
            assert_eq!(first(&hosts, now + pause - Duration::from_millis(1)), 1, "{seconds}");
            now += pause;
            let unreached = |at| hosts.all_unreached(at).collect::<Vec<_>>();
            assert_eq!(unreached(now), [PEERS[0]]);
            assert_eq!(unreached(now + UNREACHED_FOR), [], "by then it may be there");
            assert_eq!(first(&hosts, now), 0, "it is tried");
            hosts.take(now, PEERS[0], AGENT, id(2));
            assert_eq!(first(&hosts, now), 1, "by one call");
            hosts.release(&PEERS[0], &AGENT, id(2));
        }
        hosts.take(now, PEERS[0], AGENT, id(3));
        hosts.reached(&PEERS[0], Duration::from_millis(1));
        assert_eq!(hosts.all_unreached(now).count(), 0);
        assert_eq!(hosts.release(&PEERS[0], &AGENT, id(3)), None);
        hosts.take(now, PEERS[1], AGENT, id(4));
        assert_eq!(first(&hosts, now), 0, "as good as others, and less to do");
    }

    #[test]
    fn a_host_that_is_still_being_dialed_is_tried_again_by_the_next_call() {
        let mut hosts = Hosts::default();
        hosts.take(NOW, PEERS[0], AGENT, id(1));
        hosts.slow_to_open(NOW, &PEERS[0]);
        hosts.release(&PEERS[0], &AGENT, id(1));
        assert_eq!(first(&hosts, NOW), 0);
        hosts.take(NOW, PEERS[0], AGENT, id(2));
        hosts.slow_to_open(NOW, &PEERS[0]);
        hosts.release(&PEERS[0], &AGENT, id(2));
        assert_eq!(first(&hosts, NOW), 1, "and pauses if it is not there then");
    }

    #[test]
    fn who_has_fewer_calls_of_this_node_comes_first_and_who_is_silent_last() {
        let mut hosts = Hosts::default();
        hosts.take(NOW, PEERS[0], AGENT, id(1));
        assert_eq!(first(&hosts, NOW), 1);
        let silent = hosts.rank(NOW, &candidate(PEERS[1], Presence::Unreachable), &AGENT, Balance::Load);
        assert!(hosts.rank(NOW, &candidate(PEERS[0], Presence::Unknown), &AGENT, Balance::Load) < silent);
    }

    #[test]
    fn hosts_that_nobody_calls_are_forgotten_beyond_so_many_and_pauses_are_not() {
        let mut hosts = Hosts::default();
        let peer = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            PeerKey(key)
        };
        for number in 0..CALL_HOSTS_KNOWN_MAX {
            hosts.take(NOW, peer(number), AGENT, id(1));
            if number == 7 {
                hosts.unreached(NOW, &peer(number));
            }
            hosts.release(&peer(number), &AGENT, id(1));
        }
        hosts.take(NOW, PEERS[1], AGENT, id(1));
        assert_eq!(hosts.hosts.keys().collect::<Vec<_>>(), [&peer(7), &PEERS[1]]);
    }

    /// Hosts that have this many calls of this node, in the order in which they came.
    fn with_calls(counts: [u8; 2]) -> Hosts {
        let mut hosts = Hosts::default();
        for (peer, count) in PEERS.into_iter().zip(counts) {
            (0..count).for_each(|number| assert!(hosts.take(NOW, peer, AGENT, id(number))));
        }
        hosts
    }

    #[test]
    fn load_is_what_the_host_said_with_the_calls_of_this_node_since() {
        let mut hosts = with_calls([1, 2]);
        let word = |running, places| Word { running, places, ..Word::default() };
        hosts.heard(NOW, &PEERS[0], &AGENT, word(8, 4));
        hosts.heard(NOW, &PEERS[1], &AGENT, word(8, 10));
        assert_eq!(first(&hosts, NOW), 1, "8 calls for 10 places");
        (2..20).for_each(|number| assert!(hosts.take(NOW, PEERS[1], AGENT, id(number))));
        assert_eq!(first(&hosts, NOW), 0, "26 now");
        (2..20).for_each(|number| assert_eq!(hosts.release(&PEERS[1], &AGENT, id(number)), None));
        assert_eq!(first(&hosts, NOW), 1, "and 8 again");
        assert_eq!(first(&hosts, NOW + CALL_WORD_KEPT), 0, "of an old word nothing is left but own calls");
    }

    #[test]
    fn each_order_has_its_own_first() {
        let hosts = with_calls([2, 1]);
        let first = |balance, nths: [usize; 2]| {
            let rank = |at: &usize| {
                let replica = Replica { host: PEERS[*at], presence: Presence::Reachable, weight: 1 };
                hosts.rank(NOW, &Candidate::new(replica, nths[*at], 7), &AGENT, balance)
            };
            (0..2).min_by_key(rank).unwrap()
        };
        assert_eq!(first(Balance::RoundRobin, [0, 1]), 0, "asked before the other");
        assert_eq!(first(Balance::LeastConnections, [0, 1]), 1);
        assert_eq!(first(Balance::Latency, [2, 1]), 1, "one of the two that were drawn");
    }

    #[test]
    fn an_agent_that_fails_five_times_pauses_at_its_host_and_is_then_tried_by_one_call() {
        let mut hosts = with_calls([1, 9]);
        let second = Duration::from_secs(1);
        for failures in 1..=CALL_FAILING_PAUSES {
            assert_eq!(first(&hosts, NOW), 0, "{failures}");
            hosts.ran(NOW, &PEERS[0], &AGENT, second, true);
        }
        assert_eq!(first(&hosts, NOW + CALL_AGENT_PAUSE - second), 1, "though it has less to do");
        let now = NOW + CALL_AGENT_PAUSE;
        assert_eq!(first(&hosts, now), 0);
        hosts.take(now, PEERS[0], AGENT, id(99));
        assert_eq!(first(&hosts, now), 1, "by one call");
        hosts.ran(now, &PEERS[0], &AGENT, second, true);
        hosts.release(&PEERS[0], &AGENT, id(99));
        assert_eq!(first(&hosts, now + 2 * CALL_AGENT_PAUSE - second), 1, "for twice as long");
        hosts.ran(now, &PEERS[0], &AGENT, second, false);
        assert_eq!(first(&hosts, now), 0);
        // The host knows of the failures of all callers.
        hosts.heard(now, &PEERS[0], &AGENT, Word { failing: 5, places: 100, ..Word::default() });
        assert_eq!(first(&hosts, now), 1);
        hosts.heard(now, &PEERS[0], &AGENT, Word { failing: 0, places: 100, ..Word::default() });
        assert_eq!(first(&hosts, now), 0, "and of the success of one");
        let other = AgentId([1; 20]);
        hosts.heard(now, &PEERS[0], &AGENT, Word { failing: 9, ..Word::default() });
        let rank = hosts.rank(now, &candidate(PEERS[0], Presence::Reachable), &other, Balance::Load);
        assert!(!rank.is_paused, "its other agents are as good as before");
    }
}
