//! Streams to hosts that carried a call to its end and wait for the next, which saves it the opening of one.
//!
//! What came last is taken first, so those that are too many grow old and are closed. A host that closes one meanwhile is
//! noticed when it is taken; where its word is on its way then, whoever uses the stream notices.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncReadExt, FutureExt};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::calls::CallStream;
use crate::proto::identity::PeerKey;

/// How long a stream waits for its next call: calls of one conversation follow each other within seconds.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(30);
/// Streams to one host that wait: of the 112 that may carry calls there as many as a busy agent is called at once.
pub(crate) const KEPT_PER_HOST_MAX: usize = 64;
/// Streams that wait, to all hosts; each holds some kilobytes at either end.
const KEPT_MAX: usize = 512;
/// How often the old are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// The two directions of a stream.
pub(crate) type Halves = (ReadHalf<CallStream>, WriteHalf<CallStream>);

/// Streams that wait for their next call. Cheap to clone; all clones are one table.
#[derive(Clone, Default)]
pub(crate) struct KeptStreams(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    /// Of each host from the oldest to the newest.
    hosts: BTreeMap<PeerKey, VecDeque<Idle>>,
    /// How often a peer was met directly that was reached through a relay until then.
    upgrades: Upgrades,
}

struct Idle {
    stream: OpenStream,
    since: Instant,
}

/// A stream between two frames.
pub(crate) struct OpenStream {
    pub(crate) halves: Halves,
    /// As it was before this was opened.
    pub(crate) upgrades: Upgrades,
}

/// A count; where it grew since a stream was opened, that may lead through a relay without need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Upgrades(u64);

impl KeptStreams {
    /// A stream to this host that waits and is still open.
    pub(crate) fn take(&self, host: &PeerKey) -> Option<OpenStream> {
        loop {
            // The lock ends with this statement: what is closed is dropped outside of it.
            let mut idle = self.lock().pop(host)?;
            if idle.is_of_use(Instant::now()) {
                return Some(idle.stream);
            }
        }
    }

    /// To be asked before a stream is opened.
    pub(crate) fn upgrades(&self) -> Upgrades {
        self.lock().upgrades
    }

    /// Keeps a stream, unless it may lead through a relay without need by now.
    pub(crate) fn put(&self, host: PeerKey, stream: OpenStream) {
        let mut kept = self.lock();
        let count: usize = kept.hosts.values().map(VecDeque::len).sum();
        if stream.upgrades != kept.upgrades || count >= KEPT_MAX {
            return;
        }
        let of_host = kept.hosts.entry(host).or_default();
        of_host.push_back(Idle { stream, since: Instant::now() });
        let excess = (of_host.len() > KEPT_PER_HOST_MAX).then(|| of_host.pop_front());
        drop(kept);
        drop(excess);
    }

    /// There is a direct connection to a peer that was reached through a relay: calls go there from now on. A stream does
    /// not say where it leads, so those that are in use are not kept, whosoever they are.
    pub(crate) fn met_directly(&self, peer: &PeerKey) {
        let mut kept = self.lock();
        kept.upgrades.0 += 1;
        let relayed = kept.hosts.remove(peer);
        drop(kept);
        drop(relayed);
    }

    /// Closes those that nobody took for [`KEPT_FOR`], or that their hosts closed, for ever.
    pub(crate) async fn expire(&self) {
        let mut sweeps = interval(SWEEP_INTERVAL);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.sweep(sweeps.tick().await);
        }
    }

    fn sweep(&self, now: Instant) {
        self.lock().hosts.retain(|_, idle| {
            idle.retain_mut(|it| it.is_of_use(now));
            !idle.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Every change is one step, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn pop(&mut self, host: &PeerKey) -> Option<Idle> {
        let of_host = self.hosts.get_mut(host)?;
        let idle = of_host.pop_back();
        if of_host.is_empty() {
            self.hosts.remove(host);
        }
        idle
    }
}

impl Idle {
    /// Whether it is young, and nothing was heard on it: a host has nothing to say between two calls, so it is its end.
    fn is_of_use(&mut self, now: Instant) -> bool {
        now < self.since + KEPT_FOR && self.stream.halves.0.read(&mut [0]).now_or_never().is_none()
    }
}

#[cfg(test)]
mod tests {
    use futures::AsyncWriteExt;
    use futures::future::Either;
    use tokio::io::{DuplexStream, duplex};
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;
    use crate::proto::identity::Identity;

    fn host(seed: u8) -> PeerKey {
        Identity::from_seed([seed; 32]).key()
    }

    fn stream(kept: &KeptStreams) -> (OpenStream, DuplexStream) {
        let (near, far) = duplex(64);
        let halves = CallStream::split(Either::Right(near.compat()));
        (OpenStream { halves, upgrades: kept.upgrades() }, far)
    }

    #[tokio::test]
    async fn the_newest_is_taken_first_and_what_its_host_closed_is_passed_over() {
        let kept = KeptStreams::default();
        let (first, mut far) = stream(&kept);
        let (second, gone) = stream(&kept);
        kept.put(host(1), first);
        kept.put(host(1), second);
        drop(gone);
        assert!(kept.take(&host(2)).is_none(), "of another host");
        let OpenStream { halves: (_, mut writer), .. } =
            kept.take(&host(1)).expect("the first is still open");
        writer.write_all(b"x").await.unwrap();
        assert_eq!(tokio::io::AsyncReadExt::read_u8(&mut far).await.unwrap(), b'x');
        assert!(kept.take(&host(1)).is_none());
        assert!(kept.lock().hosts.is_empty());
    }

    #[tokio::test]
    async fn no_more_are_kept_than_may_be_and_the_oldest_is_closed() {
        let kept = KeptStreams::default();
        let (mut oldest, mut far) = (None, Vec::new());
        for number in 0..=KEPT_PER_HOST_MAX {
            let (near, end) = stream(&kept);
            kept.put(host(1), near);
            if number == 0 { oldest = Some(end) } else { far.push(end) }
        }
        assert_eq!(tokio::io::AsyncReadExt::read(&mut oldest.unwrap(), &mut [0]).await.unwrap(), 0);
        for seed in 2..=u8::MAX {
            let (near, end) = stream(&kept);
            kept.put(host(seed), near);
            kept.put(host(seed), stream(&kept).0);
            far.push(end);
        }
        let count: usize = kept.lock().hosts.values().map(VecDeque::len).sum();
        assert_eq!(count, KEPT_MAX);
    }

    #[tokio::test]
    async fn what_nobody_takes_is_closed() {
        let kept = KeptStreams::default();
        let (near, mut far) = stream(&kept);
        let began = Instant::now();
        kept.put(host(1), near);
        kept.sweep(began + KEPT_FOR - Duration::from_millis(1));
        assert_eq!(kept.lock().hosts.len(), 1);
        kept.sweep(Instant::now() + KEPT_FOR);
        assert!(kept.lock().hosts.is_empty());
        assert_eq!(tokio::io::AsyncReadExt::read(&mut far, &mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn streams_through_a_relay_are_not_used_again_once_their_host_is_met_directly() {
        let kept = KeptStreams::default();
        let ((idle, _far), (busy, _busy), (other, _other)) = (stream(&kept), stream(&kept), stream(&kept));
        kept.put(host(1), idle);
        kept.put(host(2), other);
        kept.met_directly(&host(1));
        kept.put(host(1), busy);
        assert!(kept.take(&host(1)).is_none(), "neither what waited nor what was in use");
        assert!(kept.take(&host(2)).is_some(), "of others what waits");
        let (fresh, _fresh) = stream(&kept);
        kept.put(host(1), fresh);
        assert!(kept.take(&host(1)).is_some());
    }
}
