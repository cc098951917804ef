//! Batches: many calls in one question, so many at once, one deadline.

use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;

use super::call::judge_time;
use super::tasks::refused;
use super::{CallOptions, Handle};
use crate::api::{self, ApiError};
use crate::host::view;
use crate::proto::call::{CallFailure, CallId, Outcome};
use crate::proto::code::Code;
use crate::proto::limits::CALL_TIME_MAX;

/// Calls in a batch.
pub const BATCH_CALLS_MAX: usize = 1_000;
/// Of these, at work at once: more than the places of most agents, and little beside what a node makes.
const AT_ONCE: usize = 32;
/// Bytes of all results; results beyond it are left out and said to be.
const RESULTS_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Makes all calls of a batch and answers in their order; `options` hold for each, and the timeout for all together, 300 s
/// without one.
///
/// # Errors
/// The timeout, or the number of calls. What became of a call is in its answer.
pub async fn call_batch(
    handle: &Handle,
    calls: Vec<api::BatchCall>,
    options: CallOptions,
) -> Result<api::BatchAnswer, ApiError> {
    judge_time(options.timeout, CALL_TIME_MAX)?;
    if calls.len() > BATCH_CALLS_MAX {
        let count = calls.len();
        return Err(view::bad_request(format!("{count} calls: a batch has at most {BATCH_CALLS_MAX}")));
    }
    let deadline = Instant::now() + options.timeout.unwrap_or(CALL_TIME_MAX);
    let is_limited = options.timeout.is_some();
    let calls = calls.into_iter().map(|call| one(handle, call, &options, deadline, is_limited));
    let mut results: Vec<api::CallAnswer> = futures::stream::iter(calls).buffered(AT_ONCE).collect().await;
    let mut bytes = 0_usize;
    for answer in &mut results {
        bytes = bytes.saturating_add(answer.result.to_string().len());
        if bytes > RESULTS_BYTES_MAX {
            *answer = left_out(answer);
        }
    }
    Ok(api::BatchAnswer { results })
}

async fn one(
    handle: &Handle,
    call: api::BatchCall,
    options: &CallOptions,
    deadline: Instant,
    is_limited: bool,
) -> api::CallAnswer {
    let left = deadline.saturating_duration_since(Instant::now());
    let id = CallId(rand::random());
    if left.is_zero() {
        let message = "the time of the batch was over before the call began";
        let late = CallFailure::new(Code::Deadline, Outcome::NotStarted, message);
        return view::not_made(late, id, Instant::now());
    }
    // Without a timeout of the batch the agent's own limits hold, within what is left.
    let options = CallOptions { timeout: is_limited.then_some(left), ..options.clone() };
    let called = tokio::time::timeout(left + GRACE, handle.call(&call.agent, call.input, options)).await;
    match called {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => refused(error, id),
        Err(_) => {
            let message = "the call was not done within the time of the batch";
            view::not_made(CallFailure::new(Code::Deadline, Outcome::Unknown, message), id, Instant::now())
        }
    }
}

/// How long the own end of a call may take: what its host says of it is worth more than what the clock says.
const GRACE: Duration = Duration::from_secs(1);

fn left_out(answer: &api::CallAnswer) -> api::CallAnswer {
    let message = format!(
        "the results of the batch have more than {RESULTS_BYTES_MAX} bytes, and this one was left out; make smaller batches"
    );
    api::CallAnswer {
        result: serde_json::Value::Null,
        success: false,
        outcome: Some(Outcome::Done),
        error: Some(api::CallError { code: Code::TooLarge, message, ..api::CallError::default() }),
        ..answer.clone()
    }
}
