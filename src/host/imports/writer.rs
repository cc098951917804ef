//! What becomes of the documents of a registry: records of the import, signed, or a reason why not.

use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedMutexGuard;

use crate::api;
use crate::document::{self, Reading, Refusal};
use crate::proto::card::{AgentCard, version};
use crate::proto::code::Code;
use crate::proto::import::{Holdings, ImportAuthor, Unwritten};
use crate::proto::name::AgentName;
use crate::proto::record::SignedRecord;
use crate::proto::time::Timestamp;

/// Writes for one import. Whoever has it is alone.
pub(in crate::host) struct Writer {
    author: OwnedMutexGuard<ImportAuthor>,
    /// One a zone, in their order.
    holdings: Vec<Holdings>,
    /// The last change that the documents tell of.
    pub(in crate::host) seen: Option<Timestamp>,
}

/// What a record does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) enum Change {
    /// It offers what was not offered before.
    New,
    /// It replaces another card.
    Changed,
    /// It says the same again, with a new lease.
    Renewed,
    /// It withdraws.
    Withdrawn,
}

/// Signed and not yet published.
#[derive(Default)]
pub(in crate::host) struct Batch {
    pub(in crate::host) signed: Vec<SignedRecord>,
    /// One a record.
    pub(in crate::host) changes: Vec<Change>,
    pub(in crate::host) unchanged: usize,
    pub(in crate::host) skipped: Vec<api::Skipped>,
}

impl Batch {
    fn add(&mut self, name: &str, written: Result<SignedRecord, Unwritten>, change: Change) {
        match written {
            Ok(signed) => {
                self.signed.push(signed);
                self.changes.push(change);
            }
            Err(Unwritten::Unchanged) => self.unchanged += 1,
            Err(Unwritten::Full) => {
                self.skip(name, Code::QuotaExceeded, "all slots of all keys of the import are taken");
            }
            Err(Unwritten::Refused(refusal)) => self.skip(name, refusal.code(), &refusal.to_string()),
        }
    }

    fn skip(&mut self, name: &str, code: Code, message: &str) {
        self.skipped.push(api::Skipped { name: name.to_owned(), code, message: message.to_owned() });
    }
}

impl Writer {
    pub(in crate::host) fn new(author: OwnedMutexGuard<ImportAuthor>, holdings: Vec<Holdings>) -> Writer {
        Writer { author, holdings, seen: None }
    }

    /// Documents that are offered, in all zones.
    pub(in crate::host) fn live(&self, now: Timestamp) -> usize {
        self.holdings.iter().map(|holdings| holdings.live(now)).sum()
    }

    /// Takes documents in the order of their registry.
    pub(in crate::host) fn take(&mut self, now: Timestamp, documents: &[Value]) -> Batch {
        let mut batch = Batch::default();
        for outcome in document::read_listed(documents) {
            match outcome {
                Ok(reading) => self.take_one(now, reading, &mut batch),
                Err(Refusal { name, code, message }) => batch.skip(&name, code, &message),
            }
        }
        batch
    }

    fn take_one(&mut self, now: Timestamp, reading: Reading, batch: &mut Batch) {
        let Reading { offer, deleted, entry, .. } = reading;
        // A clock of theirs that is ahead must not keep changes out that come before it is reached.
        self.seen = self.seen.max(entry.updated.filter(|updated| *updated <= now));
        let at = share(&offer.name, self.holdings.len());
        let Writer { author, holdings, .. } = self;
        let holdings = &mut holdings[at];
        let name = offer.card.original_name.as_deref().unwrap_or(offer.name.as_str()).to_owned();
        let held = holdings.card(&offer.name, now);
        let is_same = |held: &AgentCard| held.is_same_agent(&offer.card);
        if deleted.is_some() {
            let is_it = |held: &AgentCard| is_same(held) && held.version == offer.card.version;
            if held.as_ref().is_some_and(is_it) {
                batch.add(&name, holdings.withdraw(author, now, &offer.name), Change::Withdrawn);
            }
            return;
        }
        if let Some(held) = &held {
            if !is_same(held) {
                return batch.skip(
                    &name,
                    Code::DuplicateName,
                    "another document of the registry has its name here",
                );
            }
            let versions = (offer.card.version.as_deref(), held.version.as_deref());
            if let (Some(version), Some(held)) = versions
                && entry.is_latest != Some(true)
                && version::is_older(version, held)
            {
                let message = format!("`version` is {version}, and {held} is offered");
                return batch.skip(&name, Code::OlderVersion, &message);
            }
        }
        let card = AgentCard { registry_meta: entry.meta, ..offer.card };
        // What its registry says of it is left out where it leaves the document no room.
        let fits = card.registry_meta.is_none() || document::check(&card).is_ok();
        let card = if fits { card } else { AgentCard { registry_meta: None, ..card } };
        let card = card.dated_by(now, entry.published, entry.updated, held.as_ref());
        let change = match &held {
            None => Change::New,
            Some(held) if *held == card => Change::Renewed,
            Some(_) => Change::Changed,
        };
        batch.add(&name, holdings.offer(author, now, &offer.name, &card), change);
    }

    /// Names of what is to be renewed by `now`, each with the number of its zone.
    pub(in crate::host) fn due(&self, now: Timestamp) -> Vec<(usize, AgentName)> {
        self.each(|holdings| holdings.due(now))
    }

    /// Names of all that is offered, each with the number of its zone.
    pub(in crate::host) fn names(&self, now: Timestamp) -> Vec<(usize, AgentName)> {
        self.each(|holdings| holdings.names(now))
    }

    fn each(&self, names: impl Fn(&Holdings) -> Vec<AgentName>) -> Vec<(usize, AgentName)> {
        let of = |(at, holdings)| names(holdings).into_iter().map(move |name| (at, name));
        self.holdings.iter().enumerate().flat_map(of).collect()
    }

    /// Renews or withdraws what stands under these names.
    pub(in crate::host) fn again(
        &mut self,
        now: Timestamp,
        names: &[(usize, AgentName)],
        change: Change,
    ) -> Batch {
        let Writer { author, holdings, .. } = self;
        let mut batch = Batch::default();
        for (at, name) in names {
            let written = match change {
                Change::Withdrawn => holdings[*at].withdraw(author, now, name),
                Change::New | Change::Changed | Change::Renewed => holdings[*at].renew(author, now, name),
            };
            batch.add(name.as_str(), written, change);
        }
        batch
    }
}

/// Which of so many zones a name falls to: the same one always.
fn share(name: &AgentName, zones: usize) -> usize {
    let hash = Sha256::digest(name.as_str().as_bytes());
    usize::from(u16::from_be_bytes([hash[0], hash[1]])) % zones
}
