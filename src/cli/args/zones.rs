//! What can be typed about zones.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ClientArgs;

#[derive(Subcommand, Debug)]
pub(in crate::cli) enum ZoneCommand {
    /// Take part in a zone from now on, also after the next start
    #[command(before_help = "Examples:\n\
            \x20 aop zone join research.acme.org\n\
            \x20 aop zone join acme.org --follow --json     # hold it for quick searches, and write nothing there")]
    Join(ZoneJoinArgs),
    /// Leave a zone: what the node offers there is withdrawn, what it held is forgotten
    #[command(
        before_help = "Examples:\n  aop zone leave research.acme.org\n  aop zone leave acme.org --json"
    )]
    Leave(ZoneLeaveArgs),
    /// Make the key of a zone, and print what its nodes put into their configuration
    #[command(before_help = "Examples:\n\
            \x20 aop zone init acme.org --out acme.key >> aop.toml\n\
            \x20 aop zone init acme.org --out acme.key --json")]
    Init(ZoneInitArgs),
    /// Vouch with a zone's key for the key of a zone below it
    #[command(before_help = "Examples:\n\
            \x20 aop zone delegate research.acme.org --key-file acme.key --to 12D3… > research.grant\n\
            \x20 aop zone delegate research.acme.org --key-file acme.key --to 12D3… --days 30 --json")]
    Delegate(ZoneDelegateArgs),
    /// Print the DNS records by which a domain speaks for the key of its zone, and leads to its nodes
    #[command(before_help = "Examples:\n\
            \x20 aop zone dns acme.org                             # the key as the node knows it, its addresses\n\
            \x20 aop zone dns acme.org --http-name www.acme.org    # and where its agents are found over HTTP")]
    Dns(ZoneDnsArgs),
    /// Ask a domain which key its zone has; nothing is believed before it stands in the configuration
    #[command(before_help = "Examples:\n\
            \x20 aop zone check acme.org >> aop.toml               # the anchor, if the domain names a key\n\
            \x20 aop zone check acme.org --key 12D3… --json        # whether it names this one")]
    Check(ZoneCheckArgs),
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ZoneDnsArgs {
    /// The zone, whose name is a domain
    #[arg(value_name = "ZONE")]
    pub(in crate::cli) zone: String,
    /// PeerId of its key; as the node knows it without this
    #[arg(long, value_name = "KEY")]
    pub(in crate::cli) key: Option<String>,
    /// Host name at which the node answers over HTTPS, for clients of ARD and DNS-AID
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) http_name: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ZoneCheckArgs {
    /// The zone, whose name is a domain
    #[arg(value_name = "ZONE")]
    pub(in crate::cli) zone: String,
    /// PeerId of the key that it should have
    #[arg(long, value_name = "KEY")]
    pub(in crate::cli) key: Option<String>,
    /// Name server to ask; those of this machine without it
    #[arg(long, value_name = "ADDR:PORT")]
    pub(in crate::cli) nameserver: Option<SocketAddr>,
    /// Print one JSON document
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ZoneJoinArgs {
    /// The zone
    #[arg(value_name = "ZONE")]
    pub(in crate::cli) zone: String,
    /// Replicate it without being a member
    #[arg(long)]
    pub(in crate::cli) follow: bool,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ZoneLeaveArgs {
    /// The zone
    #[arg(value_name = "ZONE")]
    pub(in crate::cli) zone: String,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ZoneInitArgs {
    /// The zone
    #[arg(value_name = "ZONE")]
    pub(in crate::cli) zone: String,
    /// File of the key; never overwritten
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) out: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ZoneDelegateArgs {
    /// The zone below
    #[arg(value_name = "CHILD")]
    pub(in crate::cli) child: String,
    /// Key file of the zone above
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) key_file: PathBuf,
    /// PeerId of the key of the zone below, as its `aop zone init` printed it
    #[arg(long, value_name = "KEY")]
    pub(in crate::cli) to: String,
    /// The world it counts in
    #[arg(long, value_name = "NAME", default_value = "world", env = "AOP_NETWORK")]
    pub(in crate::cli) network: String,
    /// How long it holds; what the zone below grants ends no later
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=90))]
    pub(in crate::cli) days: u16,
    /// Print one JSON document
    #[arg(long)]
    pub(in crate::cli) json: bool,
}
