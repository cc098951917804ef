//! Who has links to whom: a random graph in which every node has the same number of links.
//!
//! It is made of random rings through all nodes, each of which gives a node two links, and for an odd degree of random
//! pairs. The first ring alone connects everybody. Where two rings would join the same nodes twice, the ends left over
//! are joined among themselves; in a small world a few nodes may keep one link less.

use super::counter_rng::{CounterRng, below};

/// A place for a link that nobody took.
const NONE: u32 = u32::MAX;

/// Links in rows of equal width.
#[derive(Debug)]
pub(super) struct Graph {
    width: usize,
    rows: Vec<u32>,
}

impl Graph {
    /// A graph of nodes with this degree.
    pub(super) fn random(nodes: usize, degree: usize, rng: CounterRng) -> Graph {
        let mut graph = Graph { width: degree, rows: vec![NONE; nodes * degree] };
        let mut order: Vec<u32> = (0..nodes as u32).collect();
        for ring in 0..degree / 2 {
            shuffle(&mut order, rng, ring as u64);
            graph.add_ring(&order, 2 * ring);
        }
        if degree % 2 == 1 {
            // No ring has this number, so the pairs owe nothing to any ring's order.
            shuffle(&mut order, rng, degree as u64);
            // An odd one out keeps a free place, which `drop_doubles` counts as a loose end.
            for pair in order.chunks_exact(2) {
                graph.rows[(pair[0] as usize + 1) * degree - 1] = pair[1];
                graph.rows[(pair[1] as usize + 1) * degree - 1] = pair[0];
            }
        }
        let loose = graph.drop_doubles();
        graph.join_loose(loose);
        graph
    }

    /// The nodes to which one has links.
    pub(super) fn links(&self, node: u32) -> &[u32] {
        let row = self.row(node);
        &row[..row.iter().rposition(|peer| *peer != NONE).map_or(0, |last| last + 1)]
    }

    fn row(&self, node: u32) -> &[u32] {
        &self.rows[node as usize * self.width..][..self.width]
    }

    fn add_ring(&mut self, order: &[u32], place: usize) {
        let Some(mut before) = order.last().copied() else { return };
        for (at, node) in order.iter().enumerate() {
            let after = order[if at + 1 == order.len() { 0 } else { at + 1 }];
            let row = &mut self.rows[*node as usize * self.width..][..self.width];
            (row[place], row[place + 1]) = (before, after);
            before = *node;
        }
    }

    /// Leaves one of several links between the same two, and returns each end that lost one. Both ends see the same
    /// doubles, so both drop as many.
    fn drop_doubles(&mut self) -> Vec<u32> {
        let mut loose = Vec::new();
        for (node, row) in self.rows.chunks_exact_mut(self.width).enumerate() {
            let mut kept = 0;
            for at in 0..row.len() {
                let peer = row[at];
                if peer == NONE || row[..kept].contains(&peer) {
                    loose.push(node as u32);
                } else {
                    row[kept] = peer;
                    kept += 1;
                }
            }
            row[kept..].fill(NONE);
        }
        loose
    }

    fn join_loose(&mut self, mut loose: Vec<u32>) {
        while let Some(node) = loose.pop() {
            let fits = |other: &u32| *other != node && !self.row(node).contains(other);
            // Whom nobody fits keeps one link less: giving it one would take another's apart.
            if let Some(at) = loose.iter().position(fits) {
                let other = loose.swap_remove(at);
                self.add(node, other);
                self.add(other, node);
            }
        }
    }

    fn add(&mut self, node: u32, peer: u32) {
        let row = &mut self.rows[node as usize * self.width..][..self.width];
        if let Some(free) = row.iter_mut().find(|it| **it == NONE) {
            *free = peer;
        }
    }
}

fn shuffle(order: &mut [u32], rng: CounterRng, number: u64) {
    let mut draws = rng.draws(number, 0);
    for last in (1..order.len()).rev() {
        order.swap(last, below(draws.next_u64(), last as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::super::counter_rng::Purpose;
    use super::*;

    #[test]
    fn a_graph_is_connected_and_nearly_every_node_has_its_degree() {
        for (nodes, degree) in [(3, 2), (5, 4), (10, 3), (50, 6), (1_001, 7), (2_000, 8)] {
            for seed in 0..20 {
                let graph = Graph::random(nodes, degree, CounterRng::new(seed, Purpose::Graph));
                let mut seen = vec![false; nodes];
                let mut open = vec![0];
                let mut links = 0;
                while let Some(node) = open.pop() {
                    if std::mem::replace(&mut seen[node as usize], true) {
                        continue;
                    }
                    links += graph.links(node).len();
                    for peer in graph.links(node) {
                        assert!(*peer != node && graph.links(*peer).contains(&node));
                        open.push(*peer);
                    }
                }
                assert!(
                    seen.iter().all(|it| *it),
                    "seed {seed}: {nodes} nodes of degree {degree} are not connected"
                );
                let lost = nodes * degree - links;
                assert!(lost <= 4, "seed {seed}: {nodes} nodes of degree {degree} lack {lost} ends");
            }
        }
    }
}
