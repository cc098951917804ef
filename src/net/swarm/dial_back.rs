//! Trying for others whether they are reached from everywhere (AutoNAT v2), where the operator wants it.
//!
//! The library dials whatever it is asked to. Here an asker gets dialed at its own address and nowhere else, at an address of
//! the world, and rarely: so nobody scans a network through this node, nor has it knock at somebody else's door.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::autonat::v2::server::{self, Behaviour};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use crate::net::addresses::{Reach, ip_of, is_relayed, reach_of_named};
use crate::net::budget::{Allowance, Bucket};
use crate::net::refusals::{Reason, Refusals};
use crate::proto::address_block::AddressBlock;

/// Dials for all askers.
const DIALS: Allowance<1> = Allowance { per_second: [0.5], burst: [8.0] };
/// Dials at once.
const AT_ONCE: usize = 8;
/// The least time between two dials for one block of addresses.
const BLOCK_EVERY: Duration = Duration::from_secs(10);
/// Blocks that are remembered for that; while there are so many no further one is dialed for.
const BLOCKS_MAX: usize = 256;

/// Dials askers back.
pub(super) struct DialBack {
    server: Behaviour,
    judge: Judge,
    refusals: Refusals,
}

#[derive(Debug)]
struct Judge {
    /// From where peers are connected directly.
    connected: BTreeMap<PeerId, BTreeMap<ConnectionId, IpAddr>>,
    /// Dials of the library that were not judged yet, and those that are under way.
    wanted: BTreeSet<ConnectionId>,
    under_way: BTreeSet<ConnectionId>,
    dials: Bucket<1>,
    blocks: BTreeMap<AddressBlock, Instant>,
}

impl DialBack {
    pub(super) fn new(refusals: Refusals) -> DialBack {
        DialBack { server: Behaviour::default(), judge: Judge::new(Instant::now()), refusals }
    }
}

impl Judge {
    fn new(now: Instant) -> Judge {
        Judge {
            connected: BTreeMap::new(),
            wanted: BTreeSet::new(),
            under_way: BTreeSet::new(),
            dials: Bucket::new(DIALS, now),
            blocks: BTreeMap::new(),
        }
    }

    /// Whether an asker is dialed at these addresses.
    fn judge(&mut self, peer: PeerId, addresses: &[Multiaddr], now: Instant) -> Result<(), Reason> {
        let own: BTreeSet<IpAddr> =
            self.connected.get(&peer).into_iter().flat_map(|all| all.values().copied()).collect();
        let is_own = |address: &Multiaddr| {
            reach_of_named(address) == Reach::World
                && !is_relayed(address)
                && ip_of(address).is_some_and(|ip| own.contains(&ip))
        };
        let Some(ip) = addresses.first().and_then(ip_of).filter(|_| addresses.iter().all(is_own)) else {
            return Err(Reason::DialReach);
        };
        self.blocks.retain(|_, at| now.saturating_duration_since(*at) < BLOCK_EVERY);
        let block = AddressBlock::of(ip);
        let is_free = !self.blocks.contains_key(&block) && self.blocks.len() < BLOCKS_MAX;
        if !is_free || self.under_way.len() >= AT_ONCE || !self.dials.wait(now).is_zero() {
            return Err(Reason::DialBudget);
        }
        self.dials.charge([1.0]);
        self.blocks.insert(block, now);
        Ok(())
    }
}

impl NetworkBehaviour for DialBack {
    type ConnectionHandler = THandler<Behaviour>;
    type ToSwarm = server::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.server.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if let Some(peer) = peer.filter(|_| self.judge.wanted.remove(&connection)) {
            self.judge.judge(peer, addresses, Instant::now()).map_err(|reason| {
                self.refusals.count(reason);
                ConnectionDenied::new(io::Error::other(reason.text()))
            })?;
            self.judge.under_way.insert(connection);
        }
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.server.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::ConnectionEstablished(opened) if !opened.endpoint.is_relayed() => {
                self.judge.under_way.remove(&opened.connection_id);
                if let Some(ip) = ip_of(opened.endpoint.get_remote_address()) {
                    self.judge.connected.entry(opened.peer_id).or_default().insert(opened.connection_id, ip);
                }
            }
            FromSwarm::ConnectionClosed(closed) => {
                if let Some(connected) = self.judge.connected.get_mut(&closed.peer_id) {
                    connected.remove(&closed.connection_id);
                    if connected.is_empty() {
                        self.judge.connected.remove(&closed.peer_id);
                    }
                }
            }
            FromSwarm::DialFailure(failed) => {
                self.judge.wanted.remove(&failed.connection_id);
                self.judge.under_way.remove(&failed.connection_id);
            }
            _ => {}
        }
        self.server.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.server.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        let event = self.server.poll(cx);
        if let Poll::Ready(ToSwarm::Dial { opts }) = &event {
            self.judge.wanted.insert(opts.connection_id());
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge_with(peer: PeerId, ip: &str, now: Instant) -> Judge {
        let mut judge = Judge::new(now);
        judge.connected.insert(peer, BTreeMap::from([(ConnectionId::new_unchecked(1), ip.parse().unwrap())]));
        judge
    }

    fn addresses(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn an_asker_is_dialed_at_its_own_address_of_the_world_and_nowhere_else() {
        let (now, peer) = (Instant::now(), PeerId::random());
        let judged = |from: &str, asked: &[&str]| {
            let mut judge = judge_with(peer, from, now);
            judge.judge(peer, &addresses(asked), now)
        };
        assert_eq!(judged("203.0.113.2", &["/ip4/203.0.113.2/tcp/7401"]), Ok(()));
        for (from, asked) in [
            ("203.0.113.2", &["/ip4/198.51.100.1/tcp/7401"][..]),
            ("203.0.113.2", &["/ip4/203.0.113.2/tcp/1", "/ip4/198.51.100.1/tcp/1"]),
            ("203.0.113.2", &["/dns4/victim.example/tcp/1"]),
            ("203.0.113.2", &[]),
            ("10.0.0.2", &["/ip4/10.0.0.2/tcp/22"]),
            ("127.0.0.1", &["/ip4/127.0.0.1/tcp/7400"]),
        ] {
            assert_eq!(judged(from, asked), Err(Reason::DialReach), "{asked:?} from {from}");
        }
        let stranger = judge_with(peer, "203.0.113.2", now).judge(
            PeerId::random(),
            &addresses(&["/ip4/203.0.113.2/tcp/1"]),
            now,
        );
        assert_eq!(stranger, Err(Reason::DialReach), "who is not connected has no address");
    }

    #[test]
    fn a_thousand_askings_cost_few_dials_and_keep_nobody_elses_away() {
        let now = Instant::now();
        let mut judge = Judge::new(now);
        let mut ask = |block: u8, at: Instant| {
            let (peer, ip) = (PeerId::random(), format!("203.0.{block}.2"));
            judge
                .connected
                .insert(peer, BTreeMap::from([(ConnectionId::new_unchecked(1), ip.parse().unwrap())]));
            judge.judge(peer, &addresses(&[&format!("/ip4/{ip}/tcp/1")]), at).is_ok()
        };
        assert_eq!((0..1_000).filter(|_| ask(1, now)).count(), 1);
        assert!(ask(2, now));
        assert_eq!((0..1_000).filter(|nth| ask(3 + (nth % 200) as u8, now)).count(), 6, "eight in all");
        let later = now + Duration::from_secs(60);
        assert!(ask(1, later) && !ask(1, later));
    }
}
