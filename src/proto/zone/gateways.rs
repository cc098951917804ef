//! Who speaks for a zone to those above and below it, and which of its hosts answer (protocol section 4).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::Zone;
use crate::proto::context::Context;
use crate::proto::identity::PeerKey;
use crate::proto::io::Role;
use crate::proto::liveness::{Presence, Standing};
use crate::proto::message::{ALIVE_MAX, Alive, Gateway};
use crate::proto::name::ZoneId;
use crate::proto::time::Timestamp;

/// Gateways of a zone: one may die and one may lie.
const GATEWAYS: usize = 3;
/// How long the word of a gateway on a host counts: as long as its beacons may be missing, and a round of comparisons.
const TOLD_ALIVE_KEPT: Duration = Duration::from_secs(300);

/// The first of the live members of a zone by rendezvous hashing, those that want to be before them; `own` says whether this
/// node may be one. In a zone with a key a member counts by what it was granted to write there.
pub(in crate::proto) fn gateways(zone: &Zone, ctx: &Context<'_>, own: Gateway) -> Vec<PeerKey> {
    let is_owned = zone.id().key.is_some();
    let is_member = |peer: &PeerKey| match is_owned {
        true => zone.records.is_host(peer),
        false => zone.records.standing(peer, &zone.peers) == Standing::Member,
    };
    let others = zone.liveness.live_members(ctx.now).filter(|(peer, _)| is_member(peer));
    let itself = (zone.role == Role::Member).then_some((ctx.key(), own));
    let mut ranked: Vec<(Reverse<Gateway>, [u8; 32], PeerKey)> = others
        .chain(itself)
        .filter(|(_, gateway)| *gateway != Gateway::Never)
        .map(|(peer, gateway)| (Reverse(gateway), rank(zone.id(), &peer), peer))
        .collect();
    ranked.sort_unstable();
    ranked.truncate(GATEWAYS);
    ranked.into_iter().map(|(.., peer)| peer).collect()
}

fn rank(zone: &ZoneId, peer: &PeerKey) -> [u8; 32] {
    let hash = Sha256::new_with_prefix(b"aop-gateway-v1\0").chain_update(zone.to_string()).chain_update([0]);
    hash.chain_update(peer.0).finalize().into()
}

/// Hosts of agents that are alive, those heard last first, as one answer names them.
pub(super) fn alive(zone: &Zone, now: Timestamp) -> Vec<Alive> {
    let is_alive = |host: &PeerKey| zone.liveness.presence(host, now) == Presence::Reachable;
    let hosts = zone.records.host_keys().into_iter().filter(is_alive);
    let heard = hosts.filter_map(|host| {
        let seconds = now.since(zone.liveness.heard_at(&host)?).as_secs();
        Some(Alive(host, u16::try_from(seconds).ok()?))
    });
    let mut alive: Vec<Alive> = heard.collect();
    alive.sort_by_key(|alive| alive.1);
    alive.truncate(ALIVE_MAX);
    alive
}

/// Whether a host answers, and when it was heard last: by its beacons or, in a replica below, by the word of a gateway.
pub(in crate::proto) fn presence(
    zone: &Zone,
    host: &PeerKey,
    now: Timestamp,
) -> (Presence, Option<Timestamp>) {
    match zone.told_alive.0.get(host).filter(|_| zone.role == Role::Below) {
        Some(heard) => (Presence::Reachable, Some(*heard)),
        None => (zone.liveness.presence(host, now), zone.liveness.heard_at(host)),
    }
}

/// Hosts that a peer saw alive, and when they were heard last: a replica below hears no beacons.
#[derive(Default)]
pub(super) struct ToldAlive(BTreeMap<PeerKey, Timestamp>);

impl ToldAlive {
    pub(super) fn note(&mut self, alive: &[Alive], now: Timestamp) {
        for Alive(host, seconds) in alive {
            let heard = now - Duration::from_secs(u64::from(*seconds));
            let known = self.0.entry(*host).or_insert(heard);
            *known = heard.max(*known);
        }
        self.0.retain(|_, heard| now.since(*heard) <= TOLD_ALIVE_KEPT);
    }
}
