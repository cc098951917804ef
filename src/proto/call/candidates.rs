//! The hosts of one call, and which of them is asked next.
//!
//! Where there are several each is asked once with little patience, so that one that is dead or stands still costs a fraction
//! of a second. Only when none of them took the call each is asked again, as patiently as if it were the only one.

use std::time::Duration;

use super::hosts::Rank;
use crate::proto::identity::PeerKey;
use crate::proto::limits::{CALL_OFFERS_MAX, CALL_OPEN_DEADLINE, CALL_OPENINGS_MAX, CALL_REPLICAS_MAX};
use crate::proto::liveness::Presence;

/// Those of one call, at least one.
#[derive(Debug)]
pub(super) struct Candidates {
    all: Vec<Candidate>,
    /// Which of them is asked now.
    at: usize,
    /// Whether each is asked once, and no more.
    is_brief: bool,
    /// Whether each was asked once, and is asked again.
    pub(super) is_thorough: bool,
}

/// One of them, and what came of it.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) host: PeerKey,
    pub(super) presence: Presence,
    /// Streams that were opened to it.
    streams: u32,
    /// When no more are opened; none before the first.
    opens_until: Option<Duration>,
    /// Offers that it left without a word.
    pub(super) unanswered: u32,
    search: Search,
    /// Whether it will not do it, or has no stream for a call that does not wait.
    pub(super) has_refused: bool,
}

/// Whether a host that cannot be dialed was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    No,
    Needed,
    Done,
    InVain,
}

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Ask(PeerKey),
    LookFor(PeerKey),
}

impl Candidates {
    /// Of these hosts, but for this node; none if there is no other. Where there are more than [`CALL_REPLICAS_MAX`] those
    /// that rank least.
    pub(super) fn of<R: Ord>(
        replicas: &[(PeerKey, Presence)],
        own: PeerKey,
        is_brief: bool,
        mut rank: impl FnMut(&PeerKey, Presence) -> R,
    ) -> Option<Candidates> {
        let others = replicas.iter().filter(|(host, _)| *host != own);
        let mut ranked: Vec<(R, PeerKey, Presence)> =
            others.map(|(host, presence)| (rank(host, *presence), *host, *presence)).collect();
        ranked.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
        ranked.truncate(CALL_REPLICAS_MAX);
        let all: Vec<Candidate> =
            ranked.into_iter().map(|(_, host, presence)| Candidate::new(host, presence)).collect();
        let is_thorough = all.len() == 1 && !is_brief;
        (!all.is_empty()).then_some(Candidates { all, at: 0, is_brief, is_thorough })
    }

    /// Who is asked next; none where nobody is left.
    pub(super) fn next(&mut self, now: Duration, rank: impl Fn(&PeerKey, Presence) -> Rank) -> Option<Next> {
        let order = |(at, candidate): &(usize, &Candidate)| {
            (candidate.streams, rank(&candidate.host, candidate.presence), *at)
        };
        let is_first =
            |(_, candidate): &(usize, &Candidate)| !candidate.was_asked() && !candidate.has_refused;
        let unasked = self.all.iter().enumerate().filter(is_first).min_by_key(order);
        if let Some((at, candidate)) = unasked.filter(|_| !self.is_thorough) {
            self.at = at;
            return Some(Next::Ask(candidate.host));
        }
        if self.is_brief {
            return None;
        }
        self.is_thorough = true;
        let open = self.all.iter().enumerate().filter(|(_, candidate)| candidate.is_open(now));
        // Who has to be looked for comes last: that takes seconds.
        let next = open.min_by_key(|it| (it.1.search == Search::Needed, order(it)));
        let (at, candidate) = next?;
        self.at = at;
        Some(match candidate.search {
            Search::Needed => Next::LookFor(candidate.host),
            _ => Next::Ask(candidate.host),
        })
    }

    /// Who is asked now.
    pub(super) fn present(&self) -> &Candidate {
        &self.all[self.at]
    }

    pub(super) fn present_mut(&mut self) -> &mut Candidate {
        &mut self.all[self.at]
    }
}

impl Candidate {
    fn new(host: PeerKey, presence: Presence) -> Candidate {
        let search = Search::No;
        Candidate { host, presence, streams: 0, opens_until: None, unanswered: 0, search, has_refused: false }
    }

    /// A stream to it is opened; until when that may take at most.
    pub(super) fn note_opening(&mut self, now: Duration) -> Duration {
        self.streams += 1;
        *self.opens_until.get_or_insert(now + CALL_OPEN_DEADLINE)
    }

    /// It cannot be dialed.
    pub(super) fn note_not_opened(&mut self) {
        // A host that was found and still cannot be dialed is not found better by a second search.
        self.search = if self.search == Search::No { Search::Needed } else { Search::InVain };
    }

    /// It was looked for.
    pub(super) fn note_searched(&mut self) {
        self.search = Search::Done;
    }

    fn was_asked(&self) -> bool {
        self.streams > 0
    }

    /// Whether it may be asked again.
    pub(super) fn is_open(&self, now: Duration) -> bool {
        !self.has_refused
            && self.search != Search::InVain
            && self.streams < CALL_OPENINGS_MAX
            && self.unanswered < CALL_OFFERS_MAX
            && self.opens_until.is_none_or(|until| now < until)
    }
}
