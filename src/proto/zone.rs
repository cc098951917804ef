//! One replicated zone: a machine of its own (protocol section 3).
//!
//! A zone holds its `records` and knows who serves it: it takes gossip (`ingest`), tells and hears beacons (`beacon`) and
//! makes itself equal to others (`conversation`, at the times that `schedule` says). Like the node it has `handle_*`,
//! `Zone::handle_timeout` and `Zone::poll_timeout`; what it wants done goes to the outbox of its `Context`.
//!
//! What it cannot decide by itself it leaves as `Notice`s, which the node takes after every call: a zone never touches
//! another zone, nor what the node knows beside it (own records, clock, search).

mod beacon;
mod completeness;
mod conversation;
mod delegations;
mod gateways;
mod ingest;
mod records;
mod replicas;
mod schedule;
mod zones;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use self::beacon::{BeaconTimer, LastBeacons};
use self::completeness::Company;
pub(super) use self::completeness::Leaving;
pub(super) use self::completeness::{may_speak, note_others, note_unknown_above};
use self::conversation::Conversation;
pub(super) use self::delegations::Delegations;
use self::gateways::ToldAlive;
pub(super) use self::gateways::{gateways, presence};
use self::records::ZoneRecords;
pub(super) use self::replicas::Replicas;
pub(super) use self::schedule::Ended;
use self::schedule::Schedule;
pub(super) use self::zones::Zones;
use super::config::Config;
use super::context::Context;
use super::fingerprint::{Digest, Prefix};
use super::identity::PeerKey;
use super::io::{Dialed, Output, Role};
use super::links::Links;
use super::liveness::{Lag, Liveness, Standing};
use super::name::{ZoneId, ZoneName};
use super::persistence;
use super::record::{Author, KeyHash, Record};
use super::registry::Registry;
use super::time::Timestamp;

/// The wait after a search for peers that found nobody. A zone may be joined before anybody else serves it.
const FIND_AGAIN: Duration = Duration::from_secs(30);

/// Something that a zone noticed and the node must answer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// What stands under an own key is not what it was: another record, or none.
    OwnKey(KeyHash),
    /// A record was dropped for good.
    Dropped(KeyHash),
    /// A record of this author's present epoch came from outside, or a peer knows of one: its version.
    OwnHead(Author, u64),
    /// A bootstrap peer's word on that version, which counts once.
    ClaimedHead(Author, u64),
    /// A record that was written under this node's key came from outside.
    OwnWrite(Arc<Record>),
    /// A beacon that this node's key signed at that time by its clock, and this process did not.
    OwnBeacon(Timestamp),
    /// An author signed two records with one version.
    Forked(Author),
    /// A peer told its clock.
    Clock(PeerKey, Timestamp),
    /// A peer told its clock by a beacon that is remembered.
    BeaconClock(PeerKey),
    /// A sync ended.
    SyncEnded,
}

/// One replicated zone.
pub struct Zone {
    pub(super) records: ZoneRecords,
    role: Role,
    liveness: Liveness,
    /// Connected peers that serve the zone.
    peers: BTreeSet<PeerKey>,
    company: Company,
    /// When peers are searched for again.
    find_at: Option<Timestamp>,
    beacons: BeaconTimer,
    /// The last beacon of each connected peer, and of some that were.
    heard: LastBeacons,
    schedule: Schedule,
    conversation: Option<Box<Conversation>>,
    /// How the last conversation of a replica below went.
    pub(super) outcome: Option<Outcome>,
    /// Hosts that a peer saw alive, and since when they were not heard: a replica below hears no beacons.
    told_alive: ToldAlive,
}

/// How a comparison of a replica below went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) peer: PeerKey,
    pub(super) ended: Ended,
    /// Whether the peer may speak for the zone.
    pub(super) is_whole: bool,
}

/// State of one replicated zone.
#[derive(Clone, Debug)]
pub struct ZoneState {
    /// The zone.
    pub zone: ZoneName,
    /// Its key, if it has one.
    pub key: Option<PeerKey>,
    /// How this node takes part.
    pub role: Role,
    /// Records held, tombstones included.
    pub records: usize,
    /// Agents held.
    pub agents: usize,
    /// Bytes of the records.
    pub bytes: usize,
    /// Connected peers that serve the zone.
    pub peers: Vec<PeerKey>,
    /// Live members, this node included if it is one.
    pub members: usize,
    /// Members that were heard, said no goodbye and answer no more.
    pub unreachable: usize,
    /// Since when a member is known to have written more than is held.
    pub lagging_since: Option<Timestamp>,
    /// The end of the last finished sync.
    pub synced_at: Option<Timestamp>,
    /// Authors whose versions are known, the own included.
    pub authors: usize,
}

impl Zone {
    pub(super) fn new(id: ZoneId, role: Role, ctx: &mut Context<'_>) -> Zone {
        Zone {
            records: ZoneRecords::new(id, ctx.config.zone_weight_max, role),
            role,
            liveness: Liveness::default(),
            peers: BTreeSet::new(),
            company: Company::new(ctx.now),
            find_at: None,
            beacons: BeaconTimer::new(ctx),
            heard: LastBeacons::default(),
            schedule: Schedule::new(ctx),
            conversation: None,
            outcome: None,
            told_alive: ToldAlive::default(),
        }
    }

    /// A connected peer serves the zone.
    pub(super) fn handle_peer_joined(
        &mut self,
        ctx: &mut Context<'_>,
        links: &Links,
        peer: PeerKey,
        dialed: Dialed,
    ) {
        // Told again by a second connection: the first has started what there is to start.
        if !self.peers.insert(peer) {
            return;
        }
        self.company.meet(links, ctx.config, ctx.now);
        self.schedule.peer_joined(peer, dialed);
        // Alone until now: whoever comes wants to hear of us, and may know what we missed.
        if self.peers.len() == 1 {
            self.beacons.hurry(ctx.now);
            self.schedule.first_peer(ctx);
        }
        self.sync_next(ctx);
    }

    /// A peer no longer serves the zone, or its last connection closed.
    pub(super) fn handle_peer_left(&mut self, ctx: &Context<'_>, peer: &PeerKey, leaving: Leaving) {
        if self.peers.remove(peer) {
            self.schedule.peer_left(peer);
            let said_goodbye = self.liveness.has_said_goodbye(peer);
            self.company.part(peer, if said_goodbye { Leaving::Told } else { leaving });
            if self.peers.is_empty() {
                self.company.left_alone(self.schedule.lag() == Lag::None, ctx.now);
            }
            self.liveness.lose(peer);
        }
    }

    /// A search for peers that serve the zone ended. The network connects to those it found; if it found nobody it is asked
    /// again.
    pub(super) fn handle_found(&mut self, ctx: &mut Context<'_>, peers: &[PeerKey]) {
        if peers.is_empty() && self.peers.is_empty() {
            self.find_at = Some(ctx.now + ctx.jitter(FIND_AGAIN));
        }
    }

    /// This node leaves the zone: it says goodbye, and what it held of others is forgotten.
    pub(super) fn close(&mut self, ctx: &mut Context<'_>) {
        self.say_goodbye(ctx);
        self.abandon(ctx);
        let key = ctx.key();
        for record in self.records.registry.iter().filter(|record| record.author().key != key) {
            ctx.out.write(persistence::remove_other(record.key()));
        }
    }

    /// Lets time pass, but for leases ([`ZoneRecords::expire`] comes before own leases are renewed, this after it, so that a
    /// beacon tells of the renewals).
    pub(super) fn handle_timeout(&mut self, ctx: &mut Context<'_>) {
        self.handle_conversation_due(ctx);
        self.beacon_if_due(ctx);
        self.sync_if_due(ctx);
        find_if_due(self, ctx);
    }

    /// When [`ZoneRecords::expire`] or [`Zone::handle_timeout`] has something to do.
    pub(super) fn poll_timeout(&self, config: &Config) -> Option<Timestamp> {
        // While a conversation runs its own timer is the only one of sync: another is started when it has ended.
        let sync = match &self.conversation {
            Some(conversation) => Some(conversation.due(config)),
            // Without a peer a due sync would fire at once for ever.
            None if self.peers.is_empty() => None,
            None => self.schedule.due(config),
        };
        let beacon = (self.role == Role::Member).then(|| self.beacons.due());
        sync.into_iter().chain(beacon).chain(self.find_at).chain(self.records.registry.next_expiry()).min()
    }

    /// The local clock went back by `step`: timers must not stay in a far future.
    pub(super) fn shift(&mut self, step: Duration) {
        self.schedule.shift(step);
        self.beacons.shift(step);
        self.find_at = self.find_at.map(|at| at - step);
        self.liveness.shift(step);
        self.company.shift(step);
        if let Some(conversation) = &mut self.conversation {
            conversation.shift(step);
        }
    }
}

fn find_if_due(zone: &mut Zone, ctx: &mut Context<'_>) {
    if zone.find_at.take_if(|at| *at <= ctx.now).is_some() && zone.peers.is_empty() {
        ctx.out.push(Output::FindPeers(zone.name().clone()));
    }
}

/// What others may look at.
impl Zone {
    /// Its name.
    pub fn name(&self) -> &ZoneName {
        &self.records.id.zone
    }

    /// Which registry of its name it is.
    pub fn id(&self) -> &ZoneId {
        &self.records.id
    }

    /// How this node takes part.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its records.
    pub fn registry(&self) -> &Registry {
        &self.records.registry
    }

    /// Who is there.
    pub fn liveness(&self) -> &Liveness {
        &self.liveness
    }

    /// Connected peers that serve it.
    pub fn peers(&self) -> &BTreeSet<PeerKey> {
        &self.peers
    }

    /// The end of the last sync that finished.
    pub(super) fn synced_at(&self) -> Option<Timestamp> {
        self.schedule.synced_at()
    }

    /// The end of the first sync of this run that finished.
    pub(super) fn first_synced_at(&self) -> Option<Timestamp> {
        self.schedule.first_synced_at()
    }

    /// Members that are there, this node included if it is one.
    pub(super) fn members(&self, now: Timestamp) -> usize {
        let is_member = |peer: &PeerKey| self.records.standing(peer, &self.peers) == Standing::Member;
        self.liveness.live(is_member, now) + usize::from(self.role == Role::Member)
    }

    /// Fingerprint of the whole zone, if that takes no more than to hash about `work` records; what was hashed is kept.
    pub(super) fn fingerprint_within(&mut self, as_of: Timestamp, work: &mut usize) -> Option<Digest> {
        self.records.registry.digest_within(Prefix::ROOT, as_of, work)
    }

    /// Its state; `own` is this node as an author. Costs little, for clients ask often: what costs more they ask by itself.
    pub(super) fn state(&self, own: Author, now: Timestamp) -> ZoneState {
        let vector = self.records.registry.vector();
        let own_is_apart = self.records.seq > 0 && vector.signed_max(&own) == 0;
        ZoneState {
            zone: self.name().clone(),
            key: self.records.id.key,
            role: self.role,
            records: self.records.registry.len(),
            agents: self.records.agents.len(),
            bytes: self.records.registry.bytes(),
            peers: self.peers.iter().copied().collect(),
            members: self.members(now),
            unreachable: self.liveness.unreachable(now),
            lagging_since: self.schedule.lagging_since().filter(|_| self.schedule.lag() == Lag::Known),
            synced_at: self.schedule.synced_at(),
            authors: vector.len() + usize::from(own_is_apart),
        }
    }
}
