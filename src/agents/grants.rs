//! Grants of owners to hosts: made with an owner's key, kept as one line of base64 each, and joined to the documents
//! that a node offers on the owner's behalf.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::document::AgentFile;
use crate::key_file::{KeyError, read_key};
use crate::proto::grant::{Grant, Reach};
use crate::proto::identity::{Identity, PeerKey};
use crate::proto::limits::{GRANT_LIFE_MAX, GRANTS_MAX};
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
        why: String,
    },
    /// The name or zone that the grant is for.
    #[error("the agent's file has no usable name or zone")]
    #[diagnostic(help("mend `name` and `zone` first"))]
    NoName,
}

/// Signs a grant for `reach` in `zone` that ends after `life`, as one line of base64.
pub(crate) fn grant_line(
    owner: &Identity,
    host: &OfferingNode,
    zone: ZoneName,
    reach: Reach,
    life: Duration,
    generation: u64,
) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let issued_at = Timestamp(since.as_millis() as u64);
    let grant = Grant {
        network: host.network.clone(),
        issuer: owner.key(),
        subject: host.key,
        zone,
        reach,
        kinds: vec![RecordKind::Agent],
        may_delegate: false,
        issued_at,
        expires_at: issued_at + life.min(GRANT_LIFE_MAX),
        generation,
        slots: None,
    };
    BASE64.encode(&grant.sign(owner))
}

/// The document of an agent's file with the grants that its `owner_key` or `grant` stands for.
pub(crate) fn with_grants(file: AgentFile, host: &OfferingNode) -> Result<Value, GrantFileError> {
    let lines = match (&file.owner_key, &file.grant) {
        // The key before a grant: what it signs now lives longer than anything signed earlier.
        (Some(path), _) => own_grant(&read_key(path)?, &file.document, host)?,
        (None, Some(path)) => read_lines(path)?,
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
    Ok(vec![grant_line(owner, host, zone, reach, GRANT_LIFE_MAX, 0)])
}

fn read_lines(path: &Path) -> Result<Vec<String>, GrantFileError> {
    let wrong = |why: String| GrantFileError::Grant { path: path.into(), why };
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let lines: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(Into::into).collect();
    if lines.is_empty() || lines.len() > GRANTS_MAX {
        return Err(wrong(format!("{} grants, where 1 to {GRANTS_MAX} make a chain", lines.len())));
    }
    for line in &lines {
        let signed = BASE64.decode(line.as_bytes()).map_err(|_| wrong("not base64".into()))?;
        // Read here, so that a damaged line is told with its file and not refused by the node.
        Grant::read(&signed).map_err(|error| wrong(error.to_string()))?;
    }
    Ok(lines)
}
