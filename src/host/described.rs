//! Agents as their records describe them. What does not change while a record stands is made once, when it is first asked for:
//! an answer copies it.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::view;
use crate::document::CardKeys;
use crate::proto::card::AgentCard;
use crate::proto::identity::PeerKey;
use crate::proto::record::{Record, RecordHash};

/// What cards and results that were asked for may take together, bytes: those of some thousands of agents.
const SUMMARIES_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// The same of whole agents.
const DETAILS_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How many agents that is, about.
const AGENTS: usize = 8_192;
/// PeerIds that are kept as text.
const PEER_IDS_MAX: usize = 8_192;
/// What an entry takes beside its texts.
const ENTRY_BYTES: usize = 512;

/// A record as answers show it.
pub(super) struct Described {
    /// Its card.
    pub(super) card: Arc<AgentCard>,
    /// On whose behalf it is registered, as text.
    pub(super) owner: Arc<str>,
    /// The members of its JSON that stand first, up to and with the last comma.
    pub(super) members: Box<str>,
}

/// What was made so far. Cheap to clone.
#[derive(Clone)]
pub(super) struct Descriptions(Arc<Made>);

struct Made {
    card_keys: CardKeys,
    summaries: Cache<RecordHash, Arc<Described>, BySize>,
    details: Cache<RecordHash, Arc<str>, BySize>,
    peer_ids: Cache<PeerKey, Arc<str>>,
}

#[derive(Clone)]
struct BySize;

impl Weighter<RecordHash, Arc<Described>> for BySize {
    fn weight(&self, _: &RecordHash, described: &Arc<Described>) -> u64 {
        // The texts of a card are in the members as well, but for its schemas and its document.
        let card = &described.card;
        let own = [&card.input_schema, &card.output_schema, &card.original, &card.registry_meta];
        let own: usize = own.into_iter().flatten().map(String::len).sum();
        (2 * described.members.len() + own + ENTRY_BYTES) as u64
    }
}

impl Weighter<RecordHash, Arc<str>> for BySize {
    fn weight(&self, _: &RecordHash, detail: &Arc<str>) -> u64 {
        (detail.len() + ENTRY_BYTES) as u64
    }
}

impl Descriptions {
    /// None yet; A2A cards are signed with some of these keys.
    pub(super) fn new(card_keys: CardKeys) -> Descriptions {
        Descriptions(Arc::new(Made {
            card_keys,
            summaries: Cache::with_weighter(AGENTS, SUMMARIES_BYTES_MAX, BySize),
            details: Cache::with_weighter(AGENTS, DETAILS_BYTES_MAX, BySize),
            peer_ids: Cache::new(PEER_IDS_MAX),
        }))
    }

    /// A record as answers show it.
    pub(super) fn of(&self, record: &Record) -> Arc<Described> {
        let Made { summaries, .. } = &*self.0;
        if let Some(known) = summaries.get(&record.hash()) {
            return known;
        }
        let card = Arc::new(record.card().unwrap_or_default());
        let owner = self.peer_id(record.owner);
        let members = view::members(&view::agent(record, &card, &owner));
        let made = Arc::new(Described { card, owner, members });
        summaries.insert(record.hash(), made.clone());
        made
    }

    /// The members of the JSON of a whole agent that a result lacks, up to and with the last comma.
    pub(super) fn detail(&self, record: &Record) -> Arc<str> {
        let Made { details, card_keys, .. } = &*self.0;
        if let Some(known) = details.get(&record.hash()) {
            return known;
        }
        let made: Arc<str> = view::detail_members(record, &self.of(record).card, card_keys).into();
        details.insert(record.hash(), made.clone());
        made
    }

    /// A key as text.
    pub(super) fn peer_id(&self, key: PeerKey) -> Arc<str> {
        let Made { peer_ids, .. } = &*self.0;
        peer_ids.get(&key).unwrap_or_else(|| {
            let text: Arc<str> = key.to_string().into();
            peer_ids.insert(key, text.clone());
            text
        })
    }
}
