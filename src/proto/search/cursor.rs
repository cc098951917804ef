//! Where a page stopped: a cursor names the last hit with its score. As a record has one score whatever else is held, the next
//! page ranks every unchanged record exactly as the first did, whatever was written in between.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;

use crate::proto::identity::AgentId;
use crate::proto::name::{FullName, LABEL_BYTES_MAX, ZONE_BYTES_MAX};

/// First byte of every cursor of this form.
const FORM: u8 = 2;
/// The longest cursor there is, bytes before encoding as text: form, score, id, name.
const BYTES_MAX: usize = 1 + 4 + 20 + LABEL_BYTES_MAX + 1 + ZONE_BYTES_MAX;

/// The end of a page; shown as text that is safe in a URL. It fits only the query whose answer it came with; with
/// another it names some place in that answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Cursor {
    pub(super) score: f32,
    pub(super) name: FullName,
    pub(super) id: AgentId,
}

impl Cursor {
    /// Behind an agent that was the last of a page, with this score.
    pub fn at(score: f32, name: FullName, id: AgentId) -> Cursor {
        Cursor { score, name, id }
    }
}

/// Why a text is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Longer than any cursor.
    #[error("the cursor is too long; pass back the cursor of the last answer unchanged")]
    TooLong,
    /// Not base64url.
    #[error("the cursor has characters no cursor has; pass back the cursor of the last answer unchanged")]
    NotEncoded,
    /// Made by another version of the program.
    #[error("the cursor is of another version; start again from the first page")]
    OtherForm,
    /// Cut off, or with values no page has.
    #[error("the cursor is damaged; pass back the cursor of the last answer unchanged")]
    Damaged,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![FORM];
        bytes.extend(self.score.to_be_bytes());
        bytes.extend(self.id.0);
        bytes.extend(self.name.to_string().as_bytes());
        f.write_str(&BASE64URL_NOPAD.encode(&bytes))
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Cursor, CursorError> {
        if text.len() > BASE64URL_NOPAD.encode_len(BYTES_MAX) {
            return Err(CursorError::TooLong);
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| CursorError::NotEncoded)?;
        match bytes.split_first() {
            Some((&FORM, rest)) => read(rest).ok_or(CursorError::Damaged),
            Some(_) => Err(CursorError::OtherForm),
            None => Err(CursorError::Damaged),
        }
    }
}

/// Reads what follows the form; `None` where it breaks off or holds what no page has.
fn read(bytes: &[u8]) -> Option<Cursor> {
    let (score, bytes) = bytes.split_first_chunk()?;
    let score = f32::from_be_bytes(*score);
    let (id, bytes) = bytes.split_first_chunk()?;
    let name = std::str::from_utf8(bytes).ok()?.parse().ok()?;
    let is_sound = score.is_sign_positive() && score.is_finite();
    is_sound.then_some(Cursor { score, name, id: AgentId(*id) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cursor() -> Cursor {
        Cursor { score: 2.5, name: "summarizer@research.acme.org".parse().unwrap(), id: AgentId([7; 20]) }
    }

    #[test]
    fn a_cursor_reads_back_from_its_text_and_is_safe_in_a_url() {
        let text = cursor().to_string();
        assert_eq!(text.parse(), Ok(cursor()));
        assert!(
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'),
            "{text}"
        );
        assert!(text.len() < 100, "{text}");
    }

    #[test]
    fn a_malformed_cursor_says_what_is_wrong() {
        let parse = |text: &str| text.parse::<Cursor>().unwrap_err();
        assert_eq!(parse(""), CursorError::Damaged);
        assert_eq!(parse("a b"), CursorError::NotEncoded);
        assert_eq!(parse(&BASE64URL_NOPAD.encode(&[9; 60])), CursorError::OtherForm);
        assert_eq!(parse(&"A".repeat(10_000)), CursorError::TooLong);
        let text = cursor().to_string();
        for cut in 1..text.len() - 40 {
            assert!(text[..cut].parse::<Cursor>().is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_cursor_with_values_no_page_has_is_damaged() {
        for score in [f32::NAN, f32::INFINITY, -1.0] {
            let text = Cursor { score, ..cursor() }.to_string();
            assert_eq!(text.parse::<Cursor>(), Err(CursorError::Damaged), "{score}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(first) = bytes.first_mut() { *first = FORM; }
            if let Ok(cursor) = BASE64URL_NOPAD.encode(&bytes).parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
            }
        }
    }
}
