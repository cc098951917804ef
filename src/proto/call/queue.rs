//! The queue of one agent at its host: who gets a place, who waits, and who is turned away (protocol section 5).
//!
//! A call has a place before its input is sent, so that what waits has not begun and may go elsewhere for nothing. Callers
//! take turns, so that one who asks for much delays nobody who asks for little; of one caller the highest priority goes first,
//! of equals the oldest call. Nobody waits for longer than the agent works on four calls: a queue without such a bound, once it
//! is full, holds only calls whose callers have given up by the time they run.
//!
//! A paused queue gives no places: what has one comes to its end, and what comes waits within the same bounds.
//!
//! Where the work is shorter than the way of an input, some places are given ahead, as many as come to an end meanwhile.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::Word;
use super::failures::Failures;
use crate::proto::identity::PeerKey;
use crate::proto::limits::{CALL_PLACES_AHEAD_MAX, CALL_WAIT_LEAST, CALL_WAIT_WORKS};

/// Who asks: a peer, or a client of this node.
type Caller = Option<PeerKey>;

/// The calls that an agent has, and those that want a place of it. Its clock may be any that does not go back.
#[derive(Debug)]
pub struct Queue<T> {
    places: usize,
    waiting_max: usize,
    /// Of each caller, in the order in which they go.
    waiting: BTreeMap<Caller, VecDeque<Ticket<T>>>,
    /// Callers with waiting calls, the next first.
    turns: VecDeque<Caller>,
    /// Their inputs are on their way, since then.
    loading: BTreeMap<T, Duration>,
    /// Their inputs are here, and all places are taken.
    ready: VecDeque<T>,
    /// At work, since then.
    running: BTreeMap<T, Duration>,
    mean_work: Option<Duration>,
    mean_way: Option<Duration>,
    is_paused: bool,
    failures: Failures,
    outputs: VecDeque<Turn<T>>,
}

#[derive(Clone, Copy, Debug)]
struct Ticket<T> {
    call: T,
    priority: i8,
    /// Whether there is no input to wait for.
    is_here: bool,
}

/// What happens to a call of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn<T> {
    /// It has a place: its input may come.
    Load(T),
    /// It begins now.
    Run(T),
    /// It is turned away for another caller, who waits with fewer.
    Leave(T, Full),
}

/// How much an agent has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Calls that it works on at once at most.
    pub places: usize,
    /// Calls with a place: at work, or with their inputs on the way.
    pub running: usize,
    /// Calls that wait for one.
    pub waiting: usize,
    /// What a call takes in the mean; none before the first has ended.
    pub mean_work: Option<Duration>,
    /// Whether no places are given.
    pub is_paused: bool,
    /// Runs that failed through the agent: in a row, or since it is held to fail.
    pub failing: u32,
}

/// There is no room in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// When there may be.
    pub retry_after: Duration,
}

impl<T: Copy + Ord> Queue<T> {
    /// Of an agent that works on so many calls at once, and lets no more than so many wait.
    pub fn new(places: usize, waiting_max: usize) -> Queue<T> {
        Queue {
            places: places.max(1),
            waiting_max,
            waiting: BTreeMap::new(),
            turns: VecDeque::new(),
            loading: BTreeMap::new(),
            ready: VecDeque::new(),
            running: BTreeMap::new(),
            mean_work: None,
            mean_way: None,
            is_paused: false,
            failures: Failures::default(),
            outputs: VecDeque::new(),
        }
    }

    /// A call wants a place; how many wait already. With its input `is_here` it is not told to load. Among the waiting calls of
    /// its caller it goes before those of a lower `priority`.
    ///
    /// # Errors
    /// It would wait for too long.
    pub fn offer(
        &mut self,
        now: Duration,
        caller: Caller,
        priority: i8,
        call: T,
        is_here: bool,
    ) -> Result<usize, Full> {
        let ahead = self.waiting();
        let ticket = Ticket { call, priority, is_here };
        if self.has_place() && ahead == 0 {
            self.enter(now, ticket);
            return Ok(0);
        }
        if let Some(full) = self.full(ahead) {
            let own = self.waiting.get(&caller).map_or(0, VecDeque::len);
            let (greedy, of_greedy) =
                self.waiting.iter().max_by_key(|(_, waiting)| waiting.len()).ok_or(full)?;
            if of_greedy.len() <= own + 1 {
                return Err(full);
            }
            let greedy = *greedy;
            if let Some(last) = self.waiting.get_mut(&greedy).and_then(VecDeque::pop_back) {
                self.outputs.push_back(Turn::Leave(last.call, full));
            }
        }
        let of_caller = self.waiting.entry(caller).or_default();
        if of_caller.is_empty() {
            self.turns.push_back(caller);
        }
        let at = of_caller.partition_point(|earlier| earlier.priority >= priority);
        of_caller.insert(at, ticket);
        Ok(ahead)
    }

    /// The input of a call is here.
    pub fn input(&mut self, now: Duration, call: T) {
        if let Some(since) = self.loading.remove(&call) {
            note(&mut self.mean_way, now.saturating_sub(since));
            self.ready.push_back(call);
            self.go_on(now);
        }
    }

    /// A call came to its end.
    pub fn ended(&mut self, now: Duration, call: T) {
        if let Some(since) = self.running.remove(&call) {
            note(&mut self.mean_work, now.saturating_sub(since));
            self.go_on(now);
        }
    }

    /// A call is given up, wherever it is.
    pub fn leave(&mut self, now: Duration, call: T) {
        if self.running.remove(&call).is_none() && self.loading.remove(&call).is_none() {
            self.ready.retain(|ready| *ready != call);
            self.waiting.values_mut().for_each(|waiting| waiting.retain(|ticket| ticket.call != call));
            self.forget_idle();
        }
        self.go_on(now);
    }

    /// Gives no more places until [`Queue::resume`].
    pub fn pause(&mut self) {
        self.is_paused = true;
    }

    /// Gives places again.
    pub fn resume(&mut self, now: Duration) {
        self.is_paused = false;
        self.go_on(now);
    }

    /// Takes every call out that waits for a place, the next first; whoever drives the queue tells them.
    pub fn clear(&mut self) -> Vec<T> {
        let mut cleared = Vec::with_capacity(self.waiting());
        while let Some(ticket) = self.next() {
            cleared.push(ticket.call);
        }
        cleared
    }

    /// What happens next to one of the calls.
    pub fn poll(&mut self) -> Option<Turn<T>> {
        self.outputs.pop_front()
    }

    /// A run came to its end, and failed through the agent or not.
    pub fn note_run(&mut self, now: Duration, has_failed: bool) {
        self.failures.note(now, has_failed);
    }

    /// What is said to a caller, which is given a place or waits for one; who tries an agent that fails is not told so.
    pub fn word(&mut self, now: Duration, has_place: bool) -> Word {
        let is_tried = has_place && self.failures.try_again(now);
        let failing = if is_tried { 0 } else { self.failures.count() };
        let count = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
        let mean_ms = self.mean_work.map_or(0, |mean| u32::try_from(mean.as_millis()).unwrap_or(u32::MAX));
        Word {
            running: count(self.placed()),
            queued: count(self.waiting()),
            places: count(self.places),
            failing: u16::try_from(failing).unwrap_or(u16::MAX),
            mean_ms,
        }
    }

    /// How many calls wait for a place.
    pub fn waiting(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    /// Whether a call that comes now waits: all places are taken, or none is given.
    pub fn is_busy(&self) -> bool {
        self.is_paused || self.placed() >= self.places
    }

    /// How much there is to do.
    pub fn load(&self) -> Load {
        Load {
            places: self.places,
            running: self.placed(),
            waiting: self.waiting(),
            mean_work: self.mean_work,
            is_paused: self.is_paused,
            failing: self.failures.count(),
        }
    }

    /// How many calls have a place.
    fn placed(&self) -> usize {
        self.loading.len() + self.ready.len() + self.running.len()
    }

    fn has_place(&self) -> bool {
        if self.is_paused {
            return false;
        }
        let ahead = match (self.mean_work, self.mean_way) {
            (Some(work), Some(way)) => (way.as_nanos() * self.places as u128)
                .checked_div(work.as_nanos())
                .map_or(CALL_PLACES_AHEAD_MAX, |ahead| ahead.min(CALL_PLACES_AHEAD_MAX as u128) as usize),
            _ => 0,
        };
        self.placed() < self.places + ahead
    }

    /// Whether one more would wait for too long.
    fn full(&self, ahead: usize) -> Option<Full> {
        let mean = self.mean_work.unwrap_or_default();
        let wait = mean * u32::try_from(ahead + 1).unwrap_or(u32::MAX) / self.places as u32;
        let bound = (mean * CALL_WAIT_WORKS).max(CALL_WAIT_LEAST);
        let is_full = ahead >= self.waiting_max || wait > bound;
        is_full.then(|| Full { retry_after: wait.saturating_sub(bound).max(mean / self.places as u32) })
    }

    fn enter(&mut self, now: Duration, Ticket { call, is_here, .. }: Ticket<T>) {
        if is_here {
            self.ready.push_back(call);
        } else {
            self.loading.insert(call, now);
            self.outputs.push_back(Turn::Load(call));
        }
        self.begin(now);
    }

    fn begin(&mut self, now: Duration) {
        while self.running.len() < self.places
            && let Some(call) = self.ready.pop_front()
        {
            self.running.insert(call, now);
            self.outputs.push_back(Turn::Run(call));
        }
    }

    /// Gives places that are free to who is next.
    fn go_on(&mut self, now: Duration) {
        self.begin(now);
        while self.has_place()
            && let Some(ticket) = self.next()
        {
            self.enter(now, ticket);
        }
    }

    /// Takes out whose turn it is.
    fn next(&mut self) -> Option<Ticket<T>> {
        // Both know the same callers, and none without a call.
        let caller = self.turns.pop_front()?;
        let waiting = self.waiting.get_mut(&caller)?;
        let next = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&caller);
        } else {
            self.turns.push_back(caller);
        }
        next
    }

    fn forget_idle(&mut self) {
        self.waiting.retain(|_, waiting| !waiting.is_empty());
        let with_calls: BTreeSet<Caller> = self.waiting.keys().copied().collect();
        self.turns.retain(|caller| with_calls.contains(caller));
    }
}

/// A mean that follows what changes: the last eight count for most of it.
fn note(mean: &mut Option<Duration>, sample: Duration) {
    *mean = Some(mean.map_or(sample, |mean| (mean * 7 + sample) / 8));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::limits::CALL_AGENT_PAUSE;

    const NOW: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);

    fn caller(number: u8) -> Caller {
        Some(PeerKey([number; 32]))
    }

    fn turns(queue: &mut Queue<u32>) -> Vec<Turn<u32>> {
        std::iter::from_fn(|| queue.poll()).collect()
    }

    /// A queue of one place whose agent works for a second, with a call at work.
    fn at_work() -> Queue<u32> {
        let mut queue = Queue::new(1, 100);
        queue.offer(NOW - SECOND, None, 0, 0, true).unwrap();
        queue.ended(NOW, 0);
        queue.offer(NOW, None, 0, 1, true).unwrap();
        assert_eq!(turns(&mut queue), [Turn::Run(0), Turn::Run(1)]);
        queue
    }

    #[test]
    fn a_call_waits_without_its_input_and_begins_when_that_is_here() {
        let mut queue = at_work();
        assert_eq!(
            (queue.offer(NOW, caller(1), 0, 2, false), queue.offer(NOW, caller(1), 0, 3, false)),
            (Ok(0), Ok(1))
        );
        assert_eq!(turns(&mut queue), []);
        queue.ended(NOW + SECOND, 1);
        assert_eq!(turns(&mut queue), [Turn::Load(2)]);
        queue.input(NOW + SECOND, 2);
        assert_eq!(turns(&mut queue), [Turn::Run(2)]);
        queue.leave(NOW + SECOND, 2);
        assert_eq!(turns(&mut queue), [Turn::Load(3)]);
        // Its input never comes.
        queue.leave(NOW + SECOND, 3);
        assert!(!queue.is_busy() && queue.waiting() == 0);
    }

    #[test]
    fn of_the_callers_of_an_agent_that_fails_one_with_a_place_tries_it() {
        let mut queue: Queue<u32> = Queue::new(1, 100);
        for failing in 1..=5 {
            queue.note_run(NOW, true);
            assert_eq!(queue.word(NOW, true).failing, failing);
        }
        let due = NOW + CALL_AGENT_PAUSE;
        let said = [false, true, true].map(|has_place| queue.word(due, has_place).failing);
        assert_eq!(said, [5, 0, 5], "one is not told");
    }

    #[test]
    fn nobody_waits_for_longer_than_four_works_and_is_told_when_to_come_again() {
        let mut queue = at_work();
        for call in 2..6 {
            assert!(queue.offer(NOW, caller(1), 0, call, false).is_ok());
        }
        assert_eq!(queue.offer(NOW, caller(1), 0, 6, false), Err(Full { retry_after: SECOND }));
        // Short work may wait for a second though it is many.
        let mut queue = Queue::new(1, 1_000);
        queue.offer(NOW, None, 0, 0, true).unwrap();
        queue.ended(NOW + SECOND / 100, 0);
        queue.offer(NOW, None, 0, 1, true).unwrap();
        let taken = (2..500).take_while(|call| queue.offer(NOW, None, 0, *call, true).is_ok()).count();
        assert_eq!(taken, 100);
        // And what the operator allows bounds it before.
        let mut queue = Queue::new(1, 2);
        let taken = (0..10).filter(|call| queue.offer(NOW, None, 0, *call, true).is_ok()).count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn callers_take_turns_and_who_waits_with_many_gives_way_to_who_waits_with_none() {
        let mut queue = at_work();
        for call in 2..6 {
            queue.offer(NOW, caller(1), 0, call, true).unwrap();
        }
        assert_eq!(queue.offer(NOW, caller(2), 0, 10, true), Ok(4));
        assert!(matches!(turns(&mut queue)[..], [Turn::Leave(5, _)]));
        let order: Vec<Turn<u32>> = [1, 2, 10]
            .into_iter()
            .flat_map(|call| {
                queue.ended(NOW, call);
                turns(&mut queue)
            })
            .collect();
        assert_eq!(order, [Turn::Run(2), Turn::Run(10), Turn::Run(3)]);
    }

    #[test]
    fn places_are_given_ahead_where_inputs_take_longer_than_the_work() {
        let mut queue = Queue::new(2, 100);
        queue.offer(NOW, caller(1), 0, 0, false).unwrap();
        queue.input(NOW + SECOND, 0);
        queue.ended(NOW + SECOND + SECOND / 2, 0);
        turns(&mut queue);
        for call in 1..10 {
            let _ = queue.offer(NOW, caller(1), 0, call, false);
        }
        // In the second of an input two works end at each place.
        assert_eq!(turns(&mut queue).len(), 2 + 4);
        (1..7).for_each(|call| queue.input(NOW + SECOND, call));
        let begun = turns(&mut queue).iter().filter(|turn| matches!(turn, Turn::Run(_))).count();
        assert_eq!(begun, 2, "and no more work at once than there are places");
    }

    #[test]
    fn of_one_caller_the_highest_priority_goes_first_and_of_equals_the_oldest() {
        let mut queue = at_work();
        for (number, priority, call) in [(1, 0, 2), (1, 5, 3), (1, -3, 4), (1, 5, 5)] {
            queue.offer(NOW, caller(number), priority, call, true).unwrap();
        }
        // No priority of one caller comes before the turn of another.
        assert!(matches!(queue.offer(NOW, caller(2), i8::MIN, 10, true), Ok(4)));
        assert!(matches!(turns(&mut queue)[..], [Turn::Leave(4, _)]), "the last of who waits with most");
        let order: Vec<Turn<u32>> = [1, 3, 10, 5]
            .into_iter()
            .flat_map(|call| {
                queue.ended(NOW, call);
                turns(&mut queue)
            })
            .collect();
        assert_eq!(order, [Turn::Run(3), Turn::Run(10), Turn::Run(5), Turn::Run(2)]);
    }

    #[test]
    fn a_paused_queue_finishes_what_has_a_place_and_goes_on_where_it_stopped() {
        let mut queue = Queue::new(2, 3);
        queue.offer(NOW, None, 0, 1, true).unwrap();
        queue.offer(NOW, caller(1), 0, 2, false).unwrap();
        queue.pause();
        assert_eq!(queue.offer(NOW, caller(1), 0, 3, false), Ok(0));
        queue.input(NOW, 2);
        assert_eq!(turns(&mut queue), [Turn::Run(1), Turn::Load(2), Turn::Run(2)]);
        queue.ended(NOW + SECOND, 1);
        queue.ended(NOW + SECOND, 2);
        assert_eq!((turns(&mut queue), queue.is_busy()), (vec![], true));
        let load = queue.load();
        assert_eq!((load.running, load.waiting, load.mean_work), (0, 1, Some(SECOND)));
        for call in 4..6 {
            queue.offer(NOW, None, 0, call, true).unwrap();
        }
        assert!(queue.offer(NOW, None, 0, 6, true).is_err(), "the bounds hold");
        queue.resume(NOW + SECOND);
        assert_eq!(turns(&mut queue), [Turn::Load(3), Turn::Run(4)]);
    }

    #[test]
    fn a_cleared_queue_keeps_what_has_a_place() {
        let mut queue = at_work();
        for (number, call) in [(1, 2), (1, 3), (2, 4)] {
            queue.offer(NOW, caller(number), 0, call, true).unwrap();
        }
        assert_eq!(queue.clear(), [2, 4, 3]);
        assert_eq!((queue.load().running, queue.waiting()), (1, 0));
        queue.offer(NOW, caller(1), 0, 5, true).unwrap();
        queue.ended(NOW, 1);
        assert_eq!(turns(&mut queue), [Turn::Run(5)]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Offer { caller: u8, priority: i8, is_here: bool },
        Input(usize),
        End(usize),
        Leave(usize),
        Pause,
        Resume,
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0u8..4, -1i8..2, any::<bool>())
                .prop_map(|(caller, priority, is_here)| Step::Offer { caller, priority, is_here }),
            4 => any::<usize>().prop_map(Step::Input),
            6 => any::<usize>().prop_map(Step::End),
            2 => any::<usize>().prop_map(Step::Leave),
            1 => Just(Step::Pause),
            2 => Just(Step::Resume),
            1 => Just(Step::Clear),
        ]
    }

    /// Whether the waiting calls of each caller are in the order in which they are to go.
    fn is_in_order(queue: &Queue<u32>) -> bool {
        let goes = |ticket: &Ticket<u32>| (std::cmp::Reverse(ticket.priority), ticket.call);
        queue.waiting.values().all(|of_caller| of_caller.iter().is_sorted_by_key(goes))
    }

    /// What a test knows of the calls that have not ended.
    #[derive(Default)]
    struct Known {
        /// With whether there is no input to wait for.
        waiting: BTreeSet<(u32, bool)>,
        loading: BTreeSet<u32>,
        ready: BTreeSet<u32>,
        running: BTreeSet<u32>,
    }

    impl Known {
        fn stops_waiting(&mut self, call: u32) -> bool {
            self.waiting.remove(&(call, true)) || self.waiting.remove(&(call, false))
        }

        /// Whether what happens to a call may happen to it now.
        fn take(&mut self, turn: Turn<u32>) -> bool {
            match turn {
                Turn::Load(call) => self.waiting.remove(&(call, false)) && self.loading.insert(call),
                Turn::Run(call) => {
                    (self.waiting.remove(&(call, true)) || self.ready.remove(&call))
                        && self.running.insert(call)
                }
                Turn::Leave(call, _) => self.stops_waiting(call),
            }
        }

        fn forget(&mut self, call: u32) {
            self.stops_waiting(call);
            for set in [&mut self.loading, &mut self.ready, &mut self.running] {
                set.remove(&call);
            }
        }

        fn all(&self) -> BTreeSet<u32> {
            let placed = self.loading.iter().chain(&self.ready).chain(&self.running);
            self.waiting.iter().map(|(call, _)| call).chain(placed).copied().collect()
        }
    }

    fn pick(set: &BTreeSet<u32>, at: usize) -> Option<u32> {
        at.checked_rem(set.len()).and_then(|at| set.iter().nth(at).copied())
    }

    proptest! {
        /// Whatever happens: no more calls work than there are places, nobody works before it has a place and its input, each
        /// call comes to one end, of one caller priority and then age decide, no place is given while the queue is paused, and a
        /// place that is free while somebody waits is given.
        #[test]
        fn a_queue_keeps_its_places(places in 1usize..4, steps in prop::collection::vec(step(), 0..80)) {
            let mut queue: Queue<u32> = Queue::new(places, 6);
            let (mut now, mut next, mut is_paused) = (NOW, 0, false);
            let mut known = Known::default();
            for step in steps {
                now += SECOND / 10;
                let had_place = queue.load().running;
                match step {
                    Step::Offer { caller: number, priority, is_here } => {
                        next += 1;
                        if queue.offer(now, caller(number), priority, next, is_here).is_ok() {
                            known.waiting.insert((next, is_here));
                        }
                    }
                    Step::Input(at) => if let Some(call) = pick(&known.loading, at) {
                        known.loading.remove(&call);
                        known.ready.insert(call);
                        queue.input(now, call);
                    },
                    Step::End(at) => if let Some(call) = pick(&known.running, at) {
                        known.running.remove(&call);
                        queue.ended(now, call);
                    },
                    Step::Leave(at) => if let Some(call) = pick(&known.all(), at) {
                        known.forget(call);
                        queue.leave(now, call);
                    },
                    Step::Pause => {
                        is_paused = true;
                        queue.pause();
                    }
                    Step::Resume => {
                        is_paused = false;
                        queue.resume(now);
                    }
                    Step::Clear => {
                        let cleared = queue.clear();
                        prop_assert!(cleared.into_iter().all(|call| known.stops_waiting(call)) && queue.waiting() == 0);
                    }
                }
                while let Some(turn) = queue.poll() {
                    prop_assert!(known.take(turn), "{turn:?}");
                }
                prop_assert!(known.running.len() <= places);
                prop_assert!(known.waiting.len() <= 6 + CALL_PLACES_AHEAD_MAX && queue.waiting() <= 6);
                prop_assert!(is_in_order(&queue), "priority, then age");
                // Calls whose input is here may have a place ahead, of which nobody is told.
                let placed = queue.load().running;
                prop_assert_eq!(placed, known.all().len() - queue.waiting());
                prop_assert!(!is_paused || placed <= had_place, "a paused queue gives no place");
                let is_free = placed < places && !is_paused;
                prop_assert!(!(is_free && queue.waiting() > 0), "a place is free and somebody waits");
            }
        }
    }
}
