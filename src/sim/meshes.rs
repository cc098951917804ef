//! Who is in the mesh of which zone: asked for each copy of each message, so zones have numbers and nodes are bits.

use std::collections::BTreeMap;

use crate::proto::name::ZoneName;

/// The nodes in the mesh of each zone.
#[derive(Default)]
pub(super) struct Meshes {
    numbers: BTreeMap<ZoneName, MeshNumber>,
    nodes: Vec<NodeSet>,
}

/// Names the mesh of a zone in a world. A zone has none before a node was in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MeshNumber(usize);

/// Some nodes. Its size is that of the range in which they lie, so the nodes of one zone take a few words in a world of any
/// size.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeSet {
    /// The number of the first word.
    first: usize,
    words: Vec<u64>,
}

impl Meshes {
    /// A node is in the mesh of a zone from now on.
    pub(super) fn enter(&mut self, node: usize, zone: &ZoneName) {
        let MeshNumber(number) = self.number(zone);
        self.nodes[number].insert(node);
    }

    /// A node is in it no longer.
    pub(super) fn exit(&mut self, node: usize, zone: &ZoneName) {
        if let Some(MeshNumber(number)) = self.numbers.get(zone) {
            self.nodes[*number].remove(node);
        }
    }

    /// The number of a mesh, which it has from the first question on.
    pub(super) fn number(&mut self, zone: &ZoneName) -> MeshNumber {
        if let Some(number) = self.numbers.get(zone) {
            return *number;
        }
        let number = MeshNumber(self.nodes.len());
        self.nodes.push(NodeSet::default());
        self.numbers.insert(zone.clone(), number);
        number
    }

    pub(super) fn contains(&self, MeshNumber(number): MeshNumber, node: usize) -> bool {
        self.nodes[number].contains(node)
    }
}

impl NodeSet {
    /// Adds a node. Whether it was not there.
    pub(super) fn insert(&mut self, node: usize) -> bool {
        let (word, bit) = (node / 64, 1 << (node % 64));
        if self.words.is_empty() {
            self.first = word;
        }
        if word < self.first {
            self.words.splice(..0, std::iter::repeat_n(0, self.first - word));
            self.first = word;
        }
        let at = word - self.first;
        if at >= self.words.len() {
            self.words.resize(at + 1, 0);
        }
        let is_new = self.words[at] & bit == 0;
        self.words[at] |= bit;
        is_new
    }

    pub(super) fn remove(&mut self, node: usize) {
        let word = (node / 64).checked_sub(self.first).and_then(|at| self.words.get_mut(at));
        word.into_iter().for_each(|word| *word &= !(1 << (node % 64)));
    }

    pub(super) fn contains(&self, node: usize) -> bool {
        let word = (node / 64).checked_sub(self.first).and_then(|at| self.words.get(at));
        word.is_some_and(|word| word & (1 << (node % 64)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn a_set_of_nodes_holds_what_was_put_in_and_not_taken_out() {
        for seed in 0..20 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let (mut set, mut model) = (NodeSet::default(), BTreeSet::new());
            for _ in 0..500 {
                let node = rng.random_range(0..1_000);
                match rng.random() {
                    true => assert_eq!(set.insert(node), model.insert(node), "seed {seed}, node {node}"),
                    false => {
                        set.remove(node);
                        model.remove(&node);
                    }
                }
            }
            assert!((0..2_000).all(|node| set.contains(node) == model.contains(&node)), "seed {seed}");
        }
    }

    #[test]
    fn nodes_of_one_zone_take_a_few_words_wherever_they_lie() {
        let mut set = NodeSet::default();
        (99_900..100_000).rev().for_each(|node| assert!(set.insert(node)));
        assert!(set.words.len() <= 3);
    }
}
