//! The configuration of a node: which settings there are, where each may come from, and which value holds.
//!
//! One table, [`KEYS`], names every setting with its flag, environment variable, default and meaning; what is a list of tables
//! stands in the file alone ([`Anchor`], [`Import`]). Flags win over
//! the environment, the environment over the file, the file over the defaults; each effective value keeps its
//! [`Origin`], so that `aop config show` can say why it holds. What is unknown or malformed is an error with its place.

mod anchor;
mod blank;
mod file;
mod import;
mod keys;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use libp2p::Multiaddr;
use miette::{Diagnostic, NamedSource, SourceSpan};

pub use self::anchor::{ANCHOR, Anchor};
pub use self::blank::{blank_file, schema};
use self::file::File;
pub use self::import::{IMPORT, Import};
use self::keys::default_of;
pub use self::keys::{KEYS, Key, Shape};
use crate::net::addresses::{ReachOptions, check_dialable, named_peer};
use crate::proto::address_block::TrustedNets;
use crate::proto::card::Residency;
use crate::proto::limits::NETWORK_BYTES_MAX;
use crate::proto::message::Gateway;
use crate::proto::name::ZoneName;
use crate::proto::node_name::NodeName;

/// The configuration file of a machine.
const MACHINE_FILE: &str = "/etc/aop/aop.toml";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line.
    Flag(&'static str),
    /// An environment variable.
    Env(&'static str),
    /// The configuration file, with the line from 1.
    File(PathBuf, usize),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(flag) => f.write_str(flag),
            Origin::Env(variable) => f.write_str(variable),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// Values of settings by [`Key::name`], from the command line.
pub type Flags = BTreeMap<&'static str, Vec<String>>;

/// Settings of a node, parsed and checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder of its state.
    pub data_dir: PathBuf,
    /// Its key file.
    pub identity: PathBuf,
    /// Name for people.
    pub name: Option<NodeName>,
    /// The world.
    pub network: String,
    /// Zones served, home first, never empty.
    pub zones: Vec<ZoneName>,
    /// Zones followed.
    pub follow: Vec<ZoneName>,
    /// Whether it may be a gateway of its zones.
    pub gateway: Gateway,
    /// The keys of zones that have one.
    pub anchors: Vec<Anchor>,
    /// Registries that are imported regularly.
    pub imports: Vec<Import>,
    /// First peers.
    pub bootstrap: Vec<Multiaddr>,
    /// Mesh addresses.
    pub listen: Vec<Multiaddr>,
    /// Addresses at which others reach it beside those.
    pub announce: Vec<Multiaddr>,
    /// What it does for reach, its own and that of others.
    pub reach: ReachOptions,
    /// Nets whose addresses have no share.
    pub trusted_nets: TrustedNets,
    /// Address of the HTTP API.
    pub http_addr: SocketAddr,
    /// Token of the HTTP API.
    pub http_token_file: Option<PathBuf>,
    /// Further host names of the HTTP API.
    pub http_names: Vec<String>,
    /// Whether everybody may read the registry of MCP servers.
    pub is_registry_public: bool,
    /// Address that tells metrics and health to whoever reaches it.
    pub metrics_addr: Option<SocketAddr>,
    /// Where data stays, by their cards, at the hosts to which inputs may be sent; everywhere if there is none.
    pub residency: Vec<Residency>,
    /// Files of keys by which signatures of A2A cards are verified.
    pub card_keys: Vec<PathBuf>,
    /// Agent files and folders.
    pub agents: Vec<PathBuf>,
    /// Log directives.
    pub log: Option<String>,
    /// Whether the log is for programs to read.
    pub is_log_json: bool,
}

/// One effective value, to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// [`Key::name`].
    pub key: &'static str,
    /// Its values; none where nothing is set and there is no default.
    pub values: Vec<String>,
    /// Where they came from.
    pub origin: Origin,
}

/// What is wrong with one setting. Nothing was started.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{message}")]
pub struct ConfigError {
    message: String,
    #[help]
    fix: Option<String>,
    #[source_code]
    text: Option<NamedSource<String>>,
    #[label("here")]
    span: Option<SourceSpan>,
}

impl ConfigError {
    fn new(message: impl Into<String>, fix: impl Into<String>) -> ConfigError {
        ConfigError { message: message.into(), fix: Some(fix.into()), text: None, span: None }
    }

    fn at(self, file: &File, span: Range<usize>) -> ConfigError {
        ConfigError { text: Some(file.source()), span: Some(span.into()), ..self }
    }
}

/// Finds the value of every setting that holds. `env` reads an environment variable; all errors are found, not only the first.
pub fn load(
    flags: &Flags,
    env: &dyn Fn(&str) -> Option<String>,
    file: Option<&Path>,
) -> Result<(Settings, Vec<Effective>), Vec<ConfigError>> {
    let (file, mut errors) = match file.map(File::read).transpose() {
        Ok(Some((file, errors))) => (Some(file), errors),
        Ok(None) => (None, Vec::new()),
        // Without the file nothing is known of the values that hold, so nothing else is judged.
        Err(error) => return Err(vec![*error]),
    };
    let mut validator = Validator { given: resolve(flags, env, file.as_ref()), file, errors: Vec::new() };
    let settings = validator.settings();
    // Of the file first, then of the values: the order in which a reader mends them.
    errors.append(&mut validator.errors);
    match settings {
        Some(settings) if errors.is_empty() => Ok((settings, validator.effective())),
        _ => Err(errors),
    }
}

/// The values of one setting, each with its place in the file.
#[derive(Clone, Debug)]
struct Given {
    origin: Origin,
    values: Vec<(String, Option<Range<usize>>)>,
}

impl Given {
    fn plain(origin: Origin, values: impl IntoIterator<Item = String>) -> Given {
        Given { origin, values: values.into_iter().map(|value| (value, None)).collect() }
    }
}

/// For each setting the values of the strongest layer that has any.
fn resolve(
    flags: &Flags,
    env: &dyn Fn(&str) -> Option<String>,
    file: Option<&File>,
) -> BTreeMap<&'static str, Given> {
    let mut given = BTreeMap::new();
    for key in &KEYS {
        // A flag that was not given arrives as an empty list, and must not hide the layers below.
        let from_flag = flags.get(key.name).filter(|values| !values.is_empty());
        let strongest = from_flag
            .map(|values| Given::plain(Origin::Flag(key.flag), values.iter().cloned()))
            .or_else(|| from_env(key, env))
            .or_else(|| file.and_then(|file| file.given.get(key.name).cloned()))
            .unwrap_or_else(|| Given::plain(Origin::Default, default_of(key.name)));
        given.insert(key.name, strongest);
    }
    resolve_identity(&mut given);
    given
}

/// The default key file lies in the data folder, wherever that came from.
fn resolve_identity(given: &mut BTreeMap<&'static str, Given>) {
    let data_dir = given["data_dir"].values.first().map(|(dir, _)| Path::new(dir).join("node.key"));
    if let (Some(path), Some(identity)) = (data_dir, given.get_mut("identity"))
        && identity.values.is_empty()
    {
        // The origin stays `default`: nobody named this file.
        identity.values.push((path.display().to_string(), None));
    }
}

fn from_env(key: &Key, env: &dyn Fn(&str) -> Option<String>) -> Option<Given> {
    // Set but blank counts as unset: unit files and scripts write `AOP_ZONES=`.
    let text = env(key.env).filter(|text| !text.trim().is_empty())?;
    let values: Vec<String> = match key.shape {
        Shape::Texts | Shape::Paths => text.split(',').map(|part| part.trim().to_string()).collect(),
        Shape::Text | Shape::Path => vec![text],
    };
    Some(Given::plain(Origin::Env(key.env), values))
}

/// The platform's folder for state, such as `~/.local/state/aop`; `None` where there is no home folder.
pub fn default_data_dir() -> Option<PathBuf> {
    let folders = directories::ProjectDirs::from("", "", "aop")?;
    // macOS and Windows have no folder for state.
    Some(folders.state_dir().unwrap_or_else(|| folders.data_local_dir()).to_path_buf())
}

/// The file that is read where none is named: the user's own, such as `~/.config/aop/aop.toml`, else the machine's; `None` where
/// neither is there.
pub fn default_file() -> Option<PathBuf> {
    let own =
        directories::ProjectDirs::from("", "", "aop").map(|folders| folders.config_dir().join("aop.toml"));
    own.into_iter().chain(cfg!(unix).then(|| MACHINE_FILE.into())).find(|file| file.is_file())
}

/// Turns texts into values and collects what is wrong with them.
struct Validator {
    given: BTreeMap<&'static str, Given>,
    file: Option<File>,
    errors: Vec<ConfigError>,
}

impl Validator {
    fn settings(&mut self) -> Option<Settings> {
        let zones = self.parsed("zones", "write `research.acme.org`, or `.` for the root");
        let address = "write a multiaddress such as `/ip4/192.0.2.1/tcp/7401/p2p/12D3…`";
        let settings = Settings {
            data_dir: self.required("data_dir").into(),
            identity: self.required("identity").into(),
            name: self.parsed("name", "write a name such as `atlas`").pop(),
            network: self.network(),
            follow: self.parsed("follow", "write `research.acme.org`, or `.` for the root"),
            gateway: self.gateway(),
            anchors: Vec::new(),
            imports: self.file.as_ref().map(|file| file.imports.clone()).unwrap_or_default(),
            bootstrap: self.dialable("bootstrap", address),
            listen: self.parsed("listen", address),
            announce: self.announce(),
            reach: ReachOptions {
                relay: self.is_on("relay"),
                mdns: self.is_on("mdns"),
                tries_others: self.is_on("autonat_server"),
            },
            trusted_nets: TrustedNets(self.parsed("trusted_nets", "write a net such as `10.0.0.0/8`")),
            http_addr: self.socket_addr("http.addr", "write `127.0.0.1:7400`")?,
            http_token_file: self.texts("http.token_file").pop().map(PathBuf::from),
            http_names: self.texts("http.names"),
            is_registry_public: self.is("http.registry", "public", "own"),
            metrics_addr: self.socket_addr("metrics.addr", "write `127.0.0.1:7402`"),
            residency: self.parsed("calls.residency", "write a word such as `eu`"),
            card_keys: self.texts("card_keys").into_iter().map(PathBuf::from).collect(),
            agents: self.texts("agents").into_iter().map(PathBuf::from).collect(),
            log: self.texts("log").pop(),
            is_log_json: self.is("log_format", "json", "text"),
            zones,
        };
        // An empty list hides the default, and a node without a home zone could register nothing.
        if self.given["zones"].values.is_empty() {
            self.errors
                .push(ConfigError::new("`zones` names no zone", "leave it out, or write zones = [\".\"]"));
        }
        let anchors = self.file.as_ref().map(|file| anchor::judge(file, &settings.network));
        let (anchors, errors) = anchors.unwrap_or_default();
        self.errors.extend(errors);
        Some(Settings { anchors, ..settings })
    }

    fn texts(&self, key: &str) -> Vec<String> {
        self.given[key].values.iter().map(|(text, _)| text.clone()).collect()
    }

    fn required(&mut self, key: &'static str) -> String {
        let text = self.texts(key).pop();
        if text.is_none() {
            self.errors.push(ConfigError::new(
                format!("there is no home folder, so `{key}` has no default"),
                "give --data-dir DIR",
            ));
        }
        text.unwrap_or_default()
    }

    fn network(&mut self) -> String {
        let network = self.texts("network").pop().unwrap_or_default();
        if network.is_empty() || network.len() > NETWORK_BYTES_MAX {
            let why = format!("is empty or longer than {NETWORK_BYTES_MAX} bytes");
            self.refuse("network", 0, &why, "the default is `world`");
        }
        network
    }

    fn gateway(&mut self) -> Gateway {
        match self.texts("gateway").pop().as_deref() {
            Some("yes") => Gateway::First,
            Some("no") => Gateway::Never,
            Some("auto") => Gateway::Auto,
            _ => {
                self.refuse("gateway", 0, "is none of auto, yes and no", "the default is `auto`");
                Gateway::Auto
            }
        }
    }

    /// Whether a setting is `value`, where it can only be that or `other`.
    fn is(&mut self, key: &'static str, value: &str, other: &str) -> bool {
        let given = self.texts(key).pop().unwrap_or_default();
        if ![value, other].contains(&given.as_str()) {
            let default = default_of(key).pop().unwrap_or_default();
            self.refuse(
                key,
                0,
                &format!("is neither {value} nor {other}"),
                &format!("the default is `{default}`"),
            );
        }
        given == value
    }

    fn is_on(&mut self, key: &'static str) -> bool {
        self.is(key, "yes", "no")
    }

    fn socket_addr(&mut self, key: &'static str, fix: &str) -> Option<SocketAddr> {
        let text = self.texts(key).pop()?;
        // Addresses are numbers here, but people type `localhost`. It means IPv4, as the default does.
        let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let addr = numeric.unwrap_or(text).parse();
        if addr.is_err() {
            self.refuse(key, 0, "is not an address and port", fix);
        }
        addr.ok()
    }

    /// Every value of a list that parses; an error for each that does not.
    fn parsed<T: FromStr<Err: fmt::Display>>(&mut self, key: &'static str, fix: &str) -> Vec<T> {
        let mut values = Vec::new();
        for (position, text) in self.texts(key).into_iter().enumerate() {
            match text.parse() {
                Ok(value) => values.push(value),
                Err(error) => self.refuse(key, position, &format!("is refused: {error}"), fix),
            }
        }
        values
    }

    /// Every address of a list that a node can dial; an error for each other one.
    fn dialable(&mut self, key: &'static str, fix: &str) -> Vec<Multiaddr> {
        let mut addresses = Vec::new();
        for (position, text) in self.texts(key).into_iter().enumerate() {
            let address = text.parse::<Multiaddr>().map_err(|error| error.to_string());
            let dialable = address.and_then(|address| match check_dialable(&address) {
                Ok(()) => Ok(address),
                Err(undialable) => Err(undialable.to_string()),
            });
            match dialable {
                Ok(address) => addresses.push(address),
                Err(why) => self.refuse(key, position, &format!("is refused: {why}"), fix),
            }
        }
        addresses
    }

    fn announce(&mut self) -> Vec<Multiaddr> {
        let fix = "write the address as others see it, such as `/ip4/192.0.2.1/tcp/7401`";
        let addresses = self.dialable("announce", fix);
        for (position, address) in addresses.iter().enumerate() {
            if named_peer(address).is_some() {
                self.refuse(
                    "announce",
                    position,
                    "names a peer, and the node adds its own",
                    "leave out `/p2p/…`",
                );
            }
        }
        addresses
    }

    fn refuse(&mut self, key: &'static str, position: usize, why: &str, fix: &str) {
        let given = &self.given[key];
        let (text, span) = given.values.get(position).cloned().unwrap_or_default();
        let error = ConfigError::new(format!("{key} = {text:?} ({}) {why}", given.origin), fix);
        // Flags, variables and defaults have no place in the file; the origin in the message names them.
        self.errors.push(match (&self.file, span) {
            (Some(file), Some(span)) => error.at(file, span),
            _ => error,
        });
    }

    fn effective(&self) -> Vec<Effective> {
        let effective = |key: &Key| {
            let given = &self.given[key.name];
            Effective { key: key.name, values: self.texts(key.name), origin: given.origin.clone() }
        };
        KEYS.iter().map(effective).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("aop.toml");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    fn no_env(_: &str) -> Option<String> {
        None
    }

    fn value<'a>(effective: &'a [Effective], key: &str) -> (&'a [String], String) {
        let found = effective.iter().find(|effective| effective.key == key).unwrap();
        (&found.values, found.origin.to_string())
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let (_folder, path) = write("name = \"f\"\nnetwork = \"f\"\nlog = \"f\"\n");
        let flags = Flags::from([("name", vec!["x".to_string()])]);
        let env = |name: &str| ["AOP_NAME", "AOP_NETWORK"].contains(&name).then(|| "e".to_string());
        let (settings, effective) = load(&flags, &env, Some(&path)).unwrap();
        assert_eq!(value(&effective, "name"), (&["x".to_string()][..], "--name".into()));
        assert_eq!(value(&effective, "network"), (&["e".to_string()][..], "AOP_NETWORK".into()));
        assert_eq!(value(&effective, "log"), (&["f".to_string()][..], format!("{}:3", path.display())));
        assert_eq!(value(&effective, "http.addr"), (&["127.0.0.1:7400".to_string()][..], "default".into()));
        assert_eq!(
            (settings.name.as_ref().map(NodeName::as_str), settings.network.as_str()),
            (Some("x"), "e")
        );
    }

    #[test]
    fn every_setting_can_be_given_in_the_file() {
        let text = "data_dir = 'd'\nidentity = 'k'\nname = 'n'\nnetwork = 'w'\nzones = ['acme.org', 'org']\nfollow = '.'\n\
            gateway = 'no'\nbootstrap = ['/ip4/127.0.0.1/tcp/1']\nlisten = []\nannounce = []\ntrusted_nets = []\n\
            relay = 'no'\nmdns = 'yes'\nautonat_server = 'yes'\n\
            agents = ['a', 'b']\ncard_keys = 'c'\nlog = 'info'\nlog_format = 'json'\n\
            [http]\naddr = 'localhost:0'\ntoken_file = 't'\nnames = ['x.org']\nregistry = 'public'\n\
            [metrics]\naddr = '[::1]:9'\n[calls]\nresidency = ['EU']\n";
        let (folder, path) = write(text);
        let (settings, effective) = load(&Flags::new(), &no_env, Some(&path)).unwrap();
        assert!(effective.iter().all(|effective| effective.origin != Origin::Default), "{effective:?}");
        assert_eq!(
            settings.agents,
            [folder.path().join("a"), folder.path().join("b")],
            "paths start at the file"
        );
        assert_eq!(settings.http_token_file, Some(folder.path().join("t")));
        assert_eq!(settings.card_keys, [folder.path().join("c")]);
        assert_eq!(settings.reach, ReachOptions { relay: false, mdns: true, tries_others: true });
        assert_eq!(settings.residency, ["eu".parse().unwrap()]);
        assert_eq!(settings.zones.len(), 2);
        assert_eq!(settings.http_addr, "127.0.0.1:0".parse().unwrap());
        assert_eq!(settings.gateway, Gateway::Never);
        assert!(settings.is_registry_public && settings.is_log_json);
        assert_eq!(settings.metrics_addr, Some("[::1]:9".parse().unwrap()));
        assert!(settings.listen.is_empty());
        assert_eq!(settings.trusted_nets, TrustedNets::NONE);
    }

    #[test]
    fn a_list_in_the_environment_is_separated_by_commas_and_empty_means_unset() {
        let env = |name: &str| match name {
            "AOP_ZONES" => Some("acme.org, org".to_string()),
            "AOP_NETWORK" => Some(String::new()),
            _ => None,
        };
        let (settings, _) = load(&Flags::new(), &env, None).unwrap();
        assert_eq!(settings.zones.iter().map(ZoneName::as_str).collect::<Vec<_>>(), ["acme.org", "org"]);
        assert_eq!(settings.network, "world");
    }

    #[test]
    fn the_key_lies_in_the_data_folder_unless_it_is_named() {
        let flags = Flags::from([("data_dir", vec!["/x".to_string()])]);
        let (settings, _) = load(&flags, &no_env, None).unwrap();
        assert_eq!(settings.identity, PathBuf::from("/x/node.key"));
    }

    #[test]
    fn every_error_is_reported_with_its_place_and_a_suggestion() {
        let (_folder, path) = write("zonse = ['.']\nnetwork = 7\nzones = ['Acme']\n[http]\nadr = 'x'\n");
        let errors = load(&Flags::new(), &no_env, Some(&path)).unwrap_err();
        let reported: Vec<_> = errors
            .iter()
            .map(|error| {
                (error.message.as_str(), error.fix.as_deref().unwrap_or(""), error.span.unwrap().offset())
            })
            .collect();
        assert_eq!(reported.len(), 4, "{reported:?}");
        assert!(reported.contains(&("there is no setting `zonse`", "did you mean `zones`?", 0)));
        assert!(
            reported
                .iter()
                .any(|error| error.0 == "there is no setting `http.adr`" && error.1.contains("http.addr"))
        );
        assert!(
            reported.iter().any(|error| error.0.contains("`network` takes a text in quotes, not integer"))
        );
        assert!(reported.iter().any(|error| error.0.contains("aop.toml:3")), "{reported:?}");
    }

    #[test]
    fn addresses_that_no_node_can_dial_are_refused_with_the_reason() {
        let refused = |key: &'static str, address: &str| {
            let flags = Flags::from([("data_dir", vec!["/x".into()]), (key, vec![address.to_string()])]);
            load(&flags, &no_env, None).map(drop).map_err(|errors| errors[0].message.clone())
        };
        for key in ["bootstrap", "announce"] {
            assert_eq!(refused(key, "/dns4/seed.example.org/udp/7401/quic-v1"), Ok(()));
            for (address, why) in [
                ("/ip4/192.0.2.1", "names no port"),
                ("/ip4/192.0.2.1/tcp/7401/ws", "nodes speak TCP and QUIC"),
                ("/ip4/192.0.2.1/udp/7401", "UDP without QUIC"),
                ("/ip4/0.0.0.0/tcp/7401", "names no machine"),
                ("/ip4/192.0.2.1/tcp/0", "port 0"),
                ("192.0.2.1:7401", "invalid multiaddr"),
            ] {
                let message = refused(key, address).unwrap_err();
                assert!(message.contains(why) && message.contains(&format!("--{key}")), "{message}");
            }
        }
        let named = "/ip4/192.0.2.1/tcp/7401/p2p/12D3KooWLpLYN6UE4ofTvVWwe8voAb2acGsKAsXrLmL3q1YKjott";
        assert_eq!(refused("bootstrap", named), Ok(()));
        assert!(refused("announce", named).unwrap_err().contains("names a peer"));
    }

    #[test]
    fn a_bad_flag_names_the_flag() {
        let flags = Flags::from([("http.addr", vec!["nonsense".to_string()])]);
        let errors = load(&flags, &no_env, None).unwrap_err();
        assert!(errors[0].message.contains("(--http)"), "{}", errors[0].message);
    }
}
