//! The simulated world: worlds under faults and among adversaries, scenarios, the model, the report, `aop sim`.

#![cfg_attr(feature = "lab", expect(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod actions;
mod calls;
#[cfg(all(feature = "lab", feature = "net"))]
mod command;
mod faults;
mod hostile;
mod judged;
#[cfg(feature = "lab")]
mod model;
mod questions;
#[cfg(feature = "lab")]
mod report;
mod seeds;
mod tree;
#[cfg(feature = "lab")]
mod worlds;
mod zones;
