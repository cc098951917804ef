//! What can be typed to register agents, to name them, and to begin one.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ClientArgs;
use crate::proto::import::ImportKind;

/// A name, which may begin with `-`. What looks like a long option is a misspelt one; no document is given such a name.
pub(in crate::cli) fn agent_name(text: &str) -> Result<String, &'static str> {
    match text.strip_prefix("--") {
        Some(rest) if rest.starts_with(|first: char| first.is_ascii_lowercase()) => {
            Err("there is no such option, and an agent whose name begins so is given by its id")
        }
        _ => Ok(text.to_owned()),
    }
}

#[derive(Args, Debug)]
pub(in crate::cli) struct RegisterArgs {
    /// agent.toml or JSON files; - is either from stdin
    #[arg(value_name = "FILE", required = true)]
    pub(in crate::cli) files: Vec<PathBuf>,
    /// Zone for documents that name none; the default is the node's home zone
    #[arg(long, value_name = "ZONE")]
    pub(in crate::cli) zone: Option<String>,
    /// Also in the place of a newer version, or of another agent of the same name
    #[arg(long)]
    pub(in crate::cli) replace: bool,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ImportArgs {
    /// Where the registry is; none lists the imports
    #[arg(value_name = "URL")]
    pub(in crate::cli) url: Option<String>,
    /// Zone for its documents, the node's home zone by default; several share them out
    #[arg(long = "zone", value_name = "ZONE", requires = "url")]
    pub(in crate::cli) zones: Vec<String>,
    /// What it is: mcp, ard or agents; found out by default
    #[arg(long, value_name = "KIND", requires = "url")]
    pub(in crate::cli) kind: Option<ImportKind>,
    /// Withdraw what was imported from there, and forget the import
    #[arg(long, requires = "url", conflicts_with_all = ["zones", "kind"])]
    pub(in crate::cli) remove: bool,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct AgentNamesArgs {
    /// Full name, bare name or id
    #[arg(value_name = "AGENT", required = true, allow_hyphen_values = true, value_parser = agent_name)]
    pub(in crate::cli) agent: String,
    /// More of them
    #[arg(value_name = "AGENT")]
    pub(in crate::cli) more: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(in crate::cli) struct AgentsArgs {
    #[command(subcommand)]
    pub(in crate::cli) command: Option<AgentsCommand>,
    /// Only this zone
    #[arg(long, value_name = "ZONE")]
    pub(in crate::cli) zone: Option<String>,
    /// Most results; all without it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(in crate::cli) limit: Option<u32>,
    /// Where an earlier answer stopped
    #[arg(long, value_name = "CURSOR")]
    pub(in crate::cli) cursor: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
}

#[derive(Subcommand, Debug)]
pub(in crate::cli) enum AgentsCommand {
    /// Offer agents again that an earlier data folder offered with this node's key
    #[command(
        before_help = "Examples:\n  aop agents adopt summarizer\n  aop agents adopt a@acme.org b@acme.org --json"
    )]
    Adopt(AgentNamesArgs),
}

impl AgentNamesArgs {
    /// All names.
    pub(in crate::cli) fn agents(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.agent).chain(&self.more)
    }
}

#[derive(Args, Debug)]
pub(in crate::cli) struct AdoptArgs {
    /// Full name, bare name, id, or name in the original document
    #[arg(value_name = "AGENT", allow_hyphen_values = true, value_parser = agent_name)]
    pub(in crate::cli) agent: String,
    /// Folder of the file
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(in crate::cli) dir: PathBuf,
    /// Its name here; the default is the listing's
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) name: Option<String>,
    /// Write it without asking
    #[arg(long)]
    pub(in crate::cli) yes: bool,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
}

#[derive(Subcommand, Debug)]
pub(in crate::cli) enum AgentCommand {
    /// Write the files of an agent to start from; none is ever overwritten
    #[command(before_help = "Examples:\n  aop agent new word-count\n  aop agent new word-count --dir agents")]
    New(AgentNewArgs),
}

#[derive(Args, Debug)]
pub(in crate::cli) struct AgentNewArgs {
    /// Its name: lower-case letters, digits, `-` and `_`
    #[arg(value_name = "NAME")]
    pub(in crate::cli) name: String,
    /// Folder of the files
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(in crate::cli) dir: PathBuf,
}
