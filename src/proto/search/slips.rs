//! Words that are few slips of the keyboard apart: a letter too many, too few, another, or two in the wrong order.

/// Shortest word that is taken for a slip, letters: of a shorter one too many words are one slip away.
const SLIPPED_MIN: usize = 4;
/// From so many letters on a word may have two slips.
const TWO_SLIPS_MIN: usize = 8;

/// Which letters a text has: a set of 32 kinds.
pub(super) fn letters(text: &str) -> u32 {
    text.bytes().fold(0, |kinds, byte| kinds | 1 << (byte % 32))
}

/// Whether two texts may be so few slips apart by the letters they have: a slip changes two kinds at most. Cheap, and rules
/// most words out.
pub(super) fn may_be_within(slips: usize, one: u32, other: u32) -> bool {
    let mut differing = one ^ other;
    for _ in 0..2 * slips {
        differing &= differing.wrapping_sub(1);
    }
    differing == 0
}

/// How many slips two texts are apart, if no more than `most`.
pub(super) fn slips(one: &str, other: &str, most: usize) -> Option<usize> {
    // Bytes bound letters from above; a letter has four at most.
    if one.len().abs_diff(other.len()) > 4 * most {
        return None;
    }
    Some(strsim::osa_distance(one, other)).filter(|slips| *slips <= most)
}

/// A word that nobody knows.
pub(super) struct Slipped<'a> {
    word: &'a str,
    letters: u32,
    most: usize,
}

impl<'a> Slipped<'a> {
    /// None of what is too short, or a number.
    pub(super) fn new(word: &'a str) -> Option<Slipped<'a>> {
        let length = word.chars().count();
        let is_number = word.chars().all(char::is_numeric);
        let most = if length < TWO_SLIPS_MIN { 1 } else { 2 };
        (length >= SLIPPED_MIN && !is_number).then(|| Slipped { word, letters: letters(word), most })
    }

    /// With one slip at most.
    pub(super) fn by_one(self) -> Slipped<'a> {
        Slipped { most: 1, ..self }
    }

    /// With which it begins.
    pub(super) fn first_letter(&self) -> char {
        self.word.chars().next().unwrap_or_default()
    }

    /// How many slips a word with these letters is away, if it may be meant.
    pub(super) fn from<'b>(&self, letters: u32, other: impl FnOnce() -> &'b str) -> Option<usize> {
        if !may_be_within(self.most, self.letters, letters) {
            return None;
        }
        let other = other();
        other.chars().nth(SLIPPED_MIN - 1)?;
        slips(self.word, other, self.most)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn longer_words_may_have_more_slips_and_short_ones_none() {
        let from = |word: &'static str, other: &'static str| {
            Slipped::new(word).and_then(|slipped| slipped.from(letters(other), || other))
        };
        assert_eq!(from("flihgt", "flight"), Some(1));
        assert_eq!(from("terafrom", "terraform"), Some(2));
        assert_eq!(from("flihgr", "flight"), None, "two in six letters");
        assert_eq!((from("cat", "car"), from("cars", "car")), (None, None));
        assert_eq!(from("2024", "2025"), None);
    }

    proptest! {
        #[test]
        fn what_is_few_slips_apart_is_not_ruled_out_by_letters(one in "[a-z0-9é]{1,10}", other in "[a-z0-9é]{1,10}") {
            for most in 1..=2 {
                // A letter of several bytes changes as many kinds.
                if one.is_ascii() && other.is_ascii() && slips(&one, &other, most).is_some() {
                    prop_assert!(may_be_within(most, letters(&one), letters(&other)));
                }
            }
        }
    }
}
