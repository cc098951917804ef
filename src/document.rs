//! Stand-in for the document reader: accepts objects with a `name`, to be replaced at the merge.

use std::path::Path;

use serde_json::Value;

use crate::proto::card::{AgentCard, Scope};
use crate::proto::name::{AgentName, ZoneName};

/// A document ready to be registered.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Its name.
    pub name: AgentName,
    /// Its zone, if the document names one.
    pub zone: Option<ZoneName>,
    /// Who may find it.
    pub scope: Scope,
    /// What is published.
    pub card: AgentCard,
    /// Encoded grants.
    pub grants: Vec<Vec<u8>>,
}

/// A document that is not an agent.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Its name as far as it could be read.
    pub name: String,
    /// Stable code.
    pub code: &'static str,
    /// What, why, what to do.
    pub message: String,
}

/// Why an `agent.toml` could not be read.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum FileError {
    /// The file cannot be read.
    #[error("cannot read the file: {0}")]
    Read(#[from] std::io::Error),
    /// The file is not an agent.
    #[error("{message}")]
    Syntax {
        /// What is wrong.
        message: String,
        /// The file.
        #[source_code]
        source_code: miette::NamedSource<String>,
        /// Where.
        #[label("here")]
        span: Option<miette::SourceSpan>,
    },
}

/// Reads one document or an array of them, in order.
pub fn read_documents(body: Value) -> Vec<Result<Registration, Refusal>> {
    match body {
        Value::Array(documents) => documents.into_iter().map(read_document).collect(),
        document => vec![read_document(document)],
    }
}

fn read_document(document: Value) -> Result<Registration, Refusal> {
    let name = document["name"].as_str().unwrap_or_default().to_string();
    let parsed = name.parse().map_err(|error: crate::proto::name::NameError| Refusal {
        name: name.clone(),
        code: "bad_name",
        message: error.to_string(),
    })?;
    let card = AgentCard {
        description: document["description"].as_str().unwrap_or_default().into(),
        ..AgentCard::default()
    };
    Ok(Registration { name: parsed, zone: None, scope: Scope::Public, card, grants: Vec::new() })
}

/// Reads an `agent.toml` into the JSON document that registers it.
pub fn read_agent_file(path: &Path) -> Result<Value, FileError> {
    let text = std::fs::read_to_string(path)?;
    let table: toml::Table = toml::from_str(&text).map_err(|error: toml::de::Error| FileError::Syntax {
        message: error.message().into(),
        source_code: miette::NamedSource::new(path.display().to_string(), text.clone()),
        span: error.span().map(Into::into),
    })?;
    Ok(serde_json::to_value(&table["agent"]).unwrap_or_default())
}
