//! What a registry of MCP servers says of a server.json: whether it stands, is advised against, or was deleted; since when.

use serde_json::{Map, Value};

use super::date::parse_date;
use super::field::{compact, shortened};
use crate::proto::time::Timestamp;

/// Where the official registry, and those that follow it, put what they say of a server.
const META: [&str; 2] = ["_meta", "io.modelcontextprotocol.registry/official"];
/// Where the official registry put it before it had `_meta`.
const META_EARLY: &str = "x-io.modelcontextprotocol.registry";

/// What a registry says of a server, with its words about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Status {
    /// Nothing against it.
    #[default]
    Active,
    /// It should not be used any more.
    Deprecated(String),
    /// It must not be used any more.
    Deleted(String),
}

/// What a registry's answer says of a document beside its status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryEntry {
    /// When it was published there.
    pub published: Option<Timestamp>,
    /// When it changed last there.
    pub updated: Option<Timestamp>,
    /// Whether it is the latest version there.
    pub is_latest: Option<bool>,
    /// All of its `_meta`, compact JSON text.
    pub meta: Option<String>,
}

impl RegistryEntry {
    /// Of what stands around a document.
    pub(super) fn read(answer: &Map<String, Value>) -> RegistryEntry {
        let meta = answer.get(META[0]).filter(|meta| meta.as_object().is_some_and(|meta| !meta.is_empty()));
        let official = meta.and_then(|meta| meta.get(META[1])).or_else(|| answer.get(META_EARLY));
        let said = |key: &str| official.and_then(|official| official.get(key));
        let date = |key: &str| parse_date(said(key)?.as_str()?);
        RegistryEntry {
            published: date("publishedAt"),
            updated: date("updatedAt"),
            is_latest: said("isLatest").and_then(Value::as_bool),
            meta: meta.map(compact),
        }
    }
}

impl Status {
    /// Of a server.json, and of what stands around it in a registry's answer. The document of the schema 2025-07-09 says it
    /// itself.
    pub(super) fn read(answer: Option<&Map<String, Value>>, document: &Map<String, Value>) -> Status {
        let official = |map: &Map<String, Value>| {
            let meta = map.get(META[0]).and_then(|meta| meta.get(META[1])).or_else(|| map.get(META_EARLY));
            meta.and_then(Value::as_object).cloned()
        };
        let said = answer.and_then(official).or_else(|| official(document));
        [said.as_ref(), Some(document)].into_iter().flatten().find_map(Status::of).unwrap_or_default()
    }

    fn of(said: &Map<String, Value>) -> Option<Status> {
        let text = |key: &str| said.get(key).and_then(Value::as_str);
        let why =
            || text("statusMessage").or_else(|| text("status_message")).map(shortened).unwrap_or_default();
        match text("status")? {
            "deprecated" => Some(Status::Deprecated(why())),
            "deleted" => Some(Status::Deleted(why())),
            // `active`, and whatever later registries say.
            _ => Some(Status::Active),
        }
    }

    /// What the card of a deprecated server says.
    pub(super) fn deprecation(&self) -> Option<String> {
        match self {
            Status::Deprecated(why) if why.is_empty() => Some("deprecated".into()),
            Status::Deprecated(why) => Some(why.clone()),
            Status::Active | Status::Deleted(_) => None,
        }
    }
}
