//! The live interpreter: the network of the node on tokio and libp2p.

pub mod addresses;
pub mod bootstrap;
pub mod peers;
pub mod streams;
pub mod swarm;
pub mod transport;
