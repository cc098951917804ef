//! What agents of this host have to do.

use super::ms;
use crate::agents::QueueState;
use crate::api;
use crate::proto::name::FullName;

/// The queue of an agent, and how many calls were taken out of it just now.
pub(in crate::host) fn queue(name: &FullName, state: QueueState, cleared: Option<usize>) -> api::Queue {
    api::Queue {
        agent: name.to_string(),
        running: state.running,
        queued: state.queued,
        places: state.places,
        paused: state.is_paused,
        mean_work_ms: state.mean_work.map(ms),
        failing: state.failing,
        completed: state.completed,
        failed: state.failed,
        cleared,
    }
}
