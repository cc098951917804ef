//! libp2p's transport over the [`Wire`]: `/memory/PORT`, then noise and yamux as the live node speaks them over TCP.
//!
//! A port is open before its node starts, so that nodes that start a little apart find each other at the first call.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use aop::net::swarm::NetworkError;
use aop::net::transport::{PeerTransport, over};
use futures::channel::mpsc;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt as _, future};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, Transport};

use crate::tap::{Tap, Tapped};
use crate::wire::{Link, Wire};

/// Ports below are nodes', ports above callers'.
const CALLERS: u64 = 1 << 32;

/// Where a node can be called.
pub fn address(node: usize) -> Multiaddr {
    Protocol::Memory(port(node)).into()
}

/// The transport of a node, with its port open.
pub fn transport(
    wire: &Wire,
    tap: &Tap,
    node: usize,
    keypair: &Keypair,
) -> Result<PeerTransport, NetworkError> {
    let called = wire.open(node, port(node));
    let plain = Plain { wire: wire.clone(), node, called, listener: None, untold: false, callers: 0 };
    let tap = tap.clone();
    let tapped = Transport::map(over(plain, keypair)?, move |(peer, muxer), _| {
        (peer, StreamMuxerBox::new(Tapped::new(muxer, tap.clone())))
    });
    Ok(tapped.boxed())
}

fn port(node: usize) -> u64 {
    node as u64 + 1
}

struct Plain {
    wire: Wire,
    node: usize,
    called: mpsc::UnboundedReceiver<Link>,
    listener: Option<ListenerId>,
    /// Whether the node waits to hear that it listens.
    untold: bool,
    callers: u64,
}

impl Transport for Plain {
    type Output = Link;
    type Error = io::Error;
    type ListenerUpgrade = future::Ready<io::Result<Link>>;
    type Dial = BoxFuture<'static, io::Result<Link>>;

    fn listen_on(&mut self, id: ListenerId, wanted: Multiaddr) -> Result<(), TransportError<io::Error>> {
        if wanted != address(self.node) {
            return Err(TransportError::MultiaddrNotSupported(wanted));
        }
        (self.listener, self.untold) = (Some(id), true);
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let removed = self.listener == Some(id);
        if removed {
            self.called.close();
        }
        removed
    }

    fn dial(&mut self, wanted: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        match wanted.iter().next() {
            Some(Protocol::Memory(port)) => Ok(self.wire.clone().dial(self.node, port).boxed()),
            _ => Err(TransportError::MultiaddrNotSupported(wanted)),
        }
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        let listener_id = *self.listener.get_or_insert_with(ListenerId::next);
        let local_addr = address(self.node);
        if std::mem::take(&mut self.untold) {
            return Poll::Ready(TransportEvent::NewAddress { listener_id, listen_addr: local_addr });
        }
        let Poll::Ready(Some(link)) = self.called.poll_next_unpin(context) else { return Poll::Pending };
        self.callers += 1;
        Poll::Ready(TransportEvent::Incoming {
            listener_id,
            upgrade: future::ready(Ok(link)),
            local_addr,
            send_back_addr: Protocol::Memory(CALLERS + self.callers).into(),
        })
    }
}
