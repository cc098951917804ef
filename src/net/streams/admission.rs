//! Who has how many inbound streams open: one peer's flood is turned away at its own door.

use std::collections::BTreeMap;

use crate::proto::identity::PeerKey;

/// Counts the open streams of each peer; `T` is what the streams of one peer share.
pub(crate) struct StreamAdmission<T> {
    open: BTreeMap<PeerKey, (usize, T)>,
    streams: usize,
    streams_max: usize,
    per_peer_max: usize,
}

impl<T> StreamAdmission<T> {
    pub(crate) fn new(streams_max: usize, per_peer_max: usize) -> StreamAdmission<T> {
        StreamAdmission { open: BTreeMap::new(), streams: 0, streams_max, per_peer_max }
    }

    /// Lets a stream in, if there is room for it; what it shares with the others of its peer.
    pub(crate) fn admit(&mut self, peer: PeerKey, first: impl FnOnce() -> T) -> Option<&T> {
        let known = self.open.get(&peer).map_or(0, |(streams, _)| *streams);
        // Judged before the entry is made: who is refused leaves no trace in the table.
        if self.streams >= self.streams_max || known >= self.per_peer_max {
            return None;
        }
        self.streams += 1;
        let (streams, shared) = self.open.entry(peer).or_insert_with(|| (0, first()));
        *streams += 1;
        Some(shared)
    }

    /// A stream that was let in has ended.
    pub(crate) fn release(&mut self, peer: PeerKey) {
        let Some((streams, _)) = self.open.get_mut(&peer) else { return };
        // Only who was admitted has an entry, so neither count is zero here.
        self.streams -= 1;
        *streams -= 1;
        if *streams == 0 {
            // A table of peers that once came would grow with every new key.
            self.open.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::identity::Identity;

    #[test]
    fn a_peer_at_its_limit_waits_for_its_own_streams_and_for_nobody_elses() {
        let [a, b, c] = [1, 2, 3].map(|seed| Identity::from_seed([seed; 32]).key());
        let mut admission = StreamAdmission::<()>::new(4, 2);
        let mut admit = |peer| admission.admit(peer, || ()).is_some();
        assert_eq!([admit(a), admit(a), admit(a), admit(b), admit(b)], [true, true, false, true, true]);
        assert!(!admit(c), "all places are taken");
        admission.release(a);
        assert!(admission.admit(c, || ()).is_some() && admission.admit(a, || ()).is_none());
    }
}
