//! Forks: authors that signed two different records with one version, because a key or a folder was copied.
//!
//! Keys are free, so anybody can fork as often as he likes, and convergence does not depend on it. Forks of strangers are
//! counted; an alarm is only what concerns this node: its own key, an owner of its agents or of a name it knows, a bootstrap
//! peer, a host that was called from here.

use std::collections::{BTreeMap, BTreeSet};

use super::config::Config;
use super::identity::PeerKey;
use super::own_records::OwnRecords;
use super::owners::Owners;
use super::record::Author;
use super::time::Timestamp;

/// Forked strangers that are remembered, in case this node comes to rely on one; the others are only counted.
const STRANGERS_MAX: usize = 256;
/// Called hosts that are remembered: more than a node calls in the minutes within which a fork of theirs matters most. The one
/// that was not called longest goes.
const CALLED_MAX: usize = 1_024;

/// The forks that were seen, and the hosts that were called.
#[derive(Default)]
pub(super) struct Forks {
    of: BTreeMap<Author, Timestamp>,
    called: BTreeMap<PeerKey, Timestamp>,
}

/// Whose forks concern this node.
pub(super) struct ReliedOn<'a> {
    own_owners: BTreeSet<PeerKey>,
    owners: &'a Owners,
    config: &'a Config,
    called: &'a BTreeMap<PeerKey, Timestamp>,
}

impl Forks {
    /// An author is forked. Answers whether that is new and concerns this node.
    pub(super) fn note(
        &mut self,
        author: Author,
        own: &OwnRecords,
        owners: &Owners,
        config: &Config,
        now: Timestamp,
    ) -> bool {
        if self.of.contains_key(&author) {
            return false;
        }
        let concerns = self.relied_on(own, owners, config).contains(&author.key);
        // Those that concern this node are as few as whom it relies on, in the epochs of one run.
        if concerns || self.of.len() < STRANGERS_MAX {
            self.of.insert(author, now);
        }
        concerns
    }

    /// A host is called.
    pub(super) fn called(&mut self, host: PeerKey, now: Timestamp) {
        if self.called.len() >= CALLED_MAX && !self.called.contains_key(&host) {
            let oldest = self.called.iter().min_by_key(|(_, at)| **at).map(|(host, _)| *host);
            oldest.map(|oldest| self.called.remove(&oldest));
        }
        self.called.insert(host, now);
    }

    /// The forks that were seen, each with its time.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Author, Timestamp)> {
        self.of.iter().map(|(author, since)| (*author, *since))
    }

    /// Whose forks concern this node. Looks at all own records.
    pub(super) fn relied_on<'a>(
        &'a self,
        own: &OwnRecords,
        owners: &'a Owners,
        config: &'a Config,
    ) -> ReliedOn<'a> {
        ReliedOn { own_owners: own.owners().collect(), owners, config, called: &self.called }
    }
}

impl ReliedOn<'_> {
    pub(super) fn contains(&self, key: &PeerKey) -> bool {
        self.own_owners.contains(key)
            || self.config.bootstrap_peers.contains(key)
            || self.called.contains_key(key)
            || self.owners.iter().any(|known| known.owner == *key)
    }
}
