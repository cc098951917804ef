//! CBOR in and out, with the caps that hostile bytes need.
//!
//! Bytes are decoded straight into types, never into a generic value tree: 64 KiB of hostile CBOR would become 3 MiB
//! there. Depth is bounded, nothing may follow the value, and callers bound the size before they come here.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::config::CBOR_DEPTH_MAX;

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
        Ok(value) if bytes.is_empty() => Ok(value),
        _ => Err(Malformed),
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
