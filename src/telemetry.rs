//! What a node tells those who operate it: numbers that it counts while it works ([`metrics`]), numbers that are read when
//! somebody asks ([`exposition`]).
//!
//! A label's value is one that this program names or that stands in the node's own configuration, never one that a peer
//! chose: what a peer can make up would be a series each.

pub mod exposition;
pub(crate) mod histogram;
pub(crate) mod history;
pub(crate) mod metrics;
pub(crate) mod process;
