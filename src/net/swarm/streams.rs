//! The stream protocols of a node: conversations of each [`Protocol`], and calls.

use libp2p::Swarm;
use tokio::sync::mpsc;

use super::behaviour::{Behaviour, ProtocolNames};
use super::{INBOUND_REQUESTS_MAX, Network, NetworkError};
use crate::net::refusals::Refusals;
use crate::net::streams::budget::RequestBudget;
use crate::net::streams::calls::{CallStreams, InboundCalls, OWN_STREAMS_MAX};
use crate::net::streams::sources::PeerSources;
use crate::net::streams::{Answers, InboundRequest, RequestClient, serve};
use crate::proto::identity::PeerKey;
use crate::proto::io::Protocol;

/// Every protocol that is served.
const SERVED: [Protocol; 2] = [Protocol::Sync, Protocol::Ask];

impl Network {
    /// Opens conversations of a protocol from any task.
    pub fn request_client(&self, protocol: Protocol) -> RequestClient {
        let control = self.swarm.behaviour().streams.new_control();
        RequestClient::new(control, protocol, self.names.of(protocol).clone())
    }

    /// Opens call streams from any task; the call streams that come in, and those within this node, which has the key `own`.
    /// May be taken once.
    pub(crate) fn take_calls(&self, own: PeerKey) -> Result<(CallStreams, InboundCalls), NetworkError> {
        let mut control = self.swarm.behaviour().streams.new_control();
        let protocol = self.names.call.clone();
        let incoming =
            control.accept(protocol.clone()).map_err(|error| NetworkError::Setup(error.to_string()))?;
        let (inward, of_this) = mpsc::channel(OWN_STREAMS_MAX);
        let streams = CallStreams {
            own,
            inward,
            control,
            protocol,
            open_calls: self.calls.clone(),
            kept: self.swarm.behaviour().streams.kept(),
            sources: self.sources.clone(),
            refusals: self.refusals.clone(),
        };
        Ok((streams, (incoming, of_this)))
    }
}

/// Serves the streams of every protocol; their requests come out of the receiver.
pub(super) fn serve_requests(
    swarm: &Swarm<Behaviour>,
    names: &ProtocolNames,
    sources: &PeerSources,
    refusals: &Refusals,
    budget: &RequestBudget,
) -> Result<mpsc::Receiver<InboundRequest>, NetworkError> {
    // One queue for all protocols: the driver answers one request at a time whatever its protocol.
    let (requests, receiver) = mpsc::channel(INBOUND_REQUESTS_MAX);
    for protocol in SERVED {
        let mut control = swarm.behaviour().streams.new_control();
        // Accepted before anything is polled, so that not even the first peer finds the protocol missing.
        let incoming = control.accept(names.of(protocol).clone());
        let incoming = incoming.map_err(|error| NetworkError::Setup(error.to_string()))?;
        let answers = Answers { requests: requests.clone(), budget: budget.clone() };
        tokio::spawn(serve(protocol, incoming, answers, sources.clone(), refusals.clone()));
    }
    Ok(receiver)
}
