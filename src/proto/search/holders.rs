//! The entries that have a label. Most labels are had by few, and a stranger can have thousands alone.

use std::borrow::Cow;

use roaring::RoaringBitmap;

use super::growth::{give_back, make_room};

/// Entries in a plain list: from here on a set costs less than twice as much, and is faster.
const FEW_MAX: usize = 64;

/// Ids of entries.
#[derive(Debug, Default)]
pub(super) enum Holders {
    #[default]
    None,
    One(u32),
    Few(Box<Few>),
    Many(Box<RoaringBitmap>),
}

/// Two to [`FEW_MAX`], ascending.
#[derive(Debug)]
pub(super) struct Few(Vec<u32>);

impl Holders {
    pub(super) fn insert(&mut self, entry_id: u32) {
        match self {
            Holders::None => *self = Holders::One(entry_id),
            Holders::One(only) if *only == entry_id => {}
            Holders::One(only) => {
                let both = vec![entry_id.min(*only), entry_id.max(*only)];
                *self = Holders::Few(Box::new(Few(both)));
            }
            Holders::Few(few) => {
                let Err(at) = few.0.binary_search(&entry_id) else { return };
                make_room(&mut few.0);
                few.0.insert(at, entry_id);
                if few.0.len() > FEW_MAX {
                    *self = Holders::Many(Box::new(few.0.iter().collect()));
                }
            }
            Holders::Many(many) => _ = many.insert(entry_id),
        }
    }

    pub(super) fn remove(&mut self, entry_id: u32) {
        match self {
            Holders::None => {}
            Holders::One(only) if *only != entry_id => {}
            Holders::One(_) => *self = Holders::None,
            Holders::Few(few) => {
                few.0.retain(|held| *held != entry_id);
                give_back(&mut few.0);
                if let [only] = few.0[..] {
                    *self = Holders::One(only);
                }
            }
            Holders::Many(many) => {
                many.remove(entry_id);
                // Half of what makes many of few, so that one that comes and goes does not cost a copy each time.
                if many.len() <= FEW_MAX as u64 / 2 {
                    *self = Holders::Few(Box::new(Few(many.iter().collect())));
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Holders::None)
    }

    /// As a set.
    pub(super) fn set(&self) -> Cow<'_, RoaringBitmap> {
        match self {
            Holders::None => Cow::Owned(RoaringBitmap::new()),
            Holders::One(only) => Cow::Owned([*only].into_iter().collect()),
            Holders::Few(few) => Cow::Owned(few.0.iter().collect()),
            Holders::Many(many) => Cow::Borrowed(many),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holders_are_a_set_however_many(steps in prop::collection::vec((0..150u32, 0..3u8), 0..600), last in 0..2u8) {
            let (mut holders, mut model) = (Holders::default(), BTreeSet::new());
            // First more come than go, then as many or more go.
            let half = steps.len() / 2;
            for (at, (entry_id, step)) in steps.into_iter().enumerate() {
                if (step > 0) == (at < half || last == 0) {
                    holders.insert(entry_id);
                    model.insert(entry_id);
                } else {
                    holders.remove(entry_id);
                    model.remove(&entry_id);
                }
                prop_assert_eq!(holders.is_empty(), model.is_empty());
            }
            prop_assert_eq!(holders.set().iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            model.iter().for_each(|entry_id| holders.remove(*entry_id));
            prop_assert!(holders.is_empty());
        }
    }
}
