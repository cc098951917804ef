//! Who speaks for a zone to those above and below it (protocol section 4).

use sha2::{Digest, Sha256};

use super::Zone;
use crate::proto::context::Context;
use crate::proto::identity::PeerKey;
use crate::proto::io::Role;
use crate::proto::liveness::{Presence, Standing};
use crate::proto::message::{Alive, Gateway};
use crate::proto::time::Timestamp;

/// Gateways of a zone: one may die and one may lie.
pub(in crate::proto) const GATEWAYS: usize = 3;

impl Zone {
    /// The first of its live members by rendezvous hashing, those that want to be before them; `own` says whether this node may
    /// be one. In a zone with a key a member counts by what it was granted to write there.
    pub(in crate::proto) fn gateways(&self, ctx: &Context<'_>, own: Gateway) -> Vec<PeerKey> {
        let is_owned = self.id().key.is_some();
        let is_member = |peer: &PeerKey| match is_owned {
            true => self.records.is_host(peer),
            false => self.records.standing(peer, &self.peers) == Standing::Member,
        };
        let others = self.liveness.live_members(ctx.now).filter(|(peer, _)| is_member(peer));
        let itself = (self.role == Role::Member).then_some((ctx.key(), own));
        let mut ranked: Vec<(std::cmp::Reverse<Gateway>, [u8; 32], PeerKey)> = others
            .chain(itself)
            .filter(|(_, gateway)| *gateway != Gateway::Never)
            .map(|(peer, gateway)| (std::cmp::Reverse(gateway), self.rank(&peer), peer))
            .collect();
        ranked.sort_unstable();
        ranked.truncate(GATEWAYS);
        ranked.into_iter().map(|(.., peer)| peer).collect()
    }

    fn rank(&self, peer: &PeerKey) -> [u8; 32] {
        let zone = self.id().to_string();
        let hash = Sha256::new_with_prefix(b"aop-gateway-v1\0").chain_update(zone).chain_update([0]);
        hash.chain_update(peer.0).finalize().into()
    }

    /// Hosts that a peer sees alive.
    pub(super) fn note_alive(&mut self, alive: &[Alive], now: Timestamp) {
        for Alive(host, seconds) in alive {
            let heard = now - std::time::Duration::from_secs(u64::from(*seconds));
            let known = self.told_alive.entry(*host).or_insert(heard);
            *known = heard.max(*known);
        }
        self.told_alive.retain(|_, heard| now.since(*heard) <= TOLD_ALIVE_KEPT);
    }

    /// Whether a host answers, and when it was heard last, by its beacons or, in a replica below, by the word of a gateway.
    pub(in crate::proto) fn presence(&self, host: &PeerKey, now: Timestamp) -> (Presence, Option<Timestamp>) {
        match self.told_alive.get(host).filter(|_| self.role == Role::Below) {
            Some(heard) => (Presence::Reachable, Some(*heard)),
            None => (self.liveness.presence(host, now), self.liveness.heard_at(host)),
        }
    }
}

/// How long the word of a gateway on a host counts: as long as its beacons may be missing, and a round of comparisons.
const TOLD_ALIVE_KEPT: std::time::Duration = std::time::Duration::from_secs(300);
