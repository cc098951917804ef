//! Grants of owners to hosts: made with an owner's key, kept as one line of base64 each, and joined to the documents
//! that a node offers on the owner's behalf.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::document::AgentFile;
use crate::grant_file::{NoGrants, read_grants};
use crate::key_file::{KeyError, read_key};
use crate::proto::grant::{Grant, Reach};
use crate::proto::identity::{Identity, PeerKey};
use crate::proto::limits::GRANT_LIFE_MAX;
use crate::proto::name::{AgentName, ZoneName};
use crate::proto::record::RecordKind;
use crate::proto::time::Timestamp;

/// The node that is to offer agents.
pub(crate) struct OfferingNode {
    /// Its key.
    pub(crate) key: PeerKey,
    /// Its world.
    pub(crate) network: String,
    /// The zone of documents that name none.
    pub(crate) home: ZoneName,
}

/// Why a file's authority cannot be used. Nothing was sent.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum GrantFileError {
    /// The owner's key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The grant's file.
    #[error("{}: {why}", path.display())]
    #[diagnostic(help("a grant's file holds the lines that `aop keys grant` prints, the owner's first"))]
    Grant {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: NoGrants,
    },
    /// The name or zone that the grant is for.
    #[error("the agent's file has no usable name or zone")]
    #[diagnostic(help("mend `name` and `zone` first"))]
    NoName,
}

/// A grant to offer agents for `reach` in `zone`, from now on for as long as `life` or a grant may last.
pub(crate) fn grant(
    owner: &Identity,
    host: &OfferingNode,
    zone: ZoneName,
    reach: Reach,
    life: Duration,
) -> Grant {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let issued_at = Timestamp(since.as_millis() as u64);
    Grant {
        network: host.network.clone(),
        issuer: owner.key(),
        subject: host.key,
        zone,
        reach,
        kinds: vec![RecordKind::Agent],
        may_delegate: false,
        issued_at,
        expires_at: issued_at + life.min(GRANT_LIFE_MAX),
        generation: 0,
        slots: None,
    }
}

/// A grant as one line of base64, signed by its issuer.
pub(crate) fn grant_line(grant: &Grant, issuer: &Identity) -> String {
    BASE64.encode(&grant.sign(issuer))
}

/// The document of an agent's file with the grants that its `owner_key` or `grant` stands for.
pub(crate) fn with_grants(file: AgentFile, host: &OfferingNode) -> Result<Value, GrantFileError> {
    let lines = match (&file.owner_key, &file.grant) {
        // The key before a grant: what it signs now lives longer than anything signed earlier.
        (Some(path), _) => own_grant(&read_key(path)?, &file.document, host)?,
        (None, Some(path)) => {
            let grants =
                read_grants(path).map_err(|why| GrantFileError::Grant { path: path.clone(), why })?;
            grants.iter().map(|signed| BASE64.encode(signed)).collect()
        }
        (None, None) => Vec::new(),
    };
    let mut document = file.document;
    if !lines.is_empty() {
        document["agent"]["grants"] = json!(lines);
    }
    Ok(document)
}

/// The node grants itself with the owner's key; none is needed where both are one.
fn own_grant(owner: &Identity, document: &Value, host: &OfferingNode) -> Result<Vec<String>, GrantFileError> {
    if owner.key() == host.key {
        return Ok(Vec::new());
    }
    let text = |field: &str| document["agent"][field].as_str();
    let name: AgentName = text("name").and_then(|name| name.parse().ok()).ok_or(GrantFileError::NoName)?;
    let zone = match text("zone") {
        Some(zone) => zone.parse().map_err(|_| GrantFileError::NoName)?,
        None => host.home.clone(),
    };
    // All tools of MCP servers are agents of their own, with names that are not known yet.
    let run = &document["agent"]["run"];
    let is_union = run.get("mcp").is_some_and(|mcp| run.get("tool").or_else(|| mcp.get("tool")).is_none());
    let reach = if is_union { Reach::Zone } else { Reach::Label(name) };
    Ok(vec![grant_line(&grant(owner, host, zone, reach, GRANT_LIFE_MAX), owner)])
}
