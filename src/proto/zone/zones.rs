//! All registries of a node: the zones that it takes part in, one of each name, and the replicas of zones below them.

use std::collections::BTreeMap;

use super::Zone;
use crate::proto::name::{ZoneId, ZoneName};

/// The registries of a node.
#[derive(Default)]
pub(in crate::proto) struct Zones {
    /// Those that it is a member of, or follows.
    served: BTreeMap<ZoneName, Box<Zone>>,
    /// Those that it follows as a gateway of a zone above.
    below: BTreeMap<ZoneId, Box<Zone>>,
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

/// The replicas of zones below.
impl Zones {
    pub(in crate::proto) fn below(&self) -> &BTreeMap<ZoneId, Box<Zone>> {
        &self.below
    }

    pub(in crate::proto) fn below_mut(&mut self) -> &mut BTreeMap<ZoneId, Box<Zone>> {
        &mut self.below
    }

    /// The registries of a name: that which this node takes part in, and replicas.
    pub(in crate::proto) fn named(&self, name: &ZoneName) -> impl Iterator<Item = &Zone> {
        let first = ZoneId::open(name.clone());
        let below = self.below.range(first..).take_while(|(id, _)| id.zone == *name);
        self.get(name).into_iter().chain(below.map(|(_, zone)| &**zone).collect::<Vec<_>>())
    }

    /// Every registry, those that this node takes part in first.
    pub(in crate::proto) fn all(&self) -> impl Iterator<Item = &Zone> {
        self.values().chain(self.below.values().map(|zone| &**zone))
    }

    pub(in crate::proto) fn all_mut(&mut self) -> impl Iterator<Item = &mut Zone> {
        let below = self.below.values_mut().map(|zone| &mut **zone);
        self.served.values_mut().map(|zone| &mut **zone).chain(below)
    }
}
