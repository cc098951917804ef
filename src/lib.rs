//! aop: the missing DNS for agents. A peer-to-peer registry node that implements the Agent Orchestration Protocol.
//!
//! One pure state machine, [`proto::node::Node`], takes every decision. Two interpreters drive it: the live one ([`net`]:
//! tokio, libp2p, sled) and the simulated one ([`sim`]: virtual time, faults). The surfaces (`cli`, `http`, `mcp`)
//! hold a `net::Handle` and never see the node, the swarm or the store. `agents` runs what this host offers. The laboratory
//! (`lab`) plays scenarios in simulated worlds and measures them.
//!
//! The layer rule, top to bottom: surfaces → interpreters → machines → values. `tests/tidy.rs` checks it.

#[cfg(feature = "net")]
pub mod agents;
#[cfg(feature = "net")]
pub mod api;
#[cfg(feature = "net")]
pub mod cli;
#[cfg(feature = "net")]
pub mod config;
#[cfg(feature = "net")]
pub mod document;
#[cfg(feature = "net")]
pub mod http;
#[cfg(feature = "lab")]
pub mod lab;
#[cfg(feature = "net")]
pub mod mcp;
#[cfg(feature = "net")]
pub mod net;
pub mod proto;
#[cfg(feature = "net")]
pub mod sanitize;
pub mod sim;
