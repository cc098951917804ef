//! One stream of a call that this node makes: what is waited for on it, and what is said on it last.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncWriteExt, FutureExt};
use serde_json::Value;
use tokio::time::timeout;
use tracing::Span;

use super::{FRAME_DEADLINE, read_json};
use crate::net::streams::calls::{CallStream, OpenCall};
use crate::net::streams::frames::{FrameError, read_frame, write_frame};
use crate::net::streams::kept::{KeptStreams, OpenStream, Upgrades};
use crate::proto::call::{CallReply, CallRequest, Loss};
use crate::proto::identity::PeerKey;
use crate::proto::limits::{CALL_FRAME_BYTES_MAX, CALL_TIME_MAX};

/// How long the last word of a host that stopped reading may take: it was sent before. And how long the caller's own may.
const LAST_WORD_PATIENCE: Duration = Duration::from_secs(1);

type Reader = ReadHalf<CallStream>;
type Writer = WriteHalf<CallStream>;

/// What a call waited for of the network.
pub(super) enum Done {
    Opened(Result<Box<OpenStream>, String>),
    /// All was said that was to be said; the host is listened to now.
    Said(Reader, Writer),
    Heard(Result<(Reader, CallReply), FrameError>),
    Taken(Result<(Reader, Value), FrameError>),
    Searched,
}

/// One stream of a call. Of its halves those are here on which nothing is waited for.
pub(super) struct Leg {
    pub(super) reader: Option<Reader>,
    pub(super) writer: Option<Writer>,
    pub(super) waiting: BoxFuture<'static, Done>,
    /// None where none is spoken to.
    pub(super) host: Option<PeerKey>,
    /// Whether the host takes another call on the stream.
    pub(super) keeps: bool,
    pub(super) upgrades: Upgrades,
    /// Whether it carried another call, and nothing was heard on it since.
    pub(super) is_unproven: bool,
    pub(super) span: Span,
    pub(super) _under_way: Option<OpenCall>,
}

/// What is said last of a call.
pub(super) struct LastWord {
    word: CallRequest,
    writer: Writer,
    /// Where the stream is for the next call.
    kept: Option<(PeerKey, Reader, Upgrades)>,
}

impl Leg {
    pub(super) fn new(waiting: BoxFuture<'static, Done>, span: Span) -> Leg {
        Leg {
            reader: None,
            writer: None,
            waiting,
            host: None,
            keeps: false,
            upgrades: Upgrades::default(),
            is_unproven: false,
            span,
            _under_way: None,
        }
    }

    /// The stream is there.
    pub(super) fn opened(&mut self, OpenStream { halves: (reader, writer), upgrades }: OpenStream) {
        (self.reader, self.writer, self.upgrades) = (Some(reader), Some(writer), upgrades);
    }

    /// Waits for what the host says.
    pub(super) fn listen(&mut self, longest: Duration) {
        if let Some(reader) = self.reader.take() {
            self.waiting = hear(reader, longest).boxed();
        }
    }

    /// Waits for the output.
    pub(super) fn take(&mut self, size: usize) {
        if let Some(reader) = self.reader.take() {
            self.waiting = take_output(reader, size).map(Done::Taken).boxed();
        }
    }

    pub(super) fn send(
        &mut self,
        frame: impl Future<Output = Result<(Arc<Vec<u8>>, Duration), FrameError>> + Send + 'static,
    ) {
        if let (Some(mut reader), Some(mut writer)) = (self.reader.take(), self.writer.take()) {
            let sending = async move {
                let sent = match frame.await {
                    Ok((frame, longest)) => write_frame(&mut writer, &frame, longest).await,
                    Err(error) => return Done::Heard(Err(error)),
                };
                match sent {
                    Ok(()) => Done::Said(reader, writer),
                    // A host that takes no more of an input has said why before.
                    Err(error) => {
                        let last = last_word(&mut reader, error).await;
                        Done::Heard(last.map(|reply| (reader, reply)))
                    }
                }
            };
            self.waiting = sending.boxed();
        }
    }

    /// The machine is told so where the stream broke.
    pub(super) fn loss(&self, error: FrameError) -> Loss {
        match error {
            FrameError::Closed(_) if self.is_unproven => Loss::Stale,
            FrameError::Closed(why) => Loss::Closed(why),
            FrameError::TooSlow(_) => Loss::TooSlow(error.to_string()),
            FrameError::Malformed | FrameError::TooLarge(_) => Loss::Violation(error.to_string()),
        }
    }

    /// Ends with this word, if the stream is between two frames.
    pub(super) fn close_with(self, word: CallRequest) -> Option<LastWord> {
        let Leg { reader, writer, host, keeps, upgrades, .. } = self;
        // A host that hears anything else ends the stream.
        let host = host.filter(|_| keeps && word == CallRequest::Taken);
        let kept = host.zip(reader).map(|(host, reader)| (host, reader, upgrades));
        Some(LastWord { word, writer: writer?, kept })
    }
}

impl LastWord {
    /// Says it, and keeps the stream for the next call.
    pub(super) async fn say(self, streams: &KeptStreams) -> Result<(), FrameError> {
        let LastWord { word, mut writer, kept } = self;
        write_frame(&mut writer, &word.encode(), LAST_WORD_PATIENCE).await?;
        match kept {
            Some((host, reader, upgrades)) => {
                streams.put(host, OpenStream { halves: (reader, writer), upgrades });
            }
            None => {
                let closed = timeout(LAST_WORD_PATIENCE, writer.close()).await;
                closed.map_err(|_| FrameError::TooSlow("take a frame"))??;
            }
        }
        Ok(())
    }
}

/// A host may be silent for as long as the caller waits; the machine says when that is too long.
async fn hear(mut reader: Reader, longest: Duration) -> Done {
    let frame = read_frame(&mut reader, CALL_FRAME_BYTES_MAX, longest, FRAME_DEADLINE).await;
    let reply = frame.and_then(|frame| CallReply::decode(&frame).map_err(|_| FrameError::Malformed));
    Done::Heard(reply.map(|reply| (reader, reply)))
}

/// What a host that reads no more said before.
async fn last_word(reader: &mut Reader, error: FrameError) -> Result<CallReply, FrameError> {
    let last = read_frame(reader, CALL_FRAME_BYTES_MAX, LAST_WORD_PATIENCE, LAST_WORD_PATIENCE).await;
    last.ok().and_then(|frame| CallReply::decode(&frame).ok()).ok_or(error)
}

async fn take_output(mut reader: Reader, size: usize) -> Result<(Reader, Value), FrameError> {
    let output = read_frame(&mut reader, size, CALL_TIME_MAX, CALL_TIME_MAX).await?;
    Ok((reader, read_json(output).await.ok_or(FrameError::Malformed)?))
}
