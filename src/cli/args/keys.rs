//! What can be typed about keys and grants.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::proto::limits::SLOTS;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeysCommand {
    /// Print the PeerId of a key
    #[command(before_help = "Examples:\n  aop keys show\n  aop keys show owner.key --json")]
    Show(KeysShowArgs),
    /// Make a key
    #[command(before_help = "Examples:\n\
            \x20 aop keys new --out owner.key\n\
            \x20 aop keys new --out ~/.config/aop/owner.key")]
    New(KeysNewArgs),
    /// Allow a node to write on behalf of an owner, or of a zone
    #[command(before_help = "Examples:\n\
            \x20 aop keys grant --key owner.key --to 12D3… --zone acme.org --out host.grant\n\
            \x20 aop keys grant --key acme.key --to 12D3… --zone acme.org --kind agent --kind delegation --slots 500")]
    Grant(KeysGrantArgs),
}

#[derive(Args, Debug)]
pub(in crate::cli) struct KeysShowArgs {
    /// Key file; the default is the node's own
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: Option<PathBuf>,
    /// Folder of the node's state
    #[arg(long, value_name = "DIR", env = "AOP_DATA_DIR", conflicts_with = "file")]
    pub(in crate::cli) data_dir: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct KeysNewArgs {
    /// File to write; never overwritten
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) out: PathBuf,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct KeysGrantArgs {
    /// Key file of the owner, or of the zone
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) key: PathBuf,
    /// PeerId of the node
    #[arg(long, value_name = "PEERID")]
    pub(in crate::cli) to: String,
    /// Zone in which it may write
    #[arg(long, value_name = "ZONE")]
    pub(in crate::cli) zone: String,
    /// Only the agent of this name
    #[arg(long, value_name = "LABEL")]
    pub(in crate::cli) name: Option<String>,
    /// What it may write; repeat it for several
    #[arg(long = "kind", value_name = "KIND", value_enum, default_values_t = [GrantKind::Agent])]
    pub(in crate::cli) kinds: Vec<GrantKind>,
    /// Most records it may have there, where the key is the zone's; 64 without it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(SLOTS)))]
    pub(in crate::cli) slots: Option<u16>,
    /// Whoever has the grant may give grants within it
    #[arg(long)]
    pub(in crate::cli) pass_on: bool,
    /// The world it counts in
    #[arg(long, value_name = "NAME", default_value = "world", env = "AOP_NETWORK")]
    pub(in crate::cli) network: String,
    /// How long it holds
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=90))]
    pub(in crate::cli) days: u16,
    /// Overrules whatever was written under a lower one: after a revocation, or a clock that was ahead
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(in crate::cli) generation: u64,
    /// File to write; stdout without it
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) out: Option<PathBuf>,
}

/// A kind of record that a grant may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum GrantKind {
    /// Agents
    Agent,
    /// The zone's name in zones above, and the names of zones below it
    Delegation,
    /// What takes agents of other hosts back
    Revocation,
}
