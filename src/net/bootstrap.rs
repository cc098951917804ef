//! The peers from the configuration: dialed at the start, and dialed again for ever whenever they are not connected.
//!
//! A pure table: `now` and the random jitter are arguments, the swarm does the dialing. The wait doubles from
//! [`RETRY_FIRST`] to [`RETRY_LAST`] with each failure and each connection that did not last [`LASTED`], so that a
//! peer that takes us and throws us out is not hammered. Jitter keeps a whole network from redialing a restarted
//! bootstrap peer in the same second.

use std::time::Duration;

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use crate::net::addresses::named_peer;

/// The wait after the first failure.
pub const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest wait: an operator who restarts a bootstrap peer sees its network back within a minute.
pub const RETRY_LAST: Duration = Duration::from_secs(60);
/// A connection that lived this long was a success and resets the wait.
pub const LASTED: Duration = Duration::from_secs(30);

/// One configured address and what is known of the peer behind it.
#[derive(Debug)]
pub struct Anchor {
    /// The address as configured, with or without `/p2p/`.
    pub address: Multiaddr,
    /// The peer behind it: named by the address, or met there.
    pub peer: Option<PeerId>,
    state: State,
    failures: u32,
}

#[derive(Debug)]
enum State {
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
pub struct Anchors(Vec<Anchor>);

impl Anchors {
    /// A table of these addresses, all due at `now`.
    pub fn new(addresses: Vec<Multiaddr>, now: Instant) -> Anchors {
        let anchor = |address: Multiaddr| Anchor {
            peer: named_peer(&address),
            address,
            state: State::Waiting { until: now },
            failures: 0,
        };
        Anchors(addresses.into_iter().map(anchor).collect())
    }

    /// Indices of the addresses to dial at `now`.
    pub fn due(&self, now: Instant) -> Vec<usize> {
        let due = |anchor: &Anchor| matches!(anchor.state, State::Waiting { until } if until <= now);
        (0..self.0.len()).filter(|&index| due(&self.0[index])).collect()
    }

    /// The anchor at an index that [`Anchors::due`] gave.
    pub fn get(&self, index: usize) -> &Anchor {
        &self.0[index]
    }

    /// Notes that the anchor at `index` is being dialed.
    pub fn dialing(&mut self, index: usize, connection: ConnectionId) {
        self.0[index].state = State::Dialing { connection };
    }

    /// Notes a new connection, whoever opened it; true if the peer is one of these.
    pub fn connected(&mut self, connection: ConnectionId, peer: PeerId, now: Instant) -> bool {
        let mut found = false;
        for anchor in &mut self.0 {
            let dialed = matches!(anchor.state, State::Dialing { connection: own } if own == connection);
            if dialed {
                anchor.peer = Some(peer);
            }
            if dialed || anchor.peer == Some(peer) {
                found = true;
                if !matches!(anchor.state, State::Connected { .. }) {
                    anchor.state = State::Connected { since: now };
                }
            }
        }
        found
    }

    /// Notes that a dial failed; the address it was for, and how often in a row, if it was one of these.
    /// `jitter` is in 0.0..1.0.
    pub fn failed(
        &mut self,
        connection: ConnectionId,
        now: Instant,
        jitter: f64,
    ) -> Option<(Multiaddr, u32)> {
        let own = |anchor: &&mut Anchor| matches!(anchor.state, State::Dialing { connection: own } if own == connection);
        let anchor = self.0.iter_mut().find(own)?;
        anchor.wait_longer(now, jitter);
        Some((anchor.address.clone(), anchor.failures))
    }

    /// Notes that a dial turned out to reach ourselves: the address is never dialed again.
    pub fn is_myself(&mut self, connection: ConnectionId) {
        for anchor in &mut self.0 {
            if matches!(anchor.state, State::Dialing { connection: own } if own == connection) {
                anchor.state = State::Myself;
            }
        }
    }

    /// Notes that the last connection to a peer is gone.
    pub fn disconnected(&mut self, peer: PeerId, now: Instant, jitter: f64) {
        for anchor in &mut self.0 {
            let State::Connected { since } = anchor.state else { continue };
            if anchor.peer == Some(peer) {
                if now.saturating_duration_since(since) >= LASTED {
                    anchor.failures = 0;
                }
                anchor.wait_longer(now, jitter);
            }
        }
    }

    /// Forgets all waiting: after a suspension everything is tried at once.
    pub fn hurry(&mut self, now: Instant) {
        for anchor in &mut self.0 {
            if matches!(anchor.state, State::Waiting { .. }) {
                anchor.state = State::Waiting { until: now };
                anchor.failures = 0;
            }
        }
    }

    /// Whether this peer is one of these.
    pub fn contains(&self, peer: &PeerId) -> bool {
        self.0.iter().any(|anchor| anchor.peer.as_ref() == Some(peer))
    }
}

impl Anchor {
    /// Waits between half of and the whole doubled time.
    fn wait_longer(&mut self, now: Instant, jitter: f64) {
        let longest = RETRY_LAST.min(RETRY_FIRST * 2u32.saturating_pow(self.failures.min(16)));
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting { until: now + longest.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchors(now: Instant) -> Anchors {
        Anchors::new(vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()], now)
    }

    fn fail(anchors: &mut Anchors, now: Instant) -> Duration {
        let connection = ConnectionId::new_unchecked(1);
        anchors.dialing(0, connection);
        anchors.failed(connection, now, 1.0).unwrap();
        (0..200).map(Duration::from_secs).find(|wait| !anchors.due(now + *wait).is_empty()).unwrap()
    }

    #[test]
    fn the_wait_doubles_up_to_a_minute_and_never_ends() {
        let now = Instant::now();
        let mut anchors = anchors(now);
        assert_eq!(anchors.due(now), [0]);
        let waits: Vec<u64> = (0..40).map(|_| fail(&mut anchors, now).as_secs()).collect();
        assert_eq!(waits[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(waits[39], 60);
    }

    #[test]
    fn only_a_connection_that_lasted_resets_the_wait() {
        let now = Instant::now();
        let (mut anchors, peer) = (anchors(now), PeerId::random());
        (0..3).for_each(|_| _ = fail(&mut anchors, now));
        let connection = ConnectionId::new_unchecked(2);
        anchors.dialing(0, connection);
        assert!(anchors.connected(connection, peer, now));
        anchors.disconnected(peer, now, 1.0);
        assert!(anchors.due(now + Duration::from_secs(7)).is_empty());

        anchors.dialing(0, connection);
        anchors.connected(connection, peer, now);
        anchors.disconnected(peer, now + LASTED, 1.0);
        assert_eq!(anchors.due(now + LASTED + RETRY_FIRST), [0]);
    }

    #[test]
    fn an_inbound_connection_of_a_known_peer_stops_the_dialing() {
        let now = Instant::now();
        let peer = PeerId::random();
        let mut anchors =
            Anchors::new(vec![format!("/ip4/127.0.0.1/tcp/1/p2p/{peer}").parse().unwrap()], now);
        anchors.dialing(0, ConnectionId::new_unchecked(1));
        assert!(anchors.connected(ConnectionId::new_unchecked(9), peer, now));
        assert_eq!(anchors.failed(ConnectionId::new_unchecked(1), now, 0.0), None);
        assert!(anchors.due(now + RETRY_LAST).is_empty());
    }

    #[test]
    fn after_a_suspension_everything_is_due_at_once() {
        let now = Instant::now();
        let mut anchors = anchors(now);
        (0..9).for_each(|_| _ = fail(&mut anchors, now));
        anchors.hurry(now);
        assert_eq!(anchors.due(now), [0]);
    }
}
