//! Names: zones are DNS names, agents are one label, a full name is `agent@zone`.
//!
//! Compared as bytes; only lower-case ASCII is a name, so no two spellings are equal (protocol section 1).

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::identity::PeerKey;

/// Longest label, bytes.
pub const LABEL_BYTES_MAX: usize = 63;
/// Most labels in a zone name.
pub const ZONE_LABELS_MAX: usize = 8;
/// Longest zone name, bytes.
pub const ZONE_BYTES_MAX: usize = 253;
/// Letters of a hash at the end of a delegation's name that was cut.
const DELEGATED_HASH_LETTERS: usize = 6;

/// Shared by all that lie in it.
static ROOT: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("."));

/// Why a text is not a name. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// An empty label, as in `a..b`, or no name at all.
    #[error("{0:?} has an empty label; write `research.acme.org`, or `.` for the root zone")]
    Empty(String),
    /// A label longer than 63 bytes.
    #[error("a label of {0:?} is longer than {LABEL_BYTES_MAX} bytes")]
    TooLong(String),
    /// More than 8 labels or 253 bytes.
    #[error(
        "zone {0:?} is too deep or too long: at most {ZONE_LABELS_MAX} labels and {ZONE_BYTES_MAX} bytes"
    )]
    TooDeep(String),
    /// A label in punycode.
    #[error(
        "{0:?} has a label in punycode (`xn--`), which is shown in other scripts, in which one name looks like another; \
         write lower-case ASCII"
    )]
    Punycode(String),
    /// A character outside the alphabet, or `-` at an end.
    #[error(
        "{0:?} is not a name: labels are lower-case letters, digits and inner `-`; agents may also use `_`"
    )]
    BadLabel(String),
}

/// A zone: a DNS name such as `research.acme.org`, or the root `.`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ZoneName(Arc<str>);

/// Which registry of a zone: that of a key, or the open one. Each has a topic, syncs and fingerprints of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ZoneId {
    /// The zone.
    #[serde(rename = "z")]
    pub zone: ZoneName,
    /// The key without whose grant nobody writes there; none where the zone is open.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PeerKey>,
}

/// The name of an agent within its zone: one label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentName(Box<str>);

/// `agent@zone`; in the root zone `agent@.`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FullName {
    /// The agent's label.
    pub agent: AgentName,
    /// The zone it lies in.
    pub zone: ZoneName,
}

impl ZoneName {
    /// The root zone `.`.
    pub fn root() -> ZoneName {
        ZoneName(ROOT.clone())
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        &*self.0 == "."
    }

    /// The zone one label up; `None` for the root.
    pub fn parent(&self) -> Option<ZoneName> {
        if self.is_root() {
            return None;
        }
        Some(self.0.split_once('.').map_or_else(ZoneName::root, |(_, rest)| ZoneName(rest.into())))
    }

    /// The parents from the nearest up to and including the root.
    pub fn ancestors(&self) -> impl Iterator<Item = ZoneName> {
        std::iter::successors(self.parent(), ZoneName::parent)
    }

    /// Whether `self` is `other` or lies below it.
    pub fn is_within(&self, other: &ZoneName) -> bool {
        other.is_root()
            || self == other
            // Without the dot `badacme.org` would lie within `acme.org`.
            || self.0.strip_suffix(&*other.0).is_some_and(|head| head.ends_with('.'))
    }

    /// The name under which a zone `above` delegates this one: the labels between, joined by `_`, which is in no label of a
    /// zone, so that it stands for one zone. A longer one is cut and ends in six letters of a hash. None unless this zone lies
    /// strictly below.
    pub fn delegated_in(&self, above: &ZoneName) -> Option<AgentName> {
        if self == above || !self.is_within(above) {
            return None;
        }
        let labels = match above.is_root() {
            true => &*self.0,
            false => &self.0[..self.0.len() - above.0.len() - 1],
        };
        let joined = labels.replace('.', "_");
        if joined.len() <= LABEL_BYTES_MAX {
            return Some(AgentName(joined.into()));
        }
        let hash = Sha256::new_with_prefix(b"aop-delegated-v1\0").chain_update(labels).finalize();
        let hash = data_encoding::BASE32_NOPAD.encode(&hash).to_ascii_lowercase();
        let cut = &joined[..LABEL_BYTES_MAX - 1 - DELEGATED_HASH_LETTERS];
        Some(AgentName(format!("{cut}-{}", &hash[..DELEGATED_HASH_LETTERS]).into()))
    }

    /// The zone that a zone `above` delegates under this name, if the name is that of a delegation and was not cut.
    pub fn of_delegation(name: &AgentName, above: &ZoneName) -> Option<ZoneName> {
        let labels = name.0.replace('_', ".");
        let zone = if above.is_root() { labels } else { format!("{labels}.{above}") };
        zone.parse().ok().filter(|zone: &ZoneName| zone.delegated_in(above).as_ref() == Some(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AgentName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ZoneId {
    /// The registry of a zone without a key.
    pub fn open(zone: ZoneName) -> ZoneId {
        ZoneId { zone, key: None }
    }
}

impl AgentName {
    /// The names that it may stand for where no zone is given, as a DNS search list.
    pub fn search_list(&self, home: &ZoneName) -> impl Iterator<Item = FullName> {
        let zones = std::iter::once(home.clone()).chain(home.ancestors());
        zones.map(|zone| FullName { agent: self.clone(), zone })
    }
}

impl FullName {
    /// Whether this is `other`, or one of the agents that it consists of: `time_convert` of `time`, in the same zone.
    pub fn is_or_below(&self, other: &FullName) -> bool {
        let rest = self.agent.0.strip_prefix(&*other.agent.0);
        // Without the `_` an agent `timer` would be one of `time`.
        self.zone == other.zone && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    }
}

impl FromStr for ZoneName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<ZoneName, NameError> {
        if text == "." {
            return Ok(ZoneName::root());
        }
        // The length first: a long text from elsewhere is not even split.
        if text.len() > ZONE_BYTES_MAX || text.split('.').count() > ZONE_LABELS_MAX {
            return Err(NameError::TooDeep(shown(text)));
        }
        for label in text.split('.') {
            let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            check_label(text, label, inner)?;
            if label.starts_with("xn--") {
                return Err(NameError::Punycode(shown(text)));
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err(NameError::BadLabel(shown(text)));
            }
        }
        Ok(ZoneName(text.into()))
    }
}

impl FromStr for AgentName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<AgentName, NameError> {
        let inner =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
        check_label(text, text, inner)?;
        Ok(AgentName(text.into()))
    }
}

impl FromStr for FullName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<FullName, NameError> {
        // No label has an `@`, so a second one is refused in the zone.
        let (agent, zone) = text.split_once('@').ok_or_else(|| NameError::BadLabel(shown(text)))?;
        Ok(FullName { agent: agent.parse()?, zone: zone.parse()? })
    }
}

/// What an error shows of a text: enough to recognise any name, and no more than one, whoever sent it.
fn shown(text: &str) -> String {
    // By characters: it need not be ASCII, and a cut within a character would panic.
    text.chars().take(ZONE_BYTES_MAX).collect()
}

fn check_label(whole: &str, label: &str, inner: impl Fn(u8) -> bool) -> Result<(), NameError> {
    if label.is_empty() {
        return Err(NameError::Empty(shown(whole)));
    }
    if label.len() > LABEL_BYTES_MAX {
        return Err(NameError::TooLong(shown(whole)));
    }
    if !label.bytes().all(inner) {
        return Err(NameError::BadLabel(shown(whole)));
    }
    Ok(())
}

impl fmt::Display for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ZoneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            None => write!(f, "{}", self.zone),
            Some(key) => write!(f, "{}/{key}", self.zone),
        }
    }
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for FullName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.agent, self.zone)
    }
}

macro_rules! text_value {
    ($type:ty) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.to_string())
            }
        }
        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<$type, NameError> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.to_string()
            }
        }
    };
}
text_value!(ZoneName);
text_value!(AgentName);
text_value!(FullName);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn zone(text: &str) -> ZoneName {
        text.parse().unwrap()
    }

    #[test]
    fn ancestors_run_up_to_the_root() {
        let up: Vec<_> = zone("research.acme.org").ancestors().map(String::from).collect();
        assert_eq!(up, ["acme.org", "org", "."]);
        assert_eq!(ZoneName::root().parent(), None);
    }

    #[test]
    fn a_zone_lies_within_itself_and_its_ancestors_only() {
        assert!(zone("research.acme.org").is_within(&zone("acme.org")));
        assert!(zone("acme.org").is_within(&zone(".")));
        assert!(!zone("evilacme.org").is_within(&zone("acme.org")));
        assert!(!zone("org").is_within(&zone("acme.org")));
    }

    #[test]
    fn what_is_not_a_name_is_refused() {
        for bad in
            ["", "..", "a..b", ".a", "a.", "A", "ü", "-a", "a-", "xn--bcher-kva", "a_b", "1.2.3.4.5.6.7.8.9"]
        {
            assert!(bad.parse::<ZoneName>().is_err(), "{bad:?}");
        }
        for bad in ["", "A", "a.b", "a@b", "é", &"a".repeat(64)] {
            assert!(bad.parse::<AgentName>().is_err(), "{bad:?}");
        }
        assert_eq!("a.xn--bcher-kva".parse::<ZoneName>(), Err(NameError::Punycode("a.xn--bcher-kva".into())));
        assert!("summarizer".parse::<FullName>().is_err());
        assert_eq!("summarizer@.".parse::<FullName>().unwrap().zone, ZoneName::root());
    }

    #[test]
    fn a_delegation_is_named_by_the_labels_between() {
        let name = |below: &str, above: &str| zone(below).delegated_in(&zone(above)).map(String::from);
        assert_eq!(name("research.acme.org", "org").unwrap(), "research_acme");
        assert_eq!(name("research.acme.org", "acme.org").unwrap(), "research");
        assert_eq!(name("research.acme.org", ".").unwrap(), "research_acme_org");
        for (below, above) in
            [("acme.org", "acme.org"), (".", "."), ("org", "acme.org"), ("badacme.org", "acme.org")]
        {
            assert_eq!(name(below, above), None);
        }
        let long = format!("{}.{}", "a".repeat(40), "b".repeat(40));
        let [one, other] = [long.clone(), format!("{long}c")].map(|text| name(&text, ".").unwrap());
        assert!(one.len() == LABEL_BYTES_MAX && one != other);
    }

    proptest! {
        #[test]
        fn a_delegation_is_named_for_one_zone(labels in prop::collection::vec("[a-z0-9]{1,9}", 1..5), above in "[a-z]{1,5}") {
            let above = zone(&above);
            let below = zone(&format!("{}.{above}", labels.join(".")));
            for above in [above, ZoneName::root()] {
                let name = below.delegated_in(&above).unwrap();
                prop_assert_eq!(ZoneName::of_delegation(&name, &above), Some(below.clone()));
            }
        }

        #[test]
        fn a_name_has_one_spelling(text in "\\PC{0,80}") {
            if let Ok(name) = text.parse::<ZoneName>() { prop_assert_eq!(name.to_string(), text.clone()); }
            if let Ok(name) = text.parse::<AgentName>() { prop_assert_eq!(name.to_string(), text.clone()); }
            if let Ok(name) = text.parse::<FullName>() { prop_assert_eq!(name.to_string(), text); }
        }
    }
}
