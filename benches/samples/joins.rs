//! Whether a node that joined holds what another holds.

use std::time::Duration;

use aop::api;
use aop::host::Running;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

/// The longest pause between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until both hold the same, so many agents; looks when a sync ended, and now and then.
pub(crate) async fn complete(fresh: &Running, holder: &Running, held: usize) {
    let mut events = fresh.handle.events();
    loop {
        let report = zone(fresh).await;
        if report.agents == held {
            let theirs = zone(holder).await;
            if theirs.as_of != report.as_of || theirs.fingerprint == report.fingerprint {
                return;
            }
        }
        let synced = async {
            while !matches!(events.recv().await, Ok(api::Event::Synced { .. }) | Err(RecvError::Closed)) {}
        };
        // Looked at again in any case.
        let _elapsed = timeout(LOOK, synced).await;
    }
}

/// Its home zone.
pub(crate) async fn zone(node: &Running) -> api::ZoneReport {
    node.handle.status().await.expect("a status").zones.remove(0)
}
