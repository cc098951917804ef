//! Calls between nodes: one libp2p stream a call, protocol `/aop/NETWORK/call/1` (protocol section 4).
//!
//! [`client`] offers calls, [`host`] takes them; what may be said of a call at any moment is decided by the machines in
//! `proto::call`. A stream that closes ends its call: the host drops the work.

mod callers;
mod client;
mod host;
mod input;
mod open;

use std::time::Duration;

use serde_json::Value;

pub(crate) use self::client::{CallClient, Wanted};
pub(crate) use self::host::{Host, serve};
pub(crate) use self::input::prepare;
pub(crate) use self::open::OpenCalls;

/// How long one frame may take on the wire; the two documents may take as long as the call.
const FRAME_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of JSON read and checked on the spot, within a millisecond; more goes to a thread that may block.
const AT_ONCE_BYTES: usize = 64 * 1024;

/// The JSON in `bytes`; none if it is not JSON.
async fn read_json(bytes: Vec<u8>) -> Option<Value> {
    if bytes.len() <= AT_ONCE_BYTES {
        return serde_json::from_slice(&bytes).ok();
    }
    tokio::task::spawn_blocking(move || serde_json::from_slice(&bytes).ok()).await.ok().flatten()
}
