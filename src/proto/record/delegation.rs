//! Delegations: a gateway names its zone to a zone above (protocol section 4).
//!
//! A delegation is learned from the zone above and never from the zone itself; nothing that was learned through it outlives it.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::proto::codec;
use crate::proto::limits::{DELEGATION_ADDRESS_BYTES_MAX, DELEGATION_ADDRESSES_MAX};
use crate::proto::name::ZoneName;

/// The body of a delegation. Its owner is the key of the zone that it names, or its host where that zone is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegation {
    /// The zone that is named, strictly below that of the record.
    pub zone: ZoneName,
    /// Where the host is dialed, encoded as multiaddresses without the peer: its own word, to be dialed with care.
    #[serde(deserialize_with = "codec::at_most::<DELEGATION_ADDRESSES_MAX, _, _>")]
    pub addresses: Vec<ByteBuf>,
}

impl Delegation {
    /// Whether its addresses are within their limit.
    pub(super) fn is_within_limits(&self) -> bool {
        self.addresses.iter().all(|address| address.len() <= DELEGATION_ADDRESS_BYTES_MAX)
    }
}
