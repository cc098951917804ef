//! The stream protocols of a node: sync, and calls.

use libp2p::Swarm;
use libp2p_stream::IncomingStreams;
use tokio::sync::mpsc;

use super::behaviour::{Behaviour, ProtocolNames};
use super::{INBOUND_REQUESTS_MAX, Network, NetworkError};
use crate::net::calls::CallStreams;
use crate::net::streams::{InboundRequest, SyncClient, serve};

impl Network {
    /// Opens call streams from any task, and the call streams that come in. May be taken once.
    pub(crate) fn take_calls(&self) -> Result<(CallStreams, IncomingStreams), NetworkError> {
        let mut control = self.swarm.behaviour().streams.new_control();
        let protocol = self.names.call.clone();
        let incoming =
            control.accept(protocol.clone()).map_err(|error| NetworkError::Setup(error.to_string()))?;
        Ok((CallStreams { control, protocol, open_calls: self.calls.clone() }, incoming))
    }
}

/// Serves sync streams, whose questions come out of the receiver.
pub(super) fn start_sync(
    swarm: &Swarm<Behaviour>,
    names: &ProtocolNames,
) -> Result<(SyncClient, mpsc::Receiver<InboundRequest>), NetworkError> {
    let mut control = swarm.behaviour().streams.new_control();
    let incoming =
        control.accept(names.sync.clone()).map_err(|error| NetworkError::Setup(error.to_string()))?;
    let (asked, receiver) = mpsc::channel(INBOUND_REQUESTS_MAX);
    tokio::spawn(serve(incoming, asked));
    Ok((SyncClient::new(control, names.sync.clone()), receiver))
}
