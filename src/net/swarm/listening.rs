//! Where the node listens and is reached: its sockets, their addresses as interfaces come and go, and what it announces.

use std::collections::BTreeSet;
use std::time::Duration;

use libp2p::core::transport::ListenerId;
use libp2p::{Multiaddr, Swarm};
use tokio::sync::watch;
use tokio::time::Instant;

use super::behaviour::Behaviour;
use super::options::listen;
use super::{NetworkAlert, NetworkError};
use crate::net::addresses::{by_reach, ip_of, is_relayed};

/// A socket on all interfaces tells one address after the other; when none came for so long it has told all.
const QUIET: Duration = Duration::from_millis(50);

/// The sockets of a node.
pub(super) struct Listening {
    /// Those that have told no address yet.
    unbound: Vec<ListenerId>,
    /// Whether some socket has an address for each interface.
    has_many: bool,
    /// When the last address was told.
    told_at: Instant,
    announced: Vec<Multiaddr>,
    /// Sockets that were lost, and when.
    pub(super) lost: Vec<(NetworkAlert, Instant)>,
    pub(super) told: watch::Sender<Vec<Multiaddr>>,
}

impl Listening {
    /// Opens sockets. What is announced, peers are told from the beginning.
    pub(super) fn open(
        swarm: &mut Swarm<Behaviour>,
        addresses: Vec<Multiaddr>,
        announced: Vec<Multiaddr>,
    ) -> Result<Listening, NetworkError> {
        let has_many = addresses.iter().filter_map(ip_of).any(|ip| ip.is_unspecified());
        let unbound = listen(swarm, addresses)?;
        announced.iter().for_each(|address| swarm.add_external_address(address.clone()));
        let (told, _) = watch::channel(Vec::new());
        let listening =
            Listening { unbound, has_many, told_at: Instant::now(), announced, lost: Vec::new(), told };
        listening.tell(swarm);
        Ok(listening)
    }

    /// How long to wait for another address before all are known; none when they are, or at the deadline.
    pub(super) fn wait(&self, deadline: Instant) -> Option<Duration> {
        let until = match self.unbound.is_empty() {
            true if self.has_many => deadline.min(self.told_at + QUIET),
            true => return None,
            false => deadline,
        };
        let wait = until.saturating_duration_since(Instant::now());
        (!wait.is_zero()).then_some(wait)
    }

    /// A socket told an address, or was lost.
    pub(super) fn bound(&mut self, swarm: &Swarm<Behaviour>, socket: ListenerId) {
        self.unbound.retain(|id| *id != socket);
        self.told_at = Instant::now();
        self.tell(swarm);
    }

    /// Tells the addresses of now.
    pub(super) fn tell(&self, swarm: &Swarm<Behaviour>) {
        let peer = *swarm.local_peer_id();
        // Relays come and go; what leads through them is told by `reach`.
        let listened = by_reach(swarm.listeners().filter(|address| !is_relayed(address)).cloned());
        let mut known = BTreeSet::new();
        let all =
            self.announced.iter().cloned().chain(listened).filter(|address| known.insert(address.clone()));
        let named: Vec<Multiaddr> = all.filter_map(|address| address.with_p2p(peer).ok()).collect();
        self.told.send_if_modified(|told| {
            let is_new = *told != named;
            *told = named;
            is_new
        });
    }
}
