//! Calls between nodes over libp2p streams, one call at a time on each, protocol `/aop/NETWORK/call/1` (protocol section 5).
//!
//! What is done and said, and when, is decided by the machine of calls ([`proto::call`](crate::proto::call)), which the
//! [`driver`] drives for both sides. [`client`] performs it for the calls that this node makes, [`host`] for those that it
//! takes: they open streams, carry frames and run agents. A stream that closes before its input is here ends its
//! call; work that has begun goes on for a while, and its caller may ask for it on another stream.

mod access;
mod client;
mod driver;
mod host;
mod inbound;
mod input;
mod leg;
mod works;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use self::access::AccessControl;
pub(crate) use self::client::{CallClient, CallResult, Kept, RemoteCall};
use self::driver::CallDriver;
use self::works::Works;
use crate::agents::Agents;
use crate::net::client::NodeClient;
use crate::net::streams::calls::{CallStreams, InboundCalls};
use crate::proto::call::Calls;
use crate::proto::identity::PeerKey;
use crate::telemetry::metrics::Metrics;

/// How long one frame may take on the wire; the two documents may take as long as the call.
const FRAME_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of JSON read and checked on the spot, text within a tenth of a millisecond and the worst within three; more goes to a
/// thread that may block. An input of 64 KiB and what is around it fits.
const AT_ONCE_BYTES: usize = 128 * 1024;

/// Makes calls to other hosts, and takes those of others for `agents`, until the node stops.
pub(crate) fn start(
    own: PeerKey,
    agents: Agents,
    node: NodeClient,
    streams: CallStreams,
    incoming: InboundCalls,
    metrics: Arc<Metrics>,
) -> CallClient {
    // Never a fixed seed: a run with the incarnation of another would vouch for the other's calls.
    let works = Works::default();
    let driver = CallDriver::new(Calls::new(rand::random()), works.clone());
    let access = AccessControl::new(agents.clone(), own, node.clone());
    let open_calls = streams.open_calls.clone();
    let (sources, refusals) = (streams.sources.clone(), streams.refusals.clone());
    let host = host::Host {
        own,
        driver: driver.clone(),
        works,
        agents,
        access,
        open_calls,
        sources,
        refusals,
        metrics: metrics.clone(),
    };
    tokio::spawn(inbound::serve(incoming, Arc::new(host), node.clone()));
    let (keeper, kept, until) = (driver.clone(), streams.kept.clone(), node.clone());
    // The first two never return; without the last branch they would outlive the node.
    tokio::spawn(async move {
        tokio::select! {
            () = keeper.keep_time() => {}
            () = kept.expire() => {}
            () = until.stopped() => {}
        }
    });
    CallClient::new(driver, streams, node, metrics)
}

/// The JSON in `bytes`; none if it is not JSON.
async fn read_json(bytes: Vec<u8>) -> Option<Value> {
    if bytes.len() <= AT_ONCE_BYTES {
        return serde_json::from_slice(&bytes).ok();
    }
    tokio::task::spawn_blocking(move || serde_json::from_slice(&bytes).ok()).await.ok().flatten()
}
