//! The host's registry of inbound calls, its window of deduplication: none runs twice, and none takes more than its share.
//!
//! An id is remembered from the moment its work may begin until a minute after the caller's deadline. Whether a process
//! that was started again ran a call is not in it: so a retry names the run it spoke to, and any other declines.
//! Memory is bounded by dropping the ids that lapse first; while dropped ones would still count, a retry is told that
//! nothing is known of it. A first offer needs no memory.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{CallFailure, CallId, CallOffer, Incarnation, Outcome};
use crate::proto::code::Code;
use crate::proto::identity::PeerKey;
use crate::proto::limits::{
    CALL_BYTES_AT_WORK_MAX, CALL_BYTES_MAX, CALL_BYTES_PER_PEER_MAX, CALL_ID_KEPT, CALL_IDS_MAX,
    CALL_INPUT_WEIGHT, CALL_TIME_MAX, CALLS_AT_WORK_MAX, CALLS_PER_PEER_MAX,
};

/// A peer cannot take the ids of another.
type Key = (PeerKey, CallId);

/// The inbound calls of one run of a host. Time is what has passed since the run began.
#[derive(Debug)]
pub(super) struct CallRegistry {
    incarnation: Incarnation,
    at_work: BTreeMap<Key, Work>,
    load: Load,
    peers: BTreeMap<PeerKey, Load>,
    /// Calls that ended and may have run, by when they are forgotten; and the other way round.
    ended: BTreeSet<(Duration, Key)>,
    ends: BTreeMap<Key, Duration>,
    /// Until then an id may be missing from `ends`.
    gaps_until: Duration,
}

/// The right of one offer to run its call. It is void once a later offer of the call was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallPermit {
    peer: PeerKey,
    call: CallId,
    attempt: u32,
}

/// A call that holds a place.
#[derive(Debug)]
struct Work {
    attempt: u32,
    begun: bool,
    bytes: usize,
    kept_until: Duration,
}

/// What is held.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Load {
    calls: usize,
    bytes: usize,
}

impl CallRegistry {
    /// An empty registry of this run.
    pub(super) fn new(incarnation: Incarnation) -> CallRegistry {
        CallRegistry {
            incarnation,
            at_work: BTreeMap::new(),
            load: Load::default(),
            peers: BTreeMap::new(),
            ended: BTreeSet::new(),
            ends: BTreeMap::new(),
            gaps_until: Duration::ZERO,
        }
    }

    /// This run.
    pub(super) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Gives the call a place for the time that its caller waits, at most [`CALL_TIME_MAX`]: returns that time. The
    /// place lasts until [`CallRegistry::end`]. A caller that offers again has given up its earlier offer: if that one has not
    /// begun, it never will.
    ///
    /// # Errors
    /// Nothing was started; a call that may have run at another offer is `unknown`.
    pub(super) fn admit(
        &mut self,
        now: Duration,
        peer: PeerKey,
        offer: &CallOffer,
    ) -> Result<(CallPermit, Duration), CallFailure> {
        // Before the id is looked up, so that one that has lapsed refuses nothing.
        self.forget(now);
        let key = (peer, offer.call);
        // Before all other checks: what this run remembers says nothing of what another did.
        if offer.expected.is_some_and(|expected| expected != self.incarnation) {
            let message = "the host was started again and does not know whether it ran this call";
            return Err(CallFailure::new(Code::HostRestarted, Outcome::Unknown, message));
        }
        let earlier = self.at_work.get(&key);
        // Streams keep no order among each other: a smaller attempt was overtaken by the one that is known.
        let is_repeated = earlier.is_some_and(|work| work.begun || offer.attempt <= work.attempt);
        if is_repeated || self.ends.contains_key(&key) {
            return Err(duplicate("this call was offered before; make a new one"));
        }
        // Even if this offer is refused below: its caller has given up the earlier one.
        if let Some(work) = self.at_work.remove(&key) {
            self.remove(peer, 1, work.bytes);
        }
        if offer.attempt > 1 && now < self.gaps_until {
            return Err(duplicate("too many calls have ended since to know whether this one was among them"));
        }
        if offer.left_ms == 0 {
            return Err(CallFailure::new(
                Code::Deadline,
                Outcome::NotStarted,
                "the offer came after its deadline",
            ));
        }
        let size = usize::try_from(offer.size).unwrap_or(usize::MAX);
        if size > CALL_BYTES_MAX {
            let message = format!("an input of {size} bytes, more than {CALL_BYTES_MAX}");
            return Err(CallFailure::new(Code::TooLarge, Outcome::NotStarted, message));
        }
        // Cannot overflow: the size was judged above.
        let bytes = size * CALL_INPUT_WEIGHT;
        if !self.has_room(peer, 1, bytes) {
            let message = "the host has as many calls at work as it takes; try again in a moment";
            return Err(CallFailure::new(Code::Busy, Outcome::NotStarted, message));
        }
        let time = CALL_TIME_MAX.min(Duration::from_millis(offer.left_ms));
        self.add(peer, 1, bytes);
        // By the caller's deadline, not by the end of the work: until then a retry may be on its way.
        let (attempt, kept_until) = (offer.attempt, now + time + CALL_ID_KEPT);
        self.at_work.insert(key, Work { attempt, begun: false, bytes, kept_until });
        Ok((CallPermit { peer, call: offer.call, attempt }, time))
    }

    /// All of the input is here: from now on the call may have run. False if the permit is void, or was used.
    pub(super) fn begin(&mut self, permit: CallPermit) -> bool {
        self.work(permit).is_some_and(|work| !std::mem::replace(&mut work.begun, true))
    }

    /// Counts the output instead of the input against the bytes of the call. False if there is no room for it.
    pub(super) fn hold(&mut self, permit: CallPermit, bytes: usize) -> bool {
        let Some(held) = self.work(permit).map(|work| std::mem::take(&mut work.bytes)) else { return false };
        // The input goes first: an output no larger than it then fits, however full the host is.
        self.remove(permit.peer, 0, held);
        let fits = self.has_room(permit.peer, 0, bytes);
        // Without room the call keeps zero bytes, so that `end` takes off nothing twice.
        if fits {
            self.add(permit.peer, 0, bytes);
            if let Some(work) = self.work(permit) {
                work.bytes = bytes;
            }
        }
        fits
    }

    /// Frees the place. A call that had not begun is as if it had never been offered.
    pub(super) fn end(&mut self, permit: CallPermit) {
        let key = (permit.peer, permit.call);
        // A void permit frees nothing: the place under its key is that of a later offer.
        if self.work(permit).is_none() {
            return;
        }
        let Some(work) = self.at_work.remove(&key) else { return };
        self.remove(permit.peer, 1, work.bytes);
        if !work.begun {
            return;
        }
        self.ended.insert((work.kept_until, key));
        self.ends.insert(key, work.kept_until);
        if self.ends.len() > CALL_IDS_MAX
            && let Some((kept_until, key)) = self.ended.pop_first()
        {
            self.ends.remove(&key);
            // As long as the forgotten id would have been kept; after that nothing is missing.
            self.gaps_until = self.gaps_until.max(kept_until);
        }
    }

    fn work(&mut self, permit: CallPermit) -> Option<&mut Work> {
        let work = self.at_work.get_mut(&(permit.peer, permit.call));
        work.filter(|work| work.attempt == permit.attempt)
    }

    fn forget(&mut self, now: Duration) {
        while self.ended.first().is_some_and(|(kept_until, _)| *kept_until <= now) {
            if let Some((_, key)) = self.ended.pop_first() {
                self.ends.remove(&key);
            }
        }
    }

    fn has_room(&self, peer: PeerKey, calls: usize, bytes: usize) -> bool {
        let own = self.peers.get(&peer).copied().unwrap_or_default();
        self.load.calls + calls <= CALLS_AT_WORK_MAX
            && self.load.bytes + bytes <= CALL_BYTES_AT_WORK_MAX
            && own.calls + calls <= CALLS_PER_PEER_MAX
            && own.bytes + bytes <= CALL_BYTES_PER_PEER_MAX
    }

    fn add(&mut self, peer: PeerKey, calls: usize, bytes: usize) {
        for load in [&mut self.load, self.peers.entry(peer).or_default()] {
            load.calls += calls;
            load.bytes += bytes;
        }
    }

    fn remove(&mut self, peer: PeerKey, calls: usize, bytes: usize) {
        for load in [&mut self.load, self.peers.entry(peer).or_default()] {
            // Never below zero: only what `add` counted for a call is taken off, and once.
            load.calls -= calls;
            load.bytes -= bytes;
        }
        // Where no call is, no bytes are; without this every peer that ever called would stay.
        if self.peers.get(&peer).is_some_and(|load| load.calls == 0) {
            self.peers.remove(&peer);
        }
    }
}

fn duplicate(message: &str) -> CallFailure {
    CallFailure::new(Code::DuplicateCall, Outcome::Unknown, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::identity::Identity;

    const NOW: Duration = Duration::from_secs(1_000);
    const RUN: Incarnation = Incarnation(7);

    fn peer(seed: u8) -> PeerKey {
        Identity::from_seed([seed; 32]).key()
    }

    fn id(number: u32) -> CallId {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        CallId(id)
    }

    fn offer(number: u32, size: usize) -> CallOffer {
        CallOffer {
            call: id(number),
            agent: [0; 20],
            name: "a@.".parse().unwrap(),
            left_ms: 30_000,
            size: size as u64,
            attempt: 1,
            expected: None,
        }
    }

    fn permit(seed: u8, number: u32) -> CallPermit {
        CallPermit { peer: peer(seed), call: id(number), attempt: 1 }
    }

    fn code(admitted: Result<(CallPermit, Duration), CallFailure>) -> Option<(Code, Outcome)> {
        admitted.err().map(|failure| (failure.code, failure.outcome))
    }

    fn run(registry: &mut CallRegistry, now: Duration, peer: PeerKey, number: u32) {
        let (permit, _) = registry.admit(now, peer, &offer(number, 1)).unwrap();
        assert!(registry.begin(permit));
        registry.end(permit);
    }

    #[test]
    fn a_call_that_ran_is_not_run_again_until_a_minute_after_its_deadline() {
        let mut registry = CallRegistry::new(RUN);
        let peer = peer(1);
        registry.admit(NOW, peer, &offer(1, 1)).unwrap();
        let refused = Some((Code::DuplicateCall, Outcome::Unknown));
        assert_eq!(code(registry.admit(NOW, peer, &offer(1, 1))), refused, "at work");
        assert!(registry.begin(permit(1, 1)) && !registry.begin(permit(1, 1)), "once");
        registry.end(permit(1, 1));
        let kept = Duration::from_secs(30) + CALL_ID_KEPT;
        assert_eq!(code(registry.admit(NOW + kept - Duration::from_millis(1), peer, &offer(1, 1))), refused);
        assert_eq!(code(registry.admit(NOW + kept, peer, &offer(1, 1))), None);
        assert!(registry.ends.is_empty() && registry.ended.is_empty());
    }

    #[test]
    fn a_call_whose_input_never_came_may_be_offered_again() {
        let mut registry = CallRegistry::new(RUN);
        registry.admit(NOW, peer(1), &offer(1, 1)).unwrap();
        registry.end(permit(1, 1));
        assert!(!registry.begin(permit(1, 1)), "its place is gone");
        assert_eq!(code(registry.admit(NOW, peer(1), &offer(1, 1))), None);
    }

    #[test]
    fn a_later_offer_voids_one_whose_input_is_not_here_yet_and_no_other() {
        let mut registry = CallRegistry::new(RUN);
        let (first, _) = registry.admit(NOW, peer(1), &offer(1, 7)).unwrap();
        let again = CallOffer { attempt: 2, ..offer(1, 7) };
        let (second, _) = registry.admit(NOW, peer(1), &again).unwrap();
        assert_eq!(registry.load, Load { calls: 1, bytes: 7 * CALL_INPUT_WEIGHT });
        assert!(!registry.begin(first));
        registry.end(first);
        assert!(registry.begin(second));
        let refused = Some((Code::DuplicateCall, Outcome::Unknown));
        assert_eq!(code(registry.admit(NOW, peer(1), &CallOffer { attempt: 3, ..again })), refused);
    }

    #[test]
    fn another_run_of_the_host_declines_a_retry() {
        let retry = CallOffer { expected: Some(Incarnation(6)), attempt: 2, ..offer(1, 1) };
        let refused = Some((Code::HostRestarted, Outcome::Unknown));
        assert_eq!(code(CallRegistry::new(RUN).admit(NOW, peer(1), &retry)), refused);
    }

    #[test]
    fn one_peer_takes_no_more_than_its_share_of_places_and_bytes() {
        let mut registry = CallRegistry::new(RUN);
        let busy = Some((Code::Busy, Outcome::NotStarted));
        for number in 0..CALLS_PER_PEER_MAX as u32 {
            registry.admit(NOW, peer(1), &offer(number, 0)).unwrap();
        }
        assert_eq!(code(registry.admit(NOW, peer(1), &offer(1_000, 0))), busy);
        assert_eq!(code(registry.admit(NOW, peer(2), &offer(1_000, 0))), None);
        registry.end(permit(1, 0));
        assert_eq!(code(registry.admit(NOW, peer(1), &offer(1_000, 0))), None);
        let fit = (CALL_BYTES_PER_PEER_MAX / (CALL_BYTES_MAX * CALL_INPUT_WEIGHT)) as u32;
        for number in 0..fit {
            registry.admit(NOW, peer(3), &offer(number, CALL_BYTES_MAX)).unwrap();
        }
        assert_eq!(code(registry.admit(NOW, peer(3), &offer(fit, CALL_BYTES_MAX))), busy);
        assert!(!registry.hold(permit(3, 0), CALL_BYTES_PER_PEER_MAX), "an output counts, too");
        assert_eq!(code(registry.admit(NOW, peer(3), &offer(fit, CALL_BYTES_MAX))), None);
    }

    #[test]
    fn what_ended_leaves_no_load_behind() {
        let mut registry = CallRegistry::new(RUN);
        run(&mut registry, NOW, peer(1), 1);
        registry.end(permit(1, 1));
        assert_eq!((registry.load, registry.peers.len(), registry.at_work.len()), (Load::default(), 0, 0));
    }

    #[test]
    fn what_was_forgotten_too_early_is_not_claimed_to_have_never_run() {
        let mut registry = CallRegistry::new(RUN);
        for number in 0..=CALL_IDS_MAX as u32 {
            run(&mut registry, NOW + Duration::from_micros(u64::from(number)), peer(1), number);
        }
        assert_eq!((registry.ends.len(), registry.ended.len()), (CALL_IDS_MAX, CALL_IDS_MAX));
        let retry = CallOffer { attempt: 2, expected: Some(RUN), ..offer(0, 1) };
        let refused = Some((Code::DuplicateCall, Outcome::Unknown));
        assert_eq!(code(registry.admit(NOW + Duration::from_secs(1), peer(1), &retry)), refused);
        assert_eq!(code(registry.admit(NOW + Duration::from_secs(1), peer(1), &offer(u32::MAX, 1))), None);
    }
}
