//! Reading a request body under a limit.

use std::time::Duration;

use axum::body::Body;
use futures::StreamExt;
use tokio::time::timeout;

use super::failure::Failure;
use crate::proto::code::Code;

/// Bytes read and dropped beyond the limit: a client that gets an answer while it still sends sees a broken
/// connection instead of the answer.
const DRAINED_BYTES_MAX: usize = 96 * 1024 * 1024;
/// How long a body may take: 32 MiB at 5 Mbit/s.
pub(super) const BODY_TIME_MAX: Duration = Duration::from_secs(60);

/// The whole body of at most `bytes_max`. Fails with `too_large` and what to do then, or when it stops half-way.
pub(super) async fn read(body: Body, bytes_max: usize, instead: &str) -> Result<Vec<u8>, Failure> {
    match timeout(BODY_TIME_MAX, collect(body, bytes_max, instead)).await {
        Ok(read) => read,
        Err(_) => Err(Failure::new(
            Code::TimedOut,
            format!("the body did not arrive within {} s", BODY_TIME_MAX.as_secs()),
            "send it in smaller parts",
        )),
    }
}

async fn collect(body: Body, bytes_max: usize, instead: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut total = 0_usize;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            Failure::new(Code::BadRequest, format!("the body stopped half-way: {error}"), "send it again")
        })?;
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
        return Err(Failure::new(
            Code::TooLarge,
            format!("the body has more than {bytes_max} bytes"),
            instead,
        ));
    }
    Ok(bytes)
}
