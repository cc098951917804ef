//! Two different sets of records whose hashes have one XOR: what a fingerprint made of sums would not tell apart.
//!
//! Of 257 keys there are two records each. The differences of the hashes are 257 vectors of 256 bits, so some of them add
//! up to nothing: where the second record of just these keys takes the place of the first, the sum stays what it was.

use aop::proto::card::{AgentCard, Scope};
use aop::proto::codec;
use aop::proto::identity::Identity;
use aop::proto::limits::CARD_LIFE;
use aop::proto::name::ZoneName;
use aop::proto::record::{Author, Header, RecordKind, SignedRecord};
use aop::proto::time::Stamp;
use aop::sim::START;

/// One more than a hash has bits.
const KEYS: usize = 257;

type Bits = [u8; 32];

/// Signed records of one author: the same keys in both sets, and for some keys another record.
pub(crate) fn sets() -> [Vec<Vec<u8>>; 2] {
    let author = Identity::from_seed([0xad; 32]);
    let pairs: Vec<[SignedRecord; 2]> =
        (0..KEYS).map(|at| [signed(&author, at, "one"), signed(&author, at, "other")]).collect();
    let differences: Vec<Bits> = pairs.iter().map(|[one, other]| xor(one.hash().0, other.hash().0)).collect();
    let exchanged = dependent(&differences);
    let bytes = |signed: &SignedRecord| signed.bytes().to_vec();
    let one: Vec<Vec<u8>> = pairs.iter().map(|[one, _]| bytes(one)).collect();
    let other = pairs.iter().zip(&exchanged).map(|(pair, exchanged)| bytes(&pair[usize::from(*exchanged)]));
    [one, other.collect()]
}

/// Vectors that add up to nothing, by elimination over one bit after the other.
fn dependent(vectors: &[Bits]) -> Vec<bool> {
    let mut pivots: Vec<Option<(Bits, Vec<bool>)>> = vec![None; 256];
    for (at, vector) in vectors.iter().enumerate() {
        let mut sum = *vector;
        let mut of: Vec<bool> = (0..vectors.len()).map(|it| it == at).collect();
        while let Some(first) = (0..256).find(|bit| sum[bit / 8] & (0x80 >> (bit % 8)) != 0) {
            match &pivots[first] {
                None => {
                    pivots[first] = Some((sum, of.clone()));
                    break;
                }
                Some((other, others)) => {
                    sum = xor(sum, *other);
                    of = of.iter().zip(others).map(|(one, other)| one ^ other).collect();
                }
            }
        }
        if sum == [0; 32] {
            return of;
        }
    }
    unreachable!("more vectors than bits")
}

fn xor(one: Bits, other: Bits) -> Bits {
    std::array::from_fn(|at| one[at] ^ other[at])
}

fn signed(author: &Identity, number: usize, text: &str) -> SignedRecord {
    let key = author.key();
    let header = Header {
        network: "world".into(),
        zone: ZoneName::root(),
        kind: RecordKind::Agent,
        name: format!("chosen-{number}").parse().expect("a label"),
        owner: key,
        host: key,
        author: Author { key, epoch: 1 },
        seq: number as u64 + 1,
        stamp: Stamp { wall: START, counter: 0 },
        generation: 0,
        expires_at: START + CARD_LIFE,
        scope: Scope::Public,
        slot: number as u16,
        grants: Vec::new(),
    };
    let card = AgentCard { description: text.into(), ..AgentCard::default() };
    SignedRecord::sign(header, &codec::encode(&card), author).expect("a small record")
}

#[test]
fn the_sets_differ_and_their_sums_do_not() {
    let [one, other] = sets();
    let sum = |set: &[Vec<u8>]| {
        let hashes = set.iter().map(|bytes| SignedRecord::parse(bytes, "world").expect("a record").hash().0);
        hashes.fold([0; 32], xor)
    };
    assert_ne!(one, other);
    assert_eq!(sum(&one), sum(&other));
}
