//! All registries of a node: the zones that it takes part in, one of each name, and the replicas of zones below them.

use std::collections::BTreeMap;

use super::{Replicas, Zone};
use crate::proto::name::{ZoneId, ZoneName};

/// The registries of a node.
#[derive(Default)]
pub(in crate::proto) struct Zones {
    /// Those that it is a member of, or follows.
    served: BTreeMap<ZoneName, Box<Zone>>,
    /// Those that it follows as a gateway of a zone above.
    below: Replicas,
}

/// The zones that this node takes part in. Of each name there is one registry, so that its name says which.
impl Zones {
    pub(in crate::proto) fn get(&self, name: &ZoneName) -> Option<&Zone> {
        self.served.get(name).map(|zone| &**zone)
    }

    pub(in crate::proto) fn get_mut(&mut self, name: &ZoneName) -> Option<&mut Zone> {
        self.served.get_mut(name).map(|zone| &mut **zone)
    }

    pub(in crate::proto) fn insert(&mut self, zone: Zone) {
        self.served.insert(zone.name().clone(), Box::new(zone));
    }

    pub(in crate::proto) fn remove(&mut self, name: &ZoneName) -> Option<Box<Zone>> {
        self.served.remove(name)
    }

    pub(in crate::proto) fn contains_key(&self, name: &ZoneName) -> bool {
        self.served.contains_key(name)
    }

    pub(in crate::proto) fn names(&self) -> Vec<ZoneName> {
        self.served.keys().cloned().collect()
    }

    pub(in crate::proto) fn values(&self) -> impl Iterator<Item = &Zone> {
        self.served.values().map(|zone| &**zone)
    }

    pub(in crate::proto) fn values_mut(&mut self) -> impl Iterator<Item = &mut Zone> {
        self.served.values_mut().map(|zone| &mut **zone)
    }
}

/// The replicas of zones below, and all registries.
impl Zones {
    pub(in crate::proto) fn below(&self) -> &Replicas {
        &self.below
    }

    pub(in crate::proto) fn below_mut(&mut self) -> &mut Replicas {
        &mut self.below
    }

    /// One of them.
    pub(in crate::proto) fn registry_of(&self, id: &ZoneId) -> Option<&Zone> {
        self.get(&id.zone).filter(|zone| zone.id() == id).or_else(|| self.below.get(id))
    }

    /// The registries of a name: that which this node takes part in, and replicas.
    pub(in crate::proto) fn named(&self, name: &ZoneName) -> impl Iterator<Item = &Zone> {
        self.get(name).into_iter().chain(self.below.named(name))
    }

    /// Every registry, those that this node takes part in first.
    pub(in crate::proto) fn all(&self) -> impl Iterator<Item = &Zone> {
        self.values().chain(self.below.values())
    }

    /// Lets those with agents that wait for the index do something, for which they wait no more.
    pub(in crate::proto) fn with_unindexed(&mut self, mut act: impl FnMut(&mut Zone)) {
        self.values_mut().for_each(&mut act);
        self.below.with_unindexed(act);
    }

    /// Those that hold a delegation, and maybe some that do not.
    pub(in crate::proto) fn delegating(&self) -> impl Iterator<Item = &Zone> {
        self.values().chain(self.below.delegating())
    }
}
