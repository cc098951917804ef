//! What others answered to a question, verified, as it is kept for whoever asks the same.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_bytes::ByteBuf;

use crate::proto::ask::{Answer, Branch, Contact, Cover, Knowledge, later};
use crate::proto::identity::PeerKey;
use crate::proto::message::Alive;
use crate::proto::name::ZoneName;
use crate::proto::record::Record;
use crate::proto::search::Page;
use crate::proto::time::Timestamp;

/// Bytes that an answer takes beside its records.
const ANSWER_WEIGHT: usize = 512;

/// What the others said to one question.
#[derive(Clone, Debug)]
pub(in crate::proto) struct Consulted {
    /// When the first of them was asked: none of what they say is older by less.
    pub(in crate::proto) asked_at: Timestamp,
    pub(in crate::proto) heard: Vec<Heard>,
    /// Zones that were asked themselves, whether or not they answered.
    pub(in crate::proto) referred: Vec<ZoneName>,
    /// Zones that would have had to be.
    pub(in crate::proto) skipped: Vec<ZoneName>,
    /// The best of a search, ranked when it was first asked for.
    pub(in crate::proto) page: OnceLock<Page>,
}

/// An answer all of which is what it claims to be.
#[derive(Clone, Debug)]
pub(in crate::proto) struct Heard {
    pub(in crate::proto) peer: PeerKey,
    /// Of all hosts of an agent together, the best agent first.
    pub(in crate::proto) records: Vec<Arc<Record>>,
    pub(in crate::proto) alive: Vec<Alive>,
    /// As they came: what they prove depends on the settings of whoever reads them.
    pub(in crate::proto) proofs: Vec<ByteBuf>,
    pub(in crate::proto) told: Told,
}

/// What an answer says beside the records.
#[derive(Clone, Debug)]
pub(in crate::proto) enum Told {
    /// Of a search.
    Found {
        /// Whether others had said that this one knows of the zone.
        is_referred: bool,
        /// The zone that was asked for, with all below it.
        scope: ZoneName,
        more: bool,
        cover: Cover,
    },
    /// Of the tree of zones.
    Tree { zones: Vec<Branch>, more: u32 },
    /// Of names, or of an agent.
    Named { zones: Vec<Knowledge>, gateways: Vec<Contact>, hosts: Vec<Contact> },
}

impl Consulted {
    pub(super) fn new(asked_at: Timestamp) -> Consulted {
        Consulted {
            asked_at,
            heard: Vec::new(),
            referred: Vec::new(),
            skipped: Vec::new(),
            page: OnceLock::new(),
        }
    }

    pub(in crate::proto) fn passed(&self, now: Timestamp) -> Duration {
        now.since(self.asked_at)
    }

    /// How old what it says is, if nothing is missing.
    pub(super) fn age(&self, now: Timestamp) -> Option<Duration> {
        let mut ages = self.heard.iter().map(|heard| match &heard.told {
            Told::Found { cover, .. } => cover.is_fine().then(|| cover.age()),
            Told::Tree { .. } | Told::Named { .. } => Some(Duration::ZERO),
        });
        let oldest = ages.try_fold(Duration::ZERO, |oldest, age| Some(oldest.max(age?)))?;
        (self.referred.is_empty() && self.skipped.is_empty()).then(|| oldest + self.passed(now))
    }

    /// Whether nobody may be told so again: that there is no such agent decides what is called.
    pub(super) fn is_denial(&self) -> bool {
        let is_named = |heard: &Heard| matches!(heard.told, Told::Named { .. });
        self.heard.iter().all(|heard| is_named(heard) && heard.records.is_empty())
    }

    pub(super) fn weight(&self) -> usize {
        let records = self.heard.iter().flat_map(|heard| &heard.records);
        // As bytes and as what was read from them.
        let records: usize = records.map(|record| 2 * record.bytes().len() + ANSWER_WEIGHT / 2).sum();
        let branches = self.heard.iter().map(|heard| match &heard.told {
            Told::Tree { zones, .. } => zones.len(),
            Told::Found { .. } | Told::Named { .. } => 0,
        });
        let proofs = self.heard.iter().flat_map(|heard| &heard.proofs).map(|proof| proof.len());
        records
            + proofs.sum::<usize>()
            + ANSWER_WEIGHT
                * (branches.sum::<usize>() + self.heard.len() + self.referred.len() + self.skipped.len())
    }
}

impl Heard {
    /// The answer as it is passed on, `passed` after it was asked for.
    pub(in crate::proto) fn answer(&self, passed: Duration, now: Timestamp) -> Answer {
        let live = self.records.iter().filter(|record| !record.is_expired(now));
        let records = live.map(|record| ByteBuf::from(record.bytes().to_vec())).collect();
        let (alive, proofs) = (self.alive_after(passed).collect(), self.proofs.clone());
        match &self.told {
            Told::Found { more, cover, .. } => {
                Answer::Found { records, more: *more, cover: cover.after(passed), alive, proofs }
            }
            Told::Tree { zones, more } => {
                let after =
                    |it: &Branch| Branch { age_ms: it.age_ms.map(|ms| later(ms, passed)), ..it.clone() };
                Answer::Tree { zones: zones.iter().map(after).collect(), more: *more }
            }
            Told::Named { zones, gateways, hosts } => Answer::Named {
                records,
                zones: zones.clone(),
                gateways: gateways.clone(),
                hosts: hosts.clone(),
                alive,
                proofs,
            },
        }
    }

    /// Who was alive, and is heard `passed` longer ago by now.
    pub(in crate::proto) fn alive_after(&self, passed: Duration) -> impl Iterator<Item = Alive> {
        let passed = u16::try_from(passed.as_secs()).unwrap_or(u16::MAX);
        self.alive.iter().map(move |Alive(host, seconds)| Alive(*host, seconds.saturating_add(passed)))
    }
}
