//! Registering what clients send, part by part.

use tracing::Instrument;

use super::{Handle, OFFERS_AT_ONCE, registered};
use crate::agents::HostedAgent;
use crate::api::{self, ApiError};
use crate::document::Refusal;
use crate::host::view;
use crate::net::client::Patience;
use crate::proto::card::Offer;
use crate::proto::code::Code;
use crate::proto::io::{Command, Reply};
use crate::proto::name::ZoneName;
use crate::telemetry::names;

impl Handle {
    pub(super) async fn register_all(
        &self,
        zone: Option<ZoneName>,
        offers: Vec<Offer>,
        command: fn(Vec<Offer>) -> Command,
    ) -> Result<Vec<Result<api::Registered, Refusal>>, ApiError> {
        let span = names::register(offers.len());
        let mut answers: Vec<Result<api::Registered, Refusal>> = Vec::with_capacity(offers.len());
        let mut offers = offers.into_iter().map(|mut offer| {
            offer.zone = offer.zone.or_else(|| zone.clone());
            offer
        });
        // What began is finished: only the first part may find the queue full.
        let mut patience = Patience::Client;
        loop {
            let part: Vec<Offer> = offers.by_ref().take(OFFERS_AT_ONCE).collect();
            if part.is_empty() {
                names::registered(&span, answers.iter().filter(|answer| answer.is_err()).count());
                return Ok(answers);
            }
            let registered = self.register_part(part, command, patience).instrument(span.clone()).await;
            answers.extend(registered.inspect_err(|error| names::failed(&span, error.code.text()))?);
            patience = Patience::Endless;
        }
    }

    /// What a file of this host runs is not replaced by a document that was sent.
    async fn register_part(
        &self,
        part: Vec<Offer>,
        command: fn(Vec<Offer>) -> Command,
        patience: Patience,
    ) -> Result<Vec<Result<api::Registered, Refusal>>, ApiError> {
        let names: Vec<_> =
            part.iter().map(|offer| (offer.name.to_string(), self.agents.running_at(offer))).collect();
        let free = part
            .into_iter()
            .zip(&names)
            .filter(|(_, (_, own))| own.is_none())
            .map(|(offer, _)| offer)
            .collect();
        let Reply::Registered(results) = self.command(command(free), patience).await? else {
            return Err(view::stopped());
        };
        let mut results = results.into_iter();
        let answer = |(name, own): (String, Option<HostedAgent>)| match own {
            None => results.next().map(|result| registered(name, result)),
            Some(own) => {
                let message =
                    format!("{}; or register under another name", view::of_file(&name, &own).message);
                Some(Err(Refusal { name, code: Code::Conflict, message }))
            }
        };
        Ok(names.into_iter().filter_map(answer).collect())
    }
}
