//! Imports: other registries whose documents this node offers, and what their readings came to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Code;
pub use crate::proto::import::ImportKind;

/// Body of `POST /v1/imports`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartImport {
    /// Where the registry is.
    pub url: String,
    /// Zones that share its documents out; the home zone if none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<String>,
    /// What kind it is; found out if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ImportKind>,
}

/// Answer of `GET /v1/imports`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Imports {
    /// By address.
    pub imports: Vec<Import>,
}

/// One import. Answer of `POST /v1/imports` and `DELETE /v1/imports/{url}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Import {
    /// Where the registry is.
    pub url: String,
    /// Zones that share its documents out.
    pub zones: Vec<String>,
    /// What kind it is; null until an answer told.
    pub kind: Option<ImportKind>,
    /// PeerId of its first key: the owner of its first 20,000 documents.
    pub owner: String,
    /// Seconds between two readings; null where only a command reads it.
    pub every_s: Option<u64>,
    /// When it is read next, milliseconds since the Unix epoch.
    pub next_ms: Option<u64>,
    /// Documents offered at the end of the last reading.
    pub held: usize,
    /// The last change seen there, milliseconds since the Unix epoch: what is asked for next begins a minute before. Null where
    /// all is asked for.
    pub seen_ms: Option<u64>,
    /// The reading under way, or the one that is about to begin.
    pub run: Option<ImportRun>,
    /// The last reading that ended.
    pub last: Option<ImportRun>,
}

/// One reading of a registry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImportRun {
    /// Its number; from 1 in each run of the node.
    pub number: u64,
    /// When it began, milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// When it ended; null while it goes on.
    pub ended_ms: Option<u64>,
    /// Pages read.
    pub pages: usize,
    /// Documents read.
    pub documents: usize,
    /// Documents that were not offered before.
    pub new: usize,
    /// Documents that replaced what was offered.
    pub changed: usize,
    /// Documents that were offered already.
    pub unchanged: usize,
    /// Documents that the registry has deleted.
    pub withdrawn: usize,
    /// Documents whose leases were renewed.
    pub renewed: usize,
    /// What was left out, by reason: a code, or `held` for agents of this mesh, `other_type`, `no_document`, `not_fetched`,
    /// `too_many`.
    pub skipped: BTreeMap<String, usize>,
    /// Some of what was left out, at most 20.
    pub examples: Vec<Skipped>,
    /// Why nothing was taken, or not all; null where it ended well.
    pub error: Option<ImportError>,
}

/// A document that was left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name as far as it could be read.
    pub name: String,
    /// Stable code.
    pub code: Code,
    /// What and why.
    pub message: String,
}

/// Why a reading failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImportError {
    /// Stable code: `upstream_failed` where the registry is the reason.
    pub code: Code,
    /// What and why.
    pub message: String,
}
