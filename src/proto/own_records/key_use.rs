//! Another process that runs with this node's key: a data folder that was copied, a machine that was cloned (protocol section 2).
//!
//! Only what the key itself signed shows it, and only what was signed lately and in this run: whoever kept what this node said
//! in an earlier run has nothing to show. Two that write under one key undo each other's writes, so both refuse to for as
//! long as they hear of each other.

use std::time::Duration;

use super::OwnRecords;
use crate::proto::context::Context;
use crate::proto::io::NodeAlert;
use crate::proto::limits::{BEACON_INTERVAL_MAX, STAMP_AHEAD_MAX};
use crate::proto::record::Record;
use crate::proto::time::Timestamp;

/// What was signed so soon after the start may be of the run before, by a clock that was a little ahead.
const START_MARGIN: Duration = Duration::from_secs(2);
/// How long a sign counts: a process that is there beacons three times within it.
const SIGN_LIFE: Duration = Duration::from_secs(3 * BEACON_INTERVAL_MAX.as_secs());

/// What is known of another process with this node's key.
pub(in crate::proto) struct KeyUse {
    started_at: Timestamp,
    /// Until when the last sign of it counts.
    until: Option<Timestamp>,
}

impl KeyUse {
    pub(super) fn new(now: Timestamp) -> KeyUse {
        KeyUse { started_at: now, until: None }
    }

    /// When the last sign of it ends to count.
    pub(super) fn until(&self) -> Option<Timestamp> {
        self.until
    }

    pub(super) fn shift(&mut self, step: Duration) {
        self.started_at = self.started_at - step;
        self.until = self.until.map(|until| until - step);
    }

    /// Until when something counts as a sign that was signed then and not by this process.
    fn sign_counts_until(&self, signed_at: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let is_of_this_run = signed_at > self.started_at + START_MARGIN;
        let until = signed_at + SIGN_LIFE;
        (is_of_this_run && signed_at <= now + STAMP_AHEAD_MAX && until > now).then_some(until)
    }

    /// The key signed something at that time by its own clock, and this process did not.
    pub(in crate::proto) fn note(&mut self, ctx: &mut Context<'_>, signed_at: Timestamp) {
        if let Some(until) = self.sign_counts_until(signed_at, ctx.now) {
            self.until = self.until.max(Some(until));
            ctx.out.alert(NodeAlert::KeyInUse);
        }
    }

    /// Whether nothing was heard of the other process any more, since just now.
    pub(super) fn is_over(&mut self, ctx: &mut Context<'_>) -> bool {
        self.until.take_if(|until| *until <= ctx.now).is_some()
            && ctx.out.clear_alerts(|alert| *alert == NodeAlert::KeyInUse)
    }
}

/// A record under this node's key came from outside.
pub(in crate::proto) fn note_written(own: &mut OwnRecords, ctx: &mut Context<'_>, record: &Record) {
    // What this process wrote comes back where there was no room for it.
    if own.records.get(&record.key()).is_none_or(|own| own.order() < record.order()) {
        own.key_use.note(ctx, record.stamp.wall);
    }
}
