//! The tree of zones: what this node holds of it, and what others tell.

use std::collections::BTreeMap;

use super::ask::Questions;
use super::turn::Turn;
use crate::proto::ask::{self, Branch, Question};
use crate::proto::io::{Reply, Role};
use crate::proto::limits::{ANSWER_AGE, ASK_TIME, TREE_ZONES_MAX};
use crate::proto::name::{ZoneId, ZoneName};
use crate::proto::overlay::contact_of;
use crate::proto::query::{TreeZone, ZoneAnswer, ZoneStatus};
use crate::proto::resolver::{Consulted, Level, Origin, Told};
use crate::proto::zone::{Zone, gateways};

impl Turn<'_> {
    /// What is held here, and what is known to be delegated, from the root down.
    pub(super) fn tree(&self) -> Vec<TreeZone> {
        let Turn { ctx, zones, links, overlay, .. } = self;
        let of = |zone: &Zone, ZoneAnswer { status, age, .. }: ZoneAnswer| TreeZone {
            role: Some(zone.role()),
            status,
            age,
            agents: zone.records.agents().len(),
            bytes: zone.registry().bytes(),
            ..known(zone.id().clone())
        };
        let served = zones.values().map(|zone| TreeZone {
            members: Some(zone.members(ctx.now)),
            gateways: gateways(zone, ctx, ctx.own_gateway()),
            is_gateway: zone.role() == Role::Member && overlay.is_gateway(zone.name()),
            parent: overlay.parent(zone.name()).map(|parent| parent.zone.clone()),
            ..of(zone, zone.answer(links, ctx.config, ctx.now))
        });
        let below = zones.below().values().map(|zone| TreeZone {
            gateways: overlay.below().gateways(zone.id()).iter().map(|contact| contact.peer).collect(),
            ..of(zone, overlay.below().answer(zone.id(), ctx.config, ctx.now))
        });
        let mut tree: BTreeMap<ZoneId, TreeZone> =
            served.chain(below).map(|zone| (zone.id.clone(), zone)).collect();
        let memory = self.memory();
        for registry in zones.delegating() {
            for (id, record) in memory.delegated_zones(registry) {
                let zone = tree.entry(id.clone()).or_insert_with(|| known(id));
                if zone.role.is_none() {
                    zone.gateways.extend(contact_of(record).map(|contact| contact.peer));
                }
                let nearest =
                    zone.parent.as_ref().is_none_or(|parent| registry.name().is_within(&parent.zone));
                if nearest && !zone.is_gateway {
                    zone.parent = Some(registry.id().clone());
                }
            }
        }
        in_order(tree)
    }
}

impl Questions<'_, '_> {
    /// The tree as this node knows it, or no reply yet where others are asked.
    pub(super) fn tree_or_ask(&mut self, id: u64) -> Option<Reply> {
        let tree = self.0.tree();
        let (zone, ways) = (ZoneName::root(), self.ways_up(&ZoneName::root()));
        self.0.resolver.counts.of_clients += 1;
        if ways.is_empty() {
            return Some(Reply::Tree(tree));
        }
        let (left_ms, max_age_ms) = (ASK_TIME.as_millis() as u32, ANSWER_AGE.as_millis() as u32);
        let question = Question::Tree { zone, left_ms, max_age_ms };
        let now = self.ctx.now;
        if let Some(consulted) = self.0.resolver.recall(&question, Level::L1, now) {
            return Some(Reply::Tree(self.tree_by(&consulted, ZoneStatus::Cached)));
        }
        if !self.0.resolver.has_room() {
            return Some(Reply::Tree(tree));
        }
        self.0.resolver.ask(&mut self.0.ctx, Origin::Tree { id }, question, ways, ASK_TIME);
        None
    }

    /// What this node holds of a zone and those below it, for a peer.
    pub(super) fn answer_tree(&self, zone: &ZoneName) -> ask::Answer {
        let held = |it: &TreeZone| it.role.is_some() && it.id.zone.is_within(zone);
        let tree: Vec<TreeZone> = self.0.tree().into_iter().filter(held).collect();
        let zones: Vec<Branch> = tree.iter().take(TREE_ZONES_MAX).map(Branch::of).collect();
        ask::Answer::Tree { more: (tree.len() - zones.len()) as u32, zones }
    }

    /// What is held here, and of the rest what others say.
    pub(super) fn tree_by(&self, consulted: &Consulted, answered: ZoneStatus) -> Vec<TreeZone> {
        let passed = consulted.passed(self.ctx.now);
        let mut tree: BTreeMap<ZoneId, TreeZone> =
            self.0.tree().into_iter().map(|zone| (zone.id.clone(), zone)).collect();
        for heard in &consulted.heard {
            let Told::Tree { zones, .. } = &heard.told else { continue };
            for told in zones.iter().map(|it| it.zone(heard.peer, passed, answered)) {
                let zone = tree.entry(told.id.clone()).or_insert_with(|| told.clone());
                // What is held here is known better here; of two others the one that knows more counts.
                if zone.role.is_none() && !zone.status.is_fine() {
                    *zone = told;
                } else if zone.parent.is_none() {
                    zone.parent = told.parent;
                }
            }
        }
        in_order(tree)
    }
}

/// A zone of which nothing is held.
fn known(id: ZoneId) -> TreeZone {
    TreeZone {
        id,
        role: None,
        status: ZoneStatus::Unreachable,
        age: None,
        by: None,
        agents: 0,
        bytes: 0,
        members: None,
        gateways: Vec::new(),
        is_gateway: false,
        parent: None,
    }
}

/// A zone before those below it.
fn in_order(tree: BTreeMap<ZoneId, TreeZone>) -> Vec<TreeZone> {
    let mut tree: Vec<TreeZone> = tree.into_values().collect();
    let path = |zone: &TreeZone| {
        let mut labels: Vec<String> = zone.id.zone.as_str().split('.').rev().map(str::to_owned).collect();
        labels.retain(|label| !label.is_empty());
        labels
    };
    tree.sort_by_cached_key(|zone| (path(zone), zone.id.key));
    tree
}
