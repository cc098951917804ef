//! What people call a node. It identifies nothing: anybody may take any name, so it stands beside an id and never for one.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use super::limits::NODE_NAME_BYTES_MAX;

/// A name of a node for people: 1 to [`NODE_NAME_BYTES_MAX`] bytes, letters and digits with single blanks, `-`, `_` and `.`
/// between.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct NodeName(Arc<str>);

/// Why a text is no such name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name has 1 to {NODE_NAME_BYTES_MAX} bytes: letters and digits, with single blanks, `-`, `_` and `.` between"
)]
pub struct NotANodeName;

impl NodeName {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads what a peer says: what is no name counts as none, for nothing but people depends on it.
    pub(super) fn of_peer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NodeName>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.and_then(|text| text.parse().ok()))
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NodeName {
    type Err = NotANodeName;

    fn from_str(text: &str) -> Result<NodeName, NotANodeName> {
        let fits = (1..=NODE_NAME_BYTES_MAX).contains(&text.len());
        let is_between = |letter: char| matches!(letter, ' ' | '-' | '_' | '.');
        let has_ends = text.starts_with(char::is_alphanumeric) && text.ends_with(char::is_alphanumeric);
        let is_name = has_ends
            && !text.contains("  ")
            && text.chars().all(|letter| letter.is_alphanumeric() || is_between(letter));
        if fits && is_name { Ok(NodeName(text.into())) } else { Err(NotANodeName) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::codec;

    #[test]
    fn what_a_peer_says_and_is_no_name_counts_as_none() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Said {
            #[serde(default, deserialize_with = "NodeName::of_peer")]
            name: Option<NodeName>,
        }
        let said = |text: &str| std::collections::BTreeMap::from([("name", text.to_owned())]);
        let read = |text: &str| codec::decode::<Said>(&codec::encode(&said(text))).unwrap().name;
        assert_eq!(read("atlas"), "atlas".parse().ok());
        assert_eq!([read("a\u{202e}b"), read("")], [None, None]);
    }

    #[test]
    fn a_name_is_a_line_that_people_can_read_and_nothing_that_hides_or_quotes() {
        for text in ["atlas", "Büro 3", "db--1.eu_west", "天", &"x".repeat(NODE_NAME_BYTES_MAX)] {
            assert_eq!(text.parse::<NodeName>().unwrap().as_str(), text);
        }
        let long = "x".repeat(NODE_NAME_BYTES_MAX + 1);
        for text in
            ["", " ", "a ", "-a", "a  b", "a\nb", "a\u{202e}b", "a\u{200b}", "<b>", "a'b", "a…b", &long]
        {
            assert_eq!(text.parse::<NodeName>(), Err(NotANodeName), "{text:?}");
        }
    }
}
