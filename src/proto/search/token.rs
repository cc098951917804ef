//! The one tokenizer: records, queries and zone summaries cut text into words the same way, so that a summary which
//! lacks a word proves that no record below has it.
//!
//! Text is folded (NFKD, lower case, combining marks stripped), cut at everything that is no letter or digit, and each
//! ASCII word stemmed as English. Other scripts are not stemmed: English rules say nothing about them. Han and kana
//! write no spaces, there each character is a word.

use std::borrow::Cow;

use rust_stemmers::{Algorithm, Stemmer};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::proto::limits::LABEL_TEXT_BYTES_MAX;

/// Bytes of a word that count; the rest is cut off in records and queries alike. The longest name label has 63.
pub const WORD_BYTES_MAX: usize = 64;
/// Words of one text that count. A description of the largest size has half as many.
pub const TEXT_WORDS_MAX: usize = 4096;

/// Bytes of a folded tag or capability that count. Hangul takes three times its bytes when it is folded, and a few ligatures
/// eleven times.
pub const FOLDED_LABEL_BYTES_MAX: usize = 3 * LABEL_TEXT_BYTES_MAX;

/// English words that say how a sentence is built and not what it is about, each in its stemmed form, sorted. They
/// match like all words, but a record with more of them is no better answer.
const FUNCTION_WORDS: [&str; 44] = [
    "a", "about", "am", "an", "and", "ani", "are", "as", "at", "be", "by", "can", "could", "do", "for",
    "from", "has", "have", "how", "i", "in", "into", "is", "it", "me", "my", "of", "on", "or", "some",
    "that", "the", "these", "this", "to", "was", "what", "when", "which", "who", "will", "with", "you",
    "your",
];

/// Lower case without accents and compatibility forms: equal for spellings people take for the same.
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.nfkd().flat_map(char::to_lowercase).filter(|letter| !is_combining_mark(*letter)).collect()
}

/// A tag or capability as filters compare it: folded whole, without blanks around it, not stemmed; at most
/// [`FOLDED_LABEL_BYTES_MAX`].
pub fn label(text: &str) -> String {
    let folded = fold(text);
    let label = folded.trim();
    label[..label.floor_char_boundary(FOLDED_LABEL_BYTES_MAX)].trim_end().to_owned()
}

/// Gives each word of `text` in order, repeated words too, at most [`TEXT_WORDS_MAX`].
pub fn each_word(text: &str, mut take: impl FnMut(&str)) {
    each_unstemmed(text, |word| take(&stem(word)));
}

/// As [`each_word`], but the words still have their endings.
pub(super) fn each_unstemmed(text: &str, take: impl FnMut(&str)) {
    let folded = fold(text);
    // Most text is ASCII, and every record is cut before it can be found: bytes are several times as fast.
    if folded.is_ascii() { each_ascii_run(&folded, take) } else { each_piece(&folded, take) }
}

fn each_ascii_run(folded: &str, mut take: impl FnMut(&str)) {
    let mut left = TEXT_WORDS_MAX;
    let mut start = 0;
    let ends = folded.bytes().chain([b' ']).enumerate().filter(|(_, byte)| !byte.is_ascii_alphanumeric());
    for (end, _) in ends {
        if start < end && left > 0 {
            take(&folded[start..end.min(start + WORD_BYTES_MAX)]);
            left -= 1;
        }
        start = end + 1;
    }
}

fn each_piece(folded: &str, mut take: impl FnMut(&str)) {
    let runs = folded.split(|letter: char| !letter.is_alphanumeric()).filter(|run| !run.is_empty());
    for word in runs.flat_map(Pieces).take(TEXT_WORDS_MAX) {
        take(&word[..word.floor_char_boundary(WORD_BYTES_MAX)]);
    }
}

/// The stem of a folded word.
pub(super) fn stem(word: &str) -> Cow<'_, str> {
    if word.is_ascii() { Stemmer::create(Algorithm::English).stem(word) } else { word.into() }
}

/// Whether a word, as [`each_word`] gives it, only holds sentences together.
pub fn is_function_word(word: &str) -> bool {
    FUNCTION_WORDS.binary_search(&word).is_ok()
}

/// The words of a run of letters: one, unless the run has characters of a script without spaces.
struct Pieces<'a>(&'a str);

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let first = self.0.chars().next()?;
        let end = if is_unspaced(first) {
            first.len_utf8()
        } else {
            self.0.find(is_unspaced).unwrap_or(self.0.len())
        };
        let (piece, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(piece)
    }
}

/// Whether a letter belongs to Han, hiragana or katakana.
fn is_unspaced(letter: char) -> bool {
    matches!(letter, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<String> {
        let mut words = Vec::new();
        each_word(text, |word| words.push(word.to_owned()));
        words
    }

    #[test]
    fn words_are_folded_cut_and_stemmed() {
        assert_eq!(words("Summarizes long-documents"), ["summar", "long", "document"]);
        assert_eq!(words("ai.exa/Web_Search"), ["ai", "exa", "web", "search"]);
        assert_eq!(words("Übersetzungen, naïve ﬁles"), ["ubersetzungen", "naiv", "file"]);
        assert_eq!(words("!?\u{0} \u{1f327}"), Vec::<String>::new());
    }

    #[test]
    fn a_script_without_spaces_has_one_word_a_character() {
        assert_eq!(words("天気API"), ["天", "気", "api"]);
    }

    #[test]
    fn function_words_are_sorted_and_as_the_tokenizer_gives_them() {
        assert!(FUNCTION_WORDS.is_sorted());
        assert!(FUNCTION_WORDS.iter().all(|word| words(word) == [*word]), "{FUNCTION_WORDS:?}");
        assert!(words("Any of THE").iter().all(|word| is_function_word(word)));
        assert!(!is_function_word("weather"));
    }

    #[test]
    fn labels_keep_their_endings_and_lose_case_accents_and_outer_blanks() {
        assert_eq!(label("  Text Résumés "), "text resumes");
    }

    #[test]
    fn a_label_is_whole_in_every_script_and_cut_where_it_unfolds_to_many_times_its_length() {
        let of_length = |letter: &str| letter.repeat(LABEL_TEXT_BYTES_MAX / letter.len());
        for letter in ["a", "é", "б", "天", "각", "\u{1d400}"] {
            assert_eq!(label(&of_length(letter)), fold(&of_length(letter)), "{letter}");
        }
        let unfolded = label(&of_length("\u{fdfa}"));
        assert!(
            (FOLDED_LABEL_BYTES_MAX - 4..=FOLDED_LABEL_BYTES_MAX).contains(&unfolded.len()),
            "{}",
            unfolded.len()
        );
        assert_eq!(label(&unfolded), unfolded);
    }

    #[test]
    fn a_long_text_and_a_long_word_are_cut() {
        assert_eq!(words(&"x ".repeat(TEXT_WORDS_MAX + 5)).len(), TEXT_WORDS_MAX);
        assert_eq!(words(&"é".repeat(500)), ["e".repeat(WORD_BYTES_MAX)]);
        assert_eq!(words(&"б".repeat(500)), ["б".repeat(WORD_BYTES_MAX / 2)]);
    }

    proptest! {
        #[test]
        fn folding_twice_changes_nothing(text in any::<String>()) {
            prop_assert_eq!(fold(&fold(&text)), fold(&text));
            prop_assert_eq!(label(&label(&text)), label(&text));
        }

        #[test]
        fn ascii_is_cut_as_all_text_is(text in "([ -~]{0,300}|[a-z ]{9000}|[a-z]{0,200})") {
            let (mut fast, mut slow) = (Vec::new(), Vec::new());
            each_ascii_run(&text, |word| fast.push(word.to_owned()));
            each_piece(&text, |word| slow.push(word.to_owned()));
            prop_assert_eq!(fast, slow);
        }

        #[test]
        fn letter_case_never_matters_and_no_text_panics(text in any::<String>()) {
            prop_assert_eq!(words(&fold(&text)), words(&text));
        }

        #[test]
        fn words_of_letters_stem_without_panic(text in "[a-zA-Z']{0,80}") {
            words(&text);
        }
    }
}
