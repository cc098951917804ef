//! Held records in an order of what they say. A set is of pointers and copies no key: a full zone has half a million records,
//! and each stands in five orders.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::ops::RangeBounds;
use std::sync::Arc;

use super::record::{KeyHash, Record};

/// Where a record stands in an order; no two held ones stand in one place.
pub trait Place: Copy + Ord {
    /// That of this record.
    fn of(record: &Record) -> Self;
}

/// Records in the order of their places.
pub struct Sorted<P: Place>(BTreeSet<Held<P>>);

impl<P: Place> Default for Sorted<P> {
    fn default() -> Sorted<P> {
        Sorted(BTreeSet::new())
    }
}

/// A record that stands for its place.
struct Held<P>(Arc<Record>, PhantomData<P>);

/// What a set is searched with.
struct Sought<P>(P);

/// What a place can be told of: a held record, or the place itself.
trait Placed<P> {
    fn place(&self) -> P;
}

impl<P: Place> Sorted<P> {
    /// Enters a record. Nothing else stands in its place.
    pub fn insert(&mut self, record: Arc<Record>) {
        self.0.insert(Held(record, PhantomData));
    }

    /// Takes out what stands in the place of this record.
    pub fn remove(&mut self, record: &Record) {
        self.0.remove(&Sought(P::of(record)) as &dyn Placed<P>);
    }

    /// What stands in this place.
    pub fn get(&self, place: P) -> Option<&Arc<Record>> {
        self.0.get(&Sought(place) as &dyn Placed<P>).map(|held| &held.0)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What comes first.
    pub fn first(&self) -> Option<&Arc<Record>> {
        self.0.first().map(|held| &held.0)
    }

    /// What comes last.
    pub fn last(&self) -> Option<&Arc<Record>> {
        self.0.last().map(|held| &held.0)
    }

    /// All, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Record>> {
        self.0.iter().map(|held| &held.0)
    }

    /// What stands in these places, in order.
    pub fn range(&self, places: impl RangeBounds<P>) -> impl DoubleEndedIterator<Item = &Arc<Record>> {
        let first = places.start_bound().map(|place| Sought(*place));
        let last = places.end_bound().map(|place| Sought(*place));
        let ends = (first.as_ref().map(as_placed), last.as_ref().map(as_placed));
        self.0.range::<dyn Placed<P>, _>(ends).map(|held| &held.0)
    }
}

fn as_placed<P: Place>(sought: &Sought<P>) -> &dyn Placed<P> {
    sought
}

impl Place for KeyHash {
    fn of(record: &Record) -> KeyHash {
        record.key()
    }
}

impl<P: Place> Placed<P> for Held<P> {
    fn place(&self) -> P {
        P::of(&self.0)
    }
}

impl<P: Copy> Placed<P> for Sought<P> {
    fn place(&self) -> P {
        self.0
    }
}

impl<'a, P: Place + 'a> Borrow<dyn Placed<P> + 'a> for Held<P> {
    fn borrow(&self) -> &(dyn Placed<P> + 'a) {
        self
    }
}

impl<P: Place> Ord for dyn Placed<P> + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl<P: Place> PartialOrd for dyn Placed<P> + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P: Place> PartialEq for dyn Placed<P> + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<P: Place> Eq for dyn Placed<P> + '_ {}

impl<P: Place> Ord for Held<P> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl<P: Place> PartialOrd for Held<P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P: Place> PartialEq for Held<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<P: Place> Eq for Held<P> {}
