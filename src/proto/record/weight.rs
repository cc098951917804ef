//! What a record takes of the room of its zone (protocol section 1): two thirds at least of the memory of whoever holds it,
//! whatever stands in it, so that nobody makes a full zone dearer by a choice of contents.
//!
//! It follows from lengths alone. How a text is cut into words is none of its business: nodes that cut it differently would
//! hold different records.

use super::Header;
use crate::proto::card::AgentCard;
use crate::proto::limits::{LABEL_WEIGHT, RECORD_WEIGHT, SEARCHED_BYTE_WEIGHT, TOMBSTONE_WEIGHT};

/// What a record of so many bytes weighs, from its card if it has one. A tombstone weighs less than the card it replaces.
pub(super) fn weight(header: &Header, bytes: usize, is_tombstone: bool, card: Option<&AgentCard>) -> usize {
    let beside = if is_tombstone { TOMBSTONE_WEIGHT } else { RECORD_WEIGHT };
    bytes + beside + card.map_or(0, |card| of_index(header, card))
}

fn of_index(header: &Header, card: &AgentCard) -> usize {
    let AgentCard { title, original_name, tags, capabilities, residency, description, skills, .. } = card;
    let labels = || tags.iter().chain(capabilities).chain(residency);
    let texts = [title, original_name, skills].into_iter().flatten().chain(labels()).chain([description]);
    let searched = header.name.as_str().len() + texts.map(String::len).sum::<usize>();
    searched * SEARCHED_BYTE_WEIGHT + labels().count() * LABEL_WEIGHT
}
