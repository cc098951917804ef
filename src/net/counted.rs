//! A connection that is counted while it is open, and the bytes of its streams: what protocols say and hear, without what
//! encryption and the transport add to it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::io::IoSlice;
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};
use prometheus_client::metrics::counter::Counter;

use crate::telemetry::metrics::ConnectionMetrics;

/// A connection; it is open until it is dropped.
pub(crate) struct CountedMuxer {
    muxer: StreamMuxerBox,
    metrics: ConnectionMetrics,
}

/// A stream of one.
pub(crate) struct CountedStream {
    stream: SubstreamBox,
    received: Counter,
    sent: Counter,
}

impl CountedMuxer {
    pub(crate) fn new(muxer: StreamMuxerBox, metrics: ConnectionMetrics) -> CountedMuxer {
        CountedMuxer { muxer, metrics }
    }

    fn counted(&self, stream: SubstreamBox) -> CountedStream {
        let ConnectionMetrics { received, sent, .. } = &self.metrics;
        CountedStream { stream, received: received.clone(), sent: sent.clone() }
    }
}

impl StreamMuxer for CountedMuxer {
    type Substream = CountedStream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<CountedStream>> {
        let opened = Pin::new(&mut self.muxer).poll_inbound(cx);
        opened.map_ok(|stream| self.counted(stream))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<CountedStream>> {
        let opened = Pin::new(&mut self.muxer).poll_outbound(cx);
        opened.map_ok(|stream| self.counted(stream))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.muxer).poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        Pin::new(&mut self.muxer).poll(cx)
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, to);
        count(&self.received, read)
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, from);
        count(&self.sent, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, from);
        count(&self.sent, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

fn count(counter: &Counter, moved: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
    if let Poll::Ready(Ok(bytes)) = moved {
        counter.inc_by(bytes as u64);
    }
    moved
}
