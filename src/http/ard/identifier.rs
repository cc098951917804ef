//! `urn:air:PUBLISHER:NAMESPACE:NAME` (ARD v0.91 section 4.1). The publisher is the owner's key as one label below `.alt`, which
//! no registrar gives to anybody (RFC 9476): a domain is nobody's until it is proved.

use std::fmt;

use multibase::Base;

use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::name::{AgentName, FullName, ZoneName};

const SCHEME: &str = "urn:air:";
/// Below it lies the label of a key.
const DOMAIN: &str = ".aop.alt";
/// What stands before a key in a CID of the codec `libp2p-key`, with the key as it is.
const CID_HEAD: [u8; 8] = [0x01, 0x72, 0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
/// The namespace of the root zone, whose own name is no letter.
const ROOT: &str = "root";
/// What stands before a zone that is called so.
const NOT_ROOT: &str = ".";

/// What an identifier names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identifier {
    /// An agent of an owner.
    Agent(PeerKey, FullName),
    /// What a node shows beside its agents.
    Node(PeerKey, NodeEntry),
    /// Something of another publisher.
    Other,
}

/// What a node shows beside its agents. These names have no namespace, and those of agents always have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeEntry {
    /// Its search.
    Registry,
    /// Its MCP server.
    Mcp,
}

impl NodeEntry {
    pub(super) const ALL: [NodeEntry; 2] = [NodeEntry::Registry, NodeEntry::Mcp];

    fn text(self) -> &'static str {
        match self {
            NodeEntry::Registry => "registry",
            NodeEntry::Mcp => "mcp",
        }
    }
}

impl Identifier {
    /// None where it is not of the form that the specification gives.
    pub(super) fn read(text: &str) -> Option<Identifier> {
        let (publisher, rest) = text.strip_prefix(SCHEME)?.split_once(':')?;
        let (namespace, name) = match rest.rsplit_once(':') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, rest),
        };
        let is_of = |text: &str, signs: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || signs.contains(c))
        };
        let is_formed = is_of(publisher, ".-")
            && namespace.is_none_or(|namespace| is_of(namespace, "._:-"))
            && is_of(name, "._-");
        is_formed.then(|| Identifier::of_parts(publisher, namespace, name).unwrap_or(Identifier::Other))
    }

    fn of_parts(publisher: &str, namespace: Option<&str>, name: &str) -> Option<Identifier> {
        let owner = owner_of(publisher)?;
        let Some(namespace) = namespace else {
            let entry = NodeEntry::ALL.into_iter().find(|entry| entry.text() == name)?;
            return Some(Identifier::Node(owner, entry));
        };
        let zone = match namespace {
            ROOT => ZoneName::root(),
            named => named.strip_prefix(NOT_ROOT).unwrap_or(named).parse().ok()?,
        };
        let named = Identifier::Agent(owner, FullName { agent: name.parse::<AgentName>().ok()?, zone });
        // One agent has one identifier, in one spelling.
        (named.to_string() == format!("{SCHEME}{publisher}:{namespace}:{name}")).then_some(named)
    }

    /// The id of the agent, if it names one.
    pub(super) fn agent(&self) -> Option<AgentId> {
        match self {
            Identifier::Agent(owner, name) => Some(AgentId::of(*owner, name)),
            Identifier::Node(..) | Identifier::Other => None,
        }
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identifier::Agent(owner, FullName { agent, zone }) => {
                let (before, zone) = match zone.to_string() {
                    zone if zone == "." => ("", ROOT.to_owned()),
                    zone if zone == ROOT => (NOT_ROOT, zone),
                    zone => ("", zone),
                };
                write!(f, "{SCHEME}{}:{before}{zone}:{agent}", publisher(*owner))
            }
            Identifier::Node(key, entry) => write!(f, "{SCHEME}{}:{}", publisher(*key), entry.text()),
            Identifier::Other => f.write_str(SCHEME),
        }
    }
}

/// The publisher that a key is.
pub(super) fn publisher(owner: PeerKey) -> String {
    let cid = [&CID_HEAD[..], &owner.0[..]].concat();
    format!("{}{DOMAIN}", multibase::encode(Base::Base36Lower, cid))
}

fn owner_of(publisher: &str) -> Option<PeerKey> {
    let (_, cid) = multibase::decode(publisher.strip_suffix(DOMAIN)?).ok()?;
    cid.strip_prefix(&CID_HEAD[..])?.try_into().map(PeerKey).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::identity::Identity;

    #[test]
    fn a_key_is_one_label_and_an_identifier_is_read_as_it_was_written() {
        let owner = Identity::from_seed([7; 32]).key();
        let label = publisher(owner);
        let label = label.strip_suffix(DOMAIN).unwrap();
        assert!(label.starts_with("k51qzi5uqu5d") && label.len() == 62, "{label}");
        for name in ["summarizer@.", "a_b-c@research.acme.org", "x@root", "x@mcp", "registry@."] {
            let named = Identifier::Agent(owner, name.parse().unwrap());
            assert_eq!(Identifier::read(&named.to_string()), Some(named), "{name}");
        }
        for entry in NodeEntry::ALL {
            let named = Identifier::Node(owner, entry);
            assert_eq!(Identifier::read(&named.to_string()), Some(named));
        }
        let [root, called_root] =
            ["x@.", "x@root"].map(|name| Identifier::Agent(owner, name.parse().unwrap()).to_string());
        assert_ne!(root, called_root);
    }

    #[test]
    fn what_has_not_the_form_is_told_apart_from_what_is_of_others() {
        for other in
            ["urn:air:acme.org:agents:weather", "urn:air:acme.org:weather", "urn:air:x.aop.alt:root:a"]
        {
            assert_eq!(Identifier::read(other), Some(Identifier::Other), "{other}");
        }
        let bad = [
            "",
            "not-a-valid-ard-urn",
            "urn:air:acme.org",
            "urn:air:acme.org:",
            "urn:air::a",
            "urn:air:a:b%3Ac",
        ];
        for bad in bad {
            assert_eq!(Identifier::read(bad), None, "{bad}");
        }
    }
}
