//! Real nodes, agents and sockets on this machine.

#![cfg(feature = "net")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agents;
mod calls;
mod doors;
mod full_disk;
mod imports;
mod journeys;
mod page;
mod reach;
mod standards;
#[path = "../strangers/raw_peer.rs"]
mod strangers;
mod swarm;
mod tree;
#[path = "../../examples/two_nodes.rs"]
mod two_nodes;

#[test]
fn the_example_of_two_nodes_runs() {
    two_nodes::main().unwrap();
}
