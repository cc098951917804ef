//! Nodes on an internet of their own, as people's machines stand in it: behind routers, without IPv4, on one network with no
//! seed, restarted when the seed is gone. `lab` says what a system needs for it.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;
mod lan;
mod mesh;
mod names;
mod nats;
