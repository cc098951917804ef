//! What an answer out of this zone may say of itself (protocol section 3): whether something may be missing, and since when.
//!
//! Nothing is missing by construction where nobody else is: in the first node of a world, or of a zone. Everywhere else a
//! replica is as complete as its last finished sync, which ages.

use std::time::Duration;

use super::Zone;
use crate::proto::config::Config;
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
    /// When somebody came to a node that lacked nothing.
    founded_until: Option<Timestamp>,
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
        Company { alone_since: Some(now), has_lost: false, founded_until: None }
    }

    /// Somebody came.
    pub(super) fn meet(&mut self, links: &Links, config: &Config, now: Timestamp) {
        if self.is_founder(links, config, now) {
            self.founded_until = Some(now);
        }
        self.alone_since = None;
    }

    /// Somebody left; who has nobody any more, and is told of nothing that it lacks, is alone.
    pub(super) fn part(&mut self, leaving: Leaving, lacks_nothing: bool, now: Timestamp) {
        self.has_lost |= leaving == Leaving::Lost;
        if lacks_nothing && !self.has_lost {
            self.alone_since = Some(now);
        }
    }

    /// A sync ended well: what those had who were lost before it has been looked for.
    pub(super) fn compared(&mut self) {
        self.has_lost = false;
    }

    /// Nobody knows of more than what is held here.
    fn is_founder(&self, links: &Links, config: &Config, now: Timestamp) -> bool {
        let Some(since) = self.alone_since else { return false };
        // Whoever was given peers cannot know what those have before it meets them, or the world without them.
        !config.expects_peers || (since + config.alone_after <= now && links.reaches_world(config, now))
    }

    pub(super) fn shift(&mut self, step: Duration) {
        self.alone_since = self.alone_since.map(|at| at - step);
        self.founded_until = self.founded_until.map(|at| at - step);
    }
}

impl Zone {
    /// What an answer out of this zone is worth.
    pub(in crate::proto) fn answer(&self, links: &Links, config: &Config, now: Timestamp) -> ZoneAnswer {
        let whole_at = self.schedule.synced_at().max(self.company.founded_until);
        let (status, age) = match whole_at.map(|at| now.since(at)) {
            _ if self.company.is_founder(links, config, now) => (ZoneStatus::Held, Some(Duration::ZERO)),
            None => (ZoneStatus::Unreachable, None),
            Some(age) if age > config.stale_after || self.schedule.lag() == Lag::Known => {
                (ZoneStatus::Stale, Some(age))
            }
            Some(age) => (ZoneStatus::Held, Some(age)),
        };
        ZoneAnswer { zone: self.name().clone(), status, age }
    }
}
