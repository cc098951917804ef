//! Published documents under the names that their publishers gave them, for registries of such documents.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Handle;
use crate::api::ApiError;
use crate::net::wall_clock;
use crate::proto::card::{AgentCard, Origin};
use crate::proto::documents::DocumentQuery;
use crate::proto::record::Record;
use crate::proto::time::Timestamp;

/// Records that are looked at in one question: each is read in a moment, and whoever writes waits for no more.
const LOOKED_AT_ONCE: usize = 200;

/// A server.json, as its publisher wrote it.
#[derive(Clone, Debug)]
pub struct PublishedServer {
    /// Its name in the registry format: `publisher/name`.
    pub name: String,
    /// The document itself, an object: its very text.
    pub server: Box<RawValue>,
    version: String,
    /// Its title and its description.
    said: [String; 2],
    /// What the registry that it was imported from says of it, by the names of who says it.
    pub meta: Map<String, Value>,
    /// Why it should not be used any more, if its registry says so.
    pub deprecated: Option<String>,
    /// When it came to the host that offers it.
    pub published_at: Timestamp,
    /// When it changed last there.
    pub updated_at: Timestamp,
}

/// Which of them are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerQuery {
    /// Only names after this one.
    pub after: Option<String>,
    /// Only those that have this in name, title or description, in any case.
    pub text: Option<String>,
    /// Only those that changed at this time or later.
    pub since: Option<Timestamp>,
    /// Only those of this version.
    pub version: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// Looks for them at a node.
pub struct ServerDocuments<'a>(&'a Handle);

impl<'a> ServerDocuments<'a> {
    /// Of this node.
    pub fn new(handle: &'a Handle) -> ServerDocuments<'a> {
        ServerDocuments(handle)
    }

    /// Documents of MCP servers that this node answers for, one of each name, by name.
    ///
    /// # Errors
    /// The node has stopped or is too busy.
    pub async fn list(&self, query: ServerQuery) -> Result<Vec<PublishedServer>, ApiError> {
        let text = query.text.as_deref().map(str::to_lowercase).filter(|text| !text.is_empty());
        let is_filtered = text.is_some() || query.since.is_some() || query.version.is_some();
        let mut servers = Vec::new();
        let mut after = query.after;
        while servers.len() < query.limit {
            let limit =
                if is_filtered { LOOKED_AT_ONCE } else { LOOKED_AT_ONCE.min(query.limit - servers.len()) };
            let wanted = DocumentQuery { after: after.take(), text: text.clone(), limit };
            let records = self.0.look(|node| node.memory(wall_clock()).documents(&wanted)).await?;
            let is_last = records.len() < limit;
            for record in records {
                let card = self.0.descriptions.of(&record).card.clone();
                after.clone_from(&card.original_name);
                let server = PublishedServer::of(&record, &card);
                let is_meant = |server: &PublishedServer| {
                    text.as_deref().is_none_or(|text| server.says(text))
                        && query.since.is_none_or(|since| server.updated_at >= since)
                        && query.version.as_deref().is_none_or(|version| server.version() == version)
                };
                servers.extend(server.filter(is_meant));
            }
            // Nobody who is looked at again would be another.
            if is_last || after.is_none() {
                break;
            }
        }
        servers.truncate(query.limit);
        Ok(servers)
    }

    /// The document of an MCP server of this name, if this node answers for one.
    ///
    /// # Errors
    /// As of [`ServerDocuments::list`].
    pub async fn get(&self, name: &str) -> Result<Option<PublishedServer>, ApiError> {
        let name = name.to_owned();
        let record = self.0.look(|node| node.memory(wall_clock()).document(&name)).await?;
        Ok(record.and_then(|record| PublishedServer::of(&record, &self.0.descriptions.of(&record).card)))
    }
}

impl PublishedServer {
    fn of(record: &Record, card: &AgentCard) -> Option<PublishedServer> {
        if card.origin != Origin::ServerJson {
            return None;
        }
        let original = card.original.as_ref()?;
        let fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(original).ok()?;
        let text = |field: &str| serde_json::from_str::<String>(fields.get(field)?.get()).ok();
        let name = text("name").filter(|name| is_registry_name(name))?;
        let (title, description) = (text("title").unwrap_or_default(), text("description")?);
        let version = text("version")?;
        let is_whole = !description.is_empty() && !version.is_empty();
        let server = RawValue::from_string(original.clone()).ok()?;
        // A stranger may write any time, and none of them is after the record itself was written.
        let written = record.stamp.wall;
        let dates = card.dates.unwrap_or_default();
        let date = |date: Timestamp| if date == Timestamp::default() { written } else { date.min(written) };
        is_whole.then(|| PublishedServer {
            name,
            server,
            version,
            said: [title, description],
            meta: card
                .registry_meta
                .as_deref()
                .and_then(|meta| serde_json::from_str(meta).ok())
                .unwrap_or_default(),
            deprecated: card.deprecated.clone(),
            published_at: date(dates.published.min(dates.updated)),
            updated_at: date(dates.updated),
        })
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    fn says(&self, text: &str) -> bool {
        self.said.iter().chain([&self.name]).any(|said| said.to_lowercase().contains(text))
    }
}

/// Whether it is a name of the registry format: two parts of letters, digits and a few signs.
fn is_registry_name(name: &str) -> bool {
    let is_part = |part: &str, signs: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || signs.contains(c))
    };
    name.split_once('/').is_some_and(|(publisher, name)| is_part(publisher, ".-") && is_part(name, "._-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_registry_format_have_two_parts() {
        for name in ["ai.exa/exa", "io.github.a-b/c_d.e", "a/b"] {
            assert!(is_registry_name(name), "{name}");
        }
        for name in ["", "exa", "/exa", "ai.exa/", "ai.exa/a/b", "ai exa/exa", "ai_exa/exa", "ai.exa/é"] {
            assert!(!is_registry_name(name), "{name}");
        }
    }
}
