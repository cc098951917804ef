//! The circuits that this node relays, shared out by block of addresses: the library counts them by peer, and keys are free.

use std::collections::BTreeMap;

use libp2p::PeerId;

use crate::proto::address_block::AddressBlock;

/// Circuits of one block of addresses: an office behind one address, and a quarter of all there are.
const PER_BLOCK_MAX: usize = 8;

/// Who opened circuits, and from where.
#[derive(Debug, Default)]
pub(super) struct Circuits {
    open: BTreeMap<PeerId, (Option<AddressBlock>, usize)>,
}

impl Circuits {
    /// A peer opened one, from a block that has a share, if it is of one; whether its block has so many.
    pub(super) fn opened(&mut self, peer: PeerId, block: Option<AddressBlock>) -> bool {
        self.open.entry(peer).or_insert((block, 0)).1 += 1;
        let of_block = self.open.values().filter(|(other, _)| block.is_some() && *other == block);
        of_block.map(|(_, count)| count).sum::<usize>() <= PER_BLOCK_MAX
    }

    /// One of a peer was closed.
    pub(super) fn closed(&mut self, peer: &PeerId) {
        if let Some((_, count)) = self.open.get_mut(peer) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(peer);
            }
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.open.values().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_one_block_share_its_circuits_and_leave_the_others_theirs() {
        let block = |ip: &str| Some(AddressBlock::of(ip.parse().unwrap()));
        let mut circuits = Circuits::default();
        let crowd: Vec<PeerId> = (0..20).map(|_| PeerId::random()).collect();
        let admitted = crowd.iter().filter(|peer| circuits.opened(**peer, block("203.0.113.7"))).count();
        assert_eq!(admitted, PER_BLOCK_MAX);
        assert!(circuits.opened(PeerId::random(), block("198.51.100.1")));
        assert!((0..20).all(|_| circuits.opened(PeerId::random(), None)), "trusted nets have no share");
        crowd.iter().for_each(|peer| circuits.closed(peer));
        assert!(circuits.opened(crowd[0], block("203.0.113.9")));
        circuits.closed(&crowd[0]);
        circuits.closed(&crowd[0]);
        assert_eq!(circuits.len(), 21);
    }
}
