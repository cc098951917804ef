//! The queue of one agent at its host: who gets a place, who waits, and who is turned away (protocol section 5).
//!
//! A call has a place before its input is sent, so that what waits has not begun and may go elsewhere for nothing. Callers
//! take turns, so that one who asks for much delays nobody who asks for little. Nobody waits for longer than the agent works on
//! four calls: a queue without such a bound, once it is full, holds only calls whose callers have given up by the time they run.
//!
//! Where the work is shorter than the way of an input, some places are given ahead, as many as come to an end meanwhile.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::Word;
use crate::proto::identity::PeerKey;
use crate::proto::limits::{CALL_PLACES_AHEAD_MAX, CALL_WAIT_LEAST, CALL_WAIT_WORKS};

/// Who asks: a peer, or a client of this node.
type Caller = Option<PeerKey>;

/// The calls that an agent has, and those that want a place of it. Its clock may be any that does not go back.
#[derive(Debug)]
pub struct Queue<T> {
    places: usize,
    waiting_max: usize,
    /// Of each caller, in the order in which they came.
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
    outputs: VecDeque<Turn<T>>,
}

#[derive(Clone, Copy, Debug)]
struct Ticket<T> {
    call: T,
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
            outputs: VecDeque::new(),
        }
    }

    /// A call wants a place; how many wait before it. With its input `is_here` it is not told to load.
    ///
    /// # Errors
    /// It would wait for too long.
    pub fn offer(&mut self, now: Duration, caller: Caller, call: T, is_here: bool) -> Result<usize, Full> {
        let ahead = self.waiting();
        if self.has_place() && ahead == 0 {
            self.enter(now, Ticket { call, is_here });
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
        of_caller.push_back(Ticket { call, is_here });
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

    /// What happens next to one of the calls.
    pub fn poll(&mut self) -> Option<Turn<T>> {
        self.outputs.pop_front()
    }

    /// What is said of the load.
    pub fn word(&self) -> Word {
        let count = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
        let mean_ms = self.mean_work.map_or(0, |mean| u32::try_from(mean.as_millis()).unwrap_or(u32::MAX));
        Word {
            running: count(self.loading.len() + self.ready.len() + self.running.len()),
            queued: count(self.waiting()),
            places: count(self.places),
            failing: 0,
            mean_ms,
        }
    }

    /// How many calls wait for a place.
    pub fn waiting(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    /// Whether all places are taken.
    pub fn is_busy(&self) -> bool {
        self.loading.len() + self.ready.len() + self.running.len() >= self.places
    }

    fn has_place(&self) -> bool {
        let ahead = match (self.mean_work, self.mean_way) {
            (Some(work), Some(way)) => (way.as_nanos() * self.places as u128)
                .checked_div(work.as_nanos())
                .map_or(CALL_PLACES_AHEAD_MAX, |ahead| ahead.min(CALL_PLACES_AHEAD_MAX as u128) as usize),
            _ => 0,
        };
        self.loading.len() + self.ready.len() + self.running.len() < self.places + ahead
    }

    /// Whether one more would wait for too long.
    fn full(&self, ahead: usize) -> Option<Full> {
        let mean = self.mean_work.unwrap_or_default();
        let wait = mean * u32::try_from(ahead + 1).unwrap_or(u32::MAX) / self.places as u32;
        let bound = (mean * CALL_WAIT_WORKS).max(CALL_WAIT_LEAST);
        let is_full = ahead >= self.waiting_max || wait > bound;
        is_full.then(|| Full { retry_after: wait.saturating_sub(bound).max(mean / self.places as u32) })
    }

    fn enter(&mut self, now: Duration, Ticket { call, is_here }: Ticket<T>) {
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
            && let Some(caller) = self.turns.pop_front()
        {
            let Some(waiting) = self.waiting.get_mut(&caller) else { continue };
            let next = waiting.pop_front();
            if waiting.is_empty() {
                self.waiting.remove(&caller);
            } else {
                self.turns.push_back(caller);
            }
            if let Some(ticket) = next {
                self.enter(now, ticket);
            }
        }
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
        queue.offer(NOW - SECOND, None, 0, true).unwrap();
        queue.ended(NOW, 0);
        queue.offer(NOW, None, 1, true).unwrap();
        assert_eq!(turns(&mut queue), [Turn::Run(0), Turn::Run(1)]);
        queue
    }

    #[test]
    fn a_call_waits_without_its_input_and_begins_when_that_is_here() {
        let mut queue = at_work();
        assert_eq!(
            (queue.offer(NOW, caller(1), 2, false), queue.offer(NOW, caller(1), 3, false)),
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
    fn nobody_waits_for_longer_than_four_works_and_is_told_when_to_come_again() {
        let mut queue = at_work();
        for call in 2..6 {
            assert!(queue.offer(NOW, caller(1), call, false).is_ok());
        }
        assert_eq!(queue.offer(NOW, caller(1), 6, false), Err(Full { retry_after: SECOND }));
        // Short work may wait for a second though it is many.
        let mut queue = Queue::new(1, 1_000);
        queue.offer(NOW, None, 0, true).unwrap();
        queue.ended(NOW + SECOND / 100, 0);
        queue.offer(NOW, None, 1, true).unwrap();
        let taken = (2..500).take_while(|call| queue.offer(NOW, None, *call, true).is_ok()).count();
        assert_eq!(taken, 100);
        // And what the operator allows bounds it before.
        let mut queue = Queue::new(1, 2);
        let taken = (0..10).filter(|call| queue.offer(NOW, None, *call, true).is_ok()).count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn callers_take_turns_and_who_waits_with_many_gives_way_to_who_waits_with_none() {
        let mut queue = at_work();
        for call in 2..6 {
            queue.offer(NOW, caller(1), call, true).unwrap();
        }
        assert_eq!(queue.offer(NOW, caller(2), 10, true), Ok(4));
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
        queue.offer(NOW, caller(1), 0, false).unwrap();
        queue.input(NOW + SECOND, 0);
        queue.ended(NOW + SECOND + SECOND / 2, 0);
        turns(&mut queue);
        for call in 1..10 {
            let _ = queue.offer(NOW, caller(1), call, false);
        }
        // In the second of an input two works end at each place.
        assert_eq!(turns(&mut queue).len(), 2 + 4);
        (1..7).for_each(|call| queue.input(NOW + SECOND, call));
        let begun = turns(&mut queue).iter().filter(|turn| matches!(turn, Turn::Run(_))).count();
        assert_eq!(begun, 2, "and no more work at once than there are places");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Offer(u8, bool),
        Input(usize),
        End(usize),
        Leave(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u8..4, any::<bool>()).prop_map(|(caller, is_here)| Step::Offer(caller, is_here)),
            2 => any::<usize>().prop_map(Step::Input),
            3 => any::<usize>().prop_map(Step::End),
            1 => any::<usize>().prop_map(Step::Leave),
        ]
    }

    proptest! {
        /// Whatever happens: no more calls work than there are places, nobody works before it has a place and its input, each
        /// call comes to one end, and a place that is free while somebody waits is given.
        #[test]
        fn a_queue_keeps_its_places(places in 1usize..4, steps in prop::collection::vec(step(), 0..80)) {
            let mut queue: Queue<u32> = Queue::new(places, 6);
            let (mut now, mut next) = (NOW, 0);
            let (mut waiting, mut loading, mut running) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
            let mut ready = BTreeSet::new();
            let pick = |set: &BTreeSet<u32>, at: usize| {
                at.checked_rem(set.len()).and_then(|at| set.iter().nth(at).copied())
            };
            for step in steps {
                now += SECOND / 10;
                match step {
                    Step::Offer(number, is_here) => {
                        next += 1;
                        if queue.offer(now, caller(number), next, is_here).is_ok() {
                            waiting.insert((next, is_here));
                        }
                    }
                    Step::Input(at) => if let Some(call) = pick(&loading, at) {
                        loading.remove(&call);
                        ready.insert(call);
                        queue.input(now, call);
                    },
                    Step::End(at) => if let Some(call) = pick(&running, at) {
                        running.remove(&call);
                        queue.ended(now, call);
                    },
                    Step::Leave(at) => {
                        let all: BTreeSet<u32> = waiting.iter().map(|(call, _)| *call)
                            .chain(loading.iter().chain(&running).chain(&ready).copied()).collect();
                        if let Some(call) = pick(&all, at) {
                            waiting.retain(|(waiting, _)| *waiting != call);
                            for set in [&mut loading, &mut running, &mut ready] {
                                set.remove(&call);
                            }
                            queue.leave(now, call);
                        }
                    }
                }
                while let Some(turn) = queue.poll() {
                    match turn {
                        Turn::Load(call) => prop_assert!(waiting.remove(&(call, false)) && loading.insert(call)),
                        Turn::Run(call) => {
                            prop_assert!(waiting.remove(&(call, true)) || ready.remove(&call));
                            running.insert(call);
                        }
                        Turn::Leave(call, _) => {
                            prop_assert!(waiting.remove(&(call, true)) || waiting.remove(&(call, false)));
                        }
                    }
                }
                prop_assert!(running.len() <= places);
                prop_assert!(waiting.len() <= 6 + CALL_PLACES_AHEAD_MAX && queue.waiting() <= 6);
                let is_free = running.len() + loading.len() + ready.len() < places;
                prop_assert!(!(is_free && queue.waiting() > 0), "a place is free and somebody waits");
            }
        }
    }
}
