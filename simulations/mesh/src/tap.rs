//! Copies of updates on their way, counted where they are written: above encryption, on every stream of every node.
//!
//! What a stream carries is read from its own first words, the protocol negotiation. Of gossip every message is decoded,
//! of sync every frame; a signed record of an update is one copy. Its bytes are those of the gossip message or of the
//! record in the frame, without the framing below.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use aop::proto::message::{Envelope, SyncAnswer, SyncFrame, SyncRequest};
use aop::proto::record::SignedRecord;
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};

use crate::updates::{NETWORK, number};

/// Copies and their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Copies {
    /// Sent by gossip.
    pub gossip: u64,
    /// Sent by sync.
    pub sync: u64,
    /// Bytes of both.
    pub bytes: u64,
}

/// Where the copies of one run are counted.
#[derive(Clone, Default)]
pub struct Tap(Arc<Mutex<Copies>>);

impl Tap {
    /// What was counted so far.
    pub fn copies(&self) -> Copies {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, add: impl FnOnce(&mut Copies)) {
        add(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A connection whose streams are read along.
pub struct Tapped {
    inner: StreamMuxerBox,
    tap: Tap,
}

impl Tapped {
    /// Taps a connection.
    pub fn new(inner: StreamMuxerBox, tap: Tap) -> Tapped {
        Tapped { inner, tap }
    }

    fn inner(self: Pin<&mut Self>) -> Pin<&mut StreamMuxerBox> {
        Pin::new(&mut self.get_mut().inner)
    }
}

impl StreamMuxer for Tapped {
    type Substream = TappedStream;
    type Error = io::Error;

    fn poll_inbound(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<TappedStream>> {
        let tap = self.tap.clone();
        self.inner().poll_inbound(context).map_ok(|inner| TappedStream::new(inner, tap, Side::Answers))
    }

    fn poll_outbound(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<TappedStream>> {
        let tap = self.tap.clone();
        self.inner().poll_outbound(context).map_ok(|inner| TappedStream::new(inner, tap, Side::Asks))
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_close(context)
    }

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        self.inner().poll(context)
    }
}

/// A stream whose written bytes are read along.
pub struct TappedStream {
    inner: SubstreamBox,
    tap: Tap,
    reading: Reading,
    /// Written and not yet a whole frame.
    pending: Vec<u8>,
}

/// Who opened a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Asks,
    Answers,
}

/// What the next bytes of a stream are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Negotiation(Side),
    Gossip,
    /// One byte, before the answers.
    Greeting,
    Sync(Side),
    Nothing,
}

impl TappedStream {
    fn new(inner: SubstreamBox, tap: Tap, side: Side) -> TappedStream {
        TappedStream { inner, tap, reading: Reading::Negotiation(side), pending: Vec::new() }
    }

    fn written(&mut self, bytes: &[u8]) {
        if self.reading == Reading::Nothing {
            return;
        }
        self.pending.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(length) = self.read_one(at) {
            at += length;
        }
        self.pending.drain(..at);
        if self.reading == Reading::Nothing || self.pending.is_empty() {
            self.pending = Vec::new();
        }
    }

    /// Reads what begins at a place, if it is whole; its length.
    fn read_one(&mut self, at: usize) -> Option<usize> {
        let rest = &self.pending[at..];
        match self.reading {
            Reading::Nothing => None,
            Reading::Greeting => {
                rest.first()?;
                self.reading = Reading::Sync(Side::Answers);
                Some(1)
            }
            Reading::Negotiation(side) => {
                let (frame, length) = varint_frame(rest)?;
                self.reading = spoken(frame, side);
                Some(length)
            }
            Reading::Gossip => {
                let (frame, length) = varint_frame(rest)?;
                gossip_messages(frame).for_each(|message| self.count_gossip(message));
                Some(length)
            }
            Reading::Sync(side) => {
                let head = rest.first_chunk::<4>()?;
                let end = 4 + u32::from_be_bytes(*head) as usize;
                self.count_sync(side, rest.get(4..end)?);
                Some(end)
            }
        }
    }

    fn count_gossip(&self, message: &[u8]) {
        let Some(data) = fields(message).find_map(|(field, data)| (field == MESSAGE_DATA).then_some(data))
        else {
            return;
        };
        let Ok(Envelope::Records(records)) = Envelope::decode(data) else { return };
        let copies = records.iter().filter(|record| is_update(record)).count() as u64;
        if copies > 0 {
            self.tap.count(|counts| {
                counts.gossip += copies;
                counts.bytes += message.len() as u64;
            });
        }
    }

    fn count_sync(&self, side: Side, frame: &[u8]) {
        let records = match side {
            Side::Asks => match SyncFrame::decode(frame).map(|frame| frame.request) {
                Ok(SyncRequest::Give { records, .. }) => records,
                _ => return,
            },
            Side::Answers => match SyncAnswer::decode(frame) {
                Ok(SyncAnswer::Records { records, .. }) => records,
                _ => return,
            },
        };
        for record in records.iter().filter(|record| is_update(record)) {
            self.tap.count(|counts| {
                counts.sync += 1;
                counts.bytes += record.len() as u64;
            });
        }
    }
}

/// A line of the negotiation says what follows it; a proposal may be followed by another.
fn spoken(line: &[u8], side: Side) -> Reading {
    let line = String::from_utf8_lossy(line);
    match (line.trim_end(), side) {
        ("/multistream/1.0.0" | "na", side) => Reading::Negotiation(side),
        (protocol, _) if protocol.starts_with("/meshsub/") => Reading::Gossip,
        (protocol, Side::Asks) if protocol.ends_with("/sync/1") => Reading::Sync(Side::Asks),
        (protocol, Side::Answers) if protocol.ends_with("/sync/1") => Reading::Greeting,
        _ => Reading::Nothing,
    }
}

fn is_update(record: &[u8]) -> bool {
    SignedRecord::parse(record, NETWORK).is_ok_and(|record| number(record.header().name.as_str()).is_some())
}

/// Fields of gossipsub's protobuf: `RPC.publish` and `Message.data`.
const RPC_PUBLISH: u64 = 2;
const MESSAGE_DATA: u64 = 2;

/// The messages of a gossip frame. A second proposal of the negotiation begins with `/`, which is no field: it has none.
fn gossip_messages(frame: &[u8]) -> impl Iterator<Item = &[u8]> {
    fields(frame).filter_map(|(field, message)| (field == RPC_PUBLISH).then_some(message))
}

/// The fields of a protobuf message that have a length; it ends at the first thing that is no field.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    std::iter::from_fn(move || {
        loop {
            let (tag, length) = varint(bytes)?;
            bytes = &bytes[length..];
            match tag & 7 {
                0 => bytes = &bytes[varint(bytes)?.1..],
                2 => {
                    let (field, length) = varint_frame(bytes)?;
                    bytes = &bytes[length..];
                    return Some((tag >> 3, field));
                }
                _ => return None,
            }
        }
    })
}

/// A length and that many bytes, if they are all there; the whole length.
fn varint_frame(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (length, head) = varint(bytes)?;
    let end = head + usize::try_from(length).ok()?;
    Some((bytes.get(head..end)?, end))
}

/// A number of seven bits a byte, least first, and the bytes it took.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0;
    for (at, byte) in bytes.iter().enumerate().take(9) {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((number, at + 1));
        }
    }
    None
}

impl AsyncRead for TappedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for TappedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(context, bytes);
        if let Poll::Ready(Ok(length)) = result {
            self.written(&bytes[..length]);
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(context)
    }
}
