//! What only looks: at the node's state, for status pages and for checkers.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Node;
use crate::proto::code::Code;
use crate::proto::config::Config;
use crate::proto::fingerprint::Digest;
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::io::{NodeAlert, Taken, Via};
use crate::proto::name::ZoneName;
use crate::proto::node_name::NodeName;
use crate::proto::own_records;
use crate::proto::query::{Found, QuestionCounts, TreeZone, ZoneAnswer};
use crate::proto::record::{Author, KeyHash, Record, Shelf};
use crate::proto::time::Timestamp;
use crate::proto::zone::{Zone, ZoneState};

impl Node {
    /// Key of this node.
    pub fn key(&self) -> PeerKey {
        self.own.author().key
    }

    /// This node as an author.
    pub fn author(&self) -> Author {
        self.own.author()
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.local.config
    }

    /// Records that came since the start, by their way and by what was made of them.
    pub fn taken(&self) -> &BTreeMap<(Via, Taken), u64> {
        self.out.taken()
    }

    /// Refused records since the start, by reason.
    pub fn refused(&self) -> &BTreeMap<Code, u64> {
        self.out.refused()
    }

    /// How often others were asked, and how often that was not needed.
    pub fn question_counts(&self) -> QuestionCounts {
        self.resolver.counts()
    }

    /// What an operator should know, each with the time since which it is so.
    pub fn alerts(&self) -> Vec<(NodeAlert, Timestamp)> {
        let alerts = self.out.alerts().map(|(alert, since)| (alert.clone(), since));
        let relied_on = self.forks.relied_on(&self.own, &self.owners, &self.local.config);
        let forks = self.forks.iter().filter(|(author, _)| relied_on.contains(&author.key));
        alerts.chain(forks.map(|(author, since)| (NodeAlert::ForkedAuthor(author), since))).collect()
    }

    /// Authors that are known to be forked, each with the time when that was noticed, whether or not it concerns this node.
    pub fn forks(&self) -> impl Iterator<Item = (Author, Timestamp)> {
        self.forks.iter()
    }

    /// Since when nobody is connected.
    pub fn cut_off_since(&self) -> Option<Timestamp> {
        self.links.none_since()
    }

    /// Zones replicated here.
    pub fn zones(&self) -> impl Iterator<Item = &Zone> {
        self.zones.values()
    }

    /// One of them.
    pub fn zone(&self, name: &ZoneName) -> Option<&Zone> {
        self.zones.get(name)
    }

    /// Fingerprint of a whole zone; none if it is not replicated here.
    pub fn fingerprint(&mut self, zone: &ZoneName, as_of: Timestamp) -> Option<Digest> {
        self.fingerprint_within(zone, as_of, &mut { usize::MAX })
    }

    /// As [`Node::fingerprint`], if that takes no more than to hash about `work` records; the next question goes on from there.
    pub fn fingerprint_within(
        &mut self,
        zone: &ZoneName,
        as_of: Timestamp,
        work: &mut usize,
    ) -> Option<Digest> {
        self.zones.get_mut(zone)?.fingerprint_within(as_of, work)
    }

    /// State of every zone.
    pub fn zone_states(&self, now: Timestamp) -> Vec<ZoneState> {
        let own = self.own.author();
        self.zones.values().map(|zone| zone.state(own, now)).collect()
    }

    /// The tree of zones as it is seen here, from the root down: those that this node takes part in, those below that it follows
    /// as a gateway, and those that it only knows to be delegated.
    pub fn tree(&mut self, now: Timestamp) -> Vec<TreeZone> {
        self.turn(now).tree()
    }

    /// Gap-free prefix of each author of a zone, this node included.
    pub fn versions(&self, zone: &ZoneName) -> Vec<(Author, u64)> {
        let (own, Some(zone)) = (self.own.author(), self.zones.get(zone)) else { return Vec::new() };
        let own_version = (zone.records.seq() > 0).then_some((own, zone.records.seq()));
        let seen = zone.registry().vector().iter().filter(|(author, _)| **author != own);
        seen.map(|(author, prefix)| (*author, prefix)).chain(own_version).collect()
    }

    /// Whether every zone was compared with a peer since the start.
    pub fn is_synced(&self) -> bool {
        self.zones.values().all(|zone| zone.first_synced_at().is_some())
    }

    /// Whether this host may write again what nobody asked it to: it has heard what others hold, and its clock is to be trusted.
    pub fn may_renew(&self, now: Timestamp) -> bool {
        let from = own_records::renews_from(&self.local.config, &self.zones);
        from.is_some_and(|from| from.max(self.clock.settles()) <= now)
    }

    /// What stands on a shelf of a zone, by slot.
    pub fn on_shelf(&self, zone: &ZoneName, shelf: Shelf) -> impl Iterator<Item = &Arc<Record>> {
        self.zone(zone).into_iter().flat_map(move |zone| zone.registry().on_shelf(shelf))
    }

    /// One agent by its id.
    pub fn agent(&self, now: Timestamp, id: &AgentId) -> Option<Found> {
        self.directory.agent(now, &self.zones, id, 0.0)
    }

    /// What this host offers now.
    pub fn own_offers(&self) -> impl Iterator<Item = &Arc<Record>> {
        own_records::offers(&self.own)
    }

    /// Agents of this node's key that its data folder does not know, and that wait for a word of the operator.
    pub fn restored(&self) -> impl Iterator<Item = &Arc<Record>> {
        let held = |key| self.zones.values().find_map(|zone| zone.registry().get(key));
        self.own.restored.keys().iter().filter_map(held)
    }

    /// Whether the record of a key is one of [`Node::restored`].
    pub fn is_restored(&self, key: &KeyHash) -> bool {
        self.own.restored.keys().contains(key)
    }

    /// The local clock minus the median of the connected peers' clocks, milliseconds.
    pub fn clock_offset_ms(&self) -> i64 {
        self.clock.offset_ms(&self.zones, &self.links)
    }

    /// A peer's clock minus ours, milliseconds.
    pub fn clock_offset_of(&self, peer: &PeerKey) -> Option<i64> {
        self.clock.offset_of(&self.zones, peer)
    }

    /// When a peer's last beacon came, and what it calls itself.
    pub fn heard(&self, peer: &PeerKey) -> Option<(Timestamp, Option<&NodeName>)> {
        self.zones
            .values()
            .filter_map(|zone| Some((zone.liveness().heard_at(peer)?, zone.liveness().name_of(peer))))
            .max()
    }

    /// The held record of a key, for checkers.
    pub fn record(&self, zone: &ZoneName, key: &KeyHash) -> Option<&Arc<Record>> {
        self.zone(zone).and_then(|zone| zone.registry().get(key))
    }

    /// What an answer out of a zone would say of itself, for checkers.
    pub fn zone_answer(&self, zone: &ZoneName, now: Timestamp) -> Option<ZoneAnswer> {
        self.zone(zone).map(|zone| zone.answer(&self.links, &self.local.config, now))
    }

    /// All held records of a zone, for checkers.
    pub fn records(&self, zone: &ZoneName) -> impl Iterator<Item = &Arc<Record>> {
        self.zone(zone).into_iter().flat_map(|zone| zone.registry().iter())
    }
}
