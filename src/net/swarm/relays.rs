//! The relays through which this node is reached while it is not reached directly: at most [`RELAYS_MAX`] of the peers that
//! offer it.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use crate::net::addresses::is_relayed;
use crate::net::peers::Peer;

/// Relays at once: one may go, and each costs a connection and an entry in what peers are told.
pub(super) const RELAYS_MAX: usize = 2;
/// A peer that refused or was lost is asked again after so long, twice as long after each time, at most the latter.
const AGAIN: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
/// Peers that are remembered for that.
const FAILED_MAX: usize = 64;
/// A peer that has not answered within this time has not taken it on.
const PATIENCE: Duration = Duration::from_secs(15);

/// Who relays, and who did not.
#[derive(Debug, Default)]
pub(super) struct Relays {
    used: Vec<Relay>,
    failed: BTreeMap<PeerId, Failed>,
}

/// A peer that was asked to relay.
#[derive(Debug)]
struct Relay {
    listener: ListenerId,
    peer: PeerId,
    asked: Instant,
    accepted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    until: Instant,
    wait: Duration,
}

/// What is wanted of the transport.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// To listen at this address of a relay.
    Listen(PeerId, Multiaddr),
    /// To listen there no more.
    Leave(ListenerId),
}

impl Relays {
    /// Those that have taken it on.
    pub(super) fn accepted(&self) -> impl Iterator<Item = &PeerId> {
        self.used.iter().filter(|relay| relay.accepted).map(|relay| &relay.peer)
    }

    /// Those whose connections are needed for it.
    pub(super) fn all(&self) -> impl Iterator<Item = &PeerId> {
        self.used.iter().map(|relay| &relay.peer)
    }

    /// What is to be done while relays are `needed` or not.
    pub(super) fn review(
        &mut self,
        needed: bool,
        peers: &BTreeMap<PeerId, Peer>,
        now: Instant,
    ) -> Vec<Wanted> {
        let is_late =
            |relay: &Relay| !relay.accepted && now.saturating_duration_since(relay.asked) >= PATIENCE;
        let leaving = self.used.iter().filter(|relay| !needed || is_late(relay));
        let mut wanted: Vec<Wanted> = leaving.map(|relay| Wanted::Leave(relay.listener)).collect();
        if needed {
            self.failed.retain(|_, failed| failed.until + AGAIN.1 > now);
            let missing = RELAYS_MAX.saturating_sub(self.used.len());
            let mut candidates: Vec<(&PeerId, &Peer)> =
                peers.iter().filter(|(id, peer)| peer.offers_relay && self.may_ask(id, now)).collect();
            // Those of the operator first, then those that have been there longest.
            candidates.sort_by_key(|(_, peer)| (!peer.bootstrap, peer.since));
            let asked = candidates.into_iter().filter_map(|(id, peer)| Some((*id, circuit(*id, peer)?)));
            wanted.extend(asked.take(missing).map(|(id, address)| Wanted::Listen(id, address)));
        }
        wanted
    }

    fn may_ask(&self, peer: &PeerId, now: Instant) -> bool {
        !self.used.iter().any(|relay| relay.peer == *peer)
            && self.failed.get(peer).is_none_or(|failed| failed.until <= now)
    }

    /// A peer is asked, and what it offers comes by this listener.
    pub(super) fn asked(&mut self, peer: PeerId, listener: ListenerId, now: Instant) {
        self.used.push(Relay { listener, peer, asked: now, accepted: false });
    }

    /// A peer relays from now on, or goes on to; whether that is new.
    pub(super) fn accept(&mut self, peer: &PeerId) -> bool {
        self.failed.remove(peer);
        let relay = self.used.iter_mut().find(|relay| relay.peer == *peer);
        relay.is_some_and(|relay| !std::mem::replace(&mut relay.accepted, true))
    }

    /// A listener was closed, or could not be opened: its relay, if it was one.
    pub(super) fn closed(&mut self, listener: ListenerId, now: Instant) -> Option<PeerId> {
        let at = self.used.iter().position(|relay| relay.listener == listener)?;
        let peer = self.used.remove(at).peer;
        self.fail(peer, now);
        Some(peer)
    }

    /// A peer could not be asked.
    pub(super) fn fail(&mut self, peer: PeerId, now: Instant) {
        let wait = self.failed.get(&peer).map_or(AGAIN.0, |failed| (failed.wait * 2).min(AGAIN.1));
        if self.failed.len() < FAILED_MAX || self.failed.contains_key(&peer) {
            self.failed.insert(peer, Failed { until: now + wait, wait });
        }
    }
}

/// The address of this node behind a peer that it is connected with directly.
fn circuit(id: PeerId, peer: &Peer) -> Option<Multiaddr> {
    let dialed = peer.seen_at.iter().filter(|_| peer.outbound).chain(&peer.listens_at);
    let direct = dialed.into_iter().find(|address| !is_relayed(address))?;
    let named = direct.clone().with_p2p(id).ok()?;
    Some(named.with(Protocol::P2pCircuit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::identity::PeerKey;

    fn relay(bootstrap: bool, since: Instant) -> Peer {
        let mut peer = Peer::new(PeerKey([1; 32]), true, bootstrap, since);
        peer.offers_relay = true;
        peer.seen_at = vec!["/ip4/192.0.2.1/tcp/1".parse().unwrap()];
        peer
    }

    fn listens(wanted: &[Wanted]) -> Vec<PeerId> {
        let peer = |wanted: &Wanted| match wanted {
            Wanted::Listen(peer, _) => Some(*peer),
            Wanted::Leave(_) => None,
        };
        wanted.iter().filter_map(peer).collect()
    }

    #[test]
    fn two_relays_are_used_the_operators_first_and_a_lost_one_is_replaced() {
        let now = Instant::now();
        let [named, old, young, mute] = [(); 4].map(|()| PeerId::random());
        let mut peers = BTreeMap::from([
            (young, relay(false, now + PATIENCE)),
            (old, relay(false, now)),
            (named, relay(true, now + PATIENCE)),
            (mute, Peer::new(PeerKey([1; 32]), true, true, now)),
        ]);
        let mut relays = Relays::default();
        assert_eq!(relays.review(false, &peers, now), []);
        let wanted = relays.review(true, &peers, now);
        assert_eq!(listens(&wanted), [named, old]);
        let Wanted::Listen(_, address) = &wanted[0] else { panic!("{wanted:?}") };
        assert_eq!(address.to_string(), format!("/ip4/192.0.2.1/tcp/1/p2p/{named}/p2p-circuit"));
        let listeners = [ListenerId::next(), ListenerId::next(), ListenerId::next()];
        relays.asked(named, listeners[0], now);
        relays.asked(old, listeners[1], now);
        assert_eq!(relays.review(true, &peers, now), []);
        assert!(relays.accept(&named) && !relays.accept(&named));
        // The other one says nothing, and its connection is lost.
        let late = now + PATIENCE;
        assert_eq!(relays.review(true, &peers, late), [Wanted::Leave(listeners[1])]);
        assert_eq!(relays.closed(listeners[1], late), Some(old));
        peers.remove(&old);
        assert_eq!(listens(&relays.review(true, &peers, late)), [young]);
        relays.asked(young, listeners[2], late);
        assert_eq!(relays.accepted().collect::<Vec<_>>(), [&named]);
        assert_eq!(relays.review(false, &peers, late).len(), 2, "not needed any more");
    }

    #[test]
    fn who_refused_is_asked_again_later_each_time() {
        let now = Instant::now();
        let peer = PeerId::random();
        let peers = BTreeMap::from([(peer, relay(false, now))]);
        let (mut relays, mut at) = (Relays::default(), now);
        for wait in [10, 20, 40] {
            assert_eq!(listens(&relays.review(true, &peers, at)), [peer]);
            let listener = ListenerId::next();
            relays.asked(peer, listener, at);
            relays.closed(listener, at);
            let almost = at + Duration::from_secs(wait) - Duration::from_millis(1);
            assert_eq!(relays.review(true, &peers, almost), [], "{wait}");
            at += Duration::from_secs(wait);
        }
    }
}
