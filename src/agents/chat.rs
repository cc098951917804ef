//! Agents that are a chat model behind an OpenAI-compatible API, with a prompt of their own.
//!
//! Where the caller wants output as it comes, the server is asked for a stream; one that streams unasked is understood as well.
//!
//! Nothing of the network becomes a path: an image is a data URL or an http(s) URL, which the model's server fetches
//! under its own policy.

use reqwest::Response;
use serde_json::{Value, json};
use tracing::Span;

use super::Invocation;
use super::command::too_talkative;
use super::event_stream::{ChatStream, StreamError, Usage, usage_of};
use super::partial_output::PartialOutput;
use super::reach::Reach;
use super::secrets::{Secrets, logged, read};
use super::web::{Clients, Server, cut, is_event_stream};
use crate::document::run_config::{Chat, GivenValue};
use crate::proto::call::{CallFailure, Outcome, Progress, Report};
use crate::proto::code::Code;
use crate::telemetry::names;

/// What the model is told before each turn after the first (`max_loops`).
const GO_ON: &str = "Go on and improve your answer. If nothing is missing, repeat it unchanged.";

/// Runs the turns of one task; the last answer counts.
pub(super) async fn run(
    chat: &Chat,
    secrets: &Secrets,
    clients: &Clients,
    invocation: &Invocation,
) -> Result<Value, CallFailure> {
    let mut messages = Vec::new();
    if let Some(prompt) = &chat.system_prompt {
        messages.push(json!({"role": "system", "content": prompt}));
    }
    messages.push(json!({"role": "user", "content": content(&invocation.input)?}));
    // Joined as text, because a base with a path of its own must keep it.
    let url = format!("{}/chat/completions", chat.base.url.trim_end_matches('/'));
    let mut headers = chat.base.headers.clone();
    if let Some(key) = read_key(chat)? {
        headers.insert("Authorization".into(), GivenValue::Literal(format!("Bearer {key}")));
    }
    // A model's server is mostly a stranger's: it is told of no caller, no conversation and no trace.
    let (told, failed) = (Vec::new(), Code::UpstreamFailed);
    let server = Server { url: &url, reach: Reach::Named, headers: &headers, told, failed, secrets };
    let (mut answer, mut used) = (String::new(), None);
    // Of several turns the last counts, and nobody knows before which that is.
    let mut partial = match chat.max_loops {
        1 => PartialOutput::of(invocation),
        _ => PartialOutput::none(),
    };
    for turn in 1..=chat.max_loops {
        let asked = ask(chat, &server, clients, &messages, &mut partial).await;
        let (next, usage) = asked.map_err(|failure| begun(failure, turn))?;
        used = sum(used, usage);
        used.iter().for_each(|(input, output)| names::used(&Span::current(), *input, *output));
        report(invocation, turn, chat.max_loops);
        // The prompt asks for an unchanged answer where nothing
        // is missing, so more turns would cost and not help.
        let is_final = next == answer;
        messages.push(json!({"role": "assistant", "content": next}));
        messages.push(json!({"role": "user", "content": GO_ON}));
        answer = next;
        if is_final {
            break;
        }
    }
    Ok(Value::String(answer))
}

/// The tokens of several turns, as far as the server told them.
fn sum(all: Option<Usage>, turn: Option<Usage>) -> Option<Usage> {
    match (all, turn) {
        (Some(all), Some(turn)) => Some((all.0.saturating_add(turn.0), all.1.saturating_add(turn.1))),
        (all, turn) => all.or(turn),
    }
}

/// After its first turn a task has begun, whatever became of the next.
fn begun(failure: CallFailure, turn: u32) -> CallFailure {
    match turn {
        1 => failure,
        _ if failure.outcome == Outcome::NotStarted => CallFailure { outcome: Outcome::Unknown, ..failure },
        _ => failure,
    }
}

async fn ask(
    chat: &Chat,
    server: &Server<'_>,
    clients: &Clients,
    messages: &[Value],
    partial: &mut PartialOutput,
) -> Result<(String, Option<Usage>), CallFailure> {
    let mut body = json!({"model": chat.model, "messages": messages});
    if partial.is_wanted() {
        body["stream"] = json!(true);
    }
    if let Some(temperature) = chat.temperature {
        body["temperature"] = json!(temperature);
    }
    let response = server.open(clients, &body).await?;
    if is_event_stream(response.headers()) {
        return read_stream(server, response, partial).await;
    }
    let answer = server.document(response).await?;
    let text = text_of(&answer["choices"][0]["message"]["content"]).ok_or_else(|| {
        let message =
            "the model's server answered without `choices[0].message.content`; is `base_url` right?";
        CallFailure::new(Code::UpstreamFailed, Outcome::Done, message)
    })?;
    Ok((text, usage_of(&answer)))
}

async fn read_stream(
    server: &Server<'_>,
    mut response: Response,
    partial: &mut PartialOutput,
) -> Result<(String, Option<Usage>), CallFailure> {
    let mut stream = ChatStream::default();
    let failure = |error| match error {
        StreamError::TooLarge => too_talkative(),
        StreamError::Broken => {
            let message = "the model's server broke its answer off; call again";
            CallFailure::new(Code::UpstreamFailed, Outcome::Unknown, message)
        }
        StreamError::Failed(words) => {
            let what = "the model's server failed within its answer";
            logged(server.failed, Outcome::Unknown, what, cut(&server.secrets.hide_keys(&words)))
        }
    };
    while let Some(part) = server.part(&mut response).await? {
        let pushed = stream.push(&part);
        partial.push(stream.added());
        pushed.map_err(failure)?;
    }
    let usage = stream.usage();
    Ok((stream.finish().map_err(failure)?, usage))
}

/// An answer is a text, or a list of parts some of which are texts.
fn text_of(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => Some(parts.iter().filter_map(|part| part["text"].as_str()).collect()),
        _ => None,
    }
}

fn read_key(chat: &Chat) -> Result<Option<String>, CallFailure> {
    let key = chat.api_key_env.clone().map(|name| read(&GivenValue::Variable(name))).transpose();
    key.map_err(|why| {
        logged(Code::StartFailed, Outcome::NotStarted, "the agent has no key for its model", why)
    })
}

/// The user's message: the task as text, with its images as parts.
fn content(input: &Value) -> Result<Value, CallFailure> {
    let text = match input.get("task") {
        Some(Value::String(task)) => task.clone(),
        _ => input.to_string(),
    };
    let several = input.get("imgs").and_then(Value::as_array).into_iter().flatten();
    let images: Vec<&Value> =
        input.get("img").into_iter().chain(several).filter(|image| !image.is_null()).collect();
    if images.is_empty() {
        return Ok(Value::String(text));
    }
    let mut parts = vec![json!({"type": "text", "text": text})];
    for image in images {
        parts.push(json!({"type": "image_url", "image_url": {"url": image_url(image)?}}));
    }
    Ok(Value::Array(parts))
}

fn image_url(image: &Value) -> Result<&str, CallFailure> {
    let url = image.as_str().unwrap_or_default();
    if ["data:image/", "http://", "https://"].iter().any(|head| url.starts_with(head)) {
        return Ok(url);
    }
    let message = "an image is neither a data URL (`data:image/…`) nor an http(s) URL; files of this host \
                   are not read for callers";
    Err(CallFailure::new(Code::BadInput, Outcome::NotStarted, message))
}

fn report(invocation: &Invocation, turn: u32, turns: u32) {
    if let Some(reports) = invocation.reports.as_ref().filter(|_| turns > 1) {
        let report = Progress { progress: f64::from(turn), total: Some(f64::from(turns)), message: None };
        // Reports are only a hint.
        let _ = reports.try_send(Report::Progress(report));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_become_images() {
        let with = |image: &str| content(&json!({"task": "t", "img": image}));
        assert_eq!(content(&json!({"task": "t", "img": null})).unwrap(), json!("t"));
        assert_eq!(content(&json!({"question": 1})).unwrap(), json!("{\"question\":1}"));
        for url in ["data:image/png;base64,AAAA", "https://example.org/a.png", "http://example.org/a.png"] {
            assert_eq!(with(url).unwrap()[1]["image_url"]["url"], url);
        }
        for path in ["/etc/passwd", "file:///etc/passwd", "a.png", "data:text/html,x", ""] {
            let failure = with(path).unwrap_err();
            assert_eq!((failure.code.text(), failure.outcome), ("bad_input", Outcome::NotStarted), "{path}");
        }
    }
}
