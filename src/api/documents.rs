//! What is told of a document beside what stands in it.

use serde::{Deserialize, Serialize};

/// Whether somebody whom the operator knows signed a card.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum CardSignature {
    /// Nobody signed it.
    #[default]
    Unsigned,
    /// It is signed, and by no key that is known here.
    Unverified,
    /// A known key signed it as it stands here.
    Verified {
        /// Name of the key, its `kid`.
        key: String,
        /// Whether the addresses outside of `supportedInterfaces` are signed, too.
        covers_all: bool,
    },
}
