//! Anti-entropy: makes two registries equal at a cost that follows their difference (protocol section 3).
//!
//! The asking side drives: it compares the fingerprint trees from the root down to the leaves that differ, fetches what
//! it lacks, gives what the other lacks. Where one side holds nothing below a node, the other's records travel without
//! further comparison, so a joiner receives a plain stream. The answering side keeps no state ([`answer`]). Coverage
//! claimed by a peer is only its word: the next random peer finds omissions.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_bytes::ByteBuf;

use super::fingerprint::{self, Digest, FANOUT, Prefix};
use super::identity::PeerKey;
use super::limits::{SYNC_ANSWER_BYTES, SYNC_ASKS_MAX, SYNC_WINDOW};
use super::message::{
    Item, MESSAGE_RECORDS_MAX, SYNC_ASK_MAX, SYNC_ITEMS_MAX, SyncAnswer, SyncFrame, SyncRequest,
};
use super::name::ZoneName;
use super::record::{Author, KeyHash, Record};
use super::registry::Registry;
use super::time::Timestamp;

/// Whether a sync leaves the newest records to the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// Take everything: on joining, after a suspension, when behind.
    None,
    /// Leave keys stamped within this time: they are on their way.
    Of(Duration),
}

/// How a conversation is led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncMode {
    /// Whether the newest records are left to the mesh.
    pub grace: Grace,
    /// Repairs up to this many records are published again by the side that receives them.
    pub republish_max: usize,
}

/// The asking side of one conversation.
#[derive(Debug)]
pub struct Sync {
    /// The other side.
    pub peer: PeerKey,
    /// What is compared.
    pub zone: ZoneName,
    /// When it began.
    pub started_at: Timestamp,
    /// Records that came.
    pub received: usize,
    /// Records that went.
    pub sent: usize,
    /// What came and was new, to be published again; none if more came than `republish_max`.
    pub repaired: Vec<ByteBuf>,
    as_of: Timestamp,
    grace: Grace,
    republish_max: usize,
    todo: VecDeque<SyncRequest>,
    /// Records to give, made into requests only when the window has room: they are held as pointers until then.
    to_push: VecDeque<Arc<Record>>,
    waiting: VecDeque<SyncRequest>,
    asks: usize,
    versions_asked: bool,
}

/// What an answer leads to.
#[derive(Debug, Default)]
pub struct Step {
    /// Signed records to be verified and merged.
    pub records: Vec<ByteBuf>,
    /// The other side's word on the last version of the author that asked, and its clock.
    pub opened: Option<(Author, u64, Timestamp)>,
    /// Prefixes to adopt: both registries are equal.
    pub adopt: Vec<(Author, u64)>,
}

/// How the conversation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Requests are waiting for answers.
    Running,
    /// Both sides hold what the other had.
    Finished,
}

/// The other side broke the protocol. Records merged before stay: they verified by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// The zone is not held there.
    #[error("the peer does not hold this zone")]
    Refused,
    /// An answer that does not fit its request.
    #[error("the peer's answer does not fit the request")]
    Unfitting,
    /// More requests than any honest difference needs.
    #[error("the comparison does not end")]
    Endless,
}

impl Sync {
    /// Begins a conversation; [`Sync::poll`] yields its first request.
    pub fn new(
        peer: PeerKey,
        zone: ZoneName,
        author: Author,
        as_of: Timestamp,
        mode: SyncMode,
        now: Timestamp,
    ) -> Sync {
        Sync {
            peer,
            zone,
            started_at: now,
            received: 0,
            sent: 0,
            repaired: Vec::new(),
            as_of,
            grace: mode.grace,
            republish_max: mode.republish_max,
            todo: VecDeque::from([SyncRequest::Open { author, clock: now }]),
            to_push: VecDeque::new(),
            waiting: VecDeque::new(),
            asks: 0,
            versions_asked: false,
        }
    }

    /// The next request, if the window has room.
    pub fn poll(&mut self) -> Option<SyncFrame> {
        // A window: the cost of what the other side has to hold for us stays fixed, and the link stays busy.
        if self.waiting.len() >= SYNC_WINDOW {
            return None;
        }
        let request = self.todo.pop_front().or_else(|| self.next_push())?;
        self.asks += 1;
        // A push is not repeated, so only its place in the queue is kept.
        self.waiting.push_back(match &request {
            SyncRequest::Give { publish, .. } => SyncRequest::Give { records: Vec::new(), publish: *publish },
            other => other.clone(),
        });
        Some(SyncFrame { zone: self.zone.clone(), as_of: self.as_of, request })
    }

    /// Takes the answer to the oldest waiting request.
    pub fn handle(
        &mut self,
        answer: SyncAnswer,
        registry: &mut Registry,
        now: Timestamp,
    ) -> Result<Step, SyncError> {
        let request = self.waiting.pop_front().ok_or(SyncError::Unfitting)?;
        // No honest difference needs so many: this peer makes up prefixes as it goes.
        if self.asks > SYNC_ASKS_MAX {
            return Err(SyncError::Endless);
        }
        let mut step = Step::default();
        match (request, answer) {
            (_, SyncAnswer::Refused) => return Err(SyncError::Refused),
            (SyncRequest::Open { author, .. }, SyncAnswer::Opened { root, head, clock }) => {
                step.opened = Some((author, head, clock));
                // Equal roots end it here: one request of some hundred bytes is the usual cost of a sync.
                if registry.digest(Prefix::ROOT, self.as_of) != root {
                    self.todo.push_back(SyncRequest::Children { prefixes: vec![Prefix::ROOT] });
                }
            }
            (SyncRequest::Children { prefixes }, SyncAnswer::Children(theirs)) => {
                self.compare_children(&prefixes, &theirs, registry, now)?;
            }
            (SyncRequest::Items { leaves, after }, SyncAnswer::Items { items, next }) => {
                self.compare_items(&leaves, after, &items, next, registry, now)?;
                self.ask_rest(SyncRequest::Items { leaves, after }, items.is_empty(), next)?;
            }
            (request, SyncAnswer::Records { records, next }) => {
                self.received += records.len();
                self.ask_rest(request, records.is_empty(), next)?;
                step.records = records;
            }
            (SyncRequest::Give { .. }, SyncAnswer::Taken) => {}
            (SyncRequest::Versions { authors }, SyncAnswer::Versions { root, prefixes }) => {
                // Only of a registry that equals this one: what it covers is then covered here, whoever says so.
                if registry.digest(Prefix::ROOT, self.as_of) == root {
                    step.adopt = authors.into_iter().zip(prefixes).collect();
                }
            }
            _ => return Err(SyncError::Unfitting),
        }
        Ok(step)
    }

    /// Records of the last answer were new.
    pub fn note_repaired(&mut self, records: Vec<ByteBuf>) {
        self.repaired.extend(records);
        if self.received > self.republish_max {
            self.repaired.clear();
        }
    }

    /// Whether anything is left; asks for versions once the registries should be equal.
    pub fn progress(&mut self, registry: &Registry) -> Progress {
        if !(self.waiting.is_empty() && self.todo.is_empty() && self.to_push.is_empty()) {
            return Progress::Running;
        }
        let authors: Vec<Author> = registry.vector().gaps().take(SYNC_ASK_MAX).collect();
        if self.versions_asked || authors.is_empty() {
            return Progress::Finished;
        }
        self.versions_asked = true;
        self.todo.push_back(SyncRequest::Versions { authors });
        Progress::Running
    }

    fn compare_children(
        &mut self,
        asked: &[Prefix],
        theirs: &[Digest],
        registry: &mut Registry,
        now: Timestamp,
    ) -> Result<(), SyncError> {
        let (mut inner, mut leaves) = (Vec::new(), Vec::new());
        // Zipped with what was asked: a shorter answer would silently compare the wrong places.
        if theirs.len() != asked.len() * FANOUT {
            return Err(SyncError::Unfitting);
        }
        let stamped_by = self.stamped_by(now);
        for (child, their) in asked.iter().flat_map(|prefix| prefix.children()).zip(theirs) {
            let our = registry.digest(child, self.as_of);
            if our == *their {
                continue;
            }
            // Where one side has nothing there is nothing to compare: records travel at once, in both directions.
            if their.is_empty() {
                self.push(registry.covered(child, self.as_of, None), now);
            } else if our.is_empty() {
                self.todo.push_back(SyncRequest::Subtree { prefix: child, after: None, stamped_by });
            } else if child.is_leaf() {
                leaves.push(child);
            } else {
                inner.push(child);
            }
        }
        let inner =
            inner.chunks(SYNC_ASK_MAX / 4).map(|part| SyncRequest::Children { prefixes: part.to_vec() });
        let leaves =
            leaves.chunks(SYNC_ASK_MAX).map(|part| SyncRequest::Items { leaves: part.to_vec(), after: None });
        self.todo.extend(inner.chain(leaves));
        Ok(())
    }

    /// Compares the keys of some leaves, those after `after` and up to `next`, where the answer ended.
    fn compare_items(
        &mut self,
        leaves: &[Prefix],
        after: Option<KeyHash>,
        items: &[Item],
        next: Option<KeyHash>,
        registry: &Registry,
        now: Timestamp,
    ) -> Result<(), SyncError> {
        // Strictly: an item named twice could be asked for without end.
        if !items.is_sorted_by(|one, other| one.key < other.key) {
            return Err(SyncError::Unfitting);
        }
        let ours: BTreeMap<KeyHash, &Arc<Record>> = leaves
            .iter()
            .flat_map(|leaf| registry.covered(*leaf, self.as_of, after))
            .map(|record| (record.key(), record))
            // Only as far as the answer reached: what lies behind is compared with its rest.
            .take_while(|(key, _)| next.is_none_or(|next| *key <= next))
            .collect();
        let theirs: BTreeMap<KeyHash, &Item> = items.iter().map(|item| (item.key, item)).collect();
        let wanted: Vec<KeyHash> = items
            .iter()
            .filter(|item| registry.get(&item.key).is_none_or(|our| our.is_expired(now) || item.may_win(our)))
            .filter(|item| self.is_due(item.wall, now))
            .map(|item| item.key)
            .collect();
        let lacking = ours
            .values()
            .filter(|our| theirs.get(&our.key()).is_none_or(|item| Item::of(our).may_win_over(item)));
        self.push(lacking.copied(), now);
        self.todo
            .extend(wanted.chunks(SYNC_ASK_MAX).map(|keys| SyncRequest::Records { keys: keys.to_vec() }));
        Ok(())
    }

    /// Asks again where an answer ended before its request did. Each answer must have brought something.
    fn ask_rest(
        &mut self,
        request: SyncRequest,
        nothing_came: bool,
        next: Option<KeyHash>,
    ) -> Result<(), SyncError> {
        let Some(next) = next else {
            return match request {
                SyncRequest::Records { .. } | SyncRequest::Subtree { .. } | SyncRequest::Items { .. } => {
                    Ok(())
                }
                _ => Err(SyncError::Unfitting),
            };
        };
        let rest = match request {
            SyncRequest::Records { mut keys } if keys.first().is_some_and(|first| *first <= next) => {
                keys.retain(|key| *key > next);
                SyncRequest::Records { keys }
            }
            SyncRequest::Subtree { prefix, after, stamped_by } if after.is_none_or(|after| next > after) => {
                SyncRequest::Subtree { prefix, after: Some(next), stamped_by }
            }
            SyncRequest::Items { mut leaves, after } if after.is_none_or(|after| next > after) => {
                leaves.retain(|leaf| leaf.leaves().start >= fingerprint::leaf_of(next));
                SyncRequest::Items { leaves, after: Some(next) }
            }
            _ => return Err(SyncError::Unfitting),
        };
        // An answer that promises more and brings nothing could go on for ever.
        if nothing_came {
            return Err(SyncError::Unfitting);
        }
        if !rest.asks_nothing() {
            // To the front: what is under way is finished before new places are opened, which bounds what waits.
            self.todo.push_front(rest);
        }
        Ok(())
    }

    fn push<'a>(&mut self, records: impl Iterator<Item = &'a Arc<Record>>, now: Timestamp) {
        for record in records {
            if self.is_due(record.stamp.wall, now) {
                self.to_push.push_back(record.clone());
            }
        }
    }

    fn is_due(&self, stamped_at: Timestamp, now: Timestamp) -> bool {
        self.stamped_by(now).is_none_or(|by| stamped_at <= by)
    }

    /// The latest stamp of what is not left to the mesh.
    fn stamped_by(&self, now: Timestamp) -> Option<Timestamp> {
        match self.grace {
            Grace::None => None,
            Grace::Of(grace) => Some(now - grace),
        }
    }

    fn next_push(&mut self) -> Option<SyncRequest> {
        let mut records = Vec::new();
        let mut bytes = 0;
        let publish = self.sent + self.to_push.len() <= self.republish_max;
        while let Some(record) = self.to_push.front() {
            bytes += record.bytes().len();
            let full = bytes > SYNC_ANSWER_BYTES || records.len() == MESSAGE_RECORDS_MAX;
            if full && !records.is_empty() {
                break;
            }
            records.push(ByteBuf::from(record.bytes().to_vec()));
            self.to_push.pop_front();
        }
        self.sent += records.len();
        (!records.is_empty()).then_some(SyncRequest::Give { records, publish })
    }
}

impl SyncRequest {
    fn asks_nothing(&self) -> bool {
        match self {
            SyncRequest::Records { keys } => keys.is_empty(),
            SyncRequest::Items { leaves, .. } => leaves.is_empty(),
            _ => false,
        }
    }
}

impl Item {
    /// The item of a held record.
    pub fn of(record: &Record) -> Item {
        Item {
            key: record.key(),
            generation: record.generation,
            wall: record.stamp.wall,
            counter: record.stamp.counter,
            hash: record.hash(),
        }
    }

    /// Whether this record could win over a held one. Where generation and stamp are equal only the records can tell.
    fn may_win(&self, held: &Record) -> bool {
        self.may_win_over(&Item::of(held))
    }

    fn may_win_over(&self, other: &Item) -> bool {
        let order = |item: &Item| (item.generation, item.wall, item.counter);
        self.hash != other.hash && order(self) >= order(other)
    }
}

/// The answering side: what `registry` says to a request. `Give` is answered by the caller, who merges first.
pub fn answer(frame: &SyncFrame, registry: &mut Registry, now: Timestamp) -> SyncAnswer {
    let as_of = frame.as_of;
    match &frame.request {
        SyncRequest::Open { author, .. } => SyncAnswer::Opened {
            root: registry.digest(Prefix::ROOT, as_of),
            head: registry.head(author),
            clock: now,
        },
        SyncRequest::Children { prefixes } => {
            let children = prefixes.iter().flat_map(|prefix| prefix.children());
            SyncAnswer::Children(children.map(|child| registry.digest(child, as_of)).collect())
        }
        SyncRequest::Items { leaves, after } => {
            let leaves = leaves.iter().filter(|leaf| leaf.is_leaf());
            items_that_fit(leaves.flat_map(|leaf| registry.covered(*leaf, as_of, *after)))
        }
        SyncRequest::Records { keys } => {
            let held = keys.iter().filter_map(|key| registry.get(key));
            records_that_fit(held.filter(|record| record.is_public() && !record.is_expired(now)))
        }
        SyncRequest::Subtree { prefix, after, stamped_by } => {
            let held = registry.covered(*prefix, as_of, *after);
            records_that_fit(held.filter(|record| stamped_by.is_none_or(|by| record.stamp.wall <= by)))
        }
        SyncRequest::Give { .. } => SyncAnswer::Taken,
        SyncRequest::Versions { authors } => SyncAnswer::Versions {
            root: registry.digest(Prefix::ROOT, as_of),
            prefixes: authors.iter().map(|author| registry.vector().prefix(author)).collect(),
        },
    }
}

fn items_that_fit<'a>(mut held: impl Iterator<Item = &'a Arc<Record>>) -> SyncAnswer {
    let items: Vec<Item> = held.by_ref().take(SYNC_ITEMS_MAX).map(|record| Item::of(record)).collect();
    let next = held.next().and(items.last().map(|last| last.key));
    SyncAnswer::Items { items, next }
}

fn records_that_fit<'a>(held: impl Iterator<Item = &'a Arc<Record>>) -> SyncAnswer {
    let mut records = Vec::new();
    let mut bytes = 0;
    let mut last = None;
    for record in held {
        bytes += record.bytes().len();
        let full = bytes > SYNC_ANSWER_BYTES || records.len() == MESSAGE_RECORDS_MAX;
        if full && !records.is_empty() {
            return SyncAnswer::Records { records, next: last };
        }
        records.push(ByteBuf::from(record.bytes().to_vec()));
        last = Some(record.key());
    }
    SyncAnswer::Records { records, next: None }
}
