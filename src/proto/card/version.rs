//! Which of two published versions is the greater: one total order over any texts, semantic versions in their order.
//!
//! Compared in turn: the dotted numbers after an optional `v` (missing ones are 0, so `3.3.0.1` > `3.3.0`); then no
//! rest above some rest (`1.0.0` > `1.0.0-beta`); then the rest by its dotted parts, numbers below words; then the
//! bytes. Text that does not start with a number is below all that do. One key for all texts, rather than a rule per
//! pair, keeps the order transitive, so the greatest does not depend on the order of the documents.

use std::cmp::Ordering;

/// Whether a version comes before another. Texts that mean one version, such as `1.0` and `v1.0.0`, do not.
pub fn is_older(a: &str, b: &str) -> bool {
    SortKey::of(a) < SortKey::of(b)
}

/// Compares two version texts; equal only if the texts are equal. No version is below any.
pub fn compare(a: Option<&str>, b: Option<&str>) -> Ordering {
    let key = |text: Option<&str>| text.map(SortKey::of);
    // The texts decide between equal keys, such as `1.0` and `v1.0.0`, or the order of the documents would.
    key(a).cmp(&key(b)).then_with(|| a.cmp(&b))
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
// The derived order compares the fields from the top.
struct SortKey {
    numbers: Vec<VersionNumber>,
    rest: Rest,
}

/// A decimal number of any length: without leading zeros the longer is the greater.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct VersionNumber {
    digits: usize,
    text: String,
}

/// What follows the numbers, in ascending order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Rest {
    Parts(Vec<VersionPart>),
    // Last and so the greatest: a release stands above what led to it.
    None,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum VersionPart {
    Number(VersionNumber),
    Word(String),
}

impl SortKey {
    fn of(text: &str) -> SortKey {
        let text = text.trim();
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        // Build metadata has no rank in semantic versioning; the bytes decide at the end.
        let text = text.split_once('+').map_or(text, |(head, _)| head);
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (numbers, rest) = text.split_at(end);
        SortKey { numbers: numbers_of(numbers), rest: rest_of(rest) }
    }
}

fn numbers_of(text: &str) -> Vec<VersionNumber> {
    // Empty parts, as in `1..2` or before a dot at the end, are passed over and not taken for 0.
    let mut numbers: Vec<VersionNumber> =
        text.split('.').filter(|part| !part.is_empty()).map(number_of).collect();
    // A lone 0 still is a number and stays above texts without any.
    while numbers.len() > 1 && numbers.last().is_some_and(|last| last.digits == 0) {
        numbers.pop();
    }
    numbers
}

fn number_of(text: &str) -> VersionNumber {
    let text = text.trim_start_matches('0');
    VersionNumber { digits: text.len(), text: text.to_owned() }
}

fn rest_of(text: &str) -> Rest {
    if text.is_empty() {
        return Rest::None;
    }
    let text = text.strip_prefix('-').unwrap_or(text);
    Rest::Parts(text.split('.').map(part_of).collect())
}

fn part_of(text: &str) -> VersionPart {
    // An empty part is no number, or it would equal 0.
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        VersionPart::Number(number_of(text))
    } else {
        VersionPart::Word(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_ascend_as_their_publishers_mean_them() {
        let ascending = [
            "latest",
            "0",
            "0.0.1-beta.7",
            "0.0.1-beta.9",
            "0.0.1-beta.10",
            "0.0.1",
            "0.1.0-92.main.fae1443",
            "0.1.0-100.main.d0ed832",
            "0.1.0",
            "0.9.9",
            "v0.10.4-dev",
            "v0.10.4-dev1",
            "v0.10.4-dev2",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1º",
            "1.0.1",
            "3.3.0",
            "3.3.0.1",
            "10.0",
            "2025.11.25",
            "99999999999999999999999.0",
        ];
        for pair in ascending.windows(2) {
            assert_eq!(compare(Some(pair[0]), Some(pair[1])), Ordering::Less, "{pair:?}");
        }
        assert_eq!(compare(None, Some("")), Ordering::Less);
    }

    #[test]
    fn another_spelling_of_a_version_is_not_older() {
        assert!(is_older("1.0.0-rc.1", "1.0") && is_older("1.9", "v1.10"));
        for (a, b) in [("1.0", "v1.0.0"), ("1.0.0+a", "1.0.0+b"), ("2", "2")] {
            assert!(!is_older(a, b) && !is_older(b, a), "{a} {b}");
        }
    }

    #[test]
    fn equal_means_the_same_text() {
        assert_eq!(compare(Some("1.0"), Some("1.0")), Ordering::Equal);
        assert_ne!(compare(Some("1.0"), Some("1.0.0")), Ordering::Equal);
        assert_ne!(compare(Some("1.0.0+a"), Some("1.0.0+b")), Ordering::Equal);
        assert_eq!(compare(Some("1.2"), Some("1.10.0")), Ordering::Less);
    }

    proptest! {
        #[test]
        fn any_three_versions_are_ordered(mut texts in proptest::array::uniform3("[v01a.+-]{0,8}|\\PC{0,6}")) {
            texts.sort_by(|a, b| compare(Some(a), Some(b)));
            prop_assert_ne!(compare(Some(&texts[0]), Some(&texts[2])), Ordering::Greater);
            prop_assert_eq!(
                compare(Some(&texts[0]), Some(&texts[1])),
                compare(Some(&texts[1]), Some(&texts[0])).reverse()
            );
        }
    }
}
