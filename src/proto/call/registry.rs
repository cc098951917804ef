//! The host's registry of inbound calls, its window of deduplication: none runs twice, and none takes more than its share.
//!
//! A place is taken when a call is let in, memory only by what of its input has arrived. Some places are kept for callers whose
//! calls were answered before and for small inputs, and each address and block has a share; who waits for its input gives way
//! where there is no place. So announcing much and sending nothing keeps nobody out.
//!
//! An id is remembered from the moment its work may begin until a minute after the caller's deadline. Whether a process
//! that was started again ran a call is not in it: so a retry names the run it spoke to, and any other declines.
//! Memory is bounded by dropping the ids that lapse first; while dropped ones would still count, a retry is told that
//! nothing is known of it. A first offer needs no memory.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{CallAttach, CallFailure, CallId, CallOffer, Incarnation, Outcome};
use crate::proto::address_block::{Shares, Source};
use crate::proto::code::Code;
use crate::proto::identity::PeerKey;
use crate::proto::limits::{
    CALL_BYTES_AT_WORK_MAX, CALL_BYTES_KEPT, CALL_BYTES_MAX, CALL_BYTES_PER_PEER_MAX, CALL_BYTES_SHARE,
    CALL_ID_KEPT, CALL_IDS_MAX, CALL_INPUT_KEPT, CALL_INPUT_WEIGHT, CALL_SMALL_BYTES_MAX, CALL_TIME_MAX,
    CALLERS_KNOWN_MAX, CALLS_AT_WORK_MAX, CALLS_KEPT_FOR_KNOWN, CALLS_KEPT_FOR_SMALL, CALLS_PER_PEER_MAX,
    CALLS_SHARE, TASK_TIME_MAX,
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
    places_of: Shares,
    bytes_of: Shares,
    /// Callers of whom a call was answered.
    known: BTreeSet<PeerKey>,
    /// Calls that ended and may have run, or were refused after they were let in, by when they are forgotten; and the other way
    /// round.
    ended: BTreeSet<(Duration, Key)>,
    ends: BTreeMap<Key, End>,
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
    is_done: bool,
    is_small: bool,
    source: Option<Source>,
    since: Duration,
    bytes: usize,
    kept_until: Duration,
}

/// A call that came to its end.
#[derive(Clone, Copy, Debug)]
struct End {
    kept_until: Duration,
    /// The last offer of it that runs nothing any more.
    attempt: u32,
    /// Whether the agent may have done the work.
    begun: bool,
    /// Whether it came to an end of its own.
    is_done: bool,
}

/// What is known of a call for which its caller asks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The agent works on it or did, and came to an end of its own or not.
    Begun { is_done: bool },
    /// It had not begun, and never will.
    Voided,
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
            places_of: Shares::new(CALLS_SHARE),
            bytes_of: Shares::new(CALL_BYTES_SHARE),
            known: BTreeSet::new(),
            ended: BTreeSet::new(),
            ends: BTreeMap::new(),
            gaps_until: Duration::ZERO,
        }
    }

    /// This run.
    pub(super) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Gives the call a place for the time that its caller waits, at most [`CALL_TIME_MAX`], of a detached one [`TASK_TIME_MAX`]:
    /// returns that time. The
    /// place lasts until [`CallRegistry::end`]. A caller that offers again has given up its earlier offer: if that one has not
    /// begun, it never will.
    ///
    /// # Errors
    /// Nothing was started; a call that may have run at another offer is `unknown`.
    pub(super) fn admit(
        &mut self,
        now: Duration,
        peer: PeerKey,
        source: Option<Source>,
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
        // What came to its end may be done again where the agent does not mind; a late copy of an offer is no wish for that.
        let is_over = |end: &End| offer.attempt <= end.attempt || end.begun && !offer.again;
        if is_repeated || self.ends.get(&key).is_some_and(is_over) {
            return Err(duplicate("this call was offered before; make a new one"));
        }
        // Even if this offer is refused below: its caller has given up the earlier one.
        if let Some(work) = self.at_work.remove(&key) {
            self.remove(peer, work.source, 1, work.bytes);
        }
        if offer.attempt > 1 && now < self.gaps_until && !offer.again {
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
        let is_small = size <= CALL_SMALL_BYTES_MAX;
        if !self.has_place(peer, source, is_small) {
            let message = "the host has as many calls at work as it takes; try again in a moment";
            return Err(CallFailure::new(Code::Busy, Outcome::NotStarted, message));
        }
        let longest = if offer.detached { TASK_TIME_MAX } else { CALL_TIME_MAX };
        let time = longest.min(Duration::from_millis(offer.left_ms));
        self.add(peer, source, 1, 0);
        // By the caller's deadline, not by the end of the work: until then a retry may be on its way.
        let (attempt, kept_until) = (offer.attempt, now + time + CALL_ID_KEPT);
        let work = Work {
            attempt,
            begun: false,
            is_done: false,
            is_small,
            source,
            since: now,
            bytes: 0,
            kept_until,
        };
        self.at_work.insert(key, work);
        Ok((CallPermit { peer, call: offer.call, attempt }, time))
    }

    /// Counts what of the input has arrived, so many bytes. False if there is no room for it, or the permit is void.
    pub(super) fn take_bytes(&mut self, permit: CallPermit, size: usize) -> bool {
        let Some(work) = self.work(permit) else { return false };
        let (source, is_small) = (work.source, work.is_small);
        // Cannot overflow: an input is no larger than what was let in.
        let more = (size * CALL_INPUT_WEIGHT).saturating_sub(work.bytes);
        let kept = if is_small || self.known.contains(&permit.peer) { 0 } else { CALL_BYTES_KEPT };
        let fits = self.has_room(permit.peer, source, kept, more);
        if fits {
            self.add(permit.peer, source, 0, more);
            if let Some(work) = self.work(permit) {
                work.bytes += more;
            }
        }
        fits
    }

    /// A call of this peer was answered.
    pub(super) fn know(&mut self, peer: PeerKey) {
        if self.known.len() < CALLERS_KNOWN_MAX {
            self.known.insert(peer);
        }
    }

    /// A call whose place another may get: of the peer that has the most calls without their inputs, the one that has waited
    /// longest. None where no peer has more of them than who asks.
    pub(super) fn to_replace(&self, now: Duration, peer: PeerKey, source: Option<Source>) -> Option<Key> {
        // Where the block has its share, another place would be of no use.
        let block = source.filter(|_| !self.places_of.has_room(source, 1)).map(|source| source.block);
        let waits = |(_, work): &(&Key, &Work)| {
            !work.begun && block.is_none_or(|block| work.source.is_some_and(|source| source.block == block))
        };
        let mut waiting: BTreeMap<PeerKey, usize> = BTreeMap::new();
        for ((peer, _), _) in self.at_work.iter().filter(waits) {
            *waiting.entry(*peer).or_default() += 1;
        }
        let own = waiting.get(&peer).copied().unwrap_or(0);
        let (most, _) =
            waiting.into_iter().filter(|(_, count)| *count > own + 1).max_by_key(|(_, count)| *count)?;
        let of_most = self.at_work.iter().filter(waits).filter(|((peer, _), _)| *peer == most);
        let (oldest, work) = of_most.min_by_key(|(_, work)| work.since)?;
        (now.saturating_sub(work.since) >= CALL_INPUT_KEPT).then_some(*oldest)
    }

    /// All of the input is here: from now on the call may have run. False if the permit is void, or was used.
    pub(super) fn begin(&mut self, permit: CallPermit) -> bool {
        self.work(permit).is_some_and(|work| !std::mem::replace(&mut work.begun, true))
    }

    /// The agent came to an end of its own.
    pub(super) fn note_done(&mut self, permit: CallPermit) {
        if let Some(work) = self.work(permit) {
            work.is_done = true;
        }
    }

    /// Counts the output instead of the input against the bytes of the call. False if there is no room for it.
    pub(super) fn hold(&mut self, permit: CallPermit, bytes: usize) -> bool {
        let held = self.work(permit).map(|work| (work.source, std::mem::take(&mut work.bytes)));
        let Some((source, held)) = held else { return false };
        // The input goes first: an output no larger than it then fits, however full the host is.
        self.remove(permit.peer, source, 0, held);
        let fits = self.has_room(permit.peer, source, 0, bytes);
        // Without room the call keeps zero bytes, so that `end` takes off nothing twice.
        if fits {
            self.add(permit.peer, source, 0, bytes);
            if let Some(work) = self.work(permit) {
                work.bytes = bytes;
            }
        }
        fits
    }

    /// What is known of a call that this run accepted and whose stream was lost. One that has not begun never will.
    ///
    /// # Errors
    /// It was another run, or too many calls have ended since: nobody knows.
    pub(super) fn attach(
        &mut self,
        now: Duration,
        peer: PeerKey,
        attach: &CallAttach,
    ) -> Result<Known, CallFailure> {
        self.forget(now);
        if attach.incarnation != self.incarnation {
            let message = "the host was started again and does not know whether it ran this call";
            return Err(CallFailure::new(Code::HostRestarted, Outcome::Unknown, message));
        }
        let key = (peer, attach.call);
        if let Some(work) = self.at_work.get(&key) {
            if work.begun {
                return Ok(Known::Begun { is_done: work.is_done });
            }
            self.void(CallPermit { peer, call: attach.call, attempt: work.attempt });
            return Ok(Known::Voided);
        }
        match self.ends.get(&key) {
            Some(End { begun: true, is_done, .. }) => Ok(Known::Begun { is_done: *is_done }),
            _ if now < self.gaps_until => {
                Err(duplicate("too many calls have ended since to know whether this one was among them"))
            }
            // What was accepted and did not begin is void since its stream was lost. Of what was never accepted nothing is
            // noted, or who asks for calls that were never made would push out the ids of others.
            _ => Ok(Known::Voided),
        }
    }

    /// Until when the id of a call that is at work will be remembered.
    pub(super) fn kept_until(&self, permit: CallPermit) -> Option<Duration> {
        self.at_work.get(&(permit.peer, permit.call)).map(|work| work.kept_until)
    }

    /// Frees the place. A call that had not begun is as if it had never been offered.
    pub(super) fn end(&mut self, permit: CallPermit) {
        let begun = self.work(permit).is_some_and(|work| work.begun);
        self.end_with(permit, begun, begun);
    }

    /// Frees the place of a call that was refused before it began. Its caller is told that it did not run, so a copy of its offer
    /// that comes later must not run it; another attempt may.
    pub(super) fn void(&mut self, permit: CallPermit) {
        self.end_with(permit, false, true);
    }

    fn end_with(&mut self, permit: CallPermit, begun: bool, is_kept: bool) {
        let key = (permit.peer, permit.call);
        // A void permit frees nothing: the place under its key is that of a later offer.
        if self.work(permit).is_none() {
            return;
        }
        let Some(work) = self.at_work.remove(&key) else { return };
        self.remove(permit.peer, work.source, 1, work.bytes);
        if is_kept {
            self.note(
                key,
                End { kept_until: work.kept_until, attempt: work.attempt, begun, is_done: work.is_done },
            );
        }
    }

    fn note(&mut self, key: Key, end: End) {
        if let Some(before) = self.ends.insert(key, end) {
            self.ended.remove(&(before.kept_until, key));
        }
        self.ended.insert((end.kept_until, key));
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

    fn has_place(&self, peer: PeerKey, source: Option<Source>, is_small: bool) -> bool {
        let kept_for_known = if self.known.contains(&peer) { 0 } else { CALLS_KEPT_FOR_KNOWN };
        let kept_for_small = if is_small { 0 } else { CALLS_KEPT_FOR_SMALL };
        let own = self.peers.get(&peer).map_or(0, |load| load.calls);
        self.load.calls + kept_for_known + kept_for_small < CALLS_AT_WORK_MAX
            && own < CALLS_PER_PEER_MAX
            && self.places_of.has_room(source, 1)
    }

    fn has_room(&self, peer: PeerKey, source: Option<Source>, kept: usize, bytes: usize) -> bool {
        let own = self.peers.get(&peer).map_or(0, |load| load.bytes);
        self.load.bytes + kept + bytes <= CALL_BYTES_AT_WORK_MAX
            && own + bytes <= CALL_BYTES_PER_PEER_MAX
            && self.bytes_of.has_room(source, bytes)
    }

    fn add(&mut self, peer: PeerKey, source: Option<Source>, calls: usize, bytes: usize) {
        self.places_of.add(source, calls);
        self.bytes_of.add(source, bytes);
        for load in [&mut self.load, self.peers.entry(peer).or_default()] {
            load.calls += calls;
            load.bytes += bytes;
        }
    }

    fn remove(&mut self, peer: PeerKey, source: Option<Source>, calls: usize, bytes: usize) {
        self.places_of.remove(source, calls);
        self.bytes_of.remove(source, bytes);
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
    use crate::proto::call::CallContext;
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
            context: CallContext::default(),
            detached: false,
            stream: false,
            again: false,
        }
    }

    fn permit(seed: u8, number: u32) -> CallPermit {
        CallPermit { peer: peer(seed), call: id(number), attempt: 1 }
    }

    fn code(admitted: Result<(CallPermit, Duration), CallFailure>) -> Option<(Code, Outcome)> {
        admitted.err().map(|failure| (failure.code, failure.outcome))
    }

    fn run(registry: &mut CallRegistry, now: Duration, peer: PeerKey, number: u32) {
        let (permit, _) = registry.admit(now, peer, None, &offer(number, 1)).unwrap();
        assert!(registry.begin(permit));
        registry.end(permit);
    }

    #[test]
    fn a_call_that_ran_is_not_run_again_until_a_minute_after_its_deadline() {
        let mut registry = CallRegistry::new(RUN);
        let peer = peer(1);
        registry.admit(NOW, peer, None, &offer(1, 1)).unwrap();
        let refused = Some((Code::DuplicateCall, Outcome::Unknown));
        assert_eq!(code(registry.admit(NOW, peer, None, &offer(1, 1))), refused, "at work");
        assert!(registry.begin(permit(1, 1)) && !registry.begin(permit(1, 1)), "once");
        registry.end(permit(1, 1));
        let kept = Duration::from_secs(30) + CALL_ID_KEPT;
        assert_eq!(
            code(registry.admit(NOW + kept - Duration::from_millis(1), peer, None, &offer(1, 1))),
            refused
        );
        assert_eq!(code(registry.admit(NOW + kept, peer, None, &offer(1, 1))), None);
        assert!(registry.ends.is_empty() && registry.ended.is_empty());
    }

    #[test]
    fn a_call_whose_input_never_came_may_be_offered_again() {
        let mut registry = CallRegistry::new(RUN);
        registry.admit(NOW, peer(1), None, &offer(1, 1)).unwrap();
        registry.end(permit(1, 1));
        assert!(!registry.begin(permit(1, 1)), "its place is gone");
        assert_eq!(code(registry.admit(NOW, peer(1), None, &offer(1, 1))), None);
    }

    #[test]
    fn a_later_offer_voids_one_whose_input_is_not_here_yet_and_no_other() {
        let mut registry = CallRegistry::new(RUN);
        let (first, _) = registry.admit(NOW, peer(1), None, &offer(1, 7)).unwrap();
        let again = CallOffer { attempt: 2, ..offer(1, 7) };
        let (second, _) = registry.admit(NOW, peer(1), None, &again).unwrap();
        assert_eq!(registry.load, Load { calls: 1, bytes: 0 });
        assert!(!registry.begin(first));
        registry.end(first);
        assert!(registry.begin(second));
        let refused = Some((Code::DuplicateCall, Outcome::Unknown));
        assert_eq!(code(registry.admit(NOW, peer(1), None, &CallOffer { attempt: 3, ..again })), refused);
    }

    #[test]
    fn a_call_that_was_refused_is_not_run_by_a_late_copy_of_its_offer_but_by_another_attempt() {
        let mut registry = CallRegistry::new(RUN);
        let (permit, _) = registry.admit(NOW, peer(1), None, &offer(1, 7)).unwrap();
        registry.void(permit);
        registry.end(permit);
        let refused = Some((Code::DuplicateCall, Outcome::Unknown));
        assert_eq!(code(registry.admit(NOW, peer(1), None, &offer(1, 7))), refused);
        let again = CallOffer { attempt: 2, ..offer(1, 7) };
        let (second, _) = registry.admit(NOW, peer(1), None, &again).unwrap();
        assert!(registry.begin(second));
        registry.end(second);
        assert_eq!((registry.ends.len(), registry.ended.len()), (1, 1));
        assert_eq!(code(registry.admit(NOW, peer(1), None, &CallOffer { attempt: 3, ..again })), refused);
    }

    #[test]
    fn another_run_of_the_host_declines_a_retry() {
        let retry = CallOffer { expected: Some(Incarnation(6)), attempt: 2, ..offer(1, 1) };
        let refused = Some((Code::HostRestarted, Outcome::Unknown));
        assert_eq!(code(CallRegistry::new(RUN).admit(NOW, peer(1), None, &retry)), refused);
    }

    #[test]
    fn one_peer_takes_no_more_than_its_share_of_places_and_bytes() {
        let mut registry = CallRegistry::new(RUN);
        let busy = Some((Code::Busy, Outcome::NotStarted));
        for number in 0..CALLS_PER_PEER_MAX as u32 {
            registry.admit(NOW, peer(1), None, &offer(number, 0)).unwrap();
        }
        assert_eq!(code(registry.admit(NOW, peer(1), None, &offer(1_000, 0))), busy);
        assert_eq!(code(registry.admit(NOW, peer(2), None, &offer(1_000, 0))), None);
        registry.end(permit(1, 0));
        assert_eq!(code(registry.admit(NOW, peer(1), None, &offer(1_000, 0))), None);
        let fit = (CALL_BYTES_PER_PEER_MAX / (CALL_BYTES_MAX * CALL_INPUT_WEIGHT)) as u32;
        for number in 0..=fit {
            registry.admit(NOW, peer(3), None, &offer(number, CALL_BYTES_MAX)).unwrap();
            let fits = registry.take_bytes(permit(3, number), CALL_BYTES_MAX);
            assert_eq!(fits, number < fit, "{number}");
        }
        assert!(!registry.hold(permit(3, 0), CALL_BYTES_PER_PEER_MAX), "an output counts, too");
        assert!(registry.take_bytes(permit(3, fit), CALL_BYTES_MAX));
    }

    fn source(ip: &str) -> Option<Source> {
        Some(Source::of(ip.parse().unwrap()))
    }

    /// A registry in which keys from 100 on announced the largest inputs and sent nothing, and how many got a place.
    fn full_of_announcements() -> (CallRegistry, usize) {
        let mut registry = CallRegistry::new(RUN);
        let keys = 100..=100 + (CALLS_AT_WORK_MAX / CALLS_PER_PEER_MAX) as u8;
        let offers = keys.flat_map(|key| (0..CALLS_PER_PEER_MAX as u32).map(move |number| (key, number)));
        let announce =
            |(key, number)| registry.admit(NOW, peer(key), None, &offer(number, CALL_BYTES_MAX)).is_ok();
        let taken = offers.map(announce).filter(|taken| *taken).count();
        (registry, taken)
    }

    #[test]
    fn announced_inputs_take_no_memory_and_leave_places_to_small_ones_and_to_known_callers() {
        let (mut registry, taken) = full_of_announcements();
        assert_eq!(taken, CALLS_AT_WORK_MAX - CALLS_KEPT_FOR_KNOWN - CALLS_KEPT_FOR_SMALL);
        assert_eq!(registry.load.bytes, 0);
        let busy = Some((Code::Busy, Outcome::NotStarted));
        assert_eq!(code(registry.admit(NOW, peer(1), None, &offer(1, CALL_BYTES_MAX))), busy);
        for number in 0..CALLS_KEPT_FOR_SMALL as u32 {
            let key = peer(2 + (number / 64) as u8);
            registry.admit(NOW, key, None, &offer(number, CALL_SMALL_BYTES_MAX)).unwrap();
        }
        assert_eq!(code(registry.admit(NOW, peer(1), None, &offer(1, 1))), busy);
        registry.know(peer(1));
        assert_eq!(code(registry.admit(NOW, peer(1), None, &offer(1, CALL_BYTES_MAX))), None);
        assert!(registry.take_bytes(permit(1, 1), CALL_BYTES_MAX));
    }

    #[test]
    fn memory_that_strangers_fill_leaves_some_to_small_inputs_and_known_callers() {
        let mut registry = CallRegistry::new(RUN);
        let mut fits = Vec::new();
        for key in 0..40 {
            registry.admit(NOW, peer(key), None, &offer(1, CALL_BYTES_MAX)).unwrap();
            fits.push(registry.take_bytes(permit(key, 1), CALL_BYTES_MAX));
        }
        let room = CALL_BYTES_AT_WORK_MAX - CALL_BYTES_KEPT;
        assert_eq!(fits.iter().filter(|fits| **fits).count(), room / (CALL_BYTES_MAX * CALL_INPUT_WEIGHT));
        registry.admit(NOW, peer(50), None, &offer(1, CALL_SMALL_BYTES_MAX)).unwrap();
        assert!(registry.take_bytes(permit(50, 1), CALL_SMALL_BYTES_MAX));
        registry.know(peer(39));
        assert!(registry.take_bytes(permit(39, 1), CALL_BYTES_MAX));
    }

    #[test]
    fn an_address_and_a_block_have_their_share_of_places_and_bytes() {
        let mut registry = CallRegistry::new(RUN);
        let busy = Some((Code::Busy, Outcome::NotStarted));
        for number in 0..CALLS_SHARE.per_address as u32 {
            let key = peer((number / 64) as u8);
            registry.admit(NOW, key, source("192.0.2.1"), &offer(number, 0)).unwrap();
        }
        assert_eq!(code(registry.admit(NOW, peer(9), source("192.0.2.1"), &offer(1, 0))), busy);
        assert_eq!(code(registry.admit(NOW, peer(9), source("198.51.100.1"), &offer(1, 0))), None);
        let fit = (CALL_BYTES_SHARE.per_address / (CALL_BYTES_MAX * CALL_INPUT_WEIGHT)) as u8;
        for key in 0..=fit {
            registry.admit(NOW, peer(10 + key), source("203.0.113.1"), &offer(1, CALL_BYTES_MAX)).unwrap();
            assert_eq!(registry.take_bytes(permit(10 + key, 1), CALL_BYTES_MAX), key < fit, "{key}");
        }
    }

    #[test]
    fn who_waits_for_inputs_most_gives_way_and_who_waits_for_one_does_not() {
        let (registry, _) = full_of_announcements();
        let later = NOW + CALL_INPUT_KEPT;
        assert_eq!(registry.to_replace(NOW, peer(1), None), None, "all have just come");
        let (key, call) = registry.to_replace(later, peer(1), None).unwrap();
        assert!(key != peer(1) && registry.at_work.contains_key(&(key, call)));
        let mut registry = CallRegistry::new(RUN);
        for key in 0..20 {
            registry.admit(NOW, peer(key), None, &offer(1, 1)).unwrap();
        }
        assert_eq!(registry.to_replace(later, peer(50), None), None, "each waits for one");
    }

    #[test]
    fn what_ended_leaves_no_load_behind() {
        let mut registry = CallRegistry::new(RUN);
        run(&mut registry, NOW, peer(1), 1);
        registry.end(permit(1, 1));
        assert_eq!((registry.load, registry.peers.len(), registry.at_work.len()), (Load::default(), 0, 0));
        assert!(registry.places_of.is_empty() && registry.bytes_of.is_empty());
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
        assert_eq!(code(registry.admit(NOW + Duration::from_secs(1), peer(1), None, &retry)), refused);
        assert_eq!(
            code(registry.admit(NOW + Duration::from_secs(1), peer(1), None, &offer(u32::MAX, 1))),
            None
        );
    }
}
