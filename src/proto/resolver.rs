//! Questions that others are asked (protocol section 4): those of local clients, and those of peers of this node's zones and
//! below. They only go up, one message in and at most one out, so that no loop and no flood can come of them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ask::{Answer, Contact, Question};
use super::context::Context;
use super::identity::PeerKey;
use super::io::{ConversationId, Output, Protocol};
use super::limits::QUESTIONS_MAX;
use super::query::Find;
use super::time::Timestamp;

/// Whose question it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Origin {
    /// A client that searches, or lists.
    Find {
        /// The number of its command.
        id: u64,
        find: Find,
        by_name: bool,
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
    pub(super) origin: Origin,
    pub(super) question: Question,
    pub(super) asked_at: Timestamp,
    deadline: Timestamp,
    waiting: BTreeMap<ConversationId, PeerKey>,
    /// What came, by whom.
    pub(super) answers: Vec<(PeerKey, Answer)>,
    /// Whether the zone's own gateways were asked, after a replica.
    pub(super) is_confirmed: bool,
}

/// The questions under way.
#[derive(Default)]
pub(super) struct Resolver {
    open: BTreeMap<u64, Open>,
    next: u64,
}

impl Resolver {
    /// Whether another question has room.
    pub(super) fn has_room(&self) -> bool {
        self.open.len() < QUESTIONS_MAX
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
        let open = Open {
            origin,
            question,
            asked_at: ctx.now,
            deadline: ctx.now + left,
            waiting: BTreeMap::new(),
            answers: Vec::new(),
            is_confirmed: false,
        };
        self.next += 1;
        let number = self.next;
        self.open.insert(number, open);
        self.ask_more(ctx, number, of);
    }

    /// Asks these as well.
    fn ask_more(&mut self, ctx: &mut Context<'_>, number: u64, of: Vec<Contact>) {
        let Some(open) = self.open.get_mut(&number) else { return };
        // A moment less: the answer has to come back.
        let left = open.deadline.since(ctx.now).mul_f64(0.9);
        for contact in of {
            let conversation = ctx.out.next_conversation();
            open.waiting.insert(conversation, contact.peer);
            let (peer, protocol) = (contact.peer, Protocol::Ask);
            let bytes = open.question.clone().with_left(left).encode();
            ctx.out.push(Output::Reach(contact));
            ctx.out.push(Output::Request { conversation, peer, protocol, bytes });
        }
    }

    pub(super) fn leads(&self, id: ConversationId) -> bool {
        self.open.values().any(|open| open.waiting.contains_key(&id))
    }

    /// An answer came, or none will; the question, if that was the last that was waited for.
    pub(super) fn take(
        &mut self,
        ctx: &mut Context<'_>,
        id: ConversationId,
        answer: Option<Answer>,
    ) -> Option<Open> {
        let (number, open) = self.open.iter_mut().find(|(_, open)| open.waiting.contains_key(&id))?;
        let (number, peer) = (*number, open.waiting.remove(&id)?);
        ctx.out.push(Output::EndConversation { conversation: id });
        open.answers.extend(answer.map(|answer| (peer, answer)));
        if open.waiting.is_empty() { self.open.remove(&number) } else { None }
    }

    /// A question goes on, at others.
    pub(super) fn go_on(&mut self, ctx: &mut Context<'_>, open: Open, of: Vec<Contact>) {
        self.next += 1;
        let number = self.next;
        self.open.insert(number, open);
        self.ask_more(ctx, number, of);
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
            open.asked_at = open.asked_at - step;
            open.deadline = open.deadline - step;
        }
    }
}

impl Open {
    /// How long ago it was asked.
    pub(super) fn passed(&self, now: Timestamp) -> Duration {
        now.since(self.asked_at)
    }
}
