//! What the network tells its driver, and the answers it takes.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use libp2p::Multiaddr;

use super::gossip_budget::Dropped;
use crate::net::bootstrap::Trouble;
use crate::net::refusals::Reason;
use crate::net::streams::InboundRequest;
use crate::net::streams::budget::Waited;
use crate::proto::code::Code;
use crate::proto::identity::PeerKey;
use crate::proto::io::GossipId;
use crate::proto::name::ZoneName;

/// What became of an own message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Published {
    /// Queued for at least one peer. Gossip is best effort: that is no promise of delivery.
    Sent,
    /// No connected peer takes part in the zone: normal for a lone node. It is not kept for later.
    NobodyListens,
    /// Every peer of the zone has a full queue.
    QueuesFull,
    /// Above `GOSSIP_BYTES_MAX`.
    TooLarge,
    /// The same bytes were sent or received within the last two minutes.
    Duplicate,
    /// This node does not take part in the zone.
    OtherZone,
}

/// What happens in the network.
#[derive(Debug)]
pub enum NetworkEvent {
    /// A peer of our network is connected; sent once until it is disconnected.
    Connected {
        /// Who.
        peer: PeerKey,
        /// Whether this node opened the connection.
        outbound: bool,
        /// Where it says that it listens, as far as that means something from here.
        addresses: Vec<Multiaddr>,
    },
    /// The last connection to the peer is gone.
    Disconnected {
        /// Who.
        peer: PeerKey,
    },
    /// A connected peer takes part in one of our zones.
    Subscribed {
        /// Who.
        peer: PeerKey,
        /// Where.
        zone: ZoneName,
    },
    /// A connected peer no longer takes part.
    Unsubscribed {
        /// Who.
        peer: PeerKey,
        /// Where.
        zone: ZoneName,
    },
    /// Peers that say they serve a zone, of a lookup by `Network::find_peers`; none if it ended without any.
    ZonePeers {
        /// Where.
        zone: ZoneName,
        /// Who says so; not this node.
        peers: Vec<PeerKey>,
    },
    /// A message that waits for `Network::report`.
    Gossip {
        /// Its id.
        id: GossipId,
        /// Who sent the first copy; not its author.
        peer: PeerKey,
        /// Its zone.
        zone: ZoneName,
        /// Its content, at most `GOSSIP_BYTES_MAX`.
        bytes: Vec<u8>,
    },
    /// A request of a conversation that a peer leads.
    Request(InboundRequest),
    /// Something an operator may want to know. The network goes on by itself.
    Alert(NetworkAlert),
}

impl NetworkEvent {
    /// The zone that it is about.
    pub(super) fn zone(&self) -> Option<&ZoneName> {
        match self {
            NetworkEvent::Subscribed { zone, .. }
            | NetworkEvent::Unsubscribed { zone, .. }
            | NetworkEvent::ZonePeers { zone, .. }
            | NetworkEvent::Gossip { zone, .. } => Some(zone),
            _ => None,
        }
    }

    /// The message that it brings.
    pub(super) fn gossip(&self) -> Option<GossipId> {
        match self {
            NetworkEvent::Gossip { id, .. } => Some(*id),
            _ => None,
        }
    }
}

/// Something an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkAlert {
    /// A configured peer cannot be reached; it will be dialed again.
    BootstrapUnreachable {
        /// The configured address.
        address: Multiaddr,
        /// Failures in a row.
        failures: u32,
        /// What went wrong.
        trouble: Trouble,
    },
    /// A peer of another network was disconnected.
    OtherNetwork {
        /// Who.
        peer: PeerKey,
        /// Where it was seen.
        address: Multiaddr,
        /// What it speaks, where `/aop/NETWORK/1` was expected.
        speaks: String,
    },
    /// A peer was blocked for ten minutes after repeated offences.
    Blocked {
        /// Who.
        peer: PeerKey,
    },
    /// A listening socket was lost.
    ListenerLost {
        /// What the system said.
        reason: String,
    },
    /// Only its own network reaches this node, and no relay was found.
    NotReachable,
    /// The process or the machine was suspended.
    Suspended {
        /// For how long, about.
        duration: Duration,
    },
}

impl NetworkAlert {
    /// Its code.
    pub fn code(&self) -> Code {
        match self {
            NetworkAlert::BootstrapUnreachable { trouble: Trouble::OtherNetwork(_), .. } => {
                Code::OtherNetwork
            }
            NetworkAlert::BootstrapUnreachable { .. } => Code::BootstrapUnreachable,
            NetworkAlert::OtherNetwork { .. } => Code::OtherNetwork,
            NetworkAlert::Blocked { .. } => Code::PeerBlocked,
            NetworkAlert::ListenerLost { .. } => Code::ListenerLost,
            NetworkAlert::Suspended { .. } => Code::Suspended,
            NetworkAlert::NotReachable => Code::NotReachable,
        }
    }
}

impl fmt::Display for NetworkAlert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkAlert::BootstrapUnreachable { address, trouble, .. } => match trouble {
                Trouble::NoAnswer(reason) => {
                    write!(f, "bootstrap peer {address} cannot be reached: {reason}")
                }
                Trouble::OtherPeer(peer) => {
                    write!(f, "bootstrap peer {address} cannot be reached: the node there is {peer}")
                }
                Trouble::OtherNetwork(speaks) => {
                    write!(f, "bootstrap peer {address} belongs to another network ({speaks})")
                }
            },
            NetworkAlert::OtherNetwork { peer, address, speaks } => {
                write!(f, "{peer} at {address} belongs to another network ({speaks})")
            }
            NetworkAlert::Blocked { peer } => {
                write!(f, "{peer} broke the protocol repeatedly and is blocked for ten minutes")
            }
            NetworkAlert::NotReachable => {
                f.write_str(
                    "only its own network reaches this node, and no relay was found: nobody else can call its agents",
                )
            }
            NetworkAlert::ListenerLost { reason } => write!(f, "a listening socket was lost: {reason}"),
            NetworkAlert::Suspended { duration } => {
                let seconds = duration.as_secs_f64();
                write!(f, "the process stood still for {seconds:.0} s; it compares with a peer now")
            }
        }
    }
}

/// Counters since the start and sizes now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connected peers of our network.
    pub peers: usize,
    /// Established connections.
    pub connections: usize,
    /// Peers that are blocked.
    pub blocked: usize,
    /// Bootstrap addresses, by how they are: `connected`, `waiting`, `self`.
    pub bootstrap: BTreeMap<&'static str, usize>,
    /// Own messages handed to the mesh.
    pub gossip_published: u64,
    /// Messages received, each counted once.
    pub gossip_received: u64,
    /// Messages given up without a verdict.
    pub gossip_unvalidated: u64,
    /// What was refused under a limit, by reason.
    pub refused: BTreeMap<Reason, u64>,
    /// Messages dropped before anybody looked at them, by reason.
    pub gossip_dropped: BTreeMap<Dropped, u64>,
    /// Requests of peers that had to wait, by how.
    pub requests_waited: BTreeMap<Waited, u64>,
    /// Mesh peers of each zone.
    pub mesh: BTreeMap<ZoneName, usize>,
}
