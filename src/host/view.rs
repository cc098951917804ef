//! What the node knows, in the shapes of the API: the one place where protocol values become JSON and sentences.

mod agent;
mod call;
mod doctor;
mod error;
mod history;
mod metrics;
mod problem;
mod queue;
mod status;
mod task;
mod tree;

use std::time::Duration;

pub(super) use self::agent::{Own, Shown, age_ms, agent, detail_members, members, owner, registered, zones};
pub(super) use self::call::{call_answer, call_event, not_callable, not_made, seen_call};
pub use self::doctor::unmade_checks;
pub(super) use self::doctor::{Examined, diagnosis};
pub(super) use self::error::{
    ambiguous, ambiguous_here, bad_request, import_unkept, no_import, no_queue, no_task, not_found,
    not_synced, not_taken, of_file, other_zones, owner_error, stopped, too_long, too_many_imports,
    too_many_zones, unanswered, write_error, write_fix, zone_error, zone_unkept,
};
pub(super) use self::history::history;
pub use self::metrics::HttpReadings;
pub(super) use self::metrics::metrics;
pub(super) use self::problem::event;
pub(super) use self::queue::queue;
pub use self::status::join_line;
pub(super) use self::status::{Detail, Snapshot, peers};
pub(super) use self::task::{task, task_page};
pub(super) use self::tree::tree;

/// Milliseconds, in whole microseconds.
pub(super) fn ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1_000.0
}
