//! Connections that have not said yet who they are. Inbound ones are a bounded number of handshakes, each with a deadline,
//! shared out by address and block; dials have a deadline.
//!
//! Whoever comes gets a place, and takes it from another where there is none: from the oldest handshake of its own address or
//! block when that has its share, else from the oldest of all. So silent sockets keep nobody out. A handshake of another
//! source keeps its place for [`KEPT_MIN`]; until then new sockets wait in the kernel, and cost nothing here.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::FutureExt;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::{Multiaddr, PeerId, Transport};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::net::addresses::{ip_of, is_relayed};
use crate::net::refusals::{Reason, Refusals};
use crate::net::transport::PeerTransport;
use crate::proto::address_block::{Share, Shares, Source, TrustedNets};

/// Handshakes under way. One takes a few round trips, so that hundreds of peers a second get in; each costs a socket and a few
/// kilobytes.
const HANDSHAKES_MAX: usize = 128;
/// Of these, those of one address and of one block: a cluster that starts behind one address.
const SHARE: Share = Share { per_address: 16, per_block: 32 };
/// How long a handshake may take: four round trips, and a busy machine at either end.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long a handshake keeps its place at least when there are too many in all: more than it takes across the world.
const KEPT_MIN: Duration = Duration::from_millis(500);

/// How long a dial may take, its lookup and handshake included. The system gives a machine that does not answer two minutes,
/// and nobody else limits one that answers and then says nothing.
const DIAL_DEADLINE: Duration = Duration::from_secs(15);

/// A transport whose inbound handshakes are bounded, and whose dials end in time.
pub(crate) struct BoundedHandshakes {
    inner: PeerTransport,
    trusted_nets: TrustedNets,
    pending: Arc<Mutex<Pending>>,
    refusals: Refusals,
    /// Runs while there is no room and nobody may be replaced yet.
    pause: Option<Pin<Box<Sleep>>>,
}

type Upgrade = <PeerTransport as Transport>::ListenerUpgrade;

impl BoundedHandshakes {
    pub(crate) fn new(
        inner: PeerTransport,
        trusted_nets: TrustedNets,
        refusals: Refusals,
    ) -> BoundedHandshakes {
        BoundedHandshakes { inner, trusted_nets, pending: Arc::default(), refusals, pause: None }
    }

    /// Whether new sockets have to wait: there is no room, and nobody has had his time.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = {
            let mut pending = lock(&self.pending);
            // A place that becomes free ends the pause before its time.
            pending.waiting = Some(cx.waker().clone());
            pending.full_until()
        };
        let Some(until) = until.filter(|until| *until > Instant::now()) else {
            self.pause = None;
            return Poll::Ready(());
        };
        let pause = self.pause.get_or_insert_with(|| Box::pin(sleep_until(until)));
        pause.as_mut().reset(until);
        pause.as_mut().poll_unpin(cx)
    }

    /// The handshake with a place and a deadline.
    fn bound(&self, upgrade: Upgrade, from: &Multiaddr) -> Upgrade {
        let source = ip_of(from).and_then(|ip| self.trusted_nets.source(ip));
        let (place, evicted) = Pending::enter(&self.pending, source, &self.refusals);
        let refusals = self.refusals.clone();
        async move {
            // Held to the end, however the handshake ends.
            let _place = place;
            tokio::select! {
                biased;
                _ = evicted => Err(io::Error::other("it made room for a newer one")),
                ended = timeout(DEADLINE, upgrade) => ended.unwrap_or_else(|_| {
                    refusals.count(Reason::HandshakeDeadline);
                    Err(io::ErrorKind::TimedOut.into())
                }),
            }
        }
        .boxed()
    }
}

impl Transport for BoundedHandshakes {
    type Output = (PeerId, StreamMuxerBox);
    type Error = io::Error;
    type ListenerUpgrade = Upgrade;
    type Dial = <Boxed<(PeerId, StreamMuxerBox)> as Transport>::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        let dial = self.inner.dial(address, options)?;
        let late = |_| Err(io::ErrorKind::TimedOut.into());
        Ok(async move { timeout(DIAL_DEADLINE, dial).await.unwrap_or_else(late) }.boxed())
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Upgrade, io::Error>> {
        if self.poll_pause(cx).is_pending() {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll(cx).map(|event| match event {
            TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr } => {
                // Who comes through a relay has no address of his own; the relay has one.
                let from = if is_relayed(&local_addr) { &local_addr } else { &send_back_addr };
                let upgrade = self.bound(upgrade, from);
                TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr }
            }
            other => other,
        })
    }
}

/// The handshakes under way, by the order in which they came.
#[derive(Debug)]
struct Pending {
    next: u64,
    handshakes: BTreeMap<u64, Handshake>,
    shares: Shares,
    /// Who waits for a place.
    waiting: Option<Waker>,
}

#[derive(Debug)]
struct Handshake {
    source: Option<Source>,
    since: Instant,
    /// Dropped to end it.
    _evict: oneshot::Sender<()>,
}

/// The place of a handshake; dropping it frees the place.
struct Place {
    pending: Arc<Mutex<Pending>>,
    number: u64,
}

impl Pending {
    /// A place for a handshake, and what resolves when it loses it.
    fn enter(
        shared: &Arc<Mutex<Pending>>,
        source: Option<Source>,
        refusals: &Refusals,
    ) -> (Place, oneshot::Receiver<()>) {
        let mut pending = lock(shared);
        while let Some((oldest, reason)) = pending.to_evict(source) {
            pending.remove(oldest);
            refusals.count(reason);
        }
        let number = pending.next;
        pending.next += 1;
        let (evict, evicted) = oneshot::channel();
        pending.shares.add(source, 1);
        pending.handshakes.insert(number, Handshake { source, since: Instant::now(), _evict: evict });
        drop(pending);
        (Place { pending: shared.clone(), number }, evicted)
    }

    /// The handshake that makes room for one more of `source`.
    fn to_evict(&self, source: Option<Source>) -> Option<(u64, Reason)> {
        let oldest = |of: &dyn Fn(&Source) -> bool| {
            self.handshakes.iter().find(|(_, it)| it.source.as_ref().is_some_and(of)).map(|(at, _)| *at)
        };
        if let Some(source) = source
            && !self.shares.has_room(Some(source), 1)
        {
            // The own address first: neighbours in the block pay only where the block has too many addresses.
            let own = oldest(&|it| it.address == source.address);
            let oldest = own.or_else(|| oldest(&|it| it.block == source.block));
            return oldest.map(|oldest| (oldest, Reason::HandshakeShare));
        }
        let is_full = self.handshakes.len() >= HANDSHAKES_MAX;
        let first = self.handshakes.keys().next().filter(|_| is_full);
        first.map(|oldest| (*oldest, Reason::HandshakePlaces))
    }

    /// Until when nobody may be replaced; none while there is room.
    fn full_until(&self) -> Option<Instant> {
        let oldest = self.handshakes.values().next().filter(|_| self.handshakes.len() >= HANDSHAKES_MAX);
        oldest.map(|oldest| oldest.since + KEPT_MIN)
    }

    fn remove(&mut self, number: u64) {
        if let Some(handshake) = self.handshakes.remove(&number) {
            self.shares.remove(handshake.source, 1);
        }
    }
}

impl Default for Pending {
    fn default() -> Pending {
        Pending { next: 0, handshakes: BTreeMap::new(), shares: Shares::new(SHARE), waiting: None }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut pending = lock(&self.pending);
        pending.remove(self.number);
        if let Some(waiting) = pending.waiting.take() {
            waiting.wake();
        }
    }
}

fn lock(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    // Every change is one step, so a panic elsewhere leaves nothing half done.
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn source(ip: [u8; 4]) -> Option<Source> {
        Some(Source::of(IpAddr::from(ip)))
    }

    /// Those of the places that were lost.
    fn lost(places: &mut [(Place, oneshot::Receiver<()>)]) -> Vec<usize> {
        let lost = |evicted: &mut oneshot::Receiver<()>| {
            evicted.try_recv() == Err(oneshot::error::TryRecvError::Closed)
        };
        (0..places.len()).filter(|at| lost(&mut places[*at].1)).collect()
    }

    #[tokio::test]
    async fn an_address_with_its_share_takes_the_place_of_its_own_oldest() {
        let (pending, refusals) = (Arc::new(Mutex::new(Pending::default())), Refusals::default());
        let enter = |ip| Pending::enter(&pending, source(ip), &refusals);
        let mut places: Vec<_> = (0..SHARE.per_address).map(|_| enter([192, 0, 2, 1])).collect();
        places.push(enter([198, 51, 100, 1]));
        places.push(enter([192, 0, 2, 1]));
        assert_eq!(lost(&mut places), [0]);
        for neighbour in 2..=40 {
            places.push(enter([192, 0, 2, neighbour]));
        }
        assert!(!lost(&mut places).contains(&SHARE.per_address), "another block pays nothing");
        assert_eq!(lock(&pending).handshakes.len(), SHARE.per_block + 1);
        assert_eq!(refusals.counts()[&Reason::HandshakeShare] as usize, lost(&mut places).len());
        drop(places);
        assert!(lock(&pending).shares.is_empty() && lock(&pending).handshakes.is_empty());
    }

    #[tokio::test]
    async fn who_comes_when_all_places_are_taken_gets_that_of_the_oldest_after_its_time() {
        let (pending, refusals) = (Arc::new(Mutex::new(Pending::default())), Refusals::default());
        let mut places: Vec<_> =
            (0..HANDSHAKES_MAX).map(|_| Pending::enter(&pending, None, &refusals)).collect();
        let since = lock(&pending).handshakes.values().next().unwrap().since;
        assert_eq!(lock(&pending).full_until(), Some(since + KEPT_MIN));
        places.push(Pending::enter(&pending, None, &refusals));
        assert_eq!(lost(&mut places), [0]);
        places.pop();
        assert_eq!(lock(&pending).full_until(), None, "a place is free");
    }
}
