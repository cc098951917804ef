//! Text of other hosts, made safe to show: to a terminal it must not move the cursor, to a person or a model it must
//! not hide words. One rule for the command line and for MCP.
//!
//! What is printed is left as it is; white space that breaks lines becomes a space; what nobody sees is taken out:
//! control characters, bidirectional marks, zero-width characters, variation selectors, tag characters and fillers.

use serde_json::{Map, Value};

/// Ends a text that was cut.
const CUT: &str = "…";

/// The text on one line, without characters that are not seen.
pub fn clean(text: &str) -> String {
    let seen = |character: char| match character {
        // Replaced before control characters are dropped, or two words would run together.
        '\n' | '\t' | '\r' => ' ',
        other => other,
    };
    text.chars().map(seen).filter(|character| !is_unseen(*character)).collect()
}

/// As [`clean`], and at most `bytes_max` bytes long, which leave room for the mark of a cut.
pub fn clean_short(text: &str, bytes_max: usize) -> String {
    let mut cleaned = clean(text);
    if cleaned.len() > bytes_max {
        // A cut within a character moves back to its start; a limit below the mark leaves the mark alone.
        cleaned.truncate(cleaned.floor_char_boundary(bytes_max.saturating_sub(CUT.len())));
        cleaned.push_str(CUT);
    }
    cleaned
}

/// The same document with every text in it cleaned, names of fields too.
pub fn clean_json(document: Value) -> Value {
    match document {
        Value::String(text) => Value::String(clean(&text)),
        Value::Array(items) => items.into_iter().map(clean_json).collect(),
        Value::Object(fields) => {
            // Names that become equal are one field and the last wins, as in a text that repeats a name.
            let cleaned = fields.into_iter().map(|(name, value)| (clean(&name), clean_json(value)));
            Value::Object(cleaned.collect::<Map<_, _>>())
        }
        other => other,
    }
}

/// Whether a reader does not see the character: controls, line separators, and what Unicode calls default-ignorable.
pub fn is_unseen(character: char) -> bool {
    // Among them are the Hangul fillers, letters by their class yet blank, and from U+E0000 on the tags,
    // which spell text that a model reads and a person does not see.
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{70f}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Plain text with unseen characters strewn in.
    fn hostile() -> impl Strategy<Value = String> {
        let unseen = any::<char>()
            .prop_filter("unseen", |character| is_unseen(*character) || *character == '\u{202e}');
        let tag = (0xe0000_u32..=0xe007f).prop_filter_map("a tag", char::from_u32);
        let marks = prop_oneof![Just('\u{202e}'), Just('\u{200b}'), Just('\u{fe0f}'), Just('\u{1b}'), tag];
        let one = prop_oneof![4 => any::<char>(), 3 => marks, 1 => unseen];
        prop::collection::vec(one, 0..60).prop_map(|text| text.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn nothing_unseen_survives_and_what_is_clean_stays(text in hostile()) {
            let cleaned = clean(&text);
            prop_assert!(!cleaned.chars().any(is_unseen));
            prop_assert_eq!(clean(&cleaned), cleaned);
        }

        #[test]
        fn printed_text_is_left_as_it_is(text in "[ -~äöüßéñçøåąłžшяλאبअ中日한ー、。€✓😀]{0,80}") {
            prop_assert_eq!(clean(&text), text);
        }

        #[test]
        fn a_cut_text_keeps_to_its_limit_and_is_not_cut_again(text in hostile(), max in 3_usize..40) {
            let cut = clean_short(&text, max);
            prop_assert!(cut.len() <= max);
            prop_assert_eq!(clean_short(&cut, max), cut);
        }
    }

    #[test]
    fn the_marks_of_known_tricks_are_unseen() {
        for trick in [
            '\u{1b}',
            '\u{9b}',
            '\u{202e}',
            '\u{2066}',
            '\u{200d}',
            '\u{feff}',
            '\u{e0041}',
            '\u{fe0f}',
            '\u{e0100}',
        ] {
            assert!(is_unseen(trick), "{:x}", trick as u32);
        }
    }

    #[test]
    fn names_and_texts_within_a_schema_are_cleaned() {
        let schema = serde_json::json!({"a\u{202e}b": ["x\u{e0041}y", 1, null], "n": {"t": "l1\nl2"}});
        assert_eq!(clean_json(schema), serde_json::json!({"ab": ["xy", 1, null], "n": {"t": "l1 l2"}}));
    }
}
