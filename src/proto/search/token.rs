//! The one tokenizer: records, queries and zone summaries cut text into words the same way, so that a summary which
//! lacks a word proves that no record below has it.
//!
//! Text is folded (NFKD, lower case, combining marks stripped, Hangul put together again), cut at everything that is no
//! letter or digit, and each ASCII word stemmed as English. Other scripts are not stemmed: English rules say nothing about
//! them. A word in camelCase is that word and its parts.
//!
//! Where no spaces tell words apart, letters do. Of Han, kana and Hangul (which has spaces, and writes particles onto its
//! words) each letter is a word, and a query asks for pairs of neighbours: an entry has a pair if it has both. The scripts
//! of South-East Asia have too few letters for that: there pairs of neighbours are the words.

use std::borrow::Cow;

use rust_stemmers::{Algorithm, Stemmer};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::proto::limits::LABEL_TEXT_BYTES_MAX;

/// Bytes of a word that count; the rest is cut off in records and queries alike. The longest name label has 63.
pub const WORD_BYTES_MAX: usize = 64;
/// Words of one text that count. A description of the largest size has half as many.
pub const TEXT_WORDS_MAX: usize = 4096;

/// Bytes of a folded tag or capability that count. A few ligatures take eleven times their bytes when they are folded.
pub const FOLDED_LABEL_BYTES_MAX: usize = 3 * LABEL_TEXT_BYTES_MAX;

/// English words that say how a sentence is built and not what it is about, each in its stemmed form, sorted.
const FUNCTION_WORDS: [&str; 44] = [
    "a", "about", "am", "an", "and", "ani", "are", "as", "at", "be", "by", "can", "could", "do", "for",
    "from", "has", "have", "how", "i", "in", "into", "is", "it", "me", "my", "of", "on", "or", "some",
    "that", "the", "these", "this", "to", "was", "what", "when", "which", "who", "will", "with", "you",
    "your",
];

/// English words with which requests begin, and what else never decides what is wanted: stemmed, sorted.
const REQUEST_WORDS: [&str; 38] = [
    "after", "befor", "between", "find", "get", "give", "help", "if", "let", "look", "make", "need", "new",
    "no", "not", "now", "our", "out", "pleas", "right", "should", "show", "so", "somebodi", "someth", "tell",
    "than", "their", "them", "then", "there", "thing", "up", "us", "use", "want", "we", "would",
];

/// Lower case without accents and compatibility forms: equal for spellings people take for the same.
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    // Without its marks nothing is put together again but Hangul, which would take three times its bytes.
    text.nfkd().flat_map(char::to_lowercase).filter(|letter| !is_combining_mark(*letter)).nfc().collect()
}

/// A tag or capability as filters compare it: folded whole, without blanks around it, not stemmed; at most
/// [`FOLDED_LABEL_BYTES_MAX`].
pub fn label(text: &str) -> String {
    let folded = fold(text);
    let label = folded.trim();
    let label = label[..label.floor_char_boundary(FOLDED_LABEL_BYTES_MAX)].trim_end();
    if label.len() == folded.len() { folded } else { label.to_owned() }
}

/// Gives each word of `text`, repeated words too: at most [`TEXT_WORDS_MAX`] in their order, then as many parts of those in
/// camelCase.
pub fn each_word(text: &str, mut take: impl FnMut(&str)) {
    each_unstemmed(text, |word| take(&stem(word)));
    each_part(text, |part| take(&stem(part)));
}

/// The words of a query in their order, still with their endings: the parts of those in camelCase in their place, and of letters
/// that are words pairs of neighbours where there are any.
pub(super) fn each_asked(text: &str, mut take: impl FnMut(&str)) {
    let is_of_word = |letter: char| letter.is_alphanumeric() || is_combining_mark(letter);
    for run in text.split(|letter: char| !is_of_word(letter)).filter(|run| !run.is_empty()) {
        let starts = part_starts(run);
        let ends = starts.iter().copied().chain([run.len()]);
        for (start, end) in [0].into_iter().chain(starts.iter().copied()).zip(ends) {
            each_piece(&fold(&run[start..end]), Letters::InPairs, &mut take);
        }
    }
}

/// The words of `text`, still with their endings, and no parts.
pub(super) fn each_unstemmed(text: &str, take: impl FnMut(&str)) {
    let folded = fold(text);
    // Most text is ASCII, and every record is cut before it can be found: bytes are several times as fast.
    if folded.is_ascii() { each_ascii_run(&folded, take) } else { each_piece(&folded, Letters::Alone, take) }
}

/// The parts of the words in camelCase of `text`, still with their endings: `base64Encode` has two, `HTTPServer` too. What
/// is left with one letter is none.
pub(super) fn each_part(text: &str, mut take: impl FnMut(&str)) {
    // Most texts have no capital behind another letter, and every text is looked through.
    let begins_part = |two: &[u8]| two[0].is_ascii_alphanumeric() && two[1].is_ascii_uppercase();
    if text.is_ascii() && !text.as_bytes().windows(2).any(begins_part) {
        return;
    }
    let mut left = TEXT_WORDS_MAX;
    for run in text.split(|letter: char| !letter.is_alphanumeric() || script(letter) != Script::Spaced) {
        let starts = part_starts(run);
        if starts.is_empty() {
            continue;
        }
        let ends = starts.iter().copied().chain([run.len()]);
        let mut start = 0;
        for end in ends {
            let part = fold(&run[start..end]);
            if left > 0 && part.chars().nth(1).is_some() && part.chars().all(char::is_alphanumeric) {
                take(cut(&part));
                left -= 1;
            }
            start = end;
        }
    }
}

/// Where parts of a run of letters begin, but for the first.
fn part_starts(run: &str) -> Vec<usize> {
    // Most runs have no capital behind their first letter.
    if run.is_ascii() && !run.bytes().skip(1).any(|byte| byte.is_ascii_uppercase()) {
        return Vec::new();
    }
    let letters: Vec<(usize, char)> = run.char_indices().collect();
    let is = |at: usize, kind: fn(char) -> bool| letters.get(at).is_some_and(|(_, letter)| kind(*letter));
    let begins = |at: &usize| {
        let (before, at) = (at - 1, *at);
        // A capital that ends an acronym begins a word, if one of two small letters follows: `PDFs` is one word.
        let ends_acronym =
            is(before, is_capital) && is(at + 1, char::is_lowercase) && is(at + 2, char::is_lowercase);
        is(at, is_capital) && (is(before, char::is_lowercase) || is(before, char::is_numeric) || ends_acronym)
    };
    (1..letters.len()).filter(begins).map(|at| letters[at].0).collect()
}

/// Whether a letter has a small one: circled capitals have none, and stay what they are when text is folded.
fn is_capital(letter: char) -> bool {
    letter.is_uppercase() && !letter.to_lowercase().eq([letter])
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

fn each_piece(folded: &str, letters: Letters, mut take: impl FnMut(&str)) {
    let runs = folded.split(|letter: char| !letter.is_alphanumeric()).filter(|run| !run.is_empty());
    let pieces = runs.flat_map(|run| Pieces { rest: run, begun: false, letters });
    pieces.take(TEXT_WORDS_MAX).for_each(|word| take(cut(word)));
}

fn cut(word: &str) -> &str {
    &word[..word.floor_char_boundary(WORD_BYTES_MAX)]
}

/// The stem of a folded word.
pub(super) fn stem(word: &str) -> Cow<'_, str> {
    if word.is_ascii() { Stemmer::create(Algorithm::English).stem(word) } else { word.into() }
}

/// Whether a word, as [`each_word`] gives it, only holds sentences together, or says that something is wanted.
pub fn is_idle(word: &str) -> bool {
    FUNCTION_WORDS.binary_search(&word).is_ok() || REQUEST_WORDS.binary_search(&word).is_ok()
}

/// Whether a word is a letter of a script whose letters are words.
pub(super) fn is_letter(word: &str) -> bool {
    word.chars().next().is_some_and(|letter| script(letter) != Script::Spaced)
}

/// The two letters of a pair that a query asks for.
pub(super) fn pair(word: &str) -> Option<(&str, &str)> {
    let first = word.chars().next().filter(|letter| script(*letter) == Script::Letters)?;
    let (first, second) = word.split_at(first.len_utf8());
    (!second.is_empty()).then_some((first, second))
}

/// How letters that are words are given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Letters {
    Alone,
    InPairs,
}

/// How a script sets its words apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Script {
    Spaced,
    /// Not at all, or not only: each letter is a word.
    Letters,
    /// Not at all: each two neighbours are a word.
    Pairs,
}

fn script(letter: char) -> Script {
    match letter {
        // Han with its marks of repetition, hiragana, katakana, Hangul.
        '\u{3005}'..='\u{3007}'
        | '\u{3040}'..='\u{30ff}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{20000}'..='\u{3ffff}' => Script::Letters,
        // Thai, Lao, Burmese, Khmer.
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' => Script::Pairs,
        _ => Script::Spaced,
    }
}

/// The words of a run of letters: one, unless the run has letters of a script without spaces.
struct Pieces<'a> {
    rest: &'a str,
    /// Whether the first letter of the rest was the second of a pair.
    begun: bool,
    letters: Letters,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            let mut letters = self.rest.chars();
            let first = letters.next()?;
            let kind = script(first);
            if kind == Script::Spaced {
                let end = self.rest.find(|letter| script(letter) != kind).unwrap_or(self.rest.len());
                return Some(self.advance(end, end));
            }
            let second = letters.next().filter(|second| script(*second) == kind);
            let in_pairs = kind == Script::Pairs || self.letters == Letters::InPairs;
            match second.filter(|_| in_pairs) {
                Some(second) => {
                    let piece = self.advance(first.len_utf8() + second.len_utf8(), first.len_utf8());
                    self.begun = true;
                    return Some(piece);
                }
                // It stood in the pair before.
                None if std::mem::take(&mut self.begun) => {
                    self.advance(0, first.len_utf8());
                }
                None => return Some(self.advance(first.len_utf8(), first.len_utf8())),
            }
        }
    }
}

impl<'a> Pieces<'a> {
    /// The first `piece` bytes, and on by `step`.
    fn advance(&mut self, piece: usize, step: usize) -> &'a str {
        let taken = &self.rest[..piece];
        self.rest = &self.rest[step..];
        taken
    }
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

    fn asked(text: &str) -> Vec<String> {
        let mut words = Vec::new();
        each_asked(text, |word| words.push(stem(word).into_owned()));
        words
    }

    #[test]
    fn letters_without_spaces_are_words_and_a_query_asks_for_pairs_of_them() {
        assert_eq!(words("天気API"), ["天", "気", "api"]);
        assert_eq!(words("날씨를 날"), ["날", "씨", "를", "날"]);
        assert_eq!(asked("天気予報API"), ["天気", "気予", "予報", "api"]);
        assert_eq!(asked("날씨를 날"), ["날씨", "씨를", "날"]);
        assert_eq!((pair("날씨"), pair("気"), pair("api")), (Some(("날", "씨")), None, None));
    }

    #[test]
    fn pairs_of_neighbours_are_the_words_of_thai_lao_khmer_and_burmese() {
        // Marks above and below are no letters: 'พยากรณ์' has six.
        assert_eq!(words("พยากรณ์API"), ["พย", "ยา", "าก", "กร", "รณ", "api"]);
        assert_eq!(words("ก"), ["ก"]);
        for text in ["ອາກາດ", "អាកាស", "ရာသီဥတု"] {
            let whole = words(text);
            assert!(whole.len() > 1 && whole.iter().all(|word| word.chars().count() == 2), "{whole:?}");
            assert_eq!(asked(text), whole);
        }
    }

    #[test]
    fn a_word_in_camel_case_is_that_word_and_its_parts() {
        for (text, expected) in [
            ("convertUnits", &["convertunit", "convert", "unit"][..]),
            ("CurrencyAgent", &["currencyag", "currenc", "agent"]),
            ("HTTPServer", &["httpserver", "http", "server"]),
            ("getHTTPResponse2", &["gethttpresponse2", "get", "http", "response2"]),
            ("base64Encode", &["base64encod", "base64", "encod"]),
            ("größeÄndern", &["großeandern", "große", "andern"]),
            ("天気getWeather", &["天", "気", "getweath", "get", "weather"]),
            ("PDFs iPhone", &["pdfs", "iphon", "phone"]),
            ("Weather NASA k8s base64 GPT4", &["weather", "nasa", "k8s", "base64", "gpt4"]),
        ] {
            assert_eq!(words(text).len(), expected.len(), "{:?}", words(text));
            assert!(expected.iter().zip(words(text)).all(|(it, word)| stem(it) == word), "{:?}", words(text));
        }
    }

    #[test]
    fn a_query_has_the_parts_of_a_word_in_camel_case_in_its_place() {
        assert_eq!(asked("sendEmail now"), ["send", "email", "now"]);
        assert_eq!(asked("iPhone getHTTPResponse"), ["i", "phone", "get", "http", "respons"]);
        assert_eq!(asked("cafe\u{301}s größeÄndern"), ["cafe", "große", "andern"]);
    }

    #[test]
    fn words_that_decide_nothing_are_sorted_and_as_the_tokenizer_gives_them() {
        assert!(FUNCTION_WORDS.is_sorted() && REQUEST_WORDS.is_sorted());
        assert!(FUNCTION_WORDS.iter().all(|word| words(word) == [*word]), "{FUNCTION_WORDS:?}");
        let request = "Please help: I need to find, get, show, use, make, tell or give something new to somebody. Look, it \
                       would not do so right now, before or after; should we let them up and out? If there is no thing \
                       between us, then than what does our, or their, want";
        let given: std::collections::BTreeSet<String> = words(request).into_iter().collect();
        assert_eq!(REQUEST_WORDS.iter().filter(|word| !given.contains(**word)).count(), 0);
        assert!(words("Find me any of THE, please").iter().all(|word| is_idle(word)));
        assert!(!is_idle("weather"));
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
            each_piece(&text, Letters::Alone, |word| slow.push(word.to_owned()));
            prop_assert_eq!(fast, slow);
        }

        #[test]
        fn letter_case_adds_parts_at_most_and_no_text_panics(text in any::<String>()) {
            let (folded, whole) = (words(&fold(&text)), words(&text));
            prop_assert_eq!(&whole[..folded.len()], &folded);
            asked(&text);
        }

        #[test]
        fn what_a_query_asks_for_is_found_in_the_same_text(text in "([a-zA-Z0-9 ]|天|気|날|씨|ก|า|ร|か){0,40}") {
            let whole = words(&text);
            let has = |word: &str| whole.iter().any(|it| it == word);
            let asked = asked(&text);
            for (at, word) in asked.iter().enumerate() {
                // What is left of a word in camelCase with one letter is no part, but what it was cut from is there.
                let cut = word.len() == 1 && at.checked_sub(1).into_iter().chain([at]).any(|at| {
                    asked.get(at..at + 2).is_some_and(|two| has(&stem(&two.concat())))
                });
                prop_assert!(cut || word.len() == 1 || match pair(word) {
                    Some((first, second)) => has(first) && has(second),
                    None => has(word),
                }, "{}", word);
            }
        }

        #[test]
        fn words_of_letters_stem_without_panic(text in "[a-zA-Z']{0,80}") {
            words(&text);
        }
    }
}
