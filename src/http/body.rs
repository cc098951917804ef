//! Reading request bodies under limits of size, time and memory, and what stays held until an answer has left.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use futures::StreamExt;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::failure::Failure;
use crate::host::{Reason, Refusals};
use crate::proto::code::Code;

/// Bytes read and dropped beyond the limit: a client that gets an answer while it still sends sees a broken
/// connection instead of the answer.
const DRAINED_BYTES_MAX: usize = 96 * 1024 * 1024;
/// How long a body may take: 32 MiB at 5 Mbit/s.
pub(super) const BODY_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a body may take to begin with, whatever its size.
const PATIENCE: Duration = Duration::from_secs(5);
/// And the bytes for which it gets another second: half a megabit.
const BYTES_PER_SECOND: usize = 64 * 1024;
/// Memory of the bodies that are being read or at work, KiB: eight of the largest.
const MEMORY_KIB_MAX: usize = 256 * 1024;
/// Bytes of each body that count nothing: there is always room for the usual ones, which connections bound.
const SMALL_BYTES_MAX: usize = 64 * 1024;

/// The memory of all bodies.
pub(super) struct Memory {
    kib: Arc<Semaphore>,
    refusals: Refusals,
}

impl Memory {
    pub(super) fn new(refusals: Refusals) -> Memory {
        Memory { kib: Arc::new(Semaphore::new(MEMORY_KIB_MAX)), refusals }
    }

    /// All of a body of at most `bytes_max`, and its place in memory. Memory is taken for what has come and not for what is
    /// announced; `touch` is called with each part.
    pub(super) async fn read<B>(
        &self,
        body: B,
        bytes_max: usize,
        touch: impl Fn(),
    ) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), Failure>
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let (mut bytes, mut place, mut total) = (Vec::new(), None, 0_usize);
        // Most requests have none, and a deadline for each would wake the runtime's clock.
        if body.is_end_stream() {
            return Ok((bytes, place));
        }
        let began = Instant::now();
        let mut parts = Body::new(body).into_data_stream();
        loop {
            let due = PATIENCE + Duration::from_secs((total / BYTES_PER_SECOND) as u64);
            let part = timeout_at(began + due.min(BODY_TIME_MAX), parts.next()).await;
            let part = part.map_err(|_| {
                self.refusals.count(Reason::BodyLate);
                late(total, began.elapsed())
            })?;
            let Some(part) = part else { break };
            let part = part.map_err(broken)?;
            touch();
            total = total.saturating_add(part.len());
            if total <= bytes_max {
                self.grow(&mut place, total)?;
                bytes.extend_from_slice(&part);
                continue;
            }
            // Freed at once: the rest is read only so that the client comes to our answer.
            (bytes, place) = (Vec::new(), None);
            if total > DRAINED_BYTES_MAX {
                break;
            }
        }
        if total > bytes_max {
            return Err(too_large(bytes_max, "send it in several requests"));
        }
        Ok((bytes, place))
    }

    /// A place of the size of a body of which `total` bytes have come.
    fn grow(&self, place: &mut Option<OwnedSemaphorePermit>, total: usize) -> Result<(), Failure> {
        let held = place.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = total.saturating_sub(SMALL_BYTES_MAX).div_ceil(1024);
        let Some(more) = wanted.checked_sub(held).filter(|more| *more > 0) else { return Ok(()) };
        let taken =
            u32::try_from(more).ok().and_then(|more| self.kib.clone().try_acquire_many_owned(more).ok());
        let Some(taken) = taken else {
            self.refusals.count(Reason::BodyMemory);
            return Err(Failure::busy("KiB of request bodies", MEMORY_KIB_MAX));
        };
        match place {
            Some(place) => place.merge(taken),
            None => *place = Some(taken),
        }
        Ok(())
    }
}

/// A body that holds something until it has left or is dropped.
pub(super) struct Held<T> {
    body: Body,
    _held: T,
}

impl<T> Held<T> {
    pub(super) fn new(body: Body, held: T) -> Held<T> {
        Held { body, _held: held }
    }
}

impl<T: Unpin> HttpBody for Held<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The whole body of at most `bytes_max`. Fails with `too_large` and what to do then, or when it stops half-way.
pub(super) async fn read(body: Body, bytes_max: usize, instead: &str) -> Result<Vec<u8>, Failure> {
    match timeout(BODY_TIME_MAX, collect(body, bytes_max, instead)).await {
        Ok(read) => read,
        Err(_) => Err(late(0, BODY_TIME_MAX)),
    }
}

async fn collect(body: Body, bytes_max: usize, instead: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut total = 0_usize;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(broken)?;
        // Counted as it comes: a length in the head may be missing.
        total = total.saturating_add(chunk.len());
        if total <= bytes_max {
            bytes.extend_from_slice(&chunk);
            continue;
        }
        // Freed at once: the rest is read only so that the client comes to our answer.
        bytes = Vec::new();
        // Who sends without end sees a broken connection, but costs no more.
        if total > DRAINED_BYTES_MAX {
            break;
        }
    }
    if total > bytes_max {
        return Err(too_large(bytes_max, instead));
    }
    Ok(bytes)
}

fn broken(error: axum::Error) -> Failure {
    Failure::new(Code::BadRequest, format!("the body stopped half-way: {error}"), "send it again")
}

fn late(bytes: usize, after: Duration) -> Failure {
    let seconds = after.as_secs();
    Failure::new(
        Code::TimedOut,
        format!(
            "of the body {bytes} bytes arrived within {seconds} s, less than {BYTES_PER_SECOND} a second"
        ),
        "send it over a faster link, or in smaller parts",
    )
}

fn too_large(bytes_max: usize, instead: &str) -> Failure {
    Failure::new(Code::TooLarge, format!("the body has more than {bytes_max} bytes"), instead)
}
