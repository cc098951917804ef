//! Records of others, beside the bare check of their signatures.

use std::collections::VecDeque;
use std::time::Duration;

use aop::proto::ahead;
use aop::proto::identity::{Identity, PeerKey};
use aop::proto::io::{Dialed, GossipId, Input, Output, Protocol, Received};
use aop::proto::name::ZoneName;
use aop::proto::node::Node;
use aop::proto::persistence::Stored;
use aop::proto::record::{SignedRecord, verify_each, verify_together};
use aop::proto::time::Timestamp;
use ed25519_dalek::{Signature, VerifyingKey};

use crate::agents::{Keeper, NETWORK, message, node, records, wall_clock};
use crate::cpu::process_cpu;
use crate::figure::{Aim, Figure, us};

const RECORDS: usize = 10_000;
/// Records of one block: bare and gossip take turns.
const BLOCK: usize = 50;
const RUNS: usize = 3;

/// A signature with what is needed to judge it, and nothing else to do.
pub(crate) struct Bare {
    key: VerifyingKey,
    signature: Signature,
    content: Vec<u8>,
}

impl Bare {
    pub(crate) fn of(record: &[u8]) -> Bare {
        let parsed = SignedRecord::parse(record, NETWORK).expect("a record");
        let signature = record[1..65].try_into().expect("64 bytes");
        Bare {
            key: VerifyingKey::from_bytes(&parsed.header().author.key.0).expect("a key"),
            signature: Signature::from_bytes(signature),
            content: [b"aop-record-v1\0", &record[65..]].concat(),
        }
    }

    pub(crate) fn verify(&self) {
        self.key.verify_strict(&self.content, &self.signature).expect("signed");
    }
}

/// CPU of this process for something.
fn spent(on: impl FnOnce()) -> Duration {
    let before = process_cpu();
    on();
    process_cpu() - before
}

pub(crate) fn rates() -> Vec<Figure> {
    let records: Vec<Vec<u8>> = records(RECORDS).collect();
    let bare: Vec<Bare> = records.iter().map(|record| Bare::of(record)).collect();
    let mut shares = [(); 5].map(|()| Vec::new());
    let mut each = [0.0; 4];
    for _ in 0..RUNS {
        let (verified, gossiped, mut holder) = by_gossip(&records, &bare);
        let (verified_again, pulled) = by_sync(&mut holder, &bare);
        let stored = with_store(&records);
        each = [verified, gossiped, pulled, stored].map(|time| us(time) / RECORDS as f64);
        shares[0].push(each[0] / each[1]);
        shares[1].push(us(verified_again) / RECORDS as f64 / each[2]);
        shares[2].push(each[0] / each[3]);
        let (alone, failed, suspected) = with_forgeries(&records);
        shares[3].push(us(failed) / us(alone));
        shares[4].push(us(suspected) / us(alone));
    }
    let [gossip, sync, stored, forged, suspected] = shares.map(|shares| crate::figure::median(&shares));
    let of = |ours: f64| format!("{ours:.1} us a record, verify_strict {:.1} us", each[0]);
    vec![
        Figure::new(
            "ingest",
            "by gossip, one each: CPU, of verify_strict's rate",
            gossip,
            "",
            Aim::AtLeast(0.8),
        )
        .of(of(each[1])),
        Figure::new("ingest", "the same with its store, which it closes", stored, "", Aim::Told)
            .of(of(each[3])),
        Figure::new(
            "ingest",
            "by sync, 100 authors: CPU, of verify_strict's rate",
            sync,
            "",
            Aim::AtLeast(1.3),
        )
        .of(of(each[2])),
        Figure::new(
            "ingest",
            "one forged signature in a batch, × single checks",
            forged,
            "",
            Aim::AtMost(1.8),
        ),
        Figure::new("ingest", "the same from whoever is suspected", suspected, "", Aim::AtMost(1.1)),
    ]
}

/// What it costs to judge records one by one, batches of which the last is forged, and the same of whoever is suspected.
fn with_forgeries(records: &[Vec<u8>]) -> (Duration, Duration, Duration) {
    let now = wall_clock();
    let (mut alone, mut failed, mut suspected) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for records in records.chunks(BLOCK) {
        let read = || -> Vec<SignedRecord> {
            let mut records = records.to_vec();
            records[BLOCK - 1][40] ^= 1;
            records.iter().map(|record| SignedRecord::parse(record, NETWORK).expect("a record")).collect()
        };
        let [single, together, then] = [(); 3].map(|()| read());
        alone += spent(|| single.into_iter().for_each(|record| _ = record.verify(now)));
        failed += spent(|| verify_together(&together, now, &mut rand::rng()));
        suspected += spent(|| verify_each(&then, now));
    }
    (alone, failed, suspected)
}

fn take(node: &mut Node, now: Timestamp, record: &[u8]) {
    let (peer, id, zone) = (PeerKey([9; 32]), GossipId([0; 20]), ZoneName::root());
    node.handle(now, Input::Gossip { id, peer, zone, bytes: message(record.to_vec()) });
    while node.poll_output().is_some() {}
}

/// A node without a store takes records one each.
fn by_gossip(records: &[Vec<u8>], bare: &[Bare]) -> (Duration, Duration, Node) {
    let now = wall_clock();
    let mut holder = node(100, vec![ZoneName::root()], Stored::default(), now);
    let (mut verified, mut gossiped) = (Duration::ZERO, Duration::ZERO);
    for (bare, records) in bare.chunks(BLOCK).zip(records.chunks(BLOCK)) {
        verified += spent(|| bare.iter().for_each(Bare::verify));
        gossiped += spent(|| records.iter().for_each(|record| take(&mut holder, now, record)));
    }
    assert_eq!(agents(&holder, now), RECORDS);
    (verified, gossiped, holder)
}

/// Another asks it for everything; only the work of the one that asks counts.
fn by_sync(holder: &mut Node, bare: &[Bare]) -> (Duration, Duration) {
    let mut now = wall_clock();
    let mut asker = node(101, vec![ZoneName::root()], Stored::default(), now);
    let peer = Identity::from_seed([100; 32]).key();
    asker.handle(now, Input::PeerJoined { peer, zone: ZoneName::root(), dialed: Dialed::ByUs });
    let mut outputs: VecDeque<Output> = std::iter::from_fn(|| asker.poll_output()).collect();
    let mut blocks = bare.chunks(BLOCK);
    let (mut verified, mut pulled) = (Duration::ZERO, Duration::ZERO);
    while agents(&asker, now) < RECORDS {
        let Some(output) = outputs.pop_front() else {
            // A tree is hashed in turns: the asker comes again.
            now = asker.poll_timeout().expect("it waits for something");
            asker.handle_timeout(now);
            outputs.extend(std::iter::from_fn(|| asker.poll_output()));
            continue;
        };
        let Output::Request { conversation, bytes, .. } = output else { continue };
        holder.handle(now, Input::Request { id: 1, peer, protocol: Protocol::Sync, bytes });
        let answers: Vec<Output> = std::iter::from_fn(|| holder.poll_output()).collect();
        for answer in answers {
            let Output::Respond { bytes, .. } = answer else { continue };
            let block = blocks.next().unwrap_or_default();
            verified += spent(|| block.iter().for_each(Bare::verify));
            pulled += spent(|| {
                let records = ahead::of_answer(&bytes, NETWORK);
                verify_together(&records, now, &mut rand::rng());
                let input = Input::Response { conversation, bytes };
                asker.handle(now, Received { input, records });
                outputs.extend(std::iter::from_fn(|| asker.poll_output()));
            });
        }
    }
    verified += spent(|| blocks.flatten().for_each(Bare::verify));
    (verified, pulled)
}

fn with_store(records: &[Vec<u8>]) -> Duration {
    let dir = tempfile::tempdir().expect("a folder");
    let mut keeper = Keeper::new(dir.path(), 100, vec![ZoneName::root()]);
    spent(|| {
        records.iter().for_each(|record| keeper.take(ZoneName::root(), message(record.clone())));
        keeper.close();
    })
}

fn agents(node: &Node, now: Timestamp) -> usize {
    node.zone_states(now)[0].agents
}
