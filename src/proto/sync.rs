//! Anti-entropy: makes two registries equal at a cost that follows their difference (protocol section 3).
//!
//! The asking side drives: it compares the fingerprint trees from the root down to the leaves that differ, fetches what
//! it lacks, gives what the other lacks. Where one side holds nothing below a node, the other's records travel without
//! further comparison, so a joiner receives a plain stream. The answering side keeps no state ([`answer`]). Coverage
//! claimed by a peer is only its word: the next random peer finds omissions.

mod answer;
mod broken;
mod push;
mod step;

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::Duration;

use serde_bytes::ByteBuf;

pub use self::answer::answer;
pub use self::broken::SyncError;
use self::push::Pushes;
pub use self::step::{Opened, Progress, Step};
use super::fingerprint::{self, Digest, FANOUT, Prefix};
use super::identity::PeerKey;
use super::limits::{
    SYNC_ASKS_MAX, SYNC_BUSY_MAX, SYNC_EMPTY_PAGES_MAX, SYNC_LOOKED_MAX, SYNC_UNDELIVERED_MAX, SYNC_WINDOW,
    ZONE_RECORDS_MAX,
};
use super::message::{Item, SYNC_ASK_MAX, SyncAnswer, SyncFrame, SyncRequest};
use super::name::ZoneId;
use super::record::{Author, KeyHash, Record};
use super::registry::Registry;
use super::time::Timestamp;

/// The shortest wait for a peer that is busy.
const BUSY_WAIT_MIN: Duration = Duration::from_millis(10);

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
    pub zone: ZoneId,
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
    /// What is to be given, made into requests only when the window has room.
    pushes: Pushes,
    waiting: VecDeque<Asked>,
    /// The peer is busy until then: nothing is asked.
    resume_at: Option<Timestamp>,
    asks: usize,
    empty_pages: usize,
    undelivered: usize,
    versions_asked: bool,
}

/// A request whose answer is awaited.
#[derive(Debug)]
enum Asked {
    Question(SyncRequest),
    Given(Vec<Arc<Record>>),
}

impl Sync {
    /// Begins a conversation; [`Sync::poll`] yields its first request.
    pub fn new(
        peer: PeerKey,
        zone: ZoneId,
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
            pushes: Pushes::default(),
            waiting: VecDeque::new(),
            resume_at: None,
            asks: 0,
            empty_pages: 0,
            undelivered: 0,
            versions_asked: false,
        }
    }

    /// The next request, if the window has room and the peer is not busy.
    pub fn poll(&mut self, registry: &Registry, now: Timestamp) -> Option<SyncFrame> {
        // A window: the cost of what the other side has to hold for us stays fixed, and the link stays busy.
        if self.waiting.len() >= SYNC_WINDOW || self.resume_at.is_some_and(|at| at > now) {
            return None;
        }
        self.resume_at = None;
        let request = match self.todo.pop_front() {
            Some(request) => {
                self.waiting.push_back(Asked::Question(request.clone()));
                request
            }
            None => self.next_push(registry, now)?,
        };
        self.asks += 1;
        Some(SyncFrame { zone: self.zone.clone(), as_of: self.as_of, request })
    }

    /// When a peer that was busy is asked again.
    pub fn resume_at(&self) -> Option<Timestamp> {
        self.resume_at
    }

    /// The local clock went back by `step`.
    pub fn shift(&mut self, step: Duration) {
        self.started_at = self.started_at - step;
        self.resume_at = self.resume_at.map(|at| at - step);
    }

    /// Takes the answer to the oldest waiting request.
    pub fn handle(
        &mut self,
        answer: SyncAnswer,
        registry: &mut Registry,
        now: Timestamp,
    ) -> Result<Step, SyncError> {
        let asked = self.waiting.pop_front().ok_or(SyncError::Unfitting)?;
        // No honest difference needs so many: this peer makes up prefixes as it goes.
        if self.asks > SYNC_ASKS_MAX {
            return Err(SyncError::Endless);
        }
        let mut step = Step::default();
        let request = match (asked, answer) {
            (_, SyncAnswer::Refused) => return Err(SyncError::Refused),
            (asked, SyncAnswer::Busy { wait_ms }) => {
                self.wait(asked, Duration::from_millis(wait_ms), now)?;
                return Ok(step);
            }
            (Asked::Given(_), SyncAnswer::Taken) => return Ok(step),
            (Asked::Given(_), _) => return Err(SyncError::Unfitting),
            (Asked::Question(request), answer) => (request, answer),
        };
        match request {
            (
                SyncRequest::Open { author, .. },
                SyncAnswer::Opened { root, head, clock, heard, whole, alive },
            ) => {
                step.opened = Some(Opened { author, head, clock, heard, whole, alive });
                // Equal roots end it here: one request of some hundred bytes is the usual cost of a sync.
                if registry.digest(Prefix::ROOT, self.as_of) != root {
                    self.todo.push_back(SyncRequest::Children { prefixes: vec![Prefix::ROOT] });
                }
            }
            (SyncRequest::Children { prefixes }, SyncAnswer::Children(theirs)) => {
                self.compare_children(&prefixes, &theirs, registry, now)?;
            }
            (SyncRequest::Items { leaves, after }, SyncAnswer::Items { items, next }) => {
                let next = self.compare_items(&leaves, after, &items, next, registry, now)?;
                self.ask_rest(SyncRequest::Items { leaves, after }, items.is_empty(), next)?;
                self.ask_wanted(&items, next, registry, now);
            }
            (request, SyncAnswer::Records { records, next }) => {
                self.note_delivered(&request, records.len(), next)?;
                self.ask_rest(request, records.is_empty(), next)?;
                step.records = records;
            }
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
        if !(self.waiting.is_empty() && self.todo.is_empty() && self.pushes.is_empty()) {
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
                let by = self.stamped_by(now);
                let is_to_give = |held: &Record| is_to_give(held, self.as_of, by);
                self.pushes.below(child, registry, self.republish_max, is_to_give);
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

    /// Compares the keys of some leaves, those after `after` and up to `next`, where the answer ended: what the other side
    /// lacks is to be given. Returns how far both sides were looked at.
    fn compare_items(
        &mut self,
        leaves: &[Prefix],
        after: Option<KeyHash>,
        items: &[Item],
        next: Option<KeyHash>,
        registry: &Registry,
        now: Timestamp,
    ) -> Result<Option<KeyHash>, SyncError> {
        // Strictly: an item named twice could be asked for without end.
        let ascend = items.is_sorted_by(|one, other| one.key < other.key);
        let was_asked = |item: &Item| {
            let leaf = fingerprint::leaf_of(item.key);
            let asked = leaves.binary_search_by_key(&leaf, |asked| asked.leaves().start).is_ok();
            asked && after.is_none_or(|after| item.key > after) && next.is_none_or(|next| item.key <= next)
        };
        if !ascend || !items.iter().all(was_asked) {
            return Err(SyncError::Unfitting);
        }
        let mut theirs = items.iter().peekable();
        let (mut lacking, mut looked) = (Vec::new(), 0);
        // Only as far as the answer reached, and no further than a turn may take: what lies behind is compared with its rest.
        let mut reached = next;
        let ours = leaves.iter().flat_map(|leaf| registry.below(*leaf, after));
        for our in ours.take_while(|our| next.is_none_or(|next| our.key() <= next)) {
            looked += 1;
            let their = loop {
                match theirs.peek() {
                    Some(item) if item.key < our.key() => theirs.next(),
                    Some(item) if item.key == our.key() => break Some(**item),
                    _ => break None,
                };
            };
            let lacks = their.is_none_or(|item| Item::of(our).may_win_over(&item));
            if lacks && fingerprint::covers(our, self.as_of) {
                lacking.push(our.clone());
            }
            if looked == SYNC_LOOKED_MAX {
                reached = Some(our.key());
                break;
            }
        }
        for record in lacking {
            if self.is_due(record.stamp.wall, now) {
                self.pushes.one(record);
            }
        }
        Ok(reached)
    }

    /// Asks for what of the items up to `next` may win here, before anything more is asked: what a liar makes up is at most
    /// one answer ahead of what it brings.
    fn ask_wanted(&mut self, items: &[Item], next: Option<KeyHash>, registry: &Registry, now: Timestamp) {
        let wanted: Vec<KeyHash> = items
            .iter()
            .filter(|item| next.is_none_or(|next| item.key <= next))
            .filter(|item| registry.get(&item.key).is_none_or(|our| our.is_expired(now) || item.may_win(our)))
            .filter(|item| self.is_due(item.wall, now))
            .map(|item| item.key)
            .collect();
        for keys in wanted.chunks(SYNC_ASK_MAX).rev() {
            self.todo.push_front(SyncRequest::Records { keys: keys.to_vec() });
        }
    }

    /// Counts what an answer brought, and what it did not bring though the peer had listed it.
    fn note_delivered(
        &mut self,
        request: &SyncRequest,
        records: usize,
        next: Option<KeyHash>,
    ) -> Result<(), SyncError> {
        self.received += records;
        if let SyncRequest::Records { keys } = request {
            let answered = keys.iter().filter(|key| next.is_none_or(|next| **key <= next)).count();
            self.undelivered += answered.checked_sub(records).ok_or(SyncError::Unfitting)?;
        }
        if self.received > ZONE_RECORDS_MAX || self.undelivered > SYNC_UNDELIVERED_MAX {
            return Err(SyncError::Endless);
        }
        Ok(())
    }

    /// The peer is busy: what it did not answer is asked again later, or the conversation ends.
    fn wait(&mut self, asked: Asked, wait: Duration, now: Timestamp) -> Result<(), SyncError> {
        if wait > SYNC_BUSY_MAX {
            return Err(SyncError::Busy(wait));
        }
        match asked {
            // All that waits is answered in order, so the last of them stands first. Which is as good an order as any.
            Asked::Question(request) => self.todo.push_front(request),
            Asked::Given(records) => {
                self.sent -= records.len();
                self.pushes.again(records);
            }
        }
        // At least a moment: a peer that is never ready must not be asked as fast as it answers.
        let until = now + wait.max(BUSY_WAIT_MIN);
        self.resume_at = Some(self.resume_at.map_or(until, |at| at.max(until)));
        Ok(())
    }

    /// Asks again where an answer ended before its request did.
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
            SyncRequest::Subtree { prefix, after, stamped_by }
                if after.is_none_or(|after| next > after) && prefix.keys().contains(&next) =>
            {
                SyncRequest::Subtree { prefix, after: Some(next), stamped_by }
            }
            SyncRequest::Items { mut leaves, after } if after.is_none_or(|after| next > after) => {
                leaves.retain(|leaf| leaf.leaves().start >= fingerprint::leaf_of(next));
                SyncRequest::Items { leaves, after: Some(next) }
            }
            _ => return Err(SyncError::Unfitting),
        };
        // Answers that promise more and bring nothing could go on for ever.
        self.empty_pages += usize::from(nothing_came);
        if self.empty_pages > SYNC_EMPTY_PAGES_MAX {
            return Err(SyncError::Endless);
        }
        if !rest.asks_nothing() {
            // To the front: what is under way is finished before new places are opened, which bounds what waits.
            self.todo.push_front(rest);
        }
        Ok(())
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

    /// What is to be given next.
    fn next_push(&mut self, registry: &Registry, now: Timestamp) -> Option<SyncRequest> {
        let publish = self.pushes.known() <= self.republish_max;
        let (covers, by) = (self.as_of, self.stamped_by(now));
        let batch = self.pushes.next(registry, |held| is_to_give(held, covers, by))?;
        let records = batch.bytes();
        self.sent += records.len();
        self.waiting.push_back(Asked::Given(batch.into_records()));
        Some(SyncRequest::Give { records, publish })
    }
}

/// Whether a record is compared, and not left to the mesh.
fn is_to_give(held: &Record, as_of: Timestamp, stamped_by: Option<Timestamp>) -> bool {
    fingerprint::covers(held, as_of) && stamped_by.is_none_or(|by| held.stamp.wall <= by)
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
            slot: record.slot,
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
        let order = |item: &Item| (Reverse(item.slot), item.generation, item.wall, item.counter);
        self.hash != other.hash && order(self) >= order(other)
    }
}
