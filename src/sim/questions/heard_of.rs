//! What can be known to a node where some are of an earlier version, that knows no questions of others (protocol section 4).
//!
//! A zone becomes known to those above and beside it when one of its gateways asks its way and delegates it. None of that comes
//! about where all gateways of a zone know no questions; nor where none of them is linked, over nodes that know questions, with
//! whoever asks. What such a zone holds is known only to those that serve it.

use std::collections::BTreeSet;

use crate::proto::name::ZoneName;
use crate::sim::adversary::Behaviour;
use crate::sim::fabric::Fabric;

/// Whom the questions of a node get to.
pub(super) struct HeardOf {
    nodes: BTreeSet<usize>,
    /// The zones that one of them speaks for, and those that the asker serves itself.
    zones: BTreeSet<ZoneName>,
}

impl HeardOf {
    /// None where everybody knows questions: then everything can be known.
    pub(super) fn by(asker: usize, fabric: &mut Fabric) -> Option<HeardOf> {
        let knows = |at: &usize, fabric: &Fabric| fabric.nodes[*at].behaviour != Behaviour::Older;
        if (0..fabric.nodes.count()).all(|at| knows(&at, fabric)) {
            return None;
        }
        let (mut nodes, mut open) = (BTreeSet::from([asker]), vec![asker]);
        while let Some(at) = open.pop() {
            let others = fabric.network.links.neighbours(at).filter(|it| knows(it, fabric));
            open.extend(others.filter(|it| nodes.insert(*it)));
        }
        let mut zones: BTreeSet<ZoneName> = fabric.nodes[asker].zones.keys().cloned().collect();
        for at in &nodes {
            let Some((node, now)) = fabric.read(*at) else { continue };
            let tree = node.tree(now).into_iter();
            zones.extend(tree.filter(|zone| zone.is_gateway).map(|zone| zone.id.zone));
        }
        Some(HeardOf { nodes, zones })
    }

    /// Whether it can be known to the asker that a node holds something of a zone.
    pub(super) fn reaches(&self, at: usize, zone: &ZoneName) -> bool {
        self.nodes.contains(&at) && self.zones.contains(zone)
    }
}
