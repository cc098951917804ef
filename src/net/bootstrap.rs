//! The peers from the configuration: dialed at the start, and dialed again for ever whenever they are not connected.
//!
//! A pure table: `now` and the random jitter are arguments, the swarm does the dialing. The wait doubles from
//! [`RETRY_FIRST`] to [`RETRY_LAST`] with each failure and each connection that did not last [`LASTED`], so that a
//! peer that takes us and throws us out is not hammered; but not beyond `RETRY_THROWN_OUT`, for such a peer is there, and
//! may have reasons that pass. Jitter keeps a whole network from redialing a restarted
//! bootstrap peer in the same second. Why a peer is not there is kept until it is, and news only where it is another kind of
//! reason than before.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use crate::net::addresses::named_peer;
use crate::net::swarm::NetworkAlert;

/// The wait after the first failure.
pub const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest wait: an operator who restarts a bootstrap peer sees its network back within a minute.
pub const RETRY_LAST: Duration = Duration::from_secs(60);
/// The longest wait after a connection that did not last: where two processes have one key, each has its turn of
/// some seconds at a peer.
const RETRY_THROWN_OUT: Duration = Duration::from_secs(8);
/// A connection that lived this long was a success and resets the wait.
pub const LASTED: Duration = Duration::from_secs(30);

/// One configured address and what is known of the peer behind it.
#[derive(Debug)]
pub struct BootstrapPeer {
    /// The address as configured, with or without `/p2p/`.
    pub address: Multiaddr,
    /// The peer behind it: named by the address, or met there.
    pub peer: Option<PeerId>,
    state: DialState,
    failures: u32,
    /// Why it is not there, and since when.
    trouble: Option<(Trouble, Instant)>,
}

/// Why a bootstrap peer is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody answers, for this reason.
    NoAnswer(String),
    /// Another peer than the address names is there.
    OtherPeer(PeerId),
    /// It is of another network: what it speaks, where `/aop/NETWORK/1` was expected.
    OtherNetwork(String),
}

#[derive(Debug)]
enum DialState {
    Waiting {
        until: Instant,
    },
    Dialing {
        connection: ConnectionId,
    },
    Connected {
        since: Instant,
    },
    /// The address is our own.
    Myself,
}

/// All configured peers.
#[derive(Debug)]
pub struct BootstrapDialer(Vec<BootstrapPeer>);

impl BootstrapDialer {
    /// A table of these addresses, all due at `now`.
    pub fn new(addresses: Vec<Multiaddr>, now: Instant) -> BootstrapDialer {
        let peer = |address: Multiaddr| BootstrapPeer {
            peer: named_peer(&address),
            address,
            state: DialState::Waiting { until: now },
            failures: 0,
            trouble: None,
        };
        BootstrapDialer(addresses.into_iter().map(peer).collect())
    }

    /// Indices of the addresses to dial at `now`.
    pub fn due(&self, now: Instant) -> Vec<usize> {
        let due = |bootstrap: &BootstrapPeer| matches!(bootstrap.state, DialState::Waiting { until } if until <= now);
        (0..self.0.len()).filter(|&index| due(&self.0[index])).collect()
    }

    /// The peer at an index that [`BootstrapDialer::due`] gave.
    pub fn get(&self, index: usize) -> &BootstrapPeer {
        &self.0[index]
    }

    /// Notes that the peer at `index` is being dialed.
    pub fn dialing(&mut self, index: usize, connection: ConnectionId) {
        self.0[index].state = DialState::Dialing { connection };
    }

    /// Notes a new connection, whoever opened it; true if the peer is one of these.
    pub fn connected(&mut self, connection: ConnectionId, peer: PeerId, now: Instant) -> bool {
        let mut found = false;
        for bootstrap in &mut self.0 {
            let dialed = bootstrap.is_dialed_by(connection);
            if dialed {
                // An address without `/p2p/` learns here who answers, so that the peer's end is noticed too.
                bootstrap.peer = Some(peer);
            }
            if dialed || bootstrap.peer == Some(peer) {
                found = true;
                // A second connection does not restart the time:
                // what counts is how long the peer has been there.
                if !matches!(bootstrap.state, DialState::Connected { .. }) {
                    bootstrap.state = DialState::Connected { since: now };
                }
            }
        }
        found
    }

    /// Notes that a dial failed, and why, unless another address of the peer was quicker; what is news, if it was one of
    /// these. `jitter` is in 0.0..1.0.
    pub fn failed(
        &mut self,
        connection: ConnectionId,
        trouble: impl FnOnce(&Multiaddr) -> Option<Trouble>,
        now: Instant,
        jitter: f64,
    ) -> Option<NetworkAlert> {
        // Lookups dial these peers too; only a dial of this table counts as a failure of its address.
        let bootstrap = self.0.iter_mut().find(|bootstrap| bootstrap.is_dialed_by(connection))?;
        bootstrap.wait_longer(RETRY_LAST, now, jitter);
        let trouble = trouble(&bootstrap.address)?;
        bootstrap.note(trouble, now)
    }

    /// Notes why a peer that was connected is none of ours; what is news.
    pub fn refused(&mut self, peer: &PeerId, trouble: Trouble, now: Instant) -> Vec<NetworkAlert> {
        let refused = self.0.iter_mut().filter(|bootstrap| bootstrap.peer.as_ref() == Some(peer));
        refused.filter_map(|bootstrap| bootstrap.note(trouble.clone(), now)).collect()
    }

    /// Notes that a peer is there and of this network; the addresses at which it was missed.
    pub fn welcomed(&mut self, peer: &PeerId) -> Vec<Multiaddr> {
        let there = self.0.iter_mut().filter(|bootstrap| bootstrap.peer.as_ref() == Some(peer));
        there.filter_map(|bootstrap| bootstrap.trouble.take().map(|_| bootstrap.address.clone())).collect()
    }

    /// Why peers are not there, and since when.
    pub fn troubles(&self) -> impl Iterator<Item = (NetworkAlert, Instant)> {
        self.0.iter().filter_map(|bootstrap| {
            let (trouble, since) = bootstrap.trouble.as_ref()?;
            Some((bootstrap.alert(trouble.clone()), *since))
        })
    }

    /// How many addresses are `connected`, `waiting` or the node's own.
    pub fn states(&self) -> BTreeMap<&'static str, usize> {
        let mut states = BTreeMap::from([("connected", 0), ("self", 0), ("waiting", 0)]);
        for bootstrap in &self.0 {
            let state = match bootstrap.state {
                DialState::Connected { .. } => "connected",
                DialState::Myself => "self",
                DialState::Waiting { .. } | DialState::Dialing { .. } => "waiting",
            };
            *states.entry(state).or_default() += 1;
        }
        states
    }

    /// The address that is being dialed by this connection, if it is one of these.
    pub fn dialed(&self, connection: ConnectionId) -> Option<&Multiaddr> {
        self.0.iter().find(|bootstrap| bootstrap.is_dialed_by(connection)).map(|bootstrap| &bootstrap.address)
    }

    /// Notes that a dial turned out to reach ourselves: the address is never dialed again.
    pub fn is_myself(&mut self, connection: ConnectionId) {
        for bootstrap in &mut self.0 {
            if bootstrap.is_dialed_by(connection) {
                (bootstrap.state, bootstrap.trouble) = (DialState::Myself, None);
            }
        }
    }

    /// Notes that the last connection to a peer is gone.
    pub fn disconnected(&mut self, peer: PeerId, now: Instant, jitter: f64) {
        for bootstrap in &mut self.0 {
            let DialState::Connected { since } = bootstrap.state else { continue };
            if bootstrap.peer == Some(peer) {
                // A shorter one counts as one more failure, or a peer
                // that throws us out would be dialed every second.
                if now.saturating_duration_since(since) >= LASTED {
                    bootstrap.failures = 0;
                }
                let longest = if bootstrap.is_none_of_ours() { RETRY_LAST } else { RETRY_THROWN_OUT };
                bootstrap.wait_longer(longest, now, jitter);
            }
        }
    }

    /// Forgets all waiting: after a suspension everything is tried at once.
    pub fn retry_now(&mut self, now: Instant) {
        for bootstrap in &mut self.0 {
            // A dial under way goes on, and a connection that died asleep is found by its pings.
            if matches!(bootstrap.state, DialState::Waiting { .. }) {
                bootstrap.state = DialState::Waiting { until: now };
                bootstrap.failures = 0;
            }
        }
    }

    /// Whether this peer is one of these.
    pub fn contains(&self, peer: &PeerId) -> bool {
        self.0.iter().any(|bootstrap| bootstrap.peer.as_ref() == Some(peer))
    }
}

impl BootstrapPeer {
    fn is_dialed_by(&self, connection: ConnectionId) -> bool {
        matches!(self.state, DialState::Dialing { connection: own } if own == connection)
    }

    /// Keeps why it is not there; told if it was there, or if it was another kind of reason.
    fn note(&mut self, trouble: Trouble, now: Instant) -> Option<NetworkAlert> {
        let (before, since) = self.trouble.take().unzip();
        self.trouble = Some((trouble.clone(), since.unwrap_or(now)));
        let kind = std::mem::discriminant::<Trouble>;
        (before.as_ref().map(kind) != Some(kind(&trouble))).then(|| self.alert(trouble))
    }

    fn alert(&self, trouble: Trouble) -> NetworkAlert {
        NetworkAlert::BootstrapUnreachable { address: self.address.clone(), failures: self.failures, trouble }
    }

    /// Whether whoever is there is of another network, or another peer.
    fn is_none_of_ours(&self) -> bool {
        match &self.trouble {
            Some((Trouble::OtherNetwork(_) | Trouble::OtherPeer(_), _)) => true,
            Some((Trouble::NoAnswer(_), _)) | None => false,
        }
    }

    /// Waits between half of and the whole doubled time.
    fn wait_longer(&mut self, longest: Duration, now: Instant, jitter: f64) {
        // Six doublings reach the longest wait; the bound of 16
        // keeps the power small however long a peer is away.
        let longest = longest.min(RETRY_FIRST * 2u32.saturating_pow(self.failures.min(16)));
        self.failures = self.failures.saturating_add(1);
        // The lower half is fixed: a draw near zero would be no wait at all.
        self.state = DialState::Waiting { until: now + longest.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialer(now: Instant) -> BootstrapDialer {
        BootstrapDialer::new(vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()], now)
    }

    fn refused() -> Trouble {
        Trouble::NoAnswer("connection refused".into())
    }

    fn fail(dialer: &mut BootstrapDialer, now: Instant) -> Duration {
        let connection = ConnectionId::new_unchecked(1);
        dialer.dialing(0, connection);
        _ = dialer.failed(connection, |_| Some(refused()), now, 1.0);
        (0..200).map(Duration::from_secs).find(|wait| !dialer.due(now + *wait).is_empty()).unwrap()
    }

    #[test]
    fn the_wait_doubles_up_to_a_minute_and_never_ends() {
        let now = Instant::now();
        let mut dialer = dialer(now);
        assert_eq!(dialer.due(now), [0]);
        let waits: Vec<u64> = (0..40).map(|_| fail(&mut dialer, now).as_secs()).collect();
        assert_eq!(waits[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(waits[39], 60);
    }

    #[test]
    fn only_a_connection_that_lasted_resets_the_wait() {
        let now = Instant::now();
        let (mut dialer, peer) = (dialer(now), PeerId::random());
        for _ in 0..3 {
            fail(&mut dialer, now);
        }
        let connection = ConnectionId::new_unchecked(2);
        dialer.dialing(0, connection);
        assert!(dialer.connected(connection, peer, now));
        dialer.disconnected(peer, now, 1.0);
        assert!(dialer.due(now + Duration::from_secs(7)).is_empty());
        for _ in 0..9 {
            dialer.dialing(0, connection);
            dialer.connected(connection, peer, now);
            dialer.disconnected(peer, now, 1.0);
        }
        assert_eq!(dialer.due(now + RETRY_THROWN_OUT), [0], "it is there, and may let us in later");
        dialer.dialing(0, connection);
        dialer.connected(connection, peer, now);
        _ = dialer.refused(&peer, Trouble::OtherNetwork("/aop/lab/1".into()), now);
        dialer.disconnected(peer, now, 1.0);
        assert!(dialer.due(now + RETRY_THROWN_OUT).is_empty(), "nor will it ever");

        dialer.dialing(0, connection);
        dialer.connected(connection, peer, now);
        dialer.disconnected(peer, now + LASTED, 1.0);
        assert_eq!(dialer.due(now + LASTED + RETRY_FIRST), [0]);
    }

    #[test]
    fn an_inbound_connection_of_a_known_peer_stops_the_dialing() {
        let now = Instant::now();
        let peer = PeerId::random();
        let mut dialer =
            BootstrapDialer::new(vec![format!("/ip4/127.0.0.1/tcp/1/p2p/{peer}").parse().unwrap()], now);
        dialer.dialing(0, ConnectionId::new_unchecked(1));
        assert!(dialer.connected(ConnectionId::new_unchecked(9), peer, now));
        assert_eq!(dialer.failed(ConnectionId::new_unchecked(1), |_| Some(refused()), now, 0.0), None);
        assert!(dialer.due(now + RETRY_LAST).is_empty());
    }

    #[test]
    fn after_a_suspension_everything_is_due_at_once() {
        let now = Instant::now();
        let mut dialer = dialer(now);
        for _ in 0..9 {
            fail(&mut dialer, now);
        }
        dialer.retry_now(now);
        assert_eq!(dialer.due(now), [0]);
    }

    #[test]
    fn why_a_peer_is_not_there_is_told_once_and_stands_until_it_is() {
        let now = Instant::now();
        let (peer, other) = (PeerId::random(), PeerId::random());
        let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/1/p2p/{peer}").parse().unwrap();
        let mut dialer = BootstrapDialer::new(vec![address.clone()], now);
        let mut fail = |trouble: &Trouble, second: u64| {
            let connection = ConnectionId::new_unchecked(second as usize);
            dialer.dialing(0, connection);
            dialer
                .failed(connection, |_| Some(trouble.clone()), now + Duration::from_secs(second), 1.0)
                .is_some()
        };
        let late = Trouble::NoAnswer("timed out".into());
        let news =
            [&refused(), &refused(), &late, &Trouble::OtherPeer(other)].map(|trouble| fail(trouble, 1));
        assert_eq!(news, [true, false, false, true]);
        assert!(fail(&late, 9));
        let told =
            NetworkAlert::BootstrapUnreachable { address: address.clone(), failures: 5, trouble: late };
        assert_eq!(dialer.troubles().collect::<Vec<_>>(), [(told, now + Duration::from_secs(1))]);
        assert_eq!(dialer.refused(&peer, Trouble::OtherNetwork("/aop/lab/1".into()), now).len(), 1);
        assert!(dialer.welcomed(&other).is_empty());
        assert_eq!(dialer.welcomed(&peer), [address]);
        assert_eq!(dialer.troubles().count(), 0);
    }
}
