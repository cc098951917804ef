//! What an answer out of this zone may say of itself (protocol sections 3 and 4): whether something may be missing, and since
//! when; and whether this node may speak for the zone, so that others are as whole as it is.
//!
//! A replica is whole where nothing is missing by construction: in the first node of a world, or of a zone. Everywhere else it
//! is whole by a comparison with one that is, and that ages. Where all of a zone start at once none is: after a while of
//! company the word of those who are there has to do.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Notice, Zone};
use crate::proto::config::Config;
use crate::proto::identity::PeerKey;
use crate::proto::io::Role;
use crate::proto::links::Links;
use crate::proto::liveness::Lag;
use crate::proto::query::{ZoneAnswer, ZoneStatus};
use crate::proto::time::Timestamp;

/// Who else may hold what is not held here.
pub(super) struct Company {
    /// Since when nobody: nobody was met, or all that were have said goodbye.
    alone_since: Option<Timestamp>,
    /// Somebody was lost without a goodbye since the last finished sync, and may write where nobody here hears it.
    has_lost: bool,
    /// The last time at which nothing was missing.
    whole_at: Option<Timestamp>,
    /// Connected peers that said that they may speak for the zone.
    whole_peers: BTreeSet<PeerKey>,
    /// Whether this node knew others when it began to take part: they may know of more.
    knew_others: bool,
    /// Since when there are others, none of whom may.
    none_whole_since: Option<Timestamp>,
}

/// How a peer left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proto) enum Leaving {
    /// It told that it serves the zone no longer, or said goodbye.
    Told,
    /// Its last connection closed.
    Lost,
}

impl Company {
    pub(super) fn new(now: Timestamp) -> Company {
        Company {
            alone_since: Some(now),
            has_lost: false,
            whole_at: None,
            whole_peers: BTreeSet::new(),
            knew_others: false,
            none_whole_since: None,
        }
    }

    /// This node begins to take part in the zone in a world of others.
    pub(super) fn begin_among_others(&mut self) {
        self.knew_others = true;
    }

    /// Somebody came.
    pub(super) fn meet(&mut self, links: &Links, config: &Config, now: Timestamp) {
        if self.is_founder(links, config, now) {
            self.whole_at = Some(now);
        }
        self.alone_since = None;
    }

    /// Somebody left.
    pub(super) fn part(&mut self, peer: &PeerKey, leaving: Leaving) {
        self.has_lost |= leaving == Leaving::Lost;
        self.whole_peers.remove(peer);
    }

    /// Nobody is left; who is told of nothing that it lacks is alone.
    pub(super) fn left_alone(&mut self, lacks_nothing: bool, now: Timestamp) {
        self.none_whole_since = None;
        if lacks_nothing && !self.has_lost {
            self.alone_since = Some(now);
        }
    }

    /// A peer said whether it may speak for the zone.
    pub(super) fn told(&mut self, peer: PeerKey, is_whole: bool) {
        if is_whole {
            self.whole_peers.insert(peer);
        } else {
            self.whole_peers.remove(&peer);
        }
    }

    pub(super) fn is_whole_peer(&self, peer: &PeerKey) -> bool {
        self.whole_peers.contains(peer)
    }

    /// A sync with a peer ended well: what those had who were lost before it has been looked for.
    pub(super) fn compared(&mut self, peer: &PeerKey, config: &Config, now: Timestamp) {
        self.has_lost = false;
        let was_whole = self.whole_at.is_some_and(|at| now.since(at) <= config.stale_after);
        if !self.whole_peers.is_empty() {
            self.none_whole_since = None;
            // Others may hold what this one lacks: only those who may speak have it.
            if self.whole_peers.contains(peer) {
                self.whole_at = Some(now);
            }
        } else if was_whole || now.since(*self.none_whole_since.get_or_insert(now)) >= config.company_after {
            // It is this node that the others wait for.
            self.whole_at = Some(now);
        }
    }

    /// The zone above, whole, knew nobody of this zone.
    pub(super) fn unknown_above(&mut self, now: Timestamp) {
        self.whole_at = Some(now);
    }

    /// Nobody knows of more than what is held here.
    fn is_founder(&self, links: &Links, config: &Config, now: Timestamp) -> bool {
        let Some(since) = self.alone_since else { return false };
        // Whoever was given peers cannot know what those have before it meets them, or the world without them.
        let is_first = !config.expects_peers && !self.knew_others;
        is_first || (since + config.alone_after <= now && links.reaches_world(config, now))
    }

    pub(super) fn shift(&mut self, step: Duration) {
        self.alone_since = self.alone_since.map(|at| at - step);
        self.whole_at = self.whole_at.map(|at| at - step);
        self.none_whole_since = self.none_whole_since.map(|at| at - step);
    }
}

impl Zone {
    /// What an answer out of this zone is worth.
    pub(in crate::proto) fn answer(&self, links: &Links, config: &Config, now: Timestamp) -> ZoneAnswer {
        let (status, age) = match self.company.whole_at.map(|at| now.since(at)) {
            _ if self.company.is_founder(links, config, now) => (ZoneStatus::Held, Some(Duration::ZERO)),
            None => (ZoneStatus::Unreachable, None),
            Some(age) if age > config.stale_after || self.schedule.lag() == Lag::Known => {
                (ZoneStatus::Stale, Some(age))
            }
            Some(age) => (ZoneStatus::Held, Some(age)),
        };
        ZoneAnswer::here(self.name().clone(), status, age)
    }
}

/// Whether this node may speak for a zone: whoever compares itself with it is as whole. Who follows a zone may not, for it
/// hears no beacon that tells of more.
pub(in crate::proto) fn may_speak(zone: &Zone, links: &Links, config: &Config, now: Timestamp) -> bool {
    zone.role == Role::Member && zone.answer(links, config, now).status == ZoneStatus::Held
}

/// A zone is joined by a node that is connected.
pub(in crate::proto) fn note_others(zone: &mut Zone) {
    zone.company.begin_among_others();
}

/// The zone above, whole, knew nobody else of this zone.
pub(in crate::proto) fn note_unknown_above(zone: &mut Zone, now: Timestamp) {
    zone.company.unknown_above(now);
    if zone.first_synced_at().is_none() {
        zone.schedule.founded(now);
        zone.records.notices.push(Notice::SyncEnded);
    }
}
