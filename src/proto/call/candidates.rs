//! The hosts of one call, and which of them is asked next.
//!
//! Where there are several each is asked once with little patience, so that one that is dead or stands still costs a fraction
//! of a second. Only when none of them took the call each is asked again, as patiently as if it were the only one.

use std::time::Duration;

use super::Replica;
use super::hosts::Rank;
use crate::proto::identity::PeerKey;
use crate::proto::limits::{CALL_OFFERS_MAX, CALL_OPEN_DEADLINE, CALL_OPENINGS_MAX, CALL_REPLICAS_MAX};

/// Those of one call, at least one.
#[derive(Debug)]
pub(super) struct Candidates {
    all: Vec<Candidate>,
    /// Whether each was asked once, and is asked again.
    pub(super) is_thorough: bool,
    /// Who was asked last.
    pub(super) last_asked: Option<PeerKey>,
}

/// One of them, and what came of it.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) replica: Replica,
    /// Where it stands in an order by chance, and the number that put it there.
    pub(super) nth: usize,
    pub(super) draw: u32,
    /// Where it stands in the order of the call's conversation, if it has one.
    pub(super) turn: Option<u64>,
    /// Streams that were opened to it.
    streams: u32,
    /// When no more are opened; none before the first.
    opens_until: Option<Duration>,
    /// Offers that it left without a word.
    pub(super) unanswered: u32,
    search: Search,
    /// Whether it has one of the streams of the call, or waits for it.
    pub(super) is_asked: bool,
    /// Whether it will not do it.
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

/// What is done next, with the candidate of this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Ask(usize),
    LookFor(usize),
}

impl Candidates {
    /// Of these hosts; none if there is none. Where there are more than [`CALL_REPLICAS_MAX`] those that rank least.
    pub(super) fn of(
        replicas: &[Replica],
        mut draw: impl FnMut() -> u32,
        turn: impl Fn(&PeerKey) -> Option<u64>,
        rank: impl Fn(&Candidate) -> Rank,
    ) -> Option<Candidates> {
        let mut hosts = replicas.to_vec();
        hosts.sort_by_key(|it| it.host);
        hosts.dedup_by_key(|it| it.host);
        let is_choice = hosts.len() > 1;
        let mut drawn: Vec<(u32, Replica)> =
            hosts.into_iter().map(|it| (if is_choice { draw() } else { 0 }, it)).collect();
        drawn.sort_by_key(|(draw, replica)| (*draw, replica.host));
        let candidate = |(nth, (draw, replica)): (usize, (u32, Replica))| Candidate {
            turn: turn(&replica.host),
            ..Candidate::new(replica, nth, draw)
        };
        let mut all: Vec<Candidate> = drawn.into_iter().enumerate().map(candidate).collect();
        all.sort_by_cached_key(&rank);
        all.truncate(CALL_REPLICAS_MAX);
        let is_thorough = all.len() == 1;
        (!all.is_empty()).then_some(Candidates { all, is_thorough, last_asked: None })
    }

    /// Who is asked next beside those that are asked now; none where nobody is left.
    pub(super) fn next(&mut self, now: Duration, rank: impl Fn(&Candidate) -> Rank) -> Option<Next> {
        let order = |(at, candidate): &(usize, &Candidate)| (candidate.streams, rank(candidate), *at);
        let failing = self.failing(&rank);
        let may = |candidate: &Candidate| !failing.contains(&candidate.host());
        let free =
            || self.all.iter().enumerate().filter(|(_, candidate)| !candidate.is_asked && may(candidate));
        let unasked = free().filter(|(_, it)| it.streams == 0 && !it.has_refused).min_by_key(order);
        if let Some((at, _)) = unasked.filter(|_| !self.is_thorough) {
            return Some(Next::Ask(at));
        }
        // Who has to be looked for comes last: that takes seconds.
        let open = free().filter(|(_, candidate)| candidate.is_open(now));
        let next = open.min_by_key(|it| (it.1.search == Search::Needed, order(it)));
        let next = next.map(|(at, candidate)| match candidate.search {
            Search::Needed => Next::LookFor(at),
            _ => Next::Ask(at),
        });
        // While somebody is asked the others have had no second chance to refuse.
        self.is_thorough |= self.all.iter().all(|candidate| !candidate.is_asked);
        next
    }

    /// Who was not asked yet and may take what waits at others.
    pub(super) fn beside(&self, rank: impl Fn(&Candidate) -> Rank) -> Option<usize> {
        let failing = self.failing(&rank);
        let may = |candidate: &Candidate| !failing.contains(&candidate.host());
        let is_unasked = |it: &Candidate| it.streams == 0 && !it.is_asked && !it.has_refused;
        let is_free = |it: &&(usize, &Candidate)| is_unasked(it.1) && may(it.1);
        let all: Vec<(usize, &Candidate)> = self.all.iter().enumerate().collect();
        all.iter().filter(is_free).min_by_key(|(at, it)| (rank(it), *at)).map(|(at, _)| *at)
    }

    /// Whether there is another that does not pause.
    pub(super) fn has_other(&self, at: usize, rank: impl Fn(&Candidate) -> Rank) -> bool {
        self.all.iter().enumerate().any(|(other, candidate)| other != at && !rank(candidate).is_paused)
    }

    /// Hosts that are not asked though others have no place: their agent fails. Where all hosts pause they are as good as any.
    fn failing(&self, rank: impl Fn(&Candidate) -> Rank) -> Vec<PeerKey> {
        let all_pause = self.all.iter().all(|candidate| rank(candidate).is_paused);
        let failing = self.all.iter().filter(|it| !all_pause && rank(it).is_failing);
        failing.map(Candidate::host).collect()
    }

    /// All are asked anew, as for the first time.
    pub(super) fn begin_again(&mut self) {
        self.is_thorough = self.all.len() == 1;
        for candidate in &mut self.all {
            let Candidate { replica, nth, draw, turn, .. } = *candidate;
            *candidate = Candidate { turn, ..Candidate::new(replica, nth, draw) };
        }
    }

    /// The number of a host among them.
    pub(super) fn position(&self, host: &PeerKey) -> Option<usize> {
        self.all.iter().position(|candidate| candidate.host() == *host)
    }

    /// Their keys.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &PeerKey> {
        self.all.iter().map(|candidate| &candidate.replica.host)
    }

    pub(super) fn get(&self, at: usize) -> &Candidate {
        &self.all[at]
    }

    pub(super) fn get_mut(&mut self, at: usize) -> &mut Candidate {
        &mut self.all[at]
    }
}

impl Candidate {
    pub(super) fn new(replica: Replica, nth: usize, draw: u32) -> Candidate {
        Candidate {
            replica,
            nth,
            draw,
            turn: None,
            streams: 0,
            opens_until: None,
            unanswered: 0,
            search: Search::No,
            is_asked: false,
            has_refused: false,
        }
    }

    pub(super) fn host(&self) -> PeerKey {
        self.replica.host
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

    /// Whether it may be asked again.
    pub(super) fn is_open(&self, now: Duration) -> bool {
        !self.has_refused
            && self.search != Search::InVain
            && self.streams < CALL_OPENINGS_MAX
            && self.unanswered < CALL_OFFERS_MAX
            && self.opens_until.is_none_or(|until| now < until)
    }
}
