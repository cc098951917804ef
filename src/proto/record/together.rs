//! Records whose signatures are judged together, before anybody asks for their verdicts (protocol section 2).

use rand::CryptoRng;

use super::SignedRecord;
use crate::proto::card::AgentCard;
use crate::proto::signature::{BATCH_MAX, Batch, Keys};
use crate::proto::time::Timestamp;

/// Fewest signatures that are cheaper together.
const BATCH_MIN: usize = 3;

/// Judges records as [`SignedRecord::verify_with`] does, their signatures together, which costs half. Their clones have the
/// verdicts from then on. Those of a batch that fails are judged one by one.
pub fn verify_together(records: &[SignedRecord], now: Timestamp, rng: &mut impl CryptoRng) {
    for part in records.chunks(BATCH_MAX) {
        let mut batch = Batch::default();
        let entered = part.iter().filter_map(|record| Some((record, record.enter(now, &mut batch)?)));
        let open: Vec<(&SignedRecord, Option<AgentCard>)> = entered.collect();
        if open.len() >= BATCH_MIN && batch.is_right(rng) {
            open.iter().for_each(|(record, card)| record.conclude(card.as_ref(), true));
        } else {
            let verdicts = open.iter().zip(batch.each());
            verdicts.for_each(|((record, card), right)| record.conclude(card.as_ref(), right));
        }
    }
}

/// As [`verify_together`], each for itself and no further than the first that is forged: what stands behind it is not taken.
pub fn verify_each(records: &[SignedRecord], now: Timestamp) {
    let mut keys = Keys::default();
    for record in records {
        // Its clones have the verdict.
        let _verdict = record.verify_with(now, &mut keys);
        if record.is_forged() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::proto::card::Scope;
    use crate::proto::codec;
    use crate::proto::identity::Identity;
    use crate::proto::limits::CARD_LIFE;
    use crate::proto::name::ZoneName;
    use crate::proto::record::{Author, Header, RecordKind, Refusal};
    use crate::proto::time::Stamp;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    /// A record of a kind: right, with a wrong slot, of another time, without its grant, or with one wrong byte.
    fn bytes(kind: u8, author: u8, wrong: usize) -> Vec<u8> {
        let identity = Identity::from_seed([author; 32]);
        let wall = match kind {
            1 => Timestamp(0),
            2 => NOW + CARD_LIFE,
            _ => NOW,
        };
        let header = Header {
            network: "world".into(),
            zone: ZoneName::root(),
            kind: RecordKind::Agent,
            name: "summarizer".parse().unwrap(),
            owner: if kind == 3 { Identity::from_seed([200; 32]).key() } else { identity.key() },
            host: identity.key(),
            author: Author { key: identity.key(), epoch: 1 },
            seq: u64::from(author),
            stamp: Stamp { wall, counter: 0 },
            generation: 0,
            expires_at: wall + CARD_LIFE,
            scope: Scope::Public,
            slot: if kind == 4 { u16::MAX } else { 0 },
            grants: Vec::new(),
        };
        let body = codec::encode(&AgentCard::default());
        let mut bytes = SignedRecord::sign(header, &body, &identity).unwrap().bytes().to_vec();
        if kind == 5 {
            bytes[1 + wrong % 64] ^= 1;
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> SignedRecord {
        SignedRecord::parse(bytes, "world").unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn records_judged_together_have_the_verdicts_of_each_alone(
            drawn in prop::collection::vec((0..12u8, 1..6u8, 0..64usize), 0..20),
            cut in 0..20usize,
            seed in any::<u64>(),
        ) {
            let all: Vec<Vec<u8>> = drawn.into_iter().map(|(kind, author, at)| bytes(kind, author, at)).collect();
            let records: Vec<SignedRecord> = all.iter().map(|bytes| parse(bytes)).collect();
            let rng = &mut ChaCha8Rng::seed_from_u64(seed);
            let (first, second) = records.split_at(cut.min(records.len()));
            verify_together(first, NOW, rng);
            verify_together(second, NOW, rng);
            for (bytes, record) in all.iter().zip(&records) {
                let alone = parse(bytes).verify(NOW);
                prop_assert_eq!(record.is_forged(), alone == Err(Refusal::BadSignature));
                // Again without a signature that could be asked: what is open is time alone.
                let verdict = record.verify_with(NOW, &mut Keys::default());
                prop_assert_eq!(verdict.map(|record| record.hash()), alone.map(|record| record.hash()));
            }
        }
    }

    #[test]
    fn what_stands_behind_a_forgery_is_not_judged_where_each_is_judged_for_itself() {
        let records: Vec<SignedRecord> = [0, 5, 5].iter().map(|kind| parse(&bytes(*kind, 1, 0))).collect();
        verify_each(&records, NOW);
        let forged: Vec<bool> = records.iter().map(SignedRecord::is_forged).collect();
        assert_eq!(forged, [false, true, false]);
        verify_together(&records, NOW, &mut ChaCha8Rng::seed_from_u64(1));
        assert!(records[2].is_forged());
    }
}
