//! Whom names mean.

use serde::{Deserialize, Serialize};

use super::ChosenBy;

/// Answer of `GET /v1/owners`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Owners {
    /// By name.
    pub owners: Vec<Owner>,
}

/// Whom a name means here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Owner {
    /// Full name.
    pub name: String,
    /// PeerId of the owner.
    pub owner: String,
    /// Who said so.
    pub by: ChosenBy,
    /// Whether the name without its zone means it, too.
    pub bare: bool,
    /// Wall milliseconds since which it does.
    pub since: u64,
}

/// Body of `PUT /v1/owners/{name}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustOwner {
    /// PeerId of the owner.
    pub owner: String,
}
