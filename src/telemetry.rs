//! What a node tells those who operate it: numbers that it counts while it works (`metrics`), numbers that are read when
//! somebody asks (`exposition`), how a piece of work went through it
//! and on to others (`names`, `otel`), what happened, in the log (`events`), and which calls there are and were (`recent_calls`).
//!
//! A label's value is one that this program names or that stands in the node's own configuration, never one that a peer
//! chose: what a peer can make up would be a series each.

pub(crate) mod context;
pub mod events;
pub mod exposition;
pub(crate) mod histogram;
pub(crate) mod history;
pub(crate) mod log_counts;
pub(crate) mod metrics;
pub(crate) mod names;
pub(crate) mod otel;
pub(crate) mod process;
pub(crate) mod recent_calls;
