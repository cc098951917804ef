//! The simulated world: worlds under faults and among adversaries, scenarios, the model, the report, `aop sim`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod actions;
#[cfg(feature = "net")]
mod command;
mod faults;
mod hostile;
mod model;
mod report;
mod worlds;
