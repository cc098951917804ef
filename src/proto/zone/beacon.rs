//! Beacons of one zone: when this node tells that it is there, and what becomes of those of others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::RngExt;
use serde_bytes::ByteBuf;

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

/// Own beacons that are remembered: those of ten minutes at the least, and by then nobody may call one the sign of another
/// process.
const SENT_MAX: usize = 64;
/// Peers whose last beacon is kept as it was signed: more than are connected at once.
const HEARD_MAX: usize = 512;

/// When this node sends its next beacon, and which it sent.
pub(super) struct BeaconTimer {
    next: Timestamp,
    counter: u64,
    /// Counters of the last beacons of this run, ascending.
    sent: VecDeque<u64>,
    /// Whatever was sent before has no greater counter.
    since: u64,
}

impl BeaconTimer {
    pub(super) fn new(ctx: &mut Context<'_>) -> BeaconTimer {
        let wait = Duration::from_millis(ctx.rng.random_range(FIRST_MS));
        BeaconTimer { next: ctx.now + wait, counter: 0, sent: VecDeque::new(), since: ctx.now.0 }
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
        self.sent.push_back(self.counter);
        if self.sent.len() > SENT_MAX {
            self.since = self.sent.pop_front().unwrap_or(self.since);
        }
        self.counter
    }

    /// Whether a beacon of this node's key with such a counter is none that this process sent.
    fn is_foreign(&self, counter: u64) -> bool {
        counter > self.since && self.sent.binary_search(&counter).is_err()
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
            zone: self.name().clone(),
            author: ctx.author,
            counter: self.beacons.count(ctx.now),
            clock: ctx.now,
            interval_ms: interval.as_millis() as u64,
            seq: self.records.seq,
            gateway: ctx.own_gateway(),
            name: ctx.config.name.clone(),
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
        if beacon.network != ctx.config.network || beacon.zone != *self.name() {
            return self.records.reject(ctx, peer, Refusal::ForeignZone);
        }
        if heartbeat.peer() == ctx.key() {
            note_own_beacon(self, ctx, signed);
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
        self.heard.keep(signed, &self.peers);
        self.records.notices.push(Notice::BeaconClock(heartbeat.peer()));
        // Now, not at the next timer: this may be the first to say that more was written than is held.
        self.note_lag(ctx.now);
        Verdict::Accept
    }
}

/// A beacon of this node's key: one of ours, come back over the mesh, or a sign of another process.
pub(super) fn note_own_beacon(zone: &mut Zone, ctx: &mut Context<'_>, signed: &SignedBeacon) {
    let beacon = signed.beacon();
    if beacon.zone == *zone.name()
        && beacon.network == ctx.config.network
        && beacon.author.key == ctx.key()
        && zone.beacons.is_foreign(beacon.counter)
        && signed.is_signed(&mut ctx.cache.keys)
    {
        zone.records.notices.push(Notice::OwnBeacon(beacon.clock));
    }
}

/// The last beacons of connected peers, to be shown to them: one that a peer did not send shows that its key is used elsewhere.
#[derive(Default)]
pub(super) struct LastBeacons(BTreeMap<PeerKey, SignedBeacon>);

impl LastBeacons {
    fn keep(&mut self, signed: &SignedBeacon, connected: &BTreeSet<PeerKey>) {
        let peer = signed.heartbeat().peer();
        if !connected.contains(&peer) {
            return;
        }
        // It stays when the peer leaves: where two processes have one key, each has the other's connections closed.
        if self.0.len() >= HEARD_MAX {
            self.0.retain(|peer, _| connected.contains(peer));
        }
        self.0.insert(peer, signed.clone());
    }

    /// The last of a peer, as it was signed.
    pub(super) fn of(&self, peer: &PeerKey) -> Option<ByteBuf> {
        self.0.get(peer).map(|signed| signed.bytes().clone())
    }
}
