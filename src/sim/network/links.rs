//! Which nodes are linked, and how each link stands.

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

/// Tries to bring a node that lacks links to its degree; in a small world there may be nobody left.
const TRIES_MAX: usize = 50;

/// Who is linked with whom at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Graph {
    /// Everybody with everybody.
    Whole,
    /// Each node with this many others at random, or nearly so; the graph is in one piece.
    Random(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum LinkState {
    Down,
    Up,
    /// Broken, and not yet noticed.
    Closing,
}

/// A link between two nodes, the lower first.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Link {
    pub(in crate::sim) ends: (usize, usize),
    pub(in crate::sim) state: LinkState,
    /// Grows each time it comes up.
    pub(in crate::sim) epoch: u32,
    /// Who made the connection.
    pub(in crate::sim) dialer: usize,
    /// The runs of both ends that were told of it.
    pub(in crate::sim) incarnations: (u64, u64),
}

impl Graph {
    /// The protocol's mesh degree.
    pub const DEGREE: usize = 6;
}

/// All links there may be.
pub(in crate::sim) struct Links {
    links: Vec<Link>,
    /// Of each node: the other end, and the link.
    of: Vec<Vec<(u32, u32)>>,
}

impl Links {
    /// Links of a graph, without those between strangers.
    pub(in crate::sim) fn new(
        nodes: usize,
        graph: Graph,
        are_strangers: impl Fn(usize, usize) -> bool,
        rng: &mut impl Rng,
    ) -> Links {
        let mut links = Links { links: Vec::new(), of: vec![Vec::new(); nodes] };
        match graph {
            // A world no larger than that is whole anyway.
            Graph::Random(degree) if degree + 1 < nodes => links.draw(degree, are_strangers, rng),
            Graph::Whole | Graph::Random(_) => {
                let pairs = (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b)));
                pairs.filter(|(a, b)| !are_strangers(*a, *b)).for_each(|(a, b)| links.add(a, b));
            }
        }
        links
    }

    /// Rings through all nodes in random order, each of which adds two links to every node and keeps the graph in
    /// one piece; then single links for whoever lacks some.
    fn draw(&mut self, degree: usize, are_strangers: impl Fn(usize, usize) -> bool, rng: &mut impl Rng) {
        let nodes = self.of.len();
        let mut order: Vec<usize> = (0..nodes).collect();
        for _ in 0..(degree / 2).max(1) {
            order.shuffle(rng);
            for at in 0..nodes {
                let (a, b) = (order[at], order[(at + 1) % nodes]);
                if !are_strangers(a, b) {
                    self.add(a, b);
                }
            }
        }
        for a in 0..nodes {
            let mut tries = 0;
            while self.of[a].len() < degree && tries < TRIES_MAX {
                let b = rng.random_range(0..nodes);
                // Never beyond the degree: a few hubs would make all ways shorter than they are.
                if self.of[b].len() < degree && !are_strangers(a, b) {
                    self.add(a, b);
                }
                tries += 1;
            }
        }
    }

    /// Adds a link that is down, unless there is one or both ends are one node.
    pub(in crate::sim) fn add(&mut self, a: usize, b: usize) {
        if a == b || self.between(a, b).is_some() {
            return;
        }
        let number = self.links.len() as u32;
        let ends = (a.min(b), a.max(b));
        self.links.push(Link {
            ends,
            state: LinkState::Down,
            epoch: 0,
            dialer: ends.0,
            incarnations: (0, 0),
        });
        self.of[a].push((b as u32, number));
        self.of[b].push((a as u32, number));
    }

    /// The link between two nodes.
    pub(in crate::sim) fn between(&self, a: usize, b: usize) -> Option<usize> {
        // A node has a handful of links, and whole graphs are small.
        let found = self.of[a].iter().find(|(other, _)| *other == b as u32);
        found.map(|(_, link)| *link as usize)
    }

    /// Number of links a node may have.
    pub(in crate::sim) fn degree(&self, of: usize) -> usize {
        self.of[of].len()
    }

    /// One of a node's links: the other end, and the link.
    pub(in crate::sim) fn at(&self, of: usize, number: usize) -> (usize, usize) {
        let (other, link) = self.of[of][number];
        (other as usize, link as usize)
    }

    /// Machines a node may be linked with.
    pub(in crate::sim) fn neighbours(&self, of: usize) -> impl Iterator<Item = usize> {
        self.of[of].iter().map(|(other, _)| *other as usize)
    }

    /// Number of links.
    pub(in crate::sim) fn len(&self) -> usize {
        self.links.len()
    }

    pub(in crate::sim) fn get(&self, link: usize) -> &Link {
        &self.links[link]
    }

    pub(in crate::sim) fn get_mut(&mut self, link: usize) -> &mut Link {
        &mut self.links[link]
    }

    /// Epoch of a link that is up.
    pub(in crate::sim) fn epoch(&self, link: usize) -> Option<u32> {
        let link = &self.links[link];
        (link.state == LinkState::Up).then_some(link.epoch)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn a_random_graph_is_in_one_piece_and_nearly_regular() {
        for (seed, nodes, degree) in [(1, 10, 3), (2, 30, 6), (3, 100, 2), (4, 500, 7), (5, 4, 3), (6, 9, 8)]
        {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let links = Links::new(nodes, Graph::Random(degree), |_, _| false, &mut rng);
            let mut reached = vec![false; nodes];
            let mut open = vec![0];
            while let Some(at) = open.pop() {
                if !std::mem::replace(&mut reached[at], true) {
                    open.extend(links.neighbours(at));
                }
            }
            assert!(reached.iter().all(|it| *it), "{nodes} nodes of degree {degree}");
            assert!((0..nodes).all(|at| links.degree(at) <= degree));
            let lacking: usize = (0..nodes).map(|at| degree - links.degree(at)).sum();
            assert!(lacking <= nodes / 10 + 2, "{lacking} of {nodes} nodes of degree {degree}");
        }
    }
}
