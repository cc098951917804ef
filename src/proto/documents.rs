//! Published documents by the names that their publishers gave them, for those who show them under these names.
//!
//! In an open zone anybody may register a document under anybody's name, and what a registry shows is installed by those who
//! know the name. So nothing is shown for which nobody answers: the own records, those of the own imports, whose registries the
//! operator named, those of zones with a key, and those of owners whom the operator named, in this order where one name has
//! several.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::config::Config;
use super::directory::Directory;
use super::identity::{AgentId, PeerKey};
use super::owners::Owners;
use super::query::ChosenBy;
use super::record::Record;
use super::time::Timestamp;
use super::zone::Zones;

/// Agents of one name that are looked at.
const SAME_NAME_MAX: usize = 64;
/// Matches by words beside those by name.
const BY_WORDS_MAX: usize = 1_000;

/// Which documents are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocumentQuery {
    /// Only names after this one, bytewise.
    pub after: Option<String>,
    /// Only names with this part, in any case, and documents that are found by it as words: of these some may be meant that
    /// do not have it as a part.
    pub text: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// Looks for the documents that somebody answers for.
pub(super) struct Vouched<'a> {
    now: Timestamp,
    own: PeerKey,
    imports: &'a BTreeSet<PeerKey>,
    config: &'a Config,
    trusted: BTreeSet<PeerKey>,
}

impl<'a> Vouched<'a> {
    /// By the node with the key `own` and these `imports`, which takes the operator's word for `owners`.
    pub(super) fn new(
        now: Timestamp,
        own: PeerKey,
        imports: &'a BTreeSet<PeerKey>,
        config: &'a Config,
        owners: &Owners,
    ) -> Vouched<'a> {
        let by_operator = owners.iter().filter(|known| known.by == ChosenBy::Operator);
        Vouched { now, own, imports, config, trusted: by_operator.map(|known| known.owner).collect() }
    }

    /// The documents that match, one of each name, by name.
    pub(super) fn list(
        &self,
        zones: &Zones,
        directory: &Directory,
        query: &DocumentQuery,
    ) -> Vec<Arc<Record>> {
        let text = query.text.as_deref().map(str::to_lowercase).filter(|text| !text.is_empty());
        let found =
            text.as_deref().map(|text| directory.ids_of(zones, text, BY_WORDS_MAX)).unwrap_or_default();
        let is_meant = |name: &str, ids: &[AgentId]| {
            text.as_deref().is_none_or(|text| {
                name.to_lowercase().contains(text) || ids.iter().any(|id| found.contains(id))
            })
        };
        let named = directory.originals_after(zones, query.after.as_deref());
        let meant = named.filter(|(name, ids)| is_meant(name, ids));
        meant.filter_map(|(_, ids)| self.best(zones, &ids)).take(query.limit).collect()
    }

    /// The document of a name.
    pub(super) fn named(&self, zones: &Zones, directory: &Directory, name: &str) -> Option<Arc<Record>> {
        let ids = directory.by_original_name(zones, name);
        self.best(zones, &ids)
    }

    /// Of the agents of one name the record of the one that is answered for best; of equals that of the least id.
    fn best(&self, zones: &Zones, ids: &[AgentId]) -> Option<Arc<Record>> {
        let of_id = |id: &AgentId| {
            let records = zones.all().flat_map(|zone| zone.registry().replicas(id, self.now));
            let record = records.max_by_key(|record| record.order())?;
            Some((self.rank(record)?, *id, record.clone()))
        };
        let best = ids.iter().take(SAME_NAME_MAX).filter_map(of_id).min_by_key(|(rank, id, _)| (*rank, *id));
        best.map(|(.., record)| record)
    }

    /// Who answers for a record, the best first; none if nobody does, or if it is not for everybody.
    fn rank(&self, record: &Record) -> Option<u8> {
        if !record.is_public() {
            return None;
        }
        if record.host == self.own || record.owner == self.own {
            return Some(0);
        }
        if self.imports.contains(&record.host) {
            return Some(1);
        }
        if self.config.zone_keys.contains_key(&record.name.zone) {
            return Some(2);
        }
        self.trusted.contains(&record.owner).then_some(3)
    }
}
