//! Signatures of what peers send, judged ahead of the driver on other threads, many together.
//!
//! A batch that fails is judged one by one: that costs as much again by half, and whoever sent a forged record has its own
//! judged one by one at once for a while. What is charged for it is time, to its budget for requests, as the driver's is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::Instant;

use crate::net::wall_clock;
use crate::proto::ahead;
use crate::proto::identity::PeerKey;
use crate::proto::record::{SignedRecord, verify_each, verify_together};

/// How long what a peer sends is judged one by one after a forged record of it.
const SUSPECTED_FOR: Duration = Duration::from_secs(60);
/// Peers that are suspected at once; who was suspected first gives way.
const SUSPECTS_MAX: usize = 4_096;
/// Answers of conversations judged at once, each on a thread.
const ANSWERS_AT_ONCE: usize = 2;

/// Judges what peers send. Clones share whom they suspect.
#[derive(Clone)]
pub(crate) struct Verifier(Arc<Shared>);

struct Shared {
    network: String,
    suspects: Mutex<BTreeMap<PeerKey, Instant>>,
    answers: Semaphore,
}

/// What one peer sent at once, and the time that judging it took.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    pub(crate) records: Vec<SignedRecord>,
    pub(crate) took: Duration,
}

impl Verifier {
    /// Of the records of this network.
    pub(crate) fn new(network: String) -> Verifier {
        let answers = Semaphore::new(ANSWERS_AT_ONCE);
        Verifier(Arc::new(Shared { network, suspects: Mutex::default(), answers }))
    }

    /// The records of a gossip message, not judged yet.
    pub(crate) fn of_gossip(&self, bytes: &[u8]) -> Vec<SignedRecord> {
        ahead::of_gossip(bytes, &self.0.network)
    }

    /// The records of a request of a sync, not judged yet.
    pub(crate) fn of_request(&self, bytes: &[u8]) -> Vec<SignedRecord> {
        ahead::of_request(bytes, &self.0.network)
    }

    /// Judges what some peers sent, on this thread.
    pub(crate) fn judge(&self, sent: Vec<(PeerKey, Vec<SignedRecord>)>) -> Vec<Judged> {
        let (began, now) = (Instant::now(), wall_clock());
        let suspected: Vec<bool> = sent.iter().map(|(peer, _)| self.is_suspect(peer, began)).collect();
        let trusted = sent.iter().zip(&suspected).filter(|(_, suspected)| !**suspected);
        let together: Vec<SignedRecord> = trusted.flat_map(|((_, records), _)| records).cloned().collect();
        verify_together(&together, now, &mut rand::rng());
        let took = began.elapsed() / together.len().max(1) as u32;
        let judged = sent.into_iter().zip(suspected).map(|((peer, records), suspected)| {
            let began = Instant::now();
            if suspected {
                verify_each(&records, now);
            } else if records.iter().any(SignedRecord::is_forged) {
                self.suspect(peer, began);
            }
            let took = if suspected { began.elapsed() } else { took * records.len() as u32 };
            Judged { records, took }
        });
        judged.collect()
    }

    /// Judges the records of an answer in a sync that this node leads, on another thread; gives the answer back.
    pub(crate) async fn judge_answer(&self, peer: PeerKey, answer: Vec<u8>) -> (Vec<u8>, Vec<SignedRecord>) {
        // Nobody closes it.
        let _turn = self.0.answers.acquire().await;
        let verifier = self.clone();
        let judge = move || {
            let records = ahead::of_answer(&answer, &verifier.0.network);
            let judged = verifier.judge(vec![(peer, records)]).pop().unwrap_or_default();
            (answer, judged.records)
        };
        if has_threads() { finish(spawn_blocking(judge)).await } else { judge() }
    }

    fn is_suspect(&self, peer: &PeerKey, now: Instant) -> bool {
        self.suspects().get(peer).is_some_and(|until| *until > now)
    }

    fn suspect(&self, peer: PeerKey, now: Instant) {
        let mut suspects = self.suspects();
        if suspects.len() >= SUSPECTS_MAX && !suspects.contains_key(&peer) {
            let first = suspects.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer);
            first.into_iter().for_each(|first| _ = suspects.remove(&first));
        }
        suspects.insert(peer, now + SUSPECTED_FOR);
    }

    fn suspects(&self) -> MutexGuard<'_, BTreeMap<PeerKey, Instant>> {
        // Every change is one step, so a panic elsewhere leaves nothing half done.
        self.0.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the runtime has other threads. One that has none keeps the order in which things happen.
pub(crate) fn has_threads() -> bool {
    Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread
}

/// What a thread made; its panic is one of the caller.
pub(crate) async fn finish<T>(working: impl Future<Output = Result<T, JoinError>>) -> T {
    match working.await {
        Ok(made) => made,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Only the end of the runtime stops such work, and the caller with it.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::card::{AgentCard, Scope};
    use crate::proto::codec;
    use crate::proto::identity::Identity;
    use crate::proto::message::{Envelope, SyncAnswer};
    use crate::proto::name::ZoneName;
    use crate::proto::record::{Author, Header, RecordKind};
    use crate::proto::time::Stamp;
    use serde_bytes::ByteBuf;

    fn record(author: u8, agent: u16) -> Vec<u8> {
        let (identity, wall) = (Identity::from_seed([author; 32]), wall_clock());
        let header = Header {
            network: "world".into(),
            zone: ZoneName::root(),
            kind: RecordKind::Agent,
            name: format!("a{agent}").parse().unwrap(),
            owner: identity.key(),
            host: identity.key(),
            author: Author { key: identity.key(), epoch: 1 },
            seq: u64::from(agent) + 1,
            stamp: Stamp { wall, counter: 0 },
            generation: 0,
            expires_at: wall + Duration::from_secs(3_600),
            scope: Scope::Public,
            slot: agent,
            grants: Vec::new(),
        };
        let body = codec::encode(&AgentCard::default());
        SignedRecord::sign(header, &body, &identity).unwrap().bytes().to_vec()
    }

    fn forged(author: u8, agent: u16) -> Vec<u8> {
        let mut record = record(author, agent);
        record[40] ^= 1;
        record
    }

    fn message(records: Vec<Vec<u8>>) -> Vec<u8> {
        Envelope::Records(records.into_iter().map(ByteBuf::from).collect()).encode()
    }

    fn peer(seed: u8) -> PeerKey {
        Identity::from_seed([seed; 32]).key()
    }

    fn forgeries(judged: &Judged) -> Vec<bool> {
        judged.records.iter().map(SignedRecord::is_forged).collect()
    }

    #[test]
    fn who_sends_a_forgery_is_judged_one_by_one_for_a_minute_and_nobody_else_is() {
        let verifier = Verifier::new("world".into());
        let [honest, hostile] = [peer(100), peer(101)];
        let of = |records| verifier.of_gossip(&message(records));
        let sent = vec![
            (honest, of((0..5).map(|agent| record(1, agent)).collect())),
            (hostile, of(vec![record(2, 0), forged(2, 1), record(2, 2), forged(2, 3)])),
        ];
        let judged = verifier.judge(sent);
        assert_eq!(forgeries(&judged[0]), [false; 5]);
        assert_eq!(forgeries(&judged[1]), [false, true, false, true], "a batch that fails is judged whole");
        assert!(judged.iter().all(|judged| judged.took > Duration::ZERO), "it is paid for");
        let (soon, late) = (Instant::now() + SUSPECTED_FOR / 2, Instant::now() + SUSPECTED_FOR);
        assert!(verifier.is_suspect(&hostile, soon) && !verifier.is_suspect(&hostile, late));
        assert!(!verifier.is_suspect(&honest, soon));
        let sent = vec![(hostile, of(vec![record(2, 4), forged(2, 5), forged(2, 6)]))];
        let judged = verifier.judge(sent);
        assert_eq!(forgeries(&judged[0]), [false, true, false], "and then no further than the first");
        assert!(judged[0].took > Duration::ZERO);
    }

    #[test]
    fn any_number_of_keys_are_suspected_in_bounded_room_the_last_ones() {
        let verifier = Verifier::new("world".into());
        let key = |number: usize| PeerKey(std::array::from_fn(|at| number.to_le_bytes()[at % 8]));
        let began = Instant::now();
        for number in 0..SUSPECTS_MAX + 10 {
            verifier.suspect(key(number), began + Duration::from_millis(number as u64));
        }
        assert_eq!(verifier.suspects().len(), SUSPECTS_MAX);
        let is_suspect = |number: usize| verifier.is_suspect(&key(number), began);
        assert!(!is_suspect(9) && is_suspect(10) && is_suspect(SUSPECTS_MAX + 9));
    }

    #[test]
    fn no_more_of_a_message_is_read_ahead_than_a_node_takes() {
        let verifier = Verifier::new("world".into());
        let read = |records| verifier.of_gossip(&message(records)).len();
        assert_eq!(read(vec![record(1, 0), record(1, 1), record(2, 0), record(1, 2)]), 2, "of one author");
        assert_eq!(read(vec![record(1, 0), vec![1; 90], record(1, 1)]), 1, "what is no record condemns it");
        assert_eq!(read(vec![record(1, 0), vec![9; 90], record(1, 1)]), 2, "of a later format");
        assert_eq!((verifier.of_gossip(b"nothing").len(), verifier.of_request(b"nothing").len()), (0, 0));
    }

    #[tokio::test]
    async fn an_answer_comes_back_with_its_records_judged() {
        let verifier = Verifier::new("world".into());
        let records = [record(1, 0), record(2, 0), forged(3, 0), record(4, 0)].map(ByteBuf::from).to_vec();
        let answer = SyncAnswer::Records { records, next: None }.encode();
        let (back, judged) = verifier.judge_answer(peer(100), answer.clone()).await;
        assert_eq!(back, answer);
        let forged: Vec<bool> = judged.iter().map(SignedRecord::is_forged).collect();
        assert_eq!(forged, [false, false, true, false]);
        assert!(verifier.is_suspect(&peer(100), Instant::now()));
    }
}
