//! The one place that judges Ed25519 signatures, alone or many together.
//!
//! The rule is that of ZIP 215, made so that both give the same verdict on every input: any encoding of a point is taken for the
//! key and for R, S is below the order of the group, and `8·S·B = 8·R + 8·k·A`. RFC 8032 leaves open what becomes of
//! points with a part of small order, and of what is strict there a batch takes some: two honest nodes would hold different
//! registries for ever. Beyond the rule a key of small order is refused, for one signature fits many messages under it.

use std::sync::LazyLock;

use curve25519_dalek::constants::EIGHT_TORSION;
use ed25519_zebra::batch::{Item, Verifier};
use ed25519_zebra::{Signature, VerificationKey, VerificationKeyBytes};
use rand::CryptoRng;

use super::identity::PeerKey;

/// Most signatures judged together. More save little, and a batch that fails costs all of them again.
pub const BATCH_MAX: usize = 256;
/// Keys remembered by [`Keys`]: 256 KiB. A zone with more authors verifies the rest as if nothing were remembered.
const KEYS_MAX: usize = 1_024;
/// The lowest byte of the field's prime; all others are ones, but for the sign.
const PRIME_LOW: u8 = 0xed;
/// The bit of an encoding that holds the sign, in its last byte.
const SIGN: u8 = 0x80;

/// All encodings of points of small order, without their signs: two of them may also be written with the prime added.
static SMALL_ORDER: LazyLock<Vec<[u8; 32]>> = LazyLock::new(|| {
    let canonical = EIGHT_TORSION.map(|point| unsigned(point.compress().to_bytes()));
    let small =
        canonical.into_iter().filter(|y| y[0] <= u8::MAX - PRIME_LOW && y[1..].iter().all(|it| *it == 0));
    let longer = small.map(|y| {
        let mut bytes = unsigned([0xff; 32]);
        bytes[0] = PRIME_LOW + y[0];
        bytes
    });
    canonical.into_iter().chain(longer).collect()
});

/// Keys that signed something before, as points of the curve: making the point of a key is a tenth of a verification. A
/// list in the order of the keys: a point is large, and a tree leaves room beside each.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<VerificationKey>);

/// Signatures that are judged together: all are right, or each is asked for itself. None stands for a weak key.
#[derive(Default)]
pub struct Batch(Vec<Option<Item>>);

impl Keys {
    /// Judges `signature` over `domain` followed by `message`. Only a key whose signature is right is remembered.
    pub fn verify(&mut self, key: &PeerKey, domain: &[u8], message: &[u8], signature: &[u8; 64]) -> bool {
        if is_small_order(key) {
            return false;
        }
        let place = self.place(key);
        let known = place.ok().map(|at| self.0[at]);
        let Some(point) = known.or_else(|| VerificationKey::try_from(key.0).ok()) else { return false };
        let signed = [domain, message].concat();
        let right = point.verify(&Signature::from_bytes(signature), &signed).is_ok();
        // Keys cost their maker nothing: were wrong ones remembered, a flood of them would take all room.
        if let Err(at) = place
            && right
            && self.0.len() < KEYS_MAX
        {
            self.0.insert(at, point);
        }
        right
    }

    /// Where a key stands, or would stand.
    fn place(&self, key: &PeerKey) -> Result<usize, usize> {
        self.0.binary_search_by(|point| point.as_ref().cmp(&key.0))
    }
}

impl Batch {
    /// Adds a signature over `domain` followed by `message`.
    pub fn add(&mut self, key: &PeerKey, domain: &[u8], message: &[u8], signature: &[u8; 64]) {
        let item = || {
            let signed = [domain, message].concat();
            Item::from((VerificationKeyBytes::from(key.0), Signature::from_bytes(signature), &signed))
        };
        self.0.push((!is_small_order(key)).then(item));
    }

    /// Whether all are right. What each counts with is drawn from `rng` after all are there: who could foretell it could make
    /// wrong ones that make up for each other.
    pub fn is_right(&self, rng: &mut impl CryptoRng) -> bool {
        let mut verifier = Verifier::new();
        let is_strong = self.0.iter().all(|item| item.clone().map(|item| verifier.queue(item)).is_some());
        is_strong && verifier.verify(rng).is_ok()
    }

    /// The verdict of each for itself, in the order in which they were added.
    pub fn each(self) -> impl Iterator<Item = bool> {
        self.0.into_iter().map(|item| item.is_some_and(|item| item.verify_single().is_ok()))
    }
}

/// Whether a key is the encoding of a point of small order.
fn is_small_order(key: &PeerKey) -> bool {
    SMALL_ORDER.contains(&unsigned(key.0))
}

fn unsigned(mut encoding: [u8; 32]) -> [u8; 32] {
    encoding[31] &= !SIGN;
    encoding
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::ED25519_BASEPOINT_POINT as B;
    use curve25519_dalek::traits::IsIdentity;
    use curve25519_dalek::{EdwardsPoint, Scalar};
    use ed25519_dalek::{Signature as DalekSignature, VerifyingKey};
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use sha2::{Digest, Sha512};

    use super::*;
    use crate::proto::identity::Identity;

    /// What somebody claims to have signed.
    #[derive(Clone, Debug)]
    struct Claim {
        key: PeerKey,
        message: Vec<u8>,
        signature: [u8; 64],
    }

    impl Claim {
        fn verify(&self) -> bool {
            let Claim { key, message, signature } = self;
            let right = key.verify(b"", message, signature);
            // Nor does it matter whether the key is remembered.
            let mut keys = Keys::default();
            assert!((0..2).all(|_| keys.verify(key, b"", message, signature) == right));
            right
        }
    }

    fn batch(claims: &[Claim]) -> Batch {
        let mut batch = Batch::default();
        claims.iter().for_each(|it| batch.add(&it.key, b"", &it.message, &it.signature));
        batch
    }

    fn good(seed: u8) -> Claim {
        let (identity, message) = (Identity::from_seed([seed; 32]), vec![seed; usize::from(seed)]);
        Claim { key: identity.key(), signature: identity.sign(b"", &message), message }
    }

    fn scalar(text: &str) -> Scalar {
        Scalar::from_bytes_mod_order_wide(&Sha512::digest(text).into())
    }

    fn challenge(r: &[u8; 32], key: &[u8; 32], message: &[u8]) -> Scalar {
        let digest = Sha512::new().chain_update(r).chain_update(key).chain_update(message).finalize();
        Scalar::from_bytes_mod_order_wide(&digest.into())
    }

    /// How the points of a claim are made, and what of it.
    struct Kind {
        name: &'static str,
        /// Whether the key and R have a part of the large order, and which of the small one.
        key: (bool, usize),
        r: (bool, usize),
        /// Whether the equation is to hold without the factor of eight; none where that is left to chance.
        holds_without_cofactor: Option<bool>,
        is_right: bool,
    }

    const KINDS: [Kind; 6] = [
        Kind {
            name: "small key, small R, S = 0",
            key: (false, 1),
            r: (false, 3),
            holds_without_cofactor: Some(true),
            is_right: false,
        },
        Kind {
            name: "small key, mixed R",
            key: (false, 1),
            r: (true, 3),
            holds_without_cofactor: Some(true),
            is_right: false,
        },
        Kind {
            name: "mixed key, small R",
            key: (true, 1),
            r: (false, 5),
            holds_without_cofactor: Some(true),
            is_right: true,
        },
        Kind {
            name: "both mixed",
            key: (true, 1),
            r: (true, 5),
            holds_without_cofactor: Some(true),
            is_right: true,
        },
        Kind {
            name: "both mixed, with the cofactor alone",
            key: (true, 1),
            r: (true, 2),
            holds_without_cofactor: Some(false),
            is_right: true,
        },
        Kind {
            name: "mixed key alone, with the cofactor alone",
            key: (true, 1),
            r: (true, 0),
            holds_without_cofactor: Some(false),
            is_right: true,
        },
    ];

    /// Signs the first message that has the property that is wanted.
    fn make(kind: &Kind) -> Claim {
        let part = |(large, small): (bool, usize), name| {
            let secret = if large { scalar(name) } else { Scalar::ZERO };
            (secret, secret * B + EIGHT_TORSION[small])
        };
        let ((a, key), (r, nonce)) = (part(kind.key, "key"), part(kind.r, "nonce"));
        let (key_bytes, r_bytes) = (key.compress().to_bytes(), nonce.compress().to_bytes());
        for number in 0..1_000_u32 {
            let message = number.to_be_bytes().to_vec();
            let k = challenge(&r_bytes, &key_bytes, &message);
            let s = r + k * a;
            let rest: EdwardsPoint = nonce + k * key - s * B;
            assert!(rest.mul_by_cofactor().is_identity());
            if kind.holds_without_cofactor.is_none_or(|holds| rest.is_identity() == holds) {
                return claim(key_bytes, message, r_bytes, s.to_bytes());
            }
        }
        panic!("{}: no message has it", kind.name);
    }

    fn claim(key: [u8; 32], message: Vec<u8>, r: [u8; 32], s: [u8; 32]) -> Claim {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&r);
        signature[32..].copy_from_slice(&s);
        Claim { key: PeerKey(key), message, signature }
    }

    /// The identity, which is of order one, with the prime added to its y.
    fn longer_identity() -> [u8; 32] {
        let mut bytes = unsigned([0xff; 32]);
        bytes[0] = PRIME_LOW + 1;
        bytes
    }

    /// Twelve kinds of claims about which implementations differ, each with its verdict.
    fn twelve() -> Vec<(&'static str, Claim, bool)> {
        let mut all: Vec<_> = KINDS.iter().map(|kind| (kind.name, make(kind), kind.is_right)).collect();
        let honest = good(9);
        for (name, times) in [("S + L", 1), ("S + 8 L", 8)] {
            let mut large = honest.clone();
            (0..times).for_each(|_| add_order(&mut large.signature[32..]));
            all.push((name, large, false));
        }
        let (long, short) = (longer_identity(), EIGHT_TORSION[0].compress().to_bytes());
        let a = scalar("key");
        let key = (a * B + EIGHT_TORSION[1]).compress().to_bytes();
        for (name, hashed, is_right) in
            [("long R", &long, true), ("long R, hashed as if it were short", &short, false)]
        {
            let s = challenge(hashed, &key, b"text") * a;
            all.push((name, claim(key, b"text".to_vec(), long, s.to_bytes()), is_right));
        }
        let r = scalar("nonce");
        for (name, hashed) in
            [("long small key", &long), ("long small key, hashed as if it were short", &short)]
        {
            let nonce = (r * B).compress().to_bytes();
            let s = r + challenge(&nonce, hashed, b"text") * Scalar::ZERO;
            all.push((name, claim(long, b"text".to_vec(), nonce, s.to_bytes()), false));
        }
        assert_eq!(all.len(), 12);
        all
    }

    /// Adds the order of the group to the bytes of a number.
    fn add_order(number: &mut [u8]) {
        let mut order = (-Scalar::ONE).to_bytes();
        order[0] += 1;
        let mut carry = 0;
        for (byte, add) in number.iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            (*byte, carry) = (sum as u8, sum >> 8);
        }
        assert_eq!(carry, 0);
    }

    #[test]
    fn twelve_kinds_of_odd_signatures_are_judged_alike_alone_and_in_every_place_of_a_batch() {
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        for (name, odd, is_right) in twelve() {
            assert_eq!(odd.verify(), is_right, "{name}");
            assert_eq!(batch(std::slice::from_ref(&odd)).is_right(rng), is_right, "{name}, a batch of one");
            for place in 0..8 {
                let mut claims: Vec<Claim> = (1..8).map(good).collect();
                claims.insert(place, odd.clone());
                assert_eq!(batch(&claims).is_right(rng), is_right, "{name}, at {place}");
                let verdicts: Vec<bool> = batch(&claims).each().collect();
                let expected: Vec<bool> = (0..8).map(|at| at != place || is_right).collect();
                assert_eq!(verdicts, expected, "{name}, at {place}");
            }
        }
    }

    #[test]
    fn what_the_rule_takes_is_more_than_a_strict_check_of_rfc_8032_takes() {
        let strict = |claim: &Claim| {
            let key = VerifyingKey::from_bytes(&claim.key.0).unwrap();
            key.verify_strict(&claim.message, &DalekSignature::from_bytes(&claim.signature)).is_ok()
        };
        assert!((1..20).map(good).all(|claim| strict(&claim) && claim.verify()));
        let more: Vec<&str> =
            twelve().iter().filter(|(_, claim, right)| *right && !strict(claim)).map(|it| it.0).collect();
        let alone = [KINDS[2].name, KINDS[4].name, KINDS[5].name, "long R"];
        assert_eq!(more, alone);
    }

    #[test]
    fn every_encoding_of_a_point_of_small_order_is_a_weak_key() {
        let weak: Vec<PeerKey> = SMALL_ORDER
            .iter()
            .flat_map(|y| {
                [0, SIGN].map(|sign| {
                    let mut bytes = *y;
                    bytes[31] |= sign;
                    PeerKey(bytes)
                })
            })
            .collect();
        for key in &weak {
            let point = curve25519_dalek::edwards::CompressedEdwardsY(key.0).decompress().unwrap();
            assert!(point.is_small_order() && is_small_order(key));
        }
        let distinct: std::collections::BTreeSet<&PeerKey> = weak.iter().collect();
        assert_eq!(distinct.len(), 14);
        assert!((1..50).all(|seed| !is_small_order(&good(seed).key)));
        assert!(!is_small_order(&make(&KINDS[3]).key), "a part of small order is not weak");
    }

    #[test]
    fn forgeries_that_would_make_up_for_each_other_do_not() {
        let mut claims: Vec<Claim> = (1..8).map(good).collect();
        let shift = |signature: &mut [u8; 64], by: Scalar| {
            let s = Scalar::from_bytes_mod_order(signature[32..].try_into().unwrap()) + by;
            signature[32..].copy_from_slice(&s.to_bytes());
        };
        shift(&mut claims[1].signature, Scalar::ONE);
        shift(&mut claims[5].signature, -Scalar::ONE);
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        assert!((0..20).all(|_| !batch(&claims).is_right(rng)));
        let verdicts: Vec<bool> = batch(&claims).each().collect();
        assert_eq!(verdicts, [true, false, true, true, true, false, true]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_mixture_in_any_batches_has_the_verdicts_of_single_checks(
            drawn in prop::collection::vec((0..40usize, 1..30u8, 0..64usize), 0..40),
            cuts in prop::collection::vec(any::<bool>(), 40),
            seed in any::<u64>(),
        ) {
            let odd = twelve();
            let claims: Vec<Claim> = drawn.iter().map(|(kind, seed, flipped)| match odd.get(*kind) {
                Some((_, claim, _)) => claim.clone(),
                // One byte of it is wrong.
                None if *kind < 16 => {
                    let mut forged = good(*seed);
                    forged.signature[*flipped] ^= 1;
                    forged
                }
                None => good(*seed),
            }).collect();
            let single: Vec<bool> = claims.iter().map(Claim::verify).collect();
            let rng = &mut ChaCha8Rng::seed_from_u64(seed);
            let mut from = 0;
            for to in 1..=claims.len() {
                if !cuts[to - 1] && to < claims.len() {
                    continue;
                }
                let (part, expected) = (&claims[from..to], &single[from..to]);
                prop_assert_eq!(batch(part).is_right(rng), expected.iter().all(|right| *right));
                prop_assert_eq!(batch(part).each().collect::<Vec<_>>(), expected);
                from = to;
            }
        }
    }

    #[test]
    fn a_remembered_key_judges_as_strictly_and_no_more_are_remembered_than_allowed() {
        let mut keys = Keys::default();
        let message = b"text";
        for seed in 0..=KEYS_MAX as u64 {
            let identity = Identity::from_seed(std::array::from_fn(|at| seed.to_le_bytes()[at % 8]));
            let (key, signature) = (identity.key(), identity.sign(b"a\0", message));
            let mut forged = signature;
            forged[40] ^= 1;
            assert!(!keys.verify(&key, b"a\0", message, &forged) && keys.place(&key).is_err());
            for _ in 0..2 {
                assert!(keys.verify(&key, b"a\0", message, &signature));
                assert!(!keys.verify(&key, b"a\0", message, &forged));
            }
        }
        assert_eq!(keys.0.len(), KEYS_MAX);
    }
}
