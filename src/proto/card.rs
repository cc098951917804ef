//! The agent card: what the world may know of an agent (paper eq. 1 and 2, without prompt and run-time parameters).
//!
//! JSON parts (schemas, the imported original) travel as JSON text: the protocol carries them and never interprets them.

mod balance;
mod residency;
pub mod version;

use serde::{Deserialize, Serialize};

pub use self::balance::{Balance, NotABalance};
pub use self::residency::{NotAResidency, Residency};

use super::codec;
use super::limits::{ENDPOINTS_MAX, LABELS_MAX};
use super::name::{AgentName, ZoneName};
use super::time::Timestamp;

/// Where a card came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Origin {
    /// An `agent.toml`.
    #[default]
    #[serde(rename = "native")]
    Native,
    /// A server.json of the MCP registry format.
    #[serde(rename = "server.json")]
    ServerJson,
    /// An A2A agent card.
    #[serde(rename = "a2a")]
    A2a,
    /// A card of an MCP server, which the server shows itself.
    #[serde(rename = "server-card")]
    ServerCard,
    /// A record of the Open Agentic Schema Framework.
    #[serde(rename = "oasf")]
    Oasf,
}

/// Who may find an agent (protocol section 1). Who may find it may call it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everybody.
    #[default]
    Public,
    /// Peers that prove a grant of an owned zone; never in gossip, DHT, summaries or beacons.
    Zone,
    /// Nobody outside the process.
    Node,
}

/// A published agent. Text is UTF-8; empty and absent optional fields are left out of the encoding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentCard {
    /// What the agent does, in prose; at most [`crate::proto::limits::DESCRIPTION_BYTES_MAX`] bytes.
    pub description: String,
    /// Title for people, where it differs from the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Free words, each a search filter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[serde(deserialize_with = "codec::at_most::<LABELS_MAX, _, _>")]
    pub tags: Vec<String>,
    /// What it can be asked to do, each a search filter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[serde(deserialize_with = "codec::at_most::<LABELS_MAX, _, _>")]
    pub capabilities: Vec<String>,
    /// Words of what its skills do and are asked for, each once, by which it is found beside the description; at most
    /// [`crate::proto::limits::SKILLS_BYTES_MAX`] bytes. The original says it in sentences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skills: Option<String>,
    /// Input JSON Schema as JSON text (paper `I`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<String>,
    /// Output JSON Schema as JSON text (paper `O`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<String>,
    /// Role in a workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Name of the language model (paper `M`; only the name is public).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The publisher's version text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Where its data must stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub residency: Option<String>,
    /// Limits the host sets for calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<CallLimits>,
    /// Addresses outside the mesh where a listing is served.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[serde(deserialize_with = "codec::at_most::<ENDPOINTS_MAX, _, _>")]
    pub endpoints: Vec<Endpoint>,
    /// Whether the host runs the agent; a listing is not callable through the mesh.
    #[serde(skip_serializing_if = "is_false")]
    pub callable: bool,
    /// The format it was made from.
    pub origin: Origin,
    /// Its registry advises against it: why, or `deprecated`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<String>,
    /// Its name in the original, where mapping changed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_name: Option<String>,
    /// The imported document, compact JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original: Option<String>,
    /// What the registry that it was imported from says of it, its `_meta`: compact JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_meta: Option<String>,
    /// When the imported document came and changed. Its host writes them, whatever an offer says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dates: Option<CardDates>,
}

/// When a document came to its host, by the host's clock. A renewal of its lease moves neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CardDates {
    /// First under its key.
    pub published: Timestamp,
    /// As it is now.
    pub updated: Timestamp,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl AgentCard {
    /// Whether both are cards of one agent, so that one may take the place of the other under their common name: their
    /// documents are of one family and call themselves alike, and A2A cards, whose names anybody may give, are served at one
    /// address, too.
    pub fn is_same_agent(&self, other: &AgentCard) -> bool {
        self.origin.family() == other.origin.family()
            && self.original_name == other.original_name
            && (self.origin != Origin::A2a || self.main_address() == other.main_address())
    }

    /// The card as its host writes it now, in the place of the one it wrote `before`.
    pub fn dated(self, now: Timestamp, before: Option<&AgentCard>) -> AgentCard {
        if self.origin == Origin::Native {
            return AgentCard { dates: None, ..self };
        }
        let dates = before.and_then(|before| before.dates);
        let same = AgentCard { dates, ..self };
        if dates.is_some() && before == Some(&same) {
            return same;
        }
        let published = dates.map_or(now, |dates| dates.published);
        AgentCard { dates: Some(CardDates { published, updated: now }), ..same }
    }

    /// As [`AgentCard::dated`], with the dates that the registry of the document gives, as far as they are no later than now.
    pub fn dated_by(
        self,
        now: Timestamp,
        published: Option<Timestamp>,
        updated: Option<Timestamp>,
        before: Option<&AgentCard>,
    ) -> AgentCard {
        let card = self.dated(now, before);
        let told = |told: Option<Timestamp>, own| told.filter(|told| *told <= now).unwrap_or(own);
        let dates = card.dates.map(|own| CardDates {
            published: told(published, own.published),
            updated: told(updated, own.updated),
        });
        AgentCard { dates, ..card }
    }

    /// Where it is served first, in the one spelling of [`canonical_address`].
    pub fn main_address(&self) -> Option<String> {
        self.endpoints.first().map(|endpoint| canonical_address(&endpoint.address))
    }
}

impl Origin {
    /// A server of MCP keeps its name from its own card to the registry.
    fn family(self) -> Origin {
        if self == Origin::ServerCard { Origin::ServerJson } else { self }
    }
}

/// An address as it is compared: scheme and host in lower case, without the port that the scheme has anyway and without
/// slashes at the end. What is no URL stays as it is.
pub fn canonical_address(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (scheme, host) = (scheme.to_ascii_lowercase(), host.to_ascii_lowercase());
    let implied = match scheme.as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    format!("{scheme}://{}{}", host.strip_suffix(implied).unwrap_or(&host), path.trim_end_matches('/'))
}

/// An agent that this node is asked to offer to the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its name in the zone.
    pub name: AgentName,
    /// The zone; the home zone of the node if none is given.
    pub zone: Option<ZoneName>,
    /// Who may find it.
    pub scope: Scope,
    /// What it is.
    pub card: AgentCard,
    /// Signed grants from its owner to this node; none if this node is the owner.
    pub grants: Vec<Vec<u8>>,
}

/// The paper's AgentToolConfig as far as callers need it (paper 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallLimits {
    /// Seconds one attempt may take.
    pub timeout_s: u32,
    /// Attempts after the first.
    pub max_retries: u32,
    /// Calls running at once on one host.
    pub max_concurrency: u32,
    /// Whether it may run a call again that ran or may have run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idempotent: bool,
    /// In which order callers ask its hosts, unless they say.
    #[serde(default, skip_serializing_if = "is_default")]
    pub balance: Balance,
    /// What this host can do beside others, for [`Balance::Weighted`]; 0 where it is asked last.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: u32,
    /// Hosts of which its owner wants to be told when there are fewer; 0 for any number.
    #[serde(default, skip_serializing_if = "is_default")]
    pub min_replicas: u32,
}

impl CallLimits {
    /// The paper's defaults (7.2), and a concurrency that suits a process per call on a small machine.
    pub const DEFAULT: CallLimits = CallLimits {
        timeout_s: 30,
        max_retries: 3,
        max_concurrency: 4,
        idempotent: false,
        balance: Balance::Load,
        weight: 1,
        min_replicas: 0,
    };
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_one(weight: &u32) -> bool {
    *weight == 1
}

/// An address of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// Transport or binding as the document names it: `streamable-http`, `sse`, `JSONRPC`, `npm`, `pypi`, `oci` …
    pub kind: String,
    /// URL, or package identifier.
    pub address: String,
    /// The version of the protocol that is spoken there, of A2A `0.3` or `1.0`, where the document says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<String>,
    /// What a client names as its tenant there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_of_the_document_and_not_of_its_lease_and_nobody_else_writes_them() {
        let [one, two, three] = [1, 2, 3].map(Timestamp);
        let document = |text: &str| AgentCard {
            description: text.into(),
            origin: Origin::ServerJson,
            ..AgentCard::default()
        };
        let first = document("a").dated(one, None);
        assert_eq!(first.dates, Some(CardDates { published: one, updated: one }));
        assert_eq!(document("a").dated(two, Some(&first)), first);
        let claims =
            AgentCard { dates: Some(CardDates { published: three, updated: three }), ..document("a") };
        assert_eq!(claims.clone().dated(two, Some(&first)), first);
        assert_eq!(claims.dated(two, None).dates, Some(CardDates { published: two, updated: two }));
        let changed = document("b").dated(two, Some(&first));
        assert_eq!(changed.dates, Some(CardDates { published: one, updated: two }));
        // What was written before there were dates is dated when it is written again.
        let undated = document("a");
        let dated = document("a").dated(three, Some(&undated));
        assert_eq!(dated.dates, Some(CardDates { published: three, updated: three }));
        assert_eq!(AgentCard::default().dated(one, None).dates, None, "an agent is no document");
    }

    #[test]
    fn an_address_has_one_spelling() {
        for same in ["HTTPS://A.example", "https://a.example/", "https://a.example:443//"] {
            assert_eq!(canonical_address(same), "https://a.example", "{same}");
        }
        for other in
            ["https://a.example/X", "http://a.example", "https://a.example:80", "https://a.example?x=/"]
        {
            assert_ne!(canonical_address(other), "https://a.example", "{other}");
        }
        assert_eq!(canonical_address("@scope/Package"), "@scope/Package");
        assert_eq!(canonical_address("http://[::1]:80/A"), "http://[::1]/A");
    }
}
