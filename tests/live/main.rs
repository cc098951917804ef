//! Real nodes, agents and sockets on this machine.

#![cfg(feature = "net")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agents;
mod calls;
mod journeys;
mod page;
mod swarm;
