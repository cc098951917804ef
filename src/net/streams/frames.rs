//! Frames of a stream: a big-endian `u32` length and that many bytes.
//!
//! A length is judged before anything is allocated, and every frame has a deadline.

use std::io;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Bytes of a frame that go out with its head as one write: one packet instead of two.
const JOINED_BYTES_MAX: usize = 8 * 1024;

/// Why a frame did not come or go. The stream is of no more use.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum FrameError {
    /// Its length is beyond what is allowed at this place.
    #[error("a frame of {0} bytes, more than is allowed here")]
    TooLarge(usize),
    /// A deadline passed.
    #[error("the peer did not {0} in time")]
    TooSlow(&'static str),
    /// Its content makes no sense at this place.
    #[error("the peer broke the protocol")]
    Malformed,
    /// The stream ended or broke.
    #[error("the peer closed the stream: {0}")]
    Closed(String),
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> FrameError {
        FrameError::Closed(error.to_string())
    }
}

/// Writes a frame within `deadline`.
pub(crate) async fn write_frame<W: AsyncWrite + Unpin>(
    writer: &mut W,
    frame: &[u8],
    deadline: Duration,
) -> Result<(), FrameError> {
    let length = u32::try_from(frame.len()).map_err(|_| FrameError::TooLarge(frame.len()))?.to_be_bytes();
    let write = async {
        let (first, rest) = frame.split_at(frame.len().min(JOINED_BYTES_MAX));
        writer.write_all(&[&length, first].concat()).await?;
        writer.write_all(rest).await?;
        // Within the deadline as well: what a buffer holds has not gone.
        writer.flush().await
    };
    Ok(timeout(deadline, write).await.map_err(|_| FrameError::TooSlow("take a frame"))??)
}

/// Waits up to `patience` for the head of a frame of at most `bytes_max`, then up to `deadline` for the rest.
pub(crate) async fn read_frame<R: AsyncRead + Unpin>(
    reader: &mut R,
    bytes_max: usize,
    patience: Duration,
    deadline: Duration,
) -> Result<Vec<u8>, FrameError> {
    // Two times: silence between frames is allowed for long, a frame that has begun must come.
    let length = read_head(reader, bytes_max, patience).await?;
    read_body(reader, length, deadline).await
}

/// The first half of [`read_frame`]: the length of what follows.
pub(crate) async fn read_head<R: AsyncRead + Unpin>(
    reader: &mut R,
    bytes_max: usize,
    patience: Duration,
) -> Result<usize, FrameError> {
    let mut head = [0; 4];
    timeout(patience, reader.read_exact(&mut head)).await.map_err(|_| FrameError::TooSlow("speak"))??;
    let length = u32::from_be_bytes(head) as usize;
    // The head is a stranger's word: no memory for it before it is judged.
    if length > bytes_max {
        return Err(FrameError::TooLarge(length));
    }
    Ok(length)
}

/// The other half.
pub(crate) async fn read_body<R: AsyncRead + Unpin>(
    reader: &mut R,
    length: usize,
    deadline: Duration,
) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; length];
    let rest = timeout(deadline, reader.read_exact(&mut frame)).await;
    rest.map_err(|_| FrameError::TooSlow("finish a frame"))??;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;

    const BYTES_MAX: usize = 40_000;
    const LONG: Duration = Duration::from_secs(20);

    async fn read(bytes: &[u8]) -> Result<Vec<u8>, FrameError> {
        read_frame(&mut Cursor::new(bytes), BYTES_MAX, LONG, LONG).await
    }

    #[tokio::test]
    async fn a_frame_reads_back_what_was_written() {
        for frame in [&b"hello"[..], &[7; BYTES_MAX], &[]] {
            let mut wire = Cursor::new(Vec::new());
            write_frame(&mut wire, frame, LONG).await.unwrap();
            assert_eq!(read(wire.get_ref()).await.unwrap(), frame);
        }
    }

    #[tokio::test]
    async fn a_length_beyond_the_limit_is_refused_before_its_bytes_arrive() {
        let length = BYTES_MAX + 1;
        let refused = read(&(length as u32).to_be_bytes()).await;
        assert_eq!(refused, Err(FrameError::TooLarge(length)));
    }

    #[tokio::test]
    async fn a_frame_cut_short_is_an_error() {
        assert!(matches!(read(&[0, 0, 0, 9, 1, 2]).await, Err(FrameError::Closed(_))));
    }
}
