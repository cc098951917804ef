//! Agents behind HTTP: a POST of JSON, with one client for all of them. Redirects are not followed and answers are
//! bounded; the address comes from the agent's file alone.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode, redirect};
use serde_json::Value;

use super::CALL_BYTES_MAX;
use super::command::{json_or_text, too_talkative};
use crate::proto::call::{CallFailure, Outcome};
use crate::proto::code::Code;

/// Longest wait for a connection; the call's deadline may be nearer.
const CONNECT: Duration = Duration::from_secs(10);
/// What is repeated of the body of an error, characters.
const ERROR_CHARS_MAX: usize = 300;

/// The client of all agents of this host.
pub(super) fn client() -> Result<Client, CallFailure> {
    let built = Client::builder()
        // An address that a server chooses may lie in this host's own network, and the input would go there.
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT)
        .user_agent(concat!("aop/", env!("CARGO_PKG_VERSION")))
        .build();
    built.map_err(|error| {
        CallFailure::new(Code::Internal, Outcome::NotStarted, format!("no HTTP client: {}", chain(&error)))
    })
}

/// Posts the input and takes the answer's body, JSON or text. `failed` is the code of an answer other than 2xx.
pub(super) async fn post(request: RequestBuilder, input: &Value, failed: Code) -> Result<Value, CallFailure> {
    let sent = request.header(CONTENT_TYPE, "application/json").body(input.to_string()).send().await;
    let response = sent.map_err(|error| unsent(&error))?;
    let status = response.status();
    if let Some(failure) = refused(&response, failed) {
        return Err(failure);
    }
    let body = read(response).await?;
    if status.is_success() {
        let text = String::from_utf8(body)
            .map_err(|_| CallFailure::new(Code::BadOutput, Outcome::Done, "the answer is not UTF-8 text"))?;
        return Ok(json_or_text(&text));
    }
    let said = reason(&String::from_utf8_lossy(&body));
    Err(CallFailure::new(failed, Outcome::Done, format!("the server answered {status}{said}")))
}

fn unsent(error: &reqwest::Error) -> CallFailure {
    let why = chain(error);
    // Only then the server surely saw nothing; after that the work may have been done.
    if error.is_connect() || error.is_builder() {
        let message = format!("the agent's server cannot be reached: {why}; start it, or correct its URL");
        return CallFailure::new(Code::StartFailed, Outcome::NotStarted, message);
    }
    CallFailure::new(Code::UpstreamFailed, Outcome::Unknown, format!("the agent's server broke off: {why}"))
}

/// Answers that need no body to be understood.
fn refused(response: &Response, failed: Code) -> Option<CallFailure> {
    let status = response.status();
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    if status == StatusCode::TOO_MANY_REQUESTS {
        let when = header(RETRY_AFTER).map(|when| format!("; it says to retry after {}", cut(when)));
        let message = format!("the agent's server takes no more calls now{}", when.unwrap_or_default());
        return Some(CallFailure::new(Code::Busy, Outcome::NotStarted, message));
    }
    if status.is_redirection() {
        let target = header(LOCATION).map_or(String::new(), |target| format!(" to {}", cut(target)));
        let message =
            format!("the server redirects{target}, which is not followed; write that URL into the file");
        return Some(CallFailure::new(failed, Outcome::Done, message));
    }
    None
}

async fn read(mut response: Response) -> Result<Vec<u8>, CallFailure> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            // Counted as it comes: an announced length may be wrong or missing.
            Ok(Some(chunk)) if body.len() + chunk.len() > CALL_BYTES_MAX => return Err(too_talkative()),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(unsent(&error)),
        }
    }
}

/// What an error's body says, in the shape of most APIs or as it is.
fn reason(body: &str) -> String {
    let parsed = serde_json::from_str::<Value>(body).unwrap_or_default();
    let message = ["/error/message", "/error", "/message", "/detail"]
        .iter()
        .find_map(|pointer| parsed.pointer(pointer).and_then(Value::as_str));
    match cut(message.unwrap_or(body).trim()) {
        said if said.is_empty() => said,
        said => format!(": {said}"),
    }
}

fn cut(text: &str) -> String {
    // These words of a stranger end in logs and terminals.
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(ERROR_CHARS_MAX).collect()
}

/// An error with its causes: the outermost alone says little.
fn chain(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let mut words: Vec<String> = causes.map(ToString::to_string).collect();
    // Layers often repeat the words of the one below.
    words.dedup();
    words.join(": ")
}
