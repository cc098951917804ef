//! When a zone is compared with whom (protocol section 3): at random from time to time, at once with new links, and when
//! beacons tell of more than is held.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::proto::config::Config;
use crate::proto::context::Context;
use crate::proto::identity::PeerKey;
use crate::proto::io::Dialed;
use crate::proto::limits::CATCH_UP_MAX;
use crate::proto::liveness::Lag;
use crate::proto::sync::Grace;
use crate::proto::time::Timestamp;

/// Syncs that find nothing double the pause after beacons up to 2^6 times.
const EMPTY_SYNCS_MAX: u32 = 6;

/// When to sync.
pub(super) struct Schedule {
    /// Peers to compare with one after the other: new links.
    queue: BTreeSet<PeerKey>,
    next: Timestamp,
    /// Whether some author is said to have written more than is held, since when, and when a sync may be started for it.
    lag: Lag,
    lagging_since: Option<Timestamp>,
    lag_sync_after: Timestamp,
    /// Syncs started by beacons that found nothing, one after the other.
    empty_syncs: u32,
    first_synced_at: Option<Timestamp>,
    synced_at: Option<Timestamp>,
}

/// How a sync went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proto) enum Ended {
    /// Both sides hold what the other had.
    Finished,
    /// It broke off.
    Broken,
}

impl Schedule {
    pub(super) fn new(ctx: &Context<'_>) -> Schedule {
        Schedule {
            queue: BTreeSet::new(),
            next: ctx.now + ctx.config.sync_interval,
            lag: Lag::None,
            lagging_since: None,
            lag_sync_after: ctx.now,
            empty_syncs: 0,
            first_synced_at: None,
            synced_at: None,
        }
    }

    /// The side that dialed compares; the other would find the same, and looks for itself a little later.
    pub(super) fn peer_joined(&mut self, peer: PeerKey, dialed: Dialed) {
        if dialed == Dialed::ByUs && self.queue.len() < CATCH_UP_MAX {
            self.queue.insert(peer);
        }
    }

    pub(super) fn peer_left(&mut self, peer: &PeerKey) {
        self.queue.remove(peer);
    }

    pub(super) fn first_peer(&mut self, ctx: &Context<'_>) {
        self.next = self.next.min(ctx.now + ctx.config.mesh_grace);
    }

    pub(super) fn next_in_queue(&mut self) -> Option<PeerKey> {
        self.queue.pop_first()
    }

    /// When a sync is to be started, if there is a peer.
    pub(super) fn due(&self, config: &Config) -> Option<Timestamp> {
        let lag = self.lagging_since.map(|since| (since + config.lag_patience).max(self.lag_sync_after));
        lag.into_iter().chain([self.next]).min()
    }

    /// Whether a sync is due now, and what it leaves to the mesh: nothing where the mesh failed, or was not heard.
    pub(super) fn due_now(&self, ctx: &Context<'_>) -> Option<Grace> {
        // Some seconds of patience: what a beacon tells of is usually on its way through the mesh.
        let lags = self.lagging_since.is_some_and(|since| since + ctx.config.lag_patience <= ctx.now)
            && self.lag_sync_after <= ctx.now;
        if !lags && self.next > ctx.now {
            return None;
        }
        // A timer this late means that the process stood still, and the mesh will not repeat what it missed.
        let suspended = self.next + ctx.config.suspended_after < ctx.now;
        Some(if lags || suspended { Grace::None } else { Grace::Of(ctx.config.mesh_grace) })
    }

    /// Timers of a suspended process are late, whenever they were due.
    pub(super) fn resumed(&mut self, ctx: &Context<'_>) {
        let late = ctx.now - ctx.config.suspended_after - Duration::from_millis(1);
        self.next = self.next.min(late);
    }

    /// A sync begins. A joiner looks again soon: what was on its way during the first comparison may have missed it.
    pub(super) fn started(&mut self, ctx: &mut Context<'_>) {
        // Drawn in either case, so that a joiner does not shift the choices that follow.
        let next = ctx.now + ctx.jitter(ctx.config.sync_interval);
        self.next = if self.synced_at.is_none() { ctx.now + ctx.config.mesh_grace } else { next };
    }

    /// There is nobody to be compared with, as the zone above says.
    pub(super) fn founded(&mut self, now: Timestamp) {
        self.first_synced_at.get_or_insert(now);
    }

    /// A sync is over; one that broke off is tried again at `retry`.
    pub(super) fn ended(&mut self, ended: Ended, now: Timestamp, retry: Timestamp) {
        match ended {
            Ended::Finished => {
                self.synced_at = Some(now);
                self.first_synced_at.get_or_insert(now);
            }
            Ended::Broken => self.next = self.next.min(retry),
        }
        // Looked at anew right after: what this sync brought may have been all.
        (self.lag, self.lagging_since) = (Lag::None, None);
    }

    /// Somebody wrote more than is held here, or nobody did: a sync is started if that lasts.
    pub(super) fn note_lag(&mut self, lag: Lag, now: Timestamp) {
        let before = std::mem::replace(&mut self.lag, lag);
        match (lag, self.lagging_since) {
            // Whoever is believed does not wait behind those whose words started syncs in vain.
            (Lag::Known, _) if before != Lag::Known => {
                (self.lagging_since, self.lag_sync_after) = (Some(now), self.lag_sync_after.min(now));
            }
            (Lag::Doubtful, None) => self.lagging_since = Some(now),
            (Lag::None, Some(_)) => (self.lagging_since, self.empty_syncs) = (None, 0),
            (Lag::Known | Lag::Doubtful, Some(_)) | (Lag::Known | Lag::None, None) => {}
        }
    }

    pub(super) fn lag(&self) -> Lag {
        self.lag
    }

    /// Beacons that no sync can satisfy start ever fewer; a comparison of equal registries is no sign of that.
    pub(super) fn back_off(&mut self, was_empty: bool, ctx: &Context<'_>) {
        let in_vain = was_empty && self.lagging_since.is_some();
        self.empty_syncs = if in_vain { (self.empty_syncs + 1).min(EMPTY_SYNCS_MAX) } else { 0 };
        self.lag_sync_after = ctx.now + ctx.config.lag_interval * 2u32.pow(self.empty_syncs);
    }

    pub(super) fn shift(&mut self, step: Duration) {
        self.next = self.next - step;
        self.lagging_since = self.lagging_since.map(|since| since - step);
        self.lag_sync_after = self.lag_sync_after - step;
        self.first_synced_at = self.first_synced_at.map(|at| at - step);
        self.synced_at = self.synced_at.map(|at| at - step);
    }

    pub(super) fn lagging_since(&self) -> Option<Timestamp> {
        self.lagging_since
    }

    pub(super) fn first_synced_at(&self) -> Option<Timestamp> {
        self.first_synced_at
    }

    pub(super) fn synced_at(&self) -> Option<Timestamp> {
        self.synced_at
    }
}
