//! What clients of the nodes do: offer agents, change them, withdraw them, let their node join zones and leave them.

use super::checkers::Operation;
use crate::proto::card::{AgentCard, Offer, Scope};
use crate::proto::io::{Command, Role};
use crate::proto::limits::{DESCRIPTION_BYTES_MAX, SCHEMA_BYTES_MAX};
use crate::proto::name::{AgentName, FullName, ZoneName};

/// What a client of one node wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientOp {
    /// Offer agents: names, and what their cards say.
    Offer(Vec<(AgentName, String)>),
    /// Withdraw an agent.
    Withdraw(AgentName),
    /// Let the node take part in the zone, in this role.
    JoinZone(Role),
    /// Let the node take part in the zone no longer: what it offers there is withdrawn.
    LeaveZone,
}

impl ClientOp {
    /// What it asks of a node about a zone, by a grant of the zone's key if it has one, and what it is to come to if that is
    /// done.
    pub(super) fn command(
        self,
        zone: &ZoneName,
        grant: Option<Vec<u8>>,
    ) -> (Vec<(FullName, Operation)>, Command) {
        let full = |agent: AgentName| FullName { agent, zone: zone.clone() };
        match self {
            ClientOp::Offer(offers) => {
                let operations = offers.iter();
                let operations =
                    operations.map(|(name, text)| (full(name.clone()), Operation::Offered(text.clone())));
                let operations = operations.collect();
                let grants: Vec<Vec<u8>> = grant.into_iter().collect();
                let offers = offers.into_iter().map(|it| {
                    let offer = registration(it, Some(zone.clone()));
                    Offer { grants: grants.clone(), ..offer }
                });
                (operations, Command::Register(offers.collect()))
            }
            ClientOp::Withdraw(name) => {
                let name = full(name);
                (vec![(name.clone(), Operation::Withdrawn)], Command::Deregister(name))
            }
            ClientOp::JoinZone(role) => (Vec::new(), Command::JoinZone { zone: zone.clone(), role }),
            ClientOp::LeaveZone => (Vec::new(), Command::LeaveZone(zone.clone())),
        }
    }
}

/// A card that says a text, to be offered in a zone; in the home zone of its node if none. What is longer than a description
/// fills the schemas, which nobody reads here.
pub(super) fn registration((name, text): (AgentName, String), zone: Option<ZoneName>) -> Offer {
    // Cut at a boundary of characters: a card is text.
    let (description, rest) = text.split_at(text.floor_char_boundary(DESCRIPTION_BYTES_MAX));
    let (input, output) = rest.split_at(rest.floor_char_boundary(SCHEMA_BYTES_MAX));
    let filled = |part: &str| (!part.is_empty()).then(|| part.to_owned());
    let card = AgentCard {
        description: description.into(),
        input_schema: filled(input),
        output_schema: filled(output),
        callable: true,
        ..AgentCard::default()
    };
    Offer { name, zone, scope: Scope::Public, card, grants: Vec::new() }
}

/// The text that a card was made to say.
pub(super) fn text_of(card: &AgentCard) -> String {
    let schemas = [&card.input_schema, &card.output_schema].into_iter().flatten();
    schemas.fold(card.description.clone(), |text, schema| text + schema)
}
