//! What a caller may repeat: a repetition that may cost work takes a token, and each call brings a part of one, so that where
//! much fails the repetitions of all calls add no more than a fifth to the load.

/// Parts of a token, of which each call brings one.
const PARTS: u32 = 5;
/// What a caller begins with, and what it may save, in parts: ten tokens, and a hundred.
const PARTS_AT_FIRST: u32 = 10 * PARTS;
const PARTS_MAX: u32 = 100 * PARTS;

/// The tokens of one caller, for all its calls.
#[derive(Debug)]
pub(super) struct Budget {
    parts: u32,
}

impl Budget {
    pub(super) fn new() -> Budget {
        Budget { parts: PARTS_AT_FIRST }
    }

    /// A call is made.
    pub(super) fn call(&mut self) {
        self.parts = (self.parts + 1).min(PARTS_MAX);
    }

    /// Takes a token; false if there is none.
    pub(super) fn take(&mut self) -> bool {
        let left = self.parts.checked_sub(PARTS);
        self.parts = left.unwrap_or(self.parts);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_repetitions_and_one_for_each_five_calls() {
        let mut budget = Budget::new();
        assert_eq!((0..100).filter(|_| budget.take()).count(), 10);
        (0..100).for_each(|_| budget.call());
        assert_eq!((0..100).filter(|_| budget.take()).count(), 20);
        (0..100_000).for_each(|_| budget.call());
        assert_eq!((0..1_000).filter(|_| budget.take()).count(), 100, "what is saved has a bound");
    }
}
