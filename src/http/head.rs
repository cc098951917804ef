//! Watches the heads of requests as they arrive, for what the HTTP library lets pass or hides: heads that are too long, and
//! requests that name two lengths of their body, which two programs in a row could read as different requests.
//!
//! A head ends where its body begins. A body with a length is counted off; after one in chunks the connection is closed, so
//! that no head comes where nobody knows that it begins.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Largest head of a request, bytes: names and queries are far shorter.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What the heads of a connection were so far; it only gets worse.
#[derive(Clone, Debug, Default)]
pub(super) struct Heads(Arc<AtomicU8>);

/// The worst that a head of a connection was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HeadKind {
    /// As it should be.
    Plain,
    /// The body comes in chunks.
    Chunked,
    /// Longer than [`HEAD_BYTES_MAX`].
    TooLong,
    /// It has a length and chunks.
    TwoLengths,
}

const KINDS: [HeadKind; 4] = [HeadKind::Plain, HeadKind::Chunked, HeadKind::TooLong, HeadKind::TwoLengths];

impl Heads {
    /// The worst so far.
    pub(super) fn worst(&self) -> HeadKind {
        KINDS[usize::from(self.0.load(Ordering::Acquire)).min(KINDS.len() - 1)]
    }

    fn note(&self, kind: HeadKind) {
        self.0.fetch_max(kind as u8, Ordering::AcqRel);
    }
}

/// A stream whose reader is watched.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    heads: Heads,
    expected: Expected,
}

#[derive(Debug)]
enum Expected {
    /// A head, of which so much is here.
    Head(Vec<u8>),
    /// So many bytes of a body.
    Body(u64),
    /// Nothing more is looked at.
    Anything,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, heads: Heads) -> Watched<S> {
        Watched { stream, heads, expected: Expected::Head(Vec::new()) }
    }

    fn look(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            match &mut self.expected {
                Expected::Anything => return,
                Expected::Body(left) => {
                    let passed = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= passed as u64;
                    bytes = &bytes[passed..];
                    if *left == 0 {
                        self.expected = Expected::Head(Vec::new());
                    }
                }
                // Empty lines before a head are none of it.
                Expected::Head(head) if head.is_empty() && matches!(first, b'\r' | b'\n') => bytes = rest,
                Expected::Head(head) => {
                    head.push(*first);
                    bytes = rest;
                    if head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n") {
                        let body = body_of(head);
                        self.enter(body);
                    } else if head.len() > HEAD_BYTES_MAX {
                        self.heads.note(HeadKind::TooLong);
                        self.expected = Expected::Anything;
                    }
                }
            }
        }
    }

    fn enter(&mut self, body: Body) {
        self.expected = match body {
            Body { is_chunked: true, length } => {
                self.heads.note(length.map_or(HeadKind::Chunked, |_| HeadKind::TwoLengths));
                Expected::Anything
            }
            Body { length: None | Some(0), .. } => Expected::Head(Vec::new()),
            Body { length: Some(length), .. } => Expected::Body(length),
        };
    }
}

/// What a head says of its body.
struct Body {
    is_chunked: bool,
    length: Option<u64>,
}

fn body_of(head: &[u8]) -> Body {
    let mut body = Body { is_chunked: false, length: None };
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            body.is_chunked = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            // What is no number is refused by the library.
            let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            body.length = Some(length.unwrap_or(0));
        }
    }
    body
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        this.look(&buffer.filled()[before..]);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worst of these heads, read in parts of every size.
    fn worst(text: &str) -> HeadKind {
        let all: Vec<HeadKind> = [1, 2, 7, 100_000]
            .iter()
            .map(|size| {
                let heads = Heads::default();
                let mut watched = Watched::new((), heads.clone());
                text.as_bytes().chunks(*size).for_each(|part| watched.look(part));
                heads.worst()
            })
            .collect();
        assert!(all.iter().all(|kind| *kind == all[0]), "{all:?}");
        all[0]
    }

    #[test]
    fn a_request_with_two_lengths_is_noticed_in_any_order_and_behind_any_other() {
        let (length, chunks) = ("Content-Length: 3\r\n", "transfer-ENCODING : chunked\r\n");
        let plain = "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n\r\n\r\nabcde";
        let get = "\r\nGET / HTTP/1.1\nHost: x\n\n";
        for both in [format!("{length}{chunks}"), format!("{chunks}{length}")] {
            let post = format!("POST / HTTP/1.1\r\n{both}\r\n");
            for before in ["", plain, get] {
                assert_eq!(worst(&format!("{before}{post}")), HeadKind::TwoLengths, "{before}");
            }
        }
        assert_eq!(worst(&format!("POST / HTTP/1.1\r\n{chunks}\r\n0\r\n\r\n")), HeadKind::Chunked);
        assert_eq!(worst(&format!("{plain}{get}{plain}")), HeadKind::Plain);
    }

    #[test]
    fn a_body_that_looks_like_a_head_is_none() {
        let inside = "x: y\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let post = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{inside}", inside.len());
        assert_eq!(worst(&format!("{post}{post}")), HeadKind::Plain);
    }

    #[test]
    fn a_head_beyond_its_length_is_noticed() {
        let head = |bytes: usize| format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(bytes));
        assert_eq!(worst(&head(HEAD_BYTES_MAX - 100)), HeadKind::Plain);
        assert_eq!(worst(&head(HEAD_BYTES_MAX)), HeadKind::TooLong);
    }
}
