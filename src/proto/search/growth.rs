//! How lists grow: by an eighth, since an index is mostly lists, and what they keep in reserve takes memory and holds
//! nothing. Doubling would make that as much again in the worst moment.

/// Makes room for one more.
pub(super) fn make_room<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(1 + list.len() / 8);
    }
}

/// Gives room back where most of it stands empty.
pub(super) fn give_back<T>(list: &mut Vec<T>) {
    if list.capacity() > 4 + 2 * list.len() {
        list.shrink_to(list.len() + list.len() / 8);
    }
}
