//! What every node does again and again, and what it then speaks of.
//!
//! Periodic timers are never queued: the nodes have their turns in a fixed order, evenly spread over the period.

use super::counter_rng::Order;

/// One timer of every node.
#[derive(Debug)]
pub(super) struct Periodic {
    order: Order,
    nodes: u64,
    /// Ticks.
    period: u64,
    /// Turns taken so far.
    turns: u64,
}

impl Periodic {
    pub(super) fn new(order: Order, nodes: usize, period: u64) -> Periodic {
        Periodic { order, nodes: nodes as u64, period: period.max(1), turns: 0 }
    }

    /// When the next turn is: never at tick 0.
    pub(super) fn at(&self) -> u64 {
        let (cycle, place) = (self.turns / self.nodes, self.turns % self.nodes);
        cycle * self.period + 1 + place * self.period / self.nodes
    }

    /// Whose turn it is; then it is the next one's.
    pub(super) fn take(&mut self) -> u32 {
        self.turns += 1;
        self.order.at(((self.turns - 1) % self.nodes) as usize)
    }

    /// Leaves out the turns that had nothing to say up to now.
    pub(super) fn skip(&mut self, now: u64) {
        // Not stepped: an hour of silence among a million nodes is billions of turns.
        let turns = now / self.period * self.nodes + now % self.period * self.nodes / self.period;
        self.turns = self.turns.max(turns.saturating_sub(1));
        // The division rounds down, so the last few are walked.
        while self.at() <= now {
            self.turns += 1;
        }
    }
}

/// What each node learnt lately and still speaks of, for a number of its turns.
#[derive(Debug, Default)]
pub(super) struct History {
    turns: u32,
    heads: Vec<u32>,
    // One pool for all: a list for each of millions of nodes would mostly be empty.
    entries: Vec<Entry>,
    free: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    update: u32,
    left: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

impl History {
    pub(super) fn new(nodes: usize, turns: u32) -> History {
        History { turns, heads: vec![NONE; nodes], ..History::default() }
    }

    /// Whether nobody has anything to say.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.len() == self.free.len()
    }

    pub(super) fn add(&mut self, node: u32, update: u32) {
        let entry = Entry { update, left: self.turns, next: self.heads[node as usize] };
        self.heads[node as usize] = if let Some(free) = self.free.pop() {
            self.entries[free as usize] = entry;
            free
        } else {
            self.entries.push(entry);
            self.entries.len() as u32 - 1
        };
    }

    /// What a node speaks of.
    pub(super) fn list(&self, node: u32, updates: &mut Vec<u32>) {
        updates.clear();
        let mut at = self.heads[node as usize];
        while at != NONE {
            updates.push(self.entries[at as usize].update);
            at = self.entries[at as usize].next;
        }
    }

    /// A node's turn is over.
    pub(super) fn age(&mut self, node: u32) {
        let mut at = std::mem::replace(&mut self.heads[node as usize], NONE);
        let mut kept = NONE;
        while at != NONE {
            let Entry { left, next, .. } = self.entries[at as usize];
            if left > 1 {
                // The chain is turned round on the way; what a node speaks of has no order.
                let entry = &mut self.entries[at as usize];
                (entry.left, entry.next) = (left - 1, kept);
                kept = at;
            } else {
                self.free.push(at);
            }
            at = next;
        }
        self.heads[node as usize] = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::super::counter_rng::{CounterRng, Purpose};
    use super::*;

    #[test]
    fn every_node_has_one_turn_in_a_period() {
        let order = Order::new(CounterRng::new(1, Purpose::Heartbeat), 0, 7);
        let mut timer = Periodic::new(order, 7, 100);
        for cycle in 0..3 {
            let mut turns: Vec<u32> = (0..7)
                .map(|_| {
                    assert!((cycle * 100 + 1..=cycle * 100 + 100).contains(&timer.at()));
                    timer.take()
                })
                .collect();
            turns.sort_unstable();
            assert_eq!(turns, [0, 1, 2, 3, 4, 5, 6]);
        }
        timer.skip(1_234);
        assert!(timer.at() > 1_234 && timer.at() <= 1_234 + 100 / 7 + 1);
    }

    #[test]
    fn an_update_is_spoken_of_for_as_many_turns_as_set() {
        let mut history = History::new(2, 3);
        let mut said = Vec::new();
        history.add(1, 40);
        history.age(1);
        history.add(1, 41);
        for wanted in [vec![40, 41], vec![40, 41], vec![41]] {
            history.list(1, &mut said);
            said.sort_unstable();
            assert_eq!(said, wanted);
            history.age(1);
        }
        assert!(history.is_empty());
    }
}
