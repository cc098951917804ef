//! What can go wrong in a world.

use super::adversary::Behaviour;
use super::sim_node::RestartFrom;

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nodes of different groups do not reach each other; all of one group ends a partition.
    Part(Vec<u8>),
    /// A node stops at once and starts again after `down_ms` with what `from` says.
    Crash {
        /// Which.
        node: usize,
        /// What it finds on its disk then.
        from: RestartFrom,
        /// How long it is down, milliseconds.
        down_ms: u64,
    },
    /// The disk of a node is full from now on, or has room again.
    Room {
        /// Which.
        node: usize,
        /// Whether it has room.
        ample: bool,
    },
    /// A copy of a node's disk is made; a later crash may restore it.
    BackUp(usize),
    /// A node's clock shows this much more than it should, milliseconds.
    Jump(usize, i64),
    /// A node does nothing for this long, milliseconds.
    Suspend(usize, u64),
    /// Wall time passes while every node sleeps, milliseconds.
    Skip(u64),
    /// A node starts for the first time.
    Start(usize),
    /// A node deals with others in another way from now on.
    Corrupt(usize, Behaviour),
    /// All links of a node lead to hostile nodes; none ends it.
    Eclipse(Option<usize>),
}
