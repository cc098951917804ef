//! Made-up agents as a node of its own offers them.

use aop::document::Offer;
use aop::proto::card::Scope;

use crate::agents::Cards;

/// The next of the cards under this name.
pub(crate) fn offer(cards: &mut Cards, name: String) -> Offer {
    Offer {
        name: name.parse().expect("a label"),
        zone: None,
        scope: Scope::Public,
        card: cards.card(),
        grants: Vec::new(),
    }
}
