//! Who has how many inbound streams open: one peer's flood is turned away at its own door, and so is that of the keys of one
//! address or block. A peer's first stream is let in when the others have taken all places.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::net::refusals::Reason;
use crate::proto::address_block::{Share, Shares, Source};
use crate::proto::identity::PeerKey;

/// Counts the open streams of each peer; `T` is what the streams of one peer share.
pub(crate) struct StreamAdmission<T> {
    open: BTreeMap<PeerKey, OfPeer<T>>,
    shares: Shares,
    streams: usize,
    streams_max: usize,
    per_peer_max: usize,
}

struct OfPeer<T> {
    streams: usize,
    /// Where it was when its first stream came: what was counted there is taken off there.
    source: Option<Source>,
    shared: T,
}

impl<T> StreamAdmission<T> {
    pub(crate) fn new(streams_max: usize, per_peer_max: usize, share: Share) -> StreamAdmission<T> {
        let shares = Shares::new(share);
        StreamAdmission { open: BTreeMap::new(), shares, streams: 0, streams_max, per_peer_max }
    }

    /// Lets a stream in, if there is room for it; what it shares with the others of its peer.
    pub(crate) fn admit(
        &mut self,
        peer: PeerKey,
        source: Option<Source>,
        first: impl FnOnce() -> T,
    ) -> Result<&T, Reason> {
        let known = self.open.get(&peer).map_or(0, |of_peer| of_peer.streams);
        let source = self.open.get(&peer).map_or(source, |of_peer| of_peer.source);
        // Judged before the entry is made: who is refused leaves no trace in the table.
        if known >= self.per_peer_max || !self.shares.has_room(source, 1) {
            return Err(Reason::StreamShare);
        }
        // First streams are as many as there are peers, which are bounded where they connect.
        if self.streams >= self.streams_max && known > 0 {
            return Err(Reason::StreamPlaces);
        }
        self.streams += 1;
        self.shares.add(source, 1);
        let of_peer = self.open.entry(peer).or_insert_with(|| OfPeer { streams: 0, source, shared: first() });
        of_peer.streams += 1;
        Ok(&of_peer.shared)
    }

    /// A stream that was let in has ended.
    pub(crate) fn release(&mut self, peer: PeerKey) {
        let Some(of_peer) = self.open.get_mut(&peer) else { return };
        // Only who was admitted has an entry, so neither count is zero here.
        self.streams -= 1;
        of_peer.streams -= 1;
        self.shares.remove(of_peer.source, 1);
        if of_peer.streams == 0 {
            // A table of peers that once came would grow with every new key.
            self.open.remove(&peer);
        }
    }
}

/// The same where each stream gives its place back itself. Cheap to clone; all clones count together.
#[derive(Clone)]
pub(crate) struct StreamPlaces(Arc<Mutex<StreamAdmission<()>>>);

/// The place of a stream, until it is dropped.
pub(crate) struct StreamPlace {
    places: StreamPlaces,
    peer: PeerKey,
}

impl StreamPlaces {
    pub(crate) fn new(streams_max: usize, per_peer_max: usize, share: Share) -> StreamPlaces {
        StreamPlaces(Arc::new(Mutex::new(StreamAdmission::new(streams_max, per_peer_max, share))))
    }

    /// See [`StreamAdmission::admit`].
    pub(crate) fn admit(&self, peer: PeerKey, source: Option<Source>) -> Result<StreamPlace, Reason> {
        self.lock().admit(peer, source, || ())?;
        Ok(StreamPlace { places: self.clone(), peer })
    }

    fn lock(&self) -> MutexGuard<'_, StreamAdmission<()>> {
        // Every change is one step, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.places.lock().release(self.peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::identity::Identity;

    const LARGE: Share = Share { per_address: 1_000, per_block: 1_000 };

    #[test]
    fn a_peer_at_its_limit_waits_for_its_own_streams_and_for_nobody_elses() {
        let [a, b, c] = [1, 2, 3].map(|seed| Identity::from_seed([seed; 32]).key());
        let mut admission = StreamAdmission::<()>::new(4, 2, LARGE);
        let mut admit = |peer| admission.admit(peer, None, || ()).err();
        let share = Some(Reason::StreamShare);
        assert_eq!([admit(a), admit(a), admit(a), admit(b), admit(b)], [None, None, share, None, None]);
        assert_eq!(admit(c), None, "a first stream is let in when all places are taken");
        assert_eq!(admit(c), Some(Reason::StreamPlaces));
        [a, b, b, c].into_iter().for_each(|peer| admission.release(peer));
        assert_eq!(admission.admit(c, None, || ()).err(), None);
    }

    #[test]
    fn the_keys_of_one_address_take_its_share_and_no_more() {
        let [a, b, c] = [1, 2, 3].map(|seed| Identity::from_seed([seed; 32]).key());
        let mut admission = StreamAdmission::<()>::new(100, 100, Share { per_address: 2, per_block: 3 });
        let source = |ip: &str| Some(Source::of(ip.parse().unwrap()));
        let mut admit = |peer, ip| admission.admit(peer, source(ip), || ()).is_ok();
        assert!(admit(a, "192.0.2.1") && admit(b, "192.0.2.1") && !admit(c, "192.0.2.1"));
        assert!(admit(c, "192.0.2.2") && !admit(c, "192.0.2.2") && !admit(b, "192.0.2.9"));
        admission.release(c);
        assert_eq!(admission.admit(c, source("198.51.100.1"), || ()).err(), None);
        [a, b, c].into_iter().for_each(|peer| admission.release(peer));
        assert!(admission.shares.is_empty());
    }
}
