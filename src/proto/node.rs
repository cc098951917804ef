//! The node as a value: every decision of the protocol, and the only place where its machines meet.
//!
//! An interpreter (live or simulated) calls [`Node::handle`] with the time and something that happened, then drains
//! [`Node::poll_output`] and performs the outputs **in order** ([`super::io`] says why). [`Node::poll_timeout`] is the one
//! deadline of the whole node.
//!
//! The node routes: each zone is a machine of its own; beside them stand its own records, what it knows of clocks, and the
//! directory that answers questions. A `Turn` lends them to one input, and answers what a zone leaves as a notice before
//! anything else is heard.

mod ask;
mod cover;
mod memory;
mod names;
mod proofs;
mod reads;
mod tree;
mod turn;
mod unite;

pub use self::memory::Memory;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_bytes::ByteBuf;

use self::ask::Questions;
use self::turn::Turn;
use super::clock::Clock;
use super::config::Config;
use super::context::{Context, Outbox};
use super::directory::Directory;
use super::forks::Forks;
use super::identity::Identity;
use super::io::{Input, Output, Protocol, Received, Role};
use super::links::Links;
use super::name::ZoneName;
use super::overlay::Overlay;
use super::own_records::OwnRecords;
use super::owners::Owners;
use super::persistence::Stored;
use super::resolver::Resolver;
use super::time::Timestamp;
use super::verification_cache::VerificationCache;
use super::zone::{Leaving, Zone, Zones};

/// One registry node.
pub struct Node {
    local: Local,
    zones: Zones,
    links: Links,
    own: OwnRecords,
    owners: Owners,
    forks: Forks,
    clock: Clock,
    directory: Directory,
    overlay: Overlay,
    resolver: Resolver,
    out: Outbox,
}

/// What every machine of this node may use.
struct Local {
    identity: Identity,
    config: Config,
    rng: ChaCha8Rng,
    cache: VerificationCache,
    /// Where this node can be dialed.
    addresses: Vec<ByteBuf>,
}

impl Node {
    /// A node with what its store held. `seed` feeds its random choices; the same inputs then give the same outputs.
    pub fn new(
        identity: Identity,
        config: Config,
        seed: [u8; 32],
        mut stored: Stored,
        now: Timestamp,
    ) -> Node {
        let key = identity.key();
        let rng = ChaCha8Rng::from_seed(seed);
        let follows = config.follows.iter().map(|zone| (zone.clone(), Role::Follower));
        let members = config.zones.iter().map(|zone| (zone.clone(), Role::Member));
        // A zone that is named in both ways is served.
        let roles: Vec<(ZoneName, Role)> = follows.chain(members).collect();
        let mut node = Node {
            local: Local {
                identity,
                config,
                rng,
                cache: VerificationCache::default(),
                addresses: Vec::new(),
            },
            zones: Zones::default(),
            links: Links::new(now),
            own: OwnRecords::new(key, now),
            owners: Owners::default(),
            forks: Forks::default(),
            clock: Clock::new(now),
            directory: Directory::new(key),
            overlay: Overlay::new(std::mem::take(&mut stored.contacts), now),
            resolver: Resolver::default(),
            out: Outbox::default(),
        };
        let mut turn = node.turn(now);
        for (name, role) in roles {
            let zone = Zone::new(turn.ctx.config.zone_id(&name), role, &mut turn.ctx);
            turn.zones.insert(zone);
        }
        turn.owners.load(std::mem::take(&mut stored.owners));
        // After all zones are there: own keys of one zone are guarded while records of another are still read otherwise.
        let indexed = std::mem::take(&mut stored.indexed);
        turn.own.load(&mut turn.ctx, turn.zones, stored);
        turn.directory.begin_with(turn.zones, indexed);
        turn.finish();
        node
    }

    /// Changes caches with whoever runs many nodes: lent before a call, taken back after it.
    pub fn lend(&mut self, cache: &mut VerificationCache) {
        std::mem::swap(&mut self.local.cache, cache);
    }

    /// Takes something that happened.
    pub fn handle(&mut self, now: Timestamp, received: impl Into<Received>) {
        let Received { input, records } = received.into();
        if !matches!(input, Input::StoreFailed { .. }) {
            self.note_performed();
        }
        if let Input::Addresses(addresses) = &input {
            self.local.addresses.clone_from(addresses);
        }
        self.local.cache.ahead = records.into();
        let mut turn = self.turn(now);
        turn.observe_clock();
        match input {
            Input::Command { id, command } => turn.handle_command(id, command),
            Input::Connected { peer, dialed } => {
                turn.links.connected(peer, dialed, now);
                turn.overlay.handle_peer_connected(now, turn.ctx.config);
            }
            Input::PeerJoined { peer, zone, dialed } => turn.handle_peer_joined(peer, &zone, dialed),
            Input::PeerLeft { peer, zone: Some(zone) } => {
                turn.with_zone(&zone, |zone, ctx| zone.handle_peer_left(ctx, &peer, Leaving::Told));
            }
            Input::PeerLeft { peer, zone: None } => {
                turn.links.disconnected(&peer, now);
                turn.overlay.handle_peer_lost(&peer, now);
                turn.with_zones(|zone, ctx| zone.handle_peer_left(ctx, &peer, Leaving::Lost));
            }
            Input::Gossip { id, peer, zone, bytes } => turn.handle_gossip(id, peer, &zone, &bytes),
            Input::Request { id, peer, protocol: Protocol::Sync, bytes } => {
                turn.handle_sync_request(id, peer, &bytes);
            }
            Input::Request { id, peer, protocol: Protocol::Ask, bytes } => {
                Questions(&mut turn).handle_question(id, peer, &bytes)
            }
            Input::Response { conversation, bytes } => turn.handle_response(conversation, &bytes),
            Input::RequestFailed { conversation } => turn.handle_request_failed(conversation),
            Input::ZonePeers { zone, peers } => {
                turn.with_zone(&zone, |zone, ctx| zone.handle_found(ctx, &peers));
            }
            // Known by now, as all that this node is told of itself.
            Input::Addresses(_) => {}
            Input::PeerAddresses { peer, addresses } => turn.links.set_addresses(&peer, addresses),
            Input::Resumed => turn.with_zones(Zone::handle_resumed),
            Input::StoreFailed { reason, writes } => turn.handle_store_failed(reason, writes),
            Input::Store { condition, forgotten } => turn.handle_store(condition, forgotten),
        }
        turn.finish();
        self.local.cache.ahead.clear();
    }

    /// Lets time pass. May be called at any time; needed when [`Node::poll_timeout`] is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.note_performed();
        let mut turn = self.turn(now);
        turn.observe_clock();
        turn.ctx.out.catch_up(now);
        turn.with_zones(|zone, ctx| zone.records.expire(ctx));
        turn.handle_below_due(|zone, ctx| zone.records.expire(ctx));
        // Before beacons are due: they tell of renewals.
        turn.own.renew(&mut turn.ctx, turn.zones);
        turn.own.replicas.count(&mut turn.ctx, turn.zones, turn.directory);
        turn.with_zones(Zone::handle_timeout);
        turn.handle_below_due(Zone::handle_timeout);
        turn.overlay.handle_timeout(&mut turn.ctx, turn.zones, turn.links);
        Questions(&mut turn).answer_overdue();
        turn.finish();
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop()
    }

    /// When [`Node::handle_timeout`] wants to be called, on the clock that `now` is read from.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let zones = self.zones.values().filter_map(|zone| zone.poll_timeout(&self.local.config));
        let below = self.zones.below().poll_timeout();
        let overlay = self.overlay.poll_timeout(&self.local.addresses);
        let own = self.own.poll_timeout(&self.local.config, &self.zones, self.clock.settles());
        let questions = self.resolver.poll_timeout();
        zones.chain(below).chain(own).chain(overlay).chain(questions).chain(self.out.poll_timeout()).min()
    }

    /// Whoever has taken all outputs has performed them before anything else is heard.
    fn note_performed(&mut self) {
        if self.out.is_empty() {
            self.own.note_kept();
        }
    }

    /// Lends each machine what it needs, without the others.
    fn turn(&mut self, now: Timestamp) -> Turn<'_> {
        let Local { identity, config, rng, cache, addresses } = &mut self.local;
        let (unsafe_offset, clock_settles) = (self.clock.unsafe_offset(), self.clock.settles());
        self.out.now = now;
        let (author, out) = (self.own.author(), &mut self.out);
        Turn {
            ctx: Context {
                now,
                identity,
                addresses,
                author,
                config,
                rng,
                cache,
                unsafe_offset,
                clock_settles,
                out,
            },
            zones: &mut self.zones,
            links: &mut self.links,
            own: &mut self.own,
            owners: &mut self.owners,
            forks: &mut self.forks,
            clock: &mut self.clock,
            directory: &mut self.directory,
            overlay: &mut self.overlay,
            resolver: &mut self.resolver,
        }
    }
}
