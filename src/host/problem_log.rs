//! What is wrong with a node, in its log: when it began, and when it ended.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Handle;
use crate::proto::code::Code;

/// How often it is looked at. What is told at once beside this, is told where it happens.
const INTERVAL: Duration = Duration::from_secs(10);

/// Tells which problems there are that were not there before, and which there are no more, until the node stops.
pub(super) async fn tell(handle: Handle) {
    let mut known = BTreeSet::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = handle.stopped() => return,
        }
        let Ok(status) = handle.status().await else { continue };
        let problems = status.problems;
        let now: BTreeSet<Code> = problems.iter().map(|problem| problem.code).collect();
        for problem in problems.iter().filter(|problem| !known.contains(&problem.code)) {
            let code = problem.code;
            tracing::info!(event = "problem_began", %code, "this node has a problem: {}", problem.message);
        }
        for code in known.difference(&now) {
            tracing::info!(event = "problem_ended", %code, "this node has a problem no more");
        }
        known = now;
    }
}
