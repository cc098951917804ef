//! Where data must stay, as owners say it of their agents and callers demand it (`residency` of a card).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::AgentCard;
use crate::proto::limits::RESIDENCY_BYTES_MAX;

/// A word for a place where data stays. `EU` and `eu` are one: it is kept without case and outer blanks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Residency(String);

/// Why a text names no such place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a residency is a word such as `eu`, of 1 to {RESIDENCY_BYTES_MAX} bytes")]
pub struct NotAResidency;

impl Residency {
    /// What a card says; none where it says nothing that could be demanded.
    pub fn of(card: &AgentCard) -> Option<Residency> {
        card.residency.as_ref()?.parse().ok()
    }

    /// As it is compared.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Residency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Residency {
    type Err = NotAResidency;

    fn from_str(text: &str) -> Result<Residency, NotAResidency> {
        let folded = text.trim().to_lowercase();
        let fits = !folded.is_empty() && folded.len().max(text.len()) <= RESIDENCY_BYTES_MAX;
        if fits && !text.contains(char::is_control) { Ok(Residency(folded)) } else { Err(NotAResidency) }
    }
}

impl TryFrom<String> for Residency {
    type Error = NotAResidency;

    fn try_from(text: String) -> Result<Residency, NotAResidency> {
        text.parse()
    }
}

impl From<Residency> for String {
    fn from(residency: Residency) -> String {
        residency.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_one_however_it_is_written_and_has_a_length() {
        let read = |text: &str| text.parse::<Residency>();
        assert_eq!(read(" EU "), read("eu"));
        assert_ne!(read("eu"), read("eu-west"));
        assert!(read(&"x".repeat(RESIDENCY_BYTES_MAX)).is_ok());
        for text in ["", "  ", "e\nu", &"x".repeat(RESIDENCY_BYTES_MAX + 1)] {
            assert_eq!(read(text), Err(NotAResidency), "{text:?}");
        }
        let card = AgentCard { residency: Some("DE".into()), ..AgentCard::default() };
        assert_eq!(Residency::of(&card), read("de").ok());
        assert_eq!(Residency::of(&AgentCard::default()), None);
    }
}
