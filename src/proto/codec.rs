//! CBOR in and out, with the caps that hostile bytes need.
//!
//! Bytes are decoded straight into types, never into a generic value tree: 64 KiB of hostile CBOR would become 3 MiB
//! there. Depth is bounded, nothing may follow the value, and callers bound the size before they come here.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::limits::CBOR_DEPTH_MAX;

/// Bytes that are not the CBOR of the wanted type. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed CBOR")]
pub struct Malformed;

/// Encodes `value`. Our own types always encode.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    ciborium::into_writer(value, &mut bytes).expect("own types encode into memory");
    bytes
}

/// Decodes exactly one value that fills `bytes`.
pub fn decode<T: DeserializeOwned>(mut bytes: &[u8]) -> Result<T, Malformed> {
    let value = ciborium::de::from_reader_with_recursion_limit(&mut bytes, CBOR_DEPTH_MAX);
    match value {
        // The reader moved `bytes` on. With a tail one value would have many spellings, and many hashes.
        Ok(value) if bytes.is_empty() => Ok(value),
        _ => Err(Malformed),
    }
}

/// Reads a list of at most `MAX` elements, for `#[serde(deserialize_with)]`. One byte may stand for an element of many,
/// and a length may be declared that never comes: so a longer list is malformed, and nothing is reserved for it.
pub fn at_most<'de, const MAX: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_seq(AtMost::<T, MAX>(PhantomData))
}

/// As [`at_most`], of elements that ascend strictly: nothing is named twice, so nothing is done twice for it.
pub fn ascending<'de, const MAX: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de> + Ord,
    D: Deserializer<'de>,
{
    let elements = at_most::<MAX, T, D>(deserializer)?;
    if !elements.is_sorted_by(|one, next| one < next) {
        return Err(D::Error::custom("elements that do not ascend"));
    }
    Ok(elements)
}

struct AtMost<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for AtMost<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vec<T>, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = from.next_element()? {
            // One element too many is decoded before it is refused, which costs no more than one.
            if elements.len() == MAX {
                return Err(A::Error::custom("too many elements"));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_may_follow_the_value() {
        let mut bytes = encode(&7u64);
        assert_eq!(decode::<u64>(&bytes), Ok(7));
        bytes.push(0);
        assert_eq!(decode::<u64>(&bytes), Err(Malformed));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let deep = [vec![0x81; 1_000], vec![0x00]].concat();
        assert_eq!(decode::<serde::de::IgnoredAny>(&deep).err(), Some(Malformed));
    }
}
