//! What can be typed to run a node.

use std::path::PathBuf;

use clap::Args;

use crate::config::Flags;

/// The settings of a node; each also has a place in the configuration file and an `AOP_…` variable.
#[derive(Args, Clone, Debug, Default)]
pub(in crate::cli) struct NodeArgs {
    /// Configuration file (TOML); else aop/aop.toml in the user's folder of settings, else /etc/aop/aop.toml
    #[arg(long, value_name = "FILE", env = "AOP_CONFIG")]
    pub(in crate::cli) config: Option<PathBuf>,
    // Texts and not yet paths or addresses: the configuration parses them and says which layer was wrong.
    /// Zone to serve; replaces the default root, the first is the home zone
    #[arg(long = "zone", value_name = "ZONE")]
    zones: Vec<String>,
    /// Zone to replicate without being a member
    #[arg(long, value_name = "ZONE")]
    follow: Vec<String>,
    /// Whether to speak for the zones: auto (the default), yes before others, no never
    #[arg(long, value_name = "WHEN")]
    gateway: Option<String>,
    /// Address of a first peer
    #[arg(long, value_name = "MULTIADDR")]
    bootstrap: Vec<String>,
    /// Mesh address; the default is port 7401, TCP and QUIC, on IPv4 and IPv6
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<String>,
    /// Address at which others reach the node: behind a router, in a container
    #[arg(long, value_name = "MULTIADDR")]
    announce: Vec<String>,
    /// Relay for those that cannot be reached, while the node itself is reached from everywhere: yes (the default) or no
    #[arg(long, value_name = "YES|NO", num_args = 0..=1, default_missing_value = "yes")]
    relay: Option<String>,
    /// Look for nodes of the same world in the local network, and be found there
    #[arg(long, value_name = "YES|NO", num_args = 0..=1, default_missing_value = "yes")]
    mdns: Option<String>,
    /// Try for others whether they are reached from everywhere, as a seed does
    #[arg(long, value_name = "YES|NO", num_args = 0..=1, default_missing_value = "yes")]
    autonat_server: Option<String>,
    /// Net whose addresses have no share of connections, streams and calls; replaces loopback and private nets
    #[arg(long = "trusted-net", value_name = "NET")]
    trusted_nets: Vec<String>,
    /// HTTP address; the default is 127.0.0.1:7400
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<String>,
    /// File with the token that HTTP clients must send
    #[arg(long, value_name = "FILE")]
    http_token_file: Option<String>,
    /// Host name under which HTTP clients may ask
    #[arg(long = "http-name", value_name = "NAME")]
    http_names: Vec<String>,
    /// Who may read its registry of MCP servers without the token: own (the default), or public
    #[arg(long, value_name = "WHO")]
    http_registry: Option<String>,
    /// Address that serves /metrics, /healthz and /readyz without a token, and nothing else
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<String>,
    /// Folder of the node's state
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Key file; the default is node.key in the data folder
    #[arg(long, value_name = "FILE")]
    identity: Option<String>,
    /// Send inputs only to hosts whose cards say that data stays there; repeat for several
    #[arg(long, value_name = "RESIDENCY")]
    residency: Vec<String>,
    /// File with the keys (JWKS) of those whose signatures of A2A cards are believed
    #[arg(long, value_name = "FILE")]
    card_keys: Vec<String>,
    /// Agent file or folder
    #[arg(long, value_name = "PATH")]
    agents: Vec<String>,
    /// Name of the node for people
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// World to join; the default is `world`
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,
    /// What to log: a level or directives
    #[arg(long, value_name = "DIRECTIVES")]
    log: Option<String>,
    /// How lines of the log are written: text (the default), or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl NodeArgs {
    /// What was given, by the name of the setting.
    pub(in crate::cli) fn flags(&self) -> Flags {
        let one = |value: &Option<String>| value.iter().cloned().collect::<Vec<_>>();
        Flags::from([
            ("zones", self.zones.clone()),
            ("follow", self.follow.clone()),
            ("gateway", one(&self.gateway)),
            ("bootstrap", self.bootstrap.clone()),
            ("listen", self.listen.clone()),
            ("announce", self.announce.clone()),
            ("relay", one(&self.relay)),
            ("mdns", one(&self.mdns)),
            ("autonat_server", one(&self.autonat_server)),
            ("trusted_nets", self.trusted_nets.clone()),
            ("http.addr", one(&self.http)),
            ("http.token_file", one(&self.http_token_file)),
            ("http.names", self.http_names.clone()),
            ("http.registry", one(&self.http_registry)),
            ("metrics.addr", one(&self.metrics)),
            ("data_dir", one(&self.data_dir)),
            ("identity", one(&self.identity)),
            ("calls.residency", self.residency.clone()),
            ("card_keys", self.card_keys.clone()),
            ("agents", self.agents.clone()),
            ("name", one(&self.name)),
            ("network", one(&self.network)),
            ("log", one(&self.log)),
            ("log_format", one(&self.log_format)),
        ])
    }
}
