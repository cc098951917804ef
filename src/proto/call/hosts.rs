//! What a caller knows of the hosts that it calls: how many calls each has of it, how far it is, and whether it can be reached
//! (protocol section 5).
//!
//! A host that was not reached pauses, longer each time, for all its agents: others are asked before it. After the pause one
//! call tries it, while the rest still go elsewhere; that costs this one call no more than the patience of an offer.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::CallId;
use crate::proto::identity::PeerKey;
use crate::proto::limits::{
    CALL_ACCEPT_PATIENCE, CALL_ACCEPT_PATIENCE_MAX, CALL_HOSTS_KNOWN_MAX, CALL_PAUSE, CALL_PAUSE_MAX,
    CALLS_PER_HOST_MAX,
};
use crate::proto::liveness::Presence;

/// The hosts that were called, at most [`CALL_HOSTS_KNOWN_MAX`] beside those with calls under way.
#[derive(Debug, Default)]
pub(super) struct Hosts(BTreeMap<PeerKey, Host>);

#[derive(Debug, Default)]
struct Host {
    /// Calls that have one of its streams.
    taken: usize,
    /// Calls that wait for one, in the order in which they came.
    waiting: VecDeque<CallId>,
    /// How long its last word to an offer took.
    round_trip: Option<Duration>,
    /// How often in a row it was not reached.
    failures: u32,
    paused_until: Duration,
    /// Which call tries whether it can be reached again.
    trial: Option<CallId>,
}

/// Which of several hosts is asked first: the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    is_paused: bool,
    is_silent: bool,
    is_full: bool,
    is_proven: bool,
    calls: usize,
}

impl Hosts {
    /// Where a host stands among others, of which its beacons say whether it is there.
    pub(super) fn rank(&self, now: Duration, host: &PeerKey, presence: Presence) -> Rank {
        let is_silent = presence == Presence::Unreachable;
        let Some(host) = self.0.get(host) else {
            return Rank { is_paused: false, is_silent, is_full: false, is_proven: true, calls: 0 };
        };
        let is_full = host.taken >= CALLS_PER_HOST_MAX;
        let is_tried = host.failures > 0 && host.paused_until <= now && host.trial.is_none();
        Rank {
            is_paused: host.failures > 0 && !is_tried,
            is_silent,
            is_full,
            // A host is tried when its pause is over, or it would stay paused as long as there are others.
            is_proven: !is_tried,
            calls: host.taken + host.waiting.len(),
        }
    }

    /// Gives a call one of the streams of a host, or none if all are taken: then it waits for one.
    pub(super) fn take(&mut self, now: Duration, peer: PeerKey, call: CallId) -> bool {
        if self.0.len() >= CALL_HOSTS_KNOWN_MAX {
            self.0.retain(|_, host| host.is_in_use() || host.paused_until > now);
        }
        let host = self.0.entry(peer).or_default();
        let is_free = host.taken < CALLS_PER_HOST_MAX;
        if is_free {
            host.taken += 1;
            if host.failures > 0 && host.paused_until <= now {
                host.trial.get_or_insert(call);
            }
        } else {
            host.waiting.push_back(call);
        }
        is_free
    }

    /// A call waits no more.
    pub(super) fn leave(&mut self, peer: &PeerKey, call: CallId) {
        if let Some(host) = self.0.get_mut(peer) {
            host.waiting.retain(|waiting| *waiting != call);
        }
    }

    /// A call needs its stream no more; whose it is from now on. Handed on without being counted as free, so that no new
    /// call steps in between.
    pub(super) fn release(&mut self, peer: &PeerKey, call: CallId) -> Option<CallId> {
        let host = self.0.get_mut(peer)?;
        host.trial.take_if(|trial| *trial == call);
        let next = host.waiting.pop_front();
        if next.is_none() {
            host.taken -= 1;
        }
        next
    }

    /// It said a word, so long after it was spoken to.
    pub(super) fn reached(&mut self, peer: &PeerKey, round_trip: Duration) {
        if let Some(host) = self.0.get_mut(peer) {
            (host.round_trip, host.failures, host.trial) = (Some(round_trip), 0, None);
        }
    }

    /// It could not be reached, or said nothing.
    pub(super) fn unreached(&mut self, now: Duration, peer: &PeerKey) {
        let Some(host) = self.0.get_mut(peer) else { return };
        host.trial = None;
        // Of the many calls that one failure harms the first counts.
        if host.failures > 0 && host.paused_until > now {
            return;
        }
        let pause = CALL_PAUSE * 2u32.saturating_pow(host.failures);
        host.failures = host.failures.saturating_add(1);
        host.paused_until = now + pause.min(CALL_PAUSE_MAX);
    }

    /// How long its word may take where others can be asked instead: from the wish to speak to it.
    pub(super) fn patience(&self, peer: &PeerKey) -> Duration {
        let round_trip = self.0.get(peer).and_then(|host| host.round_trip).unwrap_or_default();
        (round_trip * 2).clamp(CALL_ACCEPT_PATIENCE, CALL_ACCEPT_PATIENCE_MAX)
    }
}

impl Host {
    fn is_in_use(&self) -> bool {
        self.taken > 0 || !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);
    const PEERS: [PeerKey; 2] = [PeerKey([1; 32]), PeerKey([2; 32])];

    fn id(number: u8) -> CallId {
        CallId([number; 16])
    }

    /// Which of the two is asked first.
    fn first(hosts: &Hosts, now: Duration) -> usize {
        let rank = |at: &usize| hosts.rank(now, &PEERS[*at], Presence::Reachable);
        (0..2).min_by_key(rank).unwrap()
    }

    #[test]
    fn a_host_that_was_not_reached_pauses_longer_each_time_and_is_then_tried_by_one_call() {
        let mut hosts = Hosts::default();
        let mut now = NOW;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            hosts.take(now, PEERS[0], id(1));
            hosts.unreached(now, &PEERS[0]);
            // What the same failure does to other calls does not count again.
            hosts.unreached(now, &PEERS[0]);
            hosts.release(&PEERS[0], id(1));
            let pause = Duration::from_secs(seconds);
            assert_eq!(first(&hosts, now + pause - Duration::from_millis(1)), 1, "{seconds}");
            now += pause;
            assert_eq!(first(&hosts, now), 0, "it is tried");
            hosts.take(now, PEERS[0], id(2));
            assert_eq!(first(&hosts, now), 1, "by one call");
            hosts.release(&PEERS[0], id(2));
        }
        hosts.take(now, PEERS[0], id(3));
        hosts.reached(&PEERS[0], Duration::from_millis(1));
        assert_eq!(hosts.release(&PEERS[0], id(3)), None);
        hosts.take(now, PEERS[1], id(4));
        assert_eq!(first(&hosts, now), 0, "as good as others, and less to do");
    }

    #[test]
    fn who_has_fewer_calls_of_this_node_comes_first_and_who_is_silent_last() {
        let mut hosts = Hosts::default();
        hosts.take(NOW, PEERS[0], id(1));
        assert_eq!(first(&hosts, NOW), 1);
        let silent = hosts.rank(NOW, &PEERS[1], Presence::Unreachable);
        assert!(hosts.rank(NOW, &PEERS[0], Presence::Unknown) < silent);
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
            hosts.take(NOW, peer(number), id(1));
            if number == 7 {
                hosts.unreached(NOW, &peer(number));
            }
            hosts.release(&peer(number), id(1));
        }
        hosts.take(NOW, PEERS[1], id(1));
        assert_eq!(hosts.0.keys().collect::<Vec<_>>(), [&peer(7), &PEERS[1]]);
    }
}
