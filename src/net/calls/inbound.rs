//! Which call streams are taken: those of peers within their shares, and those of this node itself.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;

use futures::future::Either;
use futures::stream::{self, Stream, StreamExt};
use tokio::task::JoinSet;

use super::host::Host;
use crate::net::addresses::peer_key;
use crate::net::client::NodeClient;
use crate::net::streams::admission::StreamAdmission;
use crate::net::streams::calls::{CallStream, InboundCalls};
use crate::proto::address_block::Share;
use crate::proto::identity::PeerKey;
use crate::proto::limits::{CALLS_AT_WORK_MAX, CALLS_PER_PEER_MAX, CALLS_SHARE};

/// Streams beyond the calls at work: offers that are being judged, and streams that are closing.
const STREAMS_BESIDE: usize = 32;
/// Streams of one address, and of one block: what the machine lets in, and some that are being judged.
const SHARE: Share = Share {
    per_address: CALLS_SHARE.per_address + STREAMS_BESIDE,
    per_block: CALLS_SHARE.per_block + STREAMS_BESIDE,
};

/// Serves inbound call streams, those of this node itself included, until the node stops. Does nothing itself but start
/// tasks: while it is busy the library drops streams.
pub(super) async fn serve(incoming: InboundCalls, host: Arc<Host>, node: NodeClient) {
    let per_peer = CALLS_PER_PEER_MAX + STREAMS_BESIDE;
    let mut admission = StreamAdmission::<()>::new(CALLS_AT_WORK_MAX + STREAMS_BESIDE, per_peer, SHARE);
    let mut streams = inbound(incoming, host.own);
    let mut calls = JoinSet::new();
    // A task that panics cannot say whose it was, and its place must be freed all the same.
    let mut peers = BTreeMap::new();
    loop {
        tokio::select! {
            // New streams before ended ones: the library holds one that waits and drops the rest.
            biased;
            () = node.stopped() => return host.works.stop_all(),
            Some((peer, stream)) = streams.next() => {
                let admitted = admission.admit(peer, host.sources.of(&peer), || ());
                if let Err(reason) = admitted {
                    host.refusals.count(reason);
                } else {
                    peers.insert(calls.spawn(take(host.clone(), peer, stream)).id(), peer);
                }
            }
            Some(ended) = calls.join_next_with_id(), if !calls.is_empty() => {
                let id = ended.map_or_else(|broken| broken.id(), |(id, ())| id);
                peers.remove(&id).into_iter().for_each(|peer| admission.release(peer));
            }
        }
    }
}

/// The streams of peers and those of this node, with whoever opened them.
fn inbound(
    (of_peers, mut of_this): InboundCalls,
    own: PeerKey,
) -> impl Stream<Item = (PeerKey, CallStream)> + Unpin {
    let of_peers =
        of_peers.filter_map(|(peer, stream)| ready(peer_key(&peer).map(|peer| (peer, Either::Left(stream)))));
    let of_this = stream::poll_fn(move |context| of_this.poll_recv(context));
    stream::select(of_peers, of_this.map(move |stream| (own, stream)))
}

async fn take(host: Arc<Host>, peer: PeerKey, stream: CallStream) {
    if let Err(error) = host.take(peer, stream).await {
        tracing::debug!(%peer, %error, "call stream broke");
    }
}
