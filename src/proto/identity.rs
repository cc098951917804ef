//! Keys: one Ed25519 key is the libp2p identity of a node and signs its records, each use under its own domain string.
//!
//! A [`PeerKey`] is shown as the libp2p PeerId of the key (base58 of the identity multihash), so what a user reads in
//! a record is what the network layer prints.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use ed25519_dalek::{Signer, SigningKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::name::FullName;
use super::signature::Keys;

/// Identity multihash, protobuf key type Ed25519, 32 bytes of key: the fixed head of every Ed25519 PeerId.
const PEER_ID_HEAD: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// An Ed25519 public key; displayed as its libp2p PeerId.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PeerKey(#[serde(with = "serde_bytes")] pub [u8; 32]);

/// Why a text is not a PeerId of an Ed25519 key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the PeerId of an Ed25519 key: {0:?}")]
pub struct PeerKeyError(pub String);

impl PeerKey {
    /// Judges `signature` over `domain` followed by `message`, by the rule of [`signature`](super::signature).
    pub fn verify(&self, domain: &[u8], message: &[u8], signature: &[u8; 64]) -> bool {
        Keys::default().verify(self, domain, message, signature)
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode([&PEER_ID_HEAD[..], &self.0[..]].concat()).into_string())
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PeerKey {
    type Err = PeerKeyError;
    fn from_str(text: &str) -> Result<PeerKey, PeerKeyError> {
        let bytes = bs58::decode(text).into_vec().map_err(|_| PeerKeyError(text.into()))?;
        // Any 32 bytes behind the head: whether they are a point shows when a signature is judged.
        let key = bytes.strip_prefix(&PEER_ID_HEAD[..]).ok_or_else(|| PeerKeyError(text.into()))?;
        key.try_into().map(PeerKey).map_err(|_| PeerKeyError(text.into()))
    }
}

/// The identity of an agent: a hash of owner, zone and name, stable across hosts and restarts. Shown as base32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AgentId(#[serde(with = "serde_bytes")] pub [u8; 20]);

impl AgentId {
    /// The id of the agent `name` that `owner` registered in `zone`.
    pub fn of(owner: PeerKey, name: &FullName) -> AgentId {
        // The key has a fixed length and stands before the name, so no two agents hash the same text.
        let digest = Sha256::new()
            .chain_update(b"aop-agent-v1\0")
            .chain_update(owner.0)
            .chain_update(name.to_string().as_bytes())
            .finalize();
        let mut id = [0; 20];
        // 20 bytes are 32 digits of base32 without a rest; a second agent with one id stays out of reach.
        id.copy_from_slice(&digest[..20]);
        AgentId(id)
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AgentId {
    type Err = PeerKeyError;
    fn from_str(text: &str) -> Result<AgentId, PeerKeyError> {
        let bytes = BASE32_NOPAD
            .decode(text.to_ascii_uppercase().as_bytes())
            .map_err(|_| PeerKeyError(text.into()))?;
        bytes.try_into().map(AgentId).map_err(|_| PeerKeyError(text.into()))
    }
}

/// A private key with its public half.
#[derive(Clone)]
pub struct Identity(SigningKey);

impl Identity {
    /// The key made from a 32-byte seed; the same seed gives the libp2p keypair of the node.
    pub fn from_seed(seed: [u8; 32]) -> Identity {
        Identity(SigningKey::from_bytes(&seed))
    }

    /// The seed, to be kept in a file that only its owner reads.
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    pub fn key(&self) -> PeerKey {
        PeerKey(self.0.verifying_key().to_bytes())
    }

    /// Signs `domain` followed by `message`.
    pub fn sign(&self, domain: &[u8], message: &[u8]) -> [u8; 64] {
        self.0.sign(&[domain, message].concat()).to_bytes()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_from_its_peer_id() {
        let key = Identity::from_seed([7; 32]).key();
        assert!(key.to_string().starts_with("12D3KooW"));
        assert_eq!(key.to_string().parse(), Ok(key));
        assert!("12D3KooWnonsense".parse::<PeerKey>().is_err());
    }

    #[test]
    fn a_signature_counts_only_under_its_own_domain() {
        let identity = Identity::from_seed([1; 32]);
        let signature = identity.sign(b"a\0", b"text");
        assert!(identity.key().verify(b"a\0", b"text", &signature));
        assert!(!identity.key().verify(b"b\0", b"text", &signature));
    }
}
