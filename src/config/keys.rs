//! The table of all settings: name, flag, environment variable, shape, meaning; and their defaults.

use super::default_data_dir;
use crate::proto::address_block::TRUSTED_NETS;

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// Name in the file; `http.addr` is `addr` of the table `[http]`.
    pub name: &'static str,
    /// Flag of `aop node`.
    pub flag: &'static str,
    /// Environment variable; a list is separated by commas.
    pub env: &'static str,
    /// Text, a path or a list of either.
    pub shape: Shape,
    /// What it means and how to choose it.
    pub meaning: &'static str,
}

/// What a setting holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One text.
    Text,
    /// Several texts.
    Texts,
    /// One path; relative ones start at the file that names them.
    Path,
    /// Several paths.
    Paths,
}

/// Every setting, in the order in which `aop config show` prints them.
pub const KEYS: [Key; 24] = [
    Key {
        name: "data_dir",
        flag: "--data-dir",
        env: "AOP_DATA_DIR",
        shape: Shape::Path,
        meaning: "Folder of the node's state. One node at a time; put it on a local disk. Default: the platform's state folder",
    },
    Key {
        name: "identity",
        flag: "--identity",
        env: "AOP_IDENTITY",
        shape: Shape::Path,
        meaning: "Key file of the node, made at the first start. Default: node.key in data_dir",
    },
    Key {
        name: "name",
        flag: "--name",
        env: "AOP_NAME",
        shape: Shape::Text,
        meaning: "Name of the node for people: others show it beside its id. Anybody may take any name, so it identifies nothing",
    },
    Key {
        name: "network",
        flag: "--network",
        env: "AOP_NETWORK",
        shape: Shape::Text,
        meaning: "The world to join: nodes of different worlds ignore each other",
    },
    Key {
        name: "zones",
        flag: "--zone",
        env: "AOP_ZONES",
        shape: Shape::Texts,
        meaning: "Zones the node serves as a member; the first is its home zone",
    },
    Key {
        name: "follow",
        flag: "--follow",
        env: "AOP_FOLLOW",
        shape: Shape::Texts,
        meaning: "Zones the node replicates without being a member: quick searches, no say",
    },
    Key {
        name: "gateway",
        flag: "--gateway",
        env: "AOP_GATEWAY",
        shape: Shape::Text,
        meaning: "Whether the node speaks for its zones to those above and below: auto where it comes first and can be dialed, \
                  yes before others, no never",
    },
    Key {
        name: "bootstrap",
        flag: "--bootstrap",
        env: "AOP_BOOTSTRAP",
        shape: Shape::Texts,
        meaning: "Addresses of first peers, as their `aop node` printed them; two or three suffice",
    },
    Key {
        name: "listen",
        flag: "--listen",
        env: "AOP_LISTEN",
        shape: Shape::Texts,
        meaning: "Addresses of the mesh. Port 0 takes any free port. Default: port 7401 on all addresses, also of IPv6",
    },
    Key {
        name: "announce",
        flag: "--announce",
        env: "AOP_ANNOUNCE",
        shape: Shape::Texts,
        meaning: "Addresses at which others reach the node where its own are not: behind a router, in a container",
    },
    Key {
        name: "relay",
        flag: "--relay",
        env: "AOP_RELAY",
        shape: Shape::Text,
        meaning: "Whether the node relays for those that cannot be reached, while it is reached from everywhere itself: \
                  yes or no",
    },
    Key {
        name: "mdns",
        flag: "--mdns",
        env: "AOP_MDNS",
        shape: Shape::Text,
        meaning: "Whether the node looks for others of its world in the local network, and is found there: yes or no",
    },
    Key {
        name: "autonat_server",
        flag: "--autonat-server",
        env: "AOP_AUTONAT_SERVER",
        shape: Shape::Text,
        meaning: "Whether the node tries for others whether they are reached from everywhere: yes for a seed, or no",
    },
    Key {
        name: "trusted_nets",
        flag: "--trusted-net",
        env: "AOP_TRUSTED_NETS",
        shape: Shape::Texts,
        meaning: "Nets whose addresses have no share of connections, streams and calls. Default: loopback and private nets",
    },
    Key {
        name: "http.addr",
        flag: "--http",
        env: "AOP_HTTP_ADDR",
        shape: Shape::Text,
        meaning: "Address of the HTTP API. Any but loopback needs http.token_file",
    },
    Key {
        name: "http.token_file",
        flag: "--http-token-file",
        env: "AOP_HTTP_TOKEN_FILE",
        shape: Shape::Path,
        meaning: "File with the token that HTTP clients must send; mode 0600",
    },
    Key {
        name: "http.names",
        flag: "--http-name",
        env: "AOP_HTTP_NAMES",
        shape: Shape::Texts,
        meaning: "Host names under which clients reach the API, such as that of a reverse proxy",
    },
    Key {
        name: "http.registry",
        flag: "--http-registry",
        env: "AOP_HTTP_REGISTRY",
        shape: Shape::Text,
        meaning: "Who may read the registry of MCP servers: own, or public: everybody, from every page, without the token",
    },
    Key {
        name: "metrics.addr",
        flag: "--metrics",
        env: "AOP_METRICS_ADDR",
        shape: Shape::Text,
        meaning: "Address that serves /metrics, /healthz and /readyz without a token, and nothing else. Default: none",
    },
    Key {
        name: "calls.residency",
        flag: "--residency",
        env: "AOP_CALLS_RESIDENCY",
        shape: Shape::Texts,
        meaning: "Inputs go only to hosts whose cards say that data stays in one of these; what runs here is left alone. \
                  Default: to all",
    },
    Key {
        name: "card_keys",
        flag: "--card-keys",
        env: "AOP_CARD_KEYS",
        shape: Shape::Paths,
        meaning: "JSON Web Key Sets (JWKS) of those whose signatures of A2A cards are believed; `aop show` says whose a card is",
    },
    Key {
        name: "agents",
        flag: "--agents",
        env: "AOP_AGENTS",
        shape: Shape::Paths,
        meaning: "Agent files (*.toml, *.json) or folders of them, registered while they exist",
    },
    Key {
        name: "log",
        flag: "--log",
        env: "AOP_LOG",
        shape: Shape::Text,
        meaning: "What is logged to stderr: a level, or directives such as `aop=debug,libp2p=warn`",
    },
    Key {
        name: "log_format",
        flag: "--log-format",
        env: "AOP_LOG_FORMAT",
        shape: Shape::Text,
        meaning: "How lines of the log are written: text for people, or json: one object a line, for collectors",
    },
];

pub(super) fn default_of(name: &str) -> Vec<String> {
    let fixed: &[&str] = match name {
        "network" => &["world"],
        "zones" => &["."],
        "gateway" => &["auto"],
        "relay" => &["yes"],
        "mdns" | "autonat_server" => &["no"],
        "listen" => &[
            "/ip4/0.0.0.0/tcp/7401",
            "/ip4/0.0.0.0/udp/7401/quic-v1",
            "/ip6/::/tcp/7401",
            "/ip6/::/udp/7401/quic-v1",
        ],
        "http.addr" => &["127.0.0.1:7400"],
        "http.registry" => &["own"],
        "log_format" => &["text"],
        "trusted_nets" => &TRUSTED_NETS,
        "data_dir" => return default_data_dir().iter().map(|dir| dir.display().to_string()).collect(),
        _ => &[],
    };
    fixed.iter().map(|value| value.to_string()).collect()
}

/// A value to show where a setting has no default.
pub(super) fn example_of(name: &str) -> &'static [&'static str] {
    match name {
        "data_dir" => &["/var/lib/aop"],
        "identity" => &["/var/lib/aop/node.key"],
        "name" => &["atlas"],
        "follow" => &["example.org"],
        "bootstrap" => &["/dns4/seed.example.org/udp/7401/quic-v1"],
        "announce" => &["/ip4/203.0.113.7/tcp/7401"],
        "http.token_file" => &["token"],
        "http.names" => &["aop.example.org"],
        "metrics.addr" => &["127.0.0.1:7402"],
        "calls.residency" => &["eu"],
        "card_keys" => &["acme.jwks.json"],
        "agents" => &["agents"],
        "log" => &["aop=info"],
        _ => &[],
    }
}

/// The values that a setting may have, where these are few.
pub(super) fn choices_of(name: &str) -> &'static [&'static str] {
    match name {
        "gateway" => &["auto", "yes", "no"],
        "relay" | "mdns" | "autonat_server" => &["yes", "no"],
        "http.registry" => &["own", "public"],
        _ => &[],
    }
}
