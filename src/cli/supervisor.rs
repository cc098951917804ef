//! The service manager of the system, such as systemd: it is told when a node is up, reads its files again and ends, and that the
//! node works. Without one, as in a terminal, nothing is told.
//!
//! Programs of agents cannot speak in the node's name: they are given a few variables of this process, and `NOTIFY_SOCKET` is
//! not among them.

use std::convert::Infallible;
use std::future::pending;

use sd_notify::NotifyState;

use crate::host::{DriverState, HealthClient};

/// The node is up.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The node reads its files again, until it is [`ready`].
pub(super) fn reloading() {
    // Some managers want to know when, to tell an answer from an earlier one.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "this machine has no monotonic clock"),
    }
}

/// The node ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells that the node works, twice in the time that the manager gives it, but only while its driver does.
pub(super) async fn keep_alive(node: &HealthClient) -> Infallible {
    let Some(patience) = sd_notify::watchdog_enabled() else { return pending().await };
    loop {
        match node.driver_state().await {
            DriverState::Turning => tell(&[NotifyState::Watchdog]),
            state => tracing::warn!(?state, "the service manager is not told that the node works"),
        }
        tokio::time::sleep(patience / 2).await;
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager (NOTIFY_SOCKET) cannot be told");
    }
}
