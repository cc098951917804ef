//! Beacons of one zone: when this node tells that it is there, and what becomes of those of others.

use std::time::Duration;

use rand::RngExt;

use super::{Notice, Zone};
use crate::proto::code::Code;
use crate::proto::context::Context;
use crate::proto::identity::PeerKey;
use crate::proto::io::{Role, Verdict};
use crate::proto::limits::{BEACON_INTERVAL_MAX, BEACON_JITTER_MAX};
use crate::proto::liveness::Heard;
use crate::proto::message::{Beacon, Envelope, SignedBeacon};
use crate::proto::record::Refusal;
use crate::proto::time::Timestamp;

/// When the first beacon of a run goes out, milliseconds after its start: many nodes start at once.
const FIRST_MS: std::ops::Range<u64> = 100..1_000;
/// A node that meets its first peer says so within this time.
const FIRST_PEER: Duration = Duration::from_secs(1);

/// When this node sends its next beacon.
pub(super) struct BeaconTimer {
    next: Timestamp,
    counter: u64,
}

impl BeaconTimer {
    pub(super) fn new(ctx: &mut Context<'_>) -> BeaconTimer {
        let wait = Duration::from_millis(ctx.rng.random_range(FIRST_MS));
        BeaconTimer { next: ctx.now + wait, counter: 0 }
    }

    pub(super) fn due(&self) -> Timestamp {
        self.next
    }

    pub(super) fn hurry(&mut self, now: Timestamp) {
        self.next = self.next.min(now + FIRST_PEER);
    }

    pub(super) fn shift(&mut self, step: Duration) {
        self.next = self.next - step;
    }

    /// Wall time keeps the counter greater than in an earlier run of the same epoch.
    fn count(&mut self, now: Timestamp) -> u64 {
        self.counter = now.0.max(self.counter + 1);
        self.counter
    }
}

impl Zone {
    pub(super) fn beacon_if_due(&mut self, ctx: &mut Context<'_>) {
        if self.role != Role::Member || self.beacons.next > ctx.now {
            return;
        }
        let members = self.members(ctx.now);
        // All members together send so many a second: in a large zone each speaks more rarely, or beacons would be its traffic.
        let share = Duration::from_secs_f64(members as f64 / ctx.config.beacons_per_second);
        // Only so much more rarely: whoever counts wrongly, or is made to, must not leave others in doubt for hours.
        let interval = ctx.config.beacon_interval.max(share).min(BEACON_INTERVAL_MAX);
        self.beacons.next = ctx.now + ctx.jitter(interval);
        self.send_beacon(ctx, interval.mul_f64(BEACON_JITTER_MAX));
    }

    pub(in crate::proto) fn say_goodbye(&mut self, ctx: &mut Context<'_>) {
        self.send_beacon(ctx, Duration::ZERO);
    }

    fn send_beacon(&mut self, ctx: &mut Context<'_>, interval: Duration) {
        // Nobody would hear it, and a counter that is not sent is not used.
        if self.role != Role::Member || self.peers.is_empty() {
            return;
        }
        let beacon = Beacon {
            network: ctx.config.network.clone(),
            zone: self.records.name.clone(),
            author: ctx.author,
            counter: self.beacons.count(ctx.now),
            clock: ctx.now,
            interval_ms: interval.as_millis() as u64,
            seq: self.records.seq,
        };
        self.records.publish(ctx, &Envelope::Beacon(beacon.sign(ctx.identity)));
    }

    pub(super) fn take_beacon(
        &mut self,
        ctx: &mut Context<'_>,
        peer: PeerKey,
        signed: &SignedBeacon,
    ) -> Verdict {
        let (beacon, heartbeat) = (signed.beacon(), signed.heartbeat());
        if beacon.network != ctx.config.network || beacon.zone != self.records.name {
            return self.records.reject(ctx, peer, Refusal::ForeignZone);
        }
        // Our own, come back over the mesh.
        if heartbeat.peer() == ctx.key() {
            return Verdict::Ignore;
        }
        // Before the signature: most beacons that arrive twice or late are dropped for the price of a look-up.
        let standing = self.records.standing(&heartbeat.peer(), &self.peers);
        match self.liveness.classify(heartbeat, standing, ctx.now) {
            Heard::Stale => return Verdict::Ignore,
            Heard::Excess => {
                ctx.out.count(Code::ExcessBeacon);
                return Verdict::Ignore;
            }
            Heard::ClockOff => {
                // The wrong clock may be ours: what it says about ours is noted if it is signed.
                if signed.is_signed(&mut ctx.cache.keys) {
                    self.records.notices.push(Notice::Clock(heartbeat.peer(), heartbeat.clock));
                }
                return Verdict::Ignore;
            }
            Heard::Fresh => {}
        }
        if !signed.is_signed(&mut ctx.cache.keys) {
            return self.records.reject(ctx, peer, Refusal::BadSignature);
        }
        self.liveness.hear(heartbeat, standing, ctx.now);
        self.records.notices.push(Notice::BeaconClock(heartbeat.peer()));
        // Now, not at the next timer: this may be the first to say that more was written than is held.
        self.note_lag(ctx.now);
        Verdict::Accept
    }
}
