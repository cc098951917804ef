//! The store on a real disk. It has a process of its own, because a sled that fails takes every sled of its process with it.

#![cfg(feature = "net")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod damage;
mod displaced;
mod kill;
