//! How calls ended.

use tokio::time::Instant;

use super::agent::endpoints;
use super::ms;
use crate::api;
use crate::net::calls::CallResult;
use crate::proto::call::{CallFailure, CallId, Outcome};
use crate::proto::card::AgentCard;
use crate::proto::code::Code;
use crate::proto::name::FullName;
use crate::telemetry::metrics::Side;
use crate::telemetry::recent_calls::{CallEvent, CallState, CallSubject, SeenCall};

/// How a call ended; a host served it unless nothing was started.
pub(in crate::host) fn call_answer(ended: CallResult, call: CallId, started: Instant) -> api::CallAnswer {
    let (result, failure) = match ended.result {
        Ok(result) => (result, None),
        Err(failure) => (serde_json::Value::Null, Some(failure)),
    };
    let served = failure.as_ref().is_none_or(|failure| failure.outcome != Outcome::NotStarted);
    api::CallAnswer {
        result,
        success: failure.is_none(),
        outcome: failure.as_ref().map(|failure| failure.outcome),
        error: failure.map(|failure| api::CallError {
            code: failure.code,
            message: failure.message,
            retry_after_ms: failure.retry_after_ms,
            endpoints: Vec::new(),
        }),
        task_id: call.to_string(),
        served_by: ended.host.filter(|_| served).map(|host| host.to_string()),
        attempts: ended.attempts,
        elapsed_ms: ms(started.elapsed()),
    }
}

/// What watchers are told of calls.
pub(in crate::host) fn call_event(event: CallEvent) -> api::Event {
    match event {
        CallEvent::Started(call) => api::Event::CallStarted(seen_call(&call)),
        CallEvent::Ended(call) => api::Event::CallEnded(seen_call(&call)),
        CallEvent::Unseen(count) => api::Event::CallsUnseen { count },
    }
}

/// A call under way or one that ended.
pub(in crate::host) fn seen_call(call: &SeenCall) -> api::SeenCall {
    let (outcome, code) = match call.state {
        CallState::UnderWay => (api::CallState::UnderWay, None),
        CallState::Answered => (api::CallState::Ok, None),
        CallState::Failed(Outcome::NotStarted, code) => (api::CallState::NotStarted, Some(code)),
        CallState::Failed(Outcome::Unknown, code) => (api::CallState::Unknown, Some(code)),
        CallState::Failed(Outcome::Done, code) => (api::CallState::Done, Some(code)),
    };
    let CallSubject { call: id, agent, peer, trace } = &call.subject;
    api::SeenCall {
        call: id.to_string(),
        agent: agent.to_string(),
        side: match call.side {
            Side::Local => api::CallSide::Local,
            Side::Caller => api::CallSide::Caller,
            Side::Host => api::CallSide::Host,
        },
        peer: peer.map(|peer| peer.to_string()),
        outcome,
        code,
        began_ms: call.began.0,
        took_ms: ms(call.took),
        input_bytes: call.bytes.map(|bytes| bytes.0),
        output_bytes: call.bytes.map(|bytes| bytes.1),
        trace_id: trace.as_ref().map(|trace| trace.trace_id().to_owned()),
    }
}

/// A call that was not made, for this reason.
pub(in crate::host) fn not_made(failure: CallFailure, call: CallId, started: Instant) -> api::CallAnswer {
    call_answer(CallResult::unmade(failure), call, started)
}

/// A listing: who wants it called goes to its endpoints.
pub(in crate::host) fn not_callable(
    name: &FullName,
    card: &AgentCard,
    call: CallId,
    started: Instant,
) -> api::CallAnswer {
    let what = if card.endpoints.is_empty() {
        "and names no endpoint, so nobody can call it; who hosts it can give its file a way to run it, `[agent.run]`"
    } else {
        "at the endpoints given here"
    };
    let message = format!("{name} is a listing: it is served outside the mesh, {what}");
    let failure = CallFailure::new(Code::NotCallable, Outcome::NotStarted, message);
    let mut answer = not_made(failure, call, started);
    answer.error.iter_mut().for_each(|error| error.endpoints = endpoints(card));
    answer
}
