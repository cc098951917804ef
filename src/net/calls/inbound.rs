//! Which call streams are taken: those of peers within their shares, and those of this node itself.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures::future::Either;
use futures::stream::{self, Stream, StreamExt};
use futures::{AsyncRead, AsyncReadExt};
use tokio::task::JoinSet;

use super::host::Host;
use crate::net::addresses::peer_key;
use crate::net::client::NodeClient;
use crate::net::streams::admission::{StreamPlace, StreamPlaces};
use crate::net::streams::calls::{CallStream, InboundCalls};
use crate::net::streams::frames::{FrameError, read_body, read_head};
use crate::net::streams::kept::{KEPT_FOR, KEPT_PER_HOST_MAX};
use crate::proto::address_block::Share;
use crate::proto::identity::PeerKey;
use crate::proto::limits::{CALL_FRAME_BYTES_MAX, CALLS_AT_WORK_MAX, CALLS_PER_PEER_MAX, CALLS_SHARE};

/// How long an offer may take to come, and from the opening of a stream until it does.
const OFFER_PATIENCE: Duration = Duration::from_secs(5);
/// Streams beyond the calls at work: offers that are being judged, and streams that are closing.
const STREAMS_BESIDE: usize = 32;
/// Streams of one address, and of one block: what the machine lets in, and some that are being judged.
const SHARE: Share = Share {
    per_address: CALLS_SHARE.per_address + STREAMS_BESIDE,
    per_block: CALLS_SHARE.per_block + STREAMS_BESIDE,
};

/// Streams that wait for their next call: of one caller as many as it keeps, of all as many as a few hundred callers need. They
/// take no place from calls.
const KEPT_MAX: usize = 512;
/// Of one address, and of one block.
const KEPT_SHARE: Share = Share { per_address: 128, per_block: 256 };
/// How long such a stream may be silent: twice as long as its caller keeps it, so it is the caller that closes it.
const KEPT_SILENCE_MAX: Duration = Duration::from_secs(2 * KEPT_FOR.as_secs());

/// Serves inbound call streams, those of this node itself included, until the node stops. Does nothing itself but start
/// tasks: while it is busy the library drops streams.
pub(super) async fn serve(incoming: InboundCalls, host: Arc<Host>, node: NodeClient) {
    let per_peer = CALLS_PER_PEER_MAX + STREAMS_BESIDE;
    let at_work = StreamPlaces::new(CALLS_AT_WORK_MAX + STREAMS_BESIDE, per_peer, SHARE);
    let kept = StreamPlaces::new(KEPT_MAX, KEPT_PER_HOST_MAX, KEPT_SHARE);
    let mut streams = inbound(incoming, host.own);
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            // New streams before ended ones: the library holds one that waits and drops the rest.
            biased;
            () = node.stopped() => return host.works.stop_all(),
            Some((peer, stream)) = streams.next() => {
                match at_work.admit(peer, host.sources.of(&peer)) {
                    Err(reason) => host.refusals.count(reason),
                    Ok(place) => {
                        let inbound = Inbound { host: host.clone(), peer, at_work: at_work.clone(), kept: kept.clone() };
                        drop(calls.spawn(inbound.run(stream, place)));
                    }
                }
            }
            Some(_ended) = calls.join_next(), if !calls.is_empty() => {}
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

/// One stream.
struct Inbound {
    host: Arc<Host>,
    peer: PeerKey,
    at_work: StreamPlaces,
    kept: StreamPlaces,
}

impl Inbound {
    async fn run(self, stream: CallStream, place: StreamPlace) {
        if let Err(error) = self.take_calls(stream, place).await {
            tracing::debug!(peer = %self.peer, %error, "call stream broke");
        }
    }

    /// Takes one call after the other, until there is no place for the stream or its caller closes it.
    async fn take_calls(&self, stream: CallStream, mut place: StreamPlace) -> Result<(), FrameError> {
        let (mut reader, mut writer) = stream.split();
        let mut length = read_head(&mut reader, CALL_FRAME_BYTES_MAX, OFFER_PATIENCE).await?;
        loop {
            let offer = read_body(&mut reader, length, OFFER_PATIENCE).await?;
            let Some(halves) = self.host.take(self.peer, (reader, writer), &offer).await? else {
                return Ok(());
            };
            (reader, writer) = halves;
            drop(place);
            let source = self.host.sources.of(&self.peer);
            let Ok(waiting) = self.kept.admit(self.peer, source) else { return Ok(()) };
            length = next_offer(&mut reader, waiting, KEPT_SILENCE_MAX).await?;
            place = self.at_work.admit(self.peer, source).map_err(|reason| {
                self.host.refusals.count(reason);
                FrameError::Closed("there is no place for its next call".into())
            })?;
        }
    }
}

/// Waits for the next offer, whose length this is; the place among those that wait is free then.
async fn next_offer<R: AsyncRead + Unpin>(
    reader: &mut R,
    _waiting: StreamPlace,
    silence_max: Duration,
) -> Result<usize, FrameError> {
    read_head(reader, CALL_FRAME_BYTES_MAX, silence_max).await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;
    use crate::proto::identity::Identity;

    #[tokio::test]
    async fn a_stream_that_stays_silent_gives_its_place_back() {
        let (places, peer) = (StreamPlaces::new(1, 1, KEPT_SHARE), Identity::from_seed([1; 32]).key());
        let (near, mut far) = duplex(8);
        let mut near = near.compat();
        far.write_all(&[0, 0, 0]).await.unwrap();
        let waiting = places.admit(peer, None).unwrap();
        assert!(places.admit(peer, None).is_err());
        let late = next_offer(&mut near, waiting, Duration::from_millis(20)).await;
        assert_eq!(late, Err(FrameError::TooSlow("speak")), "less than a head is no word");
        assert!(places.admit(peer, None).is_ok());
    }
}
