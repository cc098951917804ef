//! The zones this node takes part in and their gossip topics. Zones come and go while the node runs.
//!
//! A peer tells its subscriptions once, when it is first connected, and then each change. What it says of zones that are
//! not ours must therefore be remembered: whoever joins a zone later would never hear who is in it. gossipsub keeps the
//! set of each peer; [`ZoneTopicFilter`] says what may enter it, and `SUBSCRIPTIONS_MAX` how much.

use std::collections::BTreeMap;

use libp2p::gossipsub::{IdentTopic, MaxCountSubscriptionFilter, TopicHash, TopicSubscriptionFilter};

use crate::proto::name::{ZoneId, ZoneName};

/// Subscriptions of one peer, and changes in one message. A gateway may serve many zones. With names of 253 bytes that is
/// 0.4 MB for a hostile peer; of one that has more, the message that goes beyond is ignored.
const SUBSCRIPTIONS_MAX: usize = 1_000;

/// The zones of this node, each with its topic.
#[derive(Clone, Debug)]
pub(super) struct ZoneTopics {
    prefix: String,
    joined: BTreeMap<ZoneName, IdentTopic>,
}

impl ZoneTopics {
    /// No zones yet.
    pub(super) fn new(network: &str) -> ZoneTopics {
        ZoneTopics { prefix: format!("/aop/{network}/zone/"), joined: BTreeMap::new() }
    }

    /// Takes a zone in; its topic, or none if it was there.
    pub(super) fn join(&mut self, id: &ZoneId) -> Option<IdentTopic> {
        if self.joined.contains_key(&id.zone) {
            return None;
        }
        let topic = IdentTopic::new(format!("{}{id}", self.prefix));
        self.joined.insert(id.zone.clone(), topic.clone());
        Some(topic)
    }

    /// Lets a zone go; its topic, or none if it was not there.
    pub(super) fn leave(&mut self, zone: &ZoneName) -> Option<IdentTopic> {
        self.joined.remove(zone)
    }

    /// The topic of a zone of this node.
    pub(super) fn joined(&self, zone: &ZoneName) -> Option<&IdentTopic> {
        self.joined.get(zone)
    }

    /// Every zone of this node with its topic.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&ZoneName, &IdentTopic)> {
        self.joined.iter()
    }

    /// The zone of this node that a topic stands for.
    pub(super) fn zone(&self, topic: &TopicHash) -> Option<ZoneName> {
        // Of a name there is one registry here: those of other keys, or of none, are of no concern.
        let zone = zone_in(&self.prefix, topic)?.zone;
        self.joined.get(&zone).is_some_and(|joined| joined.hash() == *topic).then_some(zone)
    }

    /// The topic of a zone of this network; of one in which this node takes no part that of its open registry.
    pub(super) fn topic(&self, zone: &ZoneName) -> IdentTopic {
        let open = || IdentTopic::new(format!("{}{zone}", self.prefix));
        self.joined.get(zone).cloned().unwrap_or_else(open)
    }

    /// Which subscriptions of peers are remembered: those to zones of this network, at most [`SUBSCRIPTIONS_MAX`].
    pub(super) fn filter(&self) -> MaxCountSubscriptionFilter<ZoneTopicFilter> {
        MaxCountSubscriptionFilter {
            filter: ZoneTopicFilter { prefix: self.prefix.clone() },
            max_subscribed_topics: SUBSCRIPTIONS_MAX,
            // A peer's first message names all of its zones, so it may name as many as are remembered.
            max_subscriptions_per_request: SUBSCRIPTIONS_MAX,
        }
    }
}

/// Lets topics of zones of one network pass.
pub(super) struct ZoneTopicFilter {
    prefix: String,
}

impl TopicSubscriptionFilter for ZoneTopicFilter {
    fn can_subscribe(&mut self, topic: &TopicHash) -> bool {
        zone_in(&self.prefix, topic).is_some()
    }
}

fn zone_in(prefix: &str, topic: &TopicHash) -> Option<ZoneId> {
    let named = topic.as_str().strip_prefix(prefix)?;
    Some(match named.split_once('/') {
        Some((zone, key)) => ZoneId { zone: zone.parse().ok()?, key: Some(key.parse().ok()?) },
        None => ZoneId::open(named.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_topics_of_zones_of_this_network_are_remembered() {
        let topics = ZoneTopics::new("test");
        let mut filter = topics.filter();
        let mut allows = |text: &str| filter.can_subscribe(&TopicHash::from_raw(text));
        assert!(allows("/aop/test/zone/.") && allows("/aop/test/zone/acme.org"));
        let key = crate::proto::identity::Identity::from_seed([1; 32]).key();
        assert!(allows(&format!("/aop/test/zone/acme.org/{key}")));
        for other in [
            "/aop/test/zone/acme.org/x",
            "/aop/world/zone/.",
            "/aop/test/zone/",
            "/aop/test/zone/Acme",
            "/aop/test/zone",
            "x",
        ] {
            assert!(!allows(other), "{other}");
        }
    }

    #[test]
    fn a_zone_that_was_left_has_no_topic() {
        let mut topics = ZoneTopics::new("test");
        let zone: ZoneName = "acme.org".parse().unwrap();
        let topic = topics.join(&ZoneId::open(zone.clone())).unwrap();
        assert!(topics.join(&ZoneId::open(zone.clone())).is_none());
        assert_eq!(topics.zone(&topic.hash()), Some(zone.clone()));
        assert!(topics.leave(&zone).is_some() && topics.leave(&zone).is_none());
        assert_eq!((topics.zone(&topic.hash()), topics.joined(&zone).is_some()), (None, false));
    }
}
