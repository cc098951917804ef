//! Questions that others are asked (protocol section 4): those of local clients, and those of peers of this node's zones and
//! below. They only go up, one message in and at most one out, so that no loop and no flood can come of them. Equal ones that
//! are under way at once are one, and what was answered is kept for a while.

mod cache;
mod heard;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

pub(super) use self::cache::Level;
use self::cache::{Cache, Recalled};
pub(super) use self::heard::{Consulted, Heard, Told};
use super::ask::{Contact, Question};
use super::context::Context;
use super::identity::PeerKey;
use super::io::{ConversationId, Output, Protocol};
use super::limits::QUESTIONS_MAX;
use super::query::{Find, QuestionCounts, Uses};
use super::time::Timestamp;

/// Least time in which somebody who was referred to may still answer.
const ROUND_TRIP_MIN: Duration = Duration::from_millis(100);

/// Others that are asked because somebody named them instead of an answer: one on each way.
const REDIRECTS_MAX: usize = 2;

/// Whose question it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Origin {
    /// A client that searches, or lists.
    Find {
        /// The number of its command.
        id: u64,
        find: Box<Find>,
        by_name: bool,
    },
    /// A client that looks at the tree of zones.
    Tree {
        /// The number of its command.
        id: u64,
    },
    /// A client that means an agent.
    Resolve {
        /// The number of its command.
        id: u64,
        text: String,
        for_call: bool,
    },
    /// A peer.
    Peer {
        /// The number of its request.
        id: u64,
    },
}

/// A question under way.
pub(super) struct Open {
    /// Whose it is: the first asked it, the others meant the same.
    pub(super) origins: Vec<Origin>,
    pub(super) question: Question,
    level: Level,
    sense: Vec<u8>,
    deadline: Timestamp,
    waiting: BTreeMap<ConversationId, (PeerKey, Question)>,
    /// Messages to zones that were referred to.
    pub(super) referred_asks: usize,
    /// How often somebody named others instead of an answer, who were asked.
    redirects: usize,
    /// What came.
    pub(super) consulted: Consulted,
    /// Whether those were asked whom the first answers led to.
    pub(super) is_confirmed: bool,
}

/// The questions under way.
#[derive(Default)]
pub(super) struct Resolver {
    open: BTreeMap<u64, Open>,
    next: u64,
    cache: Cache,
    pub(super) counts: QuestionCounts,
    pub(super) from_memory: MemoryCounts,
}

/// What those count who only look, of whom there may be several at once.
#[derive(Default)]
pub(super) struct MemoryCounts {
    clients: AtomicU64,
    hits: AtomicU64,
    stale: AtomicU64,
    misses: AtomicU64,
}

impl MemoryCounts {
    /// A client asked.
    pub(super) fn client(&self) {
        self.clients.fetch_add(1, Relaxed);
    }

    /// Replicas of zones below had a part in an answer.
    pub(super) fn replicas(&self, uses: Uses) {
        let of = [(&self.hits, uses.hits), (&self.stale, uses.stale), (&self.misses, uses.misses)];
        of.into_iter().filter(|(_, more)| *more > 0).for_each(|(count, more)| {
            count.fetch_add(more, Relaxed);
        });
    }
}

impl Resolver {
    /// All counts so far.
    pub(super) fn counts(&self) -> QuestionCounts {
        let MemoryCounts { clients, hits, stale, misses } = &self.from_memory;
        let [clients, hits, stale, misses] = [clients, hits, stale, misses].map(|it| it.load(Relaxed));
        let l3 = Uses { hits, stale, misses };
        QuestionCounts { of_clients: self.counts.of_clients + clients, l3, ..self.counts }
    }

    /// Whether another question has room.
    pub(super) fn has_room(&self) -> bool {
        self.open.values().map(|open| open.origins.len()).sum::<usize>() < QUESTIONS_MAX
    }

    /// What others said to an equal question, if it is young enough for this one.
    pub(super) fn recall(
        &mut self,
        question: &Question,
        level: Level,
        now: Timestamp,
    ) -> Option<Arc<Consulted>> {
        let recalled = self.cache.get(&question.sense(), level, question.max_age(), now);
        let uses = if level == Level::L1 { &mut self.counts.l1 } else { &mut self.counts.l2 };
        match recalled {
            Recalled::Young(consulted) => {
                uses.hits += 1;
                return Some(consulted);
            }
            Recalled::Old => uses.stale += 1,
            Recalled::Nothing => uses.misses += 1,
        }
        None
    }

    /// Asks these, all at once, with the time that is left. They are as many as there are ways: two at most.
    pub(super) fn ask(
        &mut self,
        ctx: &mut Context<'_>,
        origin: Origin,
        question: Question,
        of: Vec<Contact>,
        left: Duration,
    ) {
        let (sense, deadline, level) = (question.sense(), ctx.now + left, origin.level());
        let same = self.open.values_mut().find(|open| {
            open.sense == sense
                && open.deadline <= deadline
                && open.question.max_age() <= question.max_age()
                && !open.is_confirmed
                && open.level == level
        });
        if let Some(open) = same {
            return open.origins.push(origin);
        }
        let open = Open {
            origins: vec![origin],
            question: question.clone(),
            level,
            sense,
            deadline,
            waiting: BTreeMap::new(),
            referred_asks: 0,
            redirects: 0,
            consulted: Consulted::new(ctx.now),
            is_confirmed: false,
        };
        self.go_on(ctx, open, of.into_iter().map(|contact| (contact, question.clone())).collect());
    }

    /// A question goes on, at these.
    pub(super) fn go_on(&mut self, ctx: &mut Context<'_>, mut open: Open, of: Vec<(Contact, Question)>) {
        // A moment less: the answer has to come back.
        let left = open.deadline.since(ctx.now).mul_f64(0.9);
        for (contact, question) in of {
            open.send(ctx, contact, question, left, &mut self.counts);
        }
        self.next += 1;
        self.open.insert(self.next, open);
    }

    pub(super) fn leads(&self, id: ConversationId) -> bool {
        self.open.values().any(|open| open.waiting.contains_key(&id))
    }

    /// Somebody else is asked instead of who knows no answer; whether he is.
    pub(super) fn redirect(&mut self, ctx: &mut Context<'_>, id: ConversationId, to: Contact) -> bool {
        let now = ctx.now;
        let open = self.open.values_mut().find(|open| open.waiting.contains_key(&id));
        let Some(open) = open
            .filter(|open| open.level == Level::L1 && open.redirects < REDIRECTS_MAX && open.has_time(now))
        else {
            return false;
        };
        let Some((_, question)) = open.waiting.remove(&id) else { return false };
        open.redirects += 1;
        ctx.out.push(Output::EndConversation { conversation: id });
        let left = open.deadline.since(now).mul_f64(0.9);
        open.send(ctx, to, question, left, &mut self.counts);
        true
    }

    /// Who was asked what, and whether because somebody else had said that he knows.
    pub(super) fn asked(&self, id: ConversationId) -> Option<(PeerKey, Question, bool)> {
        self.open.values().find_map(|open| {
            let (peer, question) = open.waiting.get(&id)?;
            Some((*peer, question.clone(), open.is_confirmed))
        })
    }

    /// An answer came, or none will; the question, if that was the last that was waited for.
    pub(super) fn take(
        &mut self,
        ctx: &mut Context<'_>,
        id: ConversationId,
        heard: Option<Heard>,
    ) -> Option<Open> {
        let (number, open) = self.open.iter_mut().find(|(_, open)| open.waiting.contains_key(&id))?;
        let number = *number;
        open.waiting.remove(&id);
        ctx.out.push(Output::EndConversation { conversation: id });
        open.consulted.heard.extend(heard);
        if open.waiting.is_empty() { self.open.remove(&number) } else { None }
    }

    /// What others said is kept for whoever asks the same.
    pub(super) fn keep(&mut self, open: &Open, consulted: Arc<Consulted>, now: Timestamp) {
        self.cache.put(&open.sense, open.level, consulted, now);
    }

    /// Questions whose time is over.
    pub(super) fn take_overdue(&mut self, ctx: &mut Context<'_>) -> Vec<Open> {
        let overdue: Vec<Open> =
            self.open.extract_if(.., |_, open| open.deadline <= ctx.now).map(|(_, open)| open).collect();
        for conversation in overdue.iter().flat_map(|open| open.waiting.keys()) {
            ctx.out.push(Output::EndConversation { conversation: *conversation });
        }
        overdue
    }

    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.open.values().map(|open| open.deadline).min()
    }

    /// The local clock went back by `step`.
    pub(super) fn shift(&mut self, step: Duration) {
        for open in self.open.values_mut() {
            open.consulted.asked_at = open.consulted.asked_at - step;
            open.deadline = open.deadline - step;
        }
        self.cache.clear();
    }
}

impl Open {
    fn send(
        &mut self,
        ctx: &mut Context<'_>,
        to: Contact,
        question: Question,
        left: Duration,
        counts: &mut QuestionCounts,
    ) {
        let conversation = ctx.out.next_conversation();
        let (peer, protocol) = (to.peer, Protocol::Ask);
        let question = question.with_left(left);
        let bytes = question.encode();
        self.waiting.insert(conversation, (peer, question));
        ctx.out.push(Output::Reach(to));
        ctx.out.push(Output::Request { conversation, peer, protocol, bytes });
        match self.level {
            Level::L1 => counts.asked += 1,
            Level::L2 => counts.asked_for_peers += 1,
        }
    }

    /// Whether there is time to ask somebody else.
    pub(super) fn has_time(&self, now: Timestamp) -> bool {
        self.deadline.since(now) >= ROUND_TRIP_MIN
    }

    /// All that came.
    pub(super) fn take_consulted(&mut self) -> Consulted {
        let asked_at = self.consulted.asked_at;
        std::mem::replace(&mut self.consulted, Consulted::new(asked_at))
    }
}

impl Origin {
    fn level(&self) -> Level {
        match self {
            Origin::Find { .. } | Origin::Tree { .. } | Origin::Resolve { .. } => Level::L1,
            Origin::Peer { .. } => Level::L2,
        }
    }
}
