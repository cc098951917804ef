//! What is due, by time and, within a millisecond, in the order in which it was planned.

use std::collections::{BTreeMap, VecDeque};

use super::calls::CallEvent;
use super::clients::ClientOp;
use super::fault::Fault;
use super::network::Payload;
use super::questions::{Asked, Reading};
use super::sim_node::RestartFrom;
use crate::proto::io::Input;
use crate::proto::name::ZoneName;

/// Emptied lists that are kept to be filled again: about as many milliseconds as have something due at once.
const SPARE_MAX: usize = 256;
/// Longer ones are not kept: they are of a rare burst.
const SPARE_LENGTH_MAX: usize = 64;

/// Something that is due at a time.
pub(super) enum Due {
    /// A node's timer, if it is still the one that was set last.
    Timer { node: usize, generation: u64 },
    /// Something for one run of a node.
    Tell { node: usize, incarnation: u64, input: Box<Input> },
    /// A message reaches the end of its link.
    Arrive { to: u32, link: u32, epoch: u32, payload: Payload },
    /// The ends of a link try to connect.
    Connect { link: usize },
    /// Both ends of a severed link notice.
    Closed { link: usize, epoch: u32 },
    /// A node hears whether the other end of a link is in the mesh of a zone.
    ZoneTold { to: usize, link: usize, epoch: u32, zone: Box<ZoneName> },
    /// A node starts.
    Start(usize, RestartFrom),
    /// A node was suspended and works again.
    Resume(usize),
    /// Something goes wrong.
    Fault(Box<Fault>),
    /// A client wants something, somewhere.
    Client(usize, Box<(ZoneName, ClientOp)>),
    /// A client asks something.
    Question(usize, Box<Asked>),
    /// A client asks for the next page of what it reads.
    Page(usize, Box<Reading>),
    /// A hostile node does something by itself.
    AdversaryTick(usize),
    /// Something of a call.
    Call(Box<CallEvent>),
    /// What must hold at any time is checked.
    Check,
}

impl Due {
    /// The node that must be awake for this.
    pub(super) fn needs_awake(&self) -> Option<usize> {
        match self {
            Due::Timer { node, .. } | Due::Tell { node, .. } => Some(*node),
            Due::Client(node, _) | Due::Question(node, _) | Due::Page(node, _) => Some(*node),
            Due::ZoneTold { to, .. } => Some(*to),
            Due::Arrive { to, .. } => Some(*to as usize),
            Due::Call(event) => Some(event.node),
            // What the world does by itself waits for no node.
            Due::Connect { .. }
            | Due::Closed { .. }
            | Due::Start(..)
            | Due::Resume(_)
            | Due::Fault(_)
            | Due::AdversaryTick(_)
            | Due::Check => None,
        }
    }
}

/// Everything that is due.
#[derive(Default)]
pub(super) struct Queue {
    // A list a millisecond keeps its order by itself; a heap would need a number with each event.
    later: BTreeMap<u64, VecDeque<Due>>,
    spare: Vec<VecDeque<Due>>,
}

impl Queue {
    pub(super) fn push(&mut self, at: u64, due: Due) {
        let spare = &mut self.spare;
        self.later.entry(at).or_insert_with(|| spare.pop().unwrap_or_default()).push_back(due);
    }

    /// The next thing that is due by `until`, and when.
    pub(super) fn pop(&mut self, until: u64) -> Option<(u64, Due)> {
        loop {
            // An emptied list goes only when it is met again: its millisecond may still get more.
            let mut first = self.later.first_entry().filter(|first| *first.key() <= until)?;
            let at = *first.key();
            if let Some(due) = first.get_mut().pop_front() {
                return Some((at, due));
            }
            let empty = first.remove();
            if self.spare.len() < SPARE_MAX && empty.capacity() <= SPARE_LENGTH_MAX {
                self.spare.push(empty);
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Due> {
        self.later.values().flatten()
    }
}
