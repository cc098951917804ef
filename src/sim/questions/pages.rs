//! Answers that are read page by page: each page is asked for with the cursor of the one before, and all of them together are
//! judged as one answer, which is complete if every page is, and as old as the oldest of them.

use std::collections::BTreeMap;

use super::Asked;
use super::judge::{Case, Judgement};
use crate::proto::identity::AgentId;
use crate::proto::io::Command;
use crate::proto::name::ZoneName;
use crate::proto::query::{Answer, Find};
use crate::proto::record::RecordHash;
use crate::sim::checkers::Check;

/// Agents of a page: few, so that there are many pages, and some end between agents of one name.
const PAGE_AGENTS: usize = 3;
/// How long a client looks at a page before it asks for the next, milliseconds.
pub(super) const LOOK_MS: u64 = 800;

/// What a client reads page by page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The zone, with all below it.
    pub zone: ZoneName,
    /// Words that every agent has one of, and is ranked by; without any agents come by their names.
    pub text: String,
    /// Whether each page is asked of another node than the one before.
    pub moves: bool,
}

/// The pages that a client read so far.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Reading {
    listing: Listing,
    /// When the first page was asked for, virtual milliseconds.
    pub(super) begun_ms: u64,
    pages: Vec<Answer>,
}

impl Reading {
    /// Nothing is read yet.
    pub(in crate::sim) fn of(listing: Listing, begun_ms: u64) -> Reading {
        Reading { listing, begun_ms, pages: Vec::new() }
    }

    /// How a node is asked for the next page.
    pub(in crate::sim) fn command(&self) -> Command {
        let after = self.pages.last().and_then(|page| page.next.clone());
        let mut find = Find { limit: PAGE_AGENTS, after, ..Find::default() };
        (find.query.text, find.query.zone) = (self.listing.text.clone(), Some(self.listing.zone.clone()));
        Command::Find(find)
    }

    /// What is asked with every page.
    pub(super) fn asked(&self) -> Asked {
        Asked::Pages(self.listing.clone())
    }

    /// Whether the next page is asked of another node.
    pub(super) fn moves(&self) -> bool {
        self.listing.moves
    }

    /// A page is read; whether it was the last.
    pub(super) fn turn(&mut self, page: Answer) -> bool {
        self.pages.push(page);
        self.pages.last().is_none_or(|page| page.next.is_none())
    }

    /// Whether the pages so far are as they should be; of the last all of them together.
    pub(super) fn judge(&self, case: &mut Case<'_>) -> Judgement {
        let agents = case.reference.histories().count();
        let wrong = |detail: String| Judgement::Wrong(Check::PagesAreExact, detail);
        if let Some(twice) = self.shown_twice() {
            return wrong(format!("{twice} is shown twice by {} pages", self.pages.len()));
        }
        // Each page has one at least; ranked by words one comes back whenever it is changed.
        if self.pages.len() > 2 * agents + 1 {
            return wrong(format!("{} pages of {agents} agents do not end", self.pages.len()));
        }
        let is_last = self.pages.last().is_none_or(|page| page.next.is_none());
        // Who died or came back between two pages was reached for some of them alone.
        if !is_last || case.quiet_ms == 0 {
            return Judgement::Right;
        }
        match case.judge_answer(&self.listing.zone, &self.united()) {
            Judgement::Wrong(Check::AnswerIsComplete, detail) => wrong(detail),
            judgement => judgement,
        }
    }

    /// All pages as one answer.
    fn united(&self) -> Answer {
        let found = self.pages.iter().flat_map(|page| page.found.iter().cloned()).collect();
        let zones = self.pages.iter().flat_map(|page| page.zones.iter().cloned()).collect();
        Answer { found, zones, next: None }
    }

    /// An agent that two pages show although its place did not change.
    fn shown_twice(&self) -> Option<String> {
        let mut shown: BTreeMap<AgentId, RecordHash> = BTreeMap::new();
        let mut found = self.pages.iter().flat_map(|page| &page.found);
        let twice = found.find(|found| {
            let before = shown.insert(found.id, found.record.hash());
            before.is_some_and(|before| self.listing.text.is_empty() || before == found.record.hash())
        });
        twice.map(|found| format!("{:?}", found.record))
    }
}
