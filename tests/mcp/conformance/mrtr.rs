//! Requests of several rounds (revision 2026-07-28): a tool or a prompt answers with what it wants to know, and the client
//! asks again with the answers and with the state it was given. The state is sealed: the client must not change it.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit, Mac};
use rmcp::model::{CallToolRequestParams, CallToolResponse, InputRequiredResult, InputResponses, Tool};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde_json::{Value, json};
use sha2::Sha256;

use super::overlay::{Answer, as_model, text};
use super::tools::plain;

/// Any key does: the fixture lives as long as its test.
const KEY: &[u8] = b"a key of the conformance fixture";

pub(crate) fn list() -> Vec<Tool> {
    [
        "test_streaming_elicitation",
        "test_input_required_result_elicitation",
        "test_input_required_result_sampling",
        "test_input_required_result_list_roots",
        "test_input_required_result_request_state",
        "test_input_required_result_multiple_inputs",
        "test_input_required_result_multi_round",
        "test_input_required_result_tampered_state",
        "test_input_required_result_capabilities",
    ]
    .map(plain)
    .into()
}

pub(crate) fn call(request: &CallToolRequestParams, cx: &RequestContext<RoleServer>) -> Option<Answer> {
    let name = request.name.strip_prefix("test_input_required_result_");
    let given = request.input_responses.as_ref();
    Some(match name.unwrap_or(&request.name) {
        "elicitation" | "test_streaming_elicitation" => one_round(given, "user_name", name_of_user()),
        "sampling" => one_round(given, "capital_question", sampling("What is the capital of France?")),
        "list_roots" => one_round(given, "client_roots", roots()),
        "request_state" | "tampered_state" => with_state(request, &[("confirm", confirm())]),
        "multiple_inputs" => with_state(
            request,
            &[
                ("user_name", name_of_user()),
                ("greeting", sampling("Generate a greeting")),
                ("client_roots", roots()),
            ],
        ),
        "multi_round" => two_rounds(request),
        "capabilities" => Ok(only_what_is_supported(cx)),
        _ => return None,
    })
}

/// Asks for the user's name.
pub(crate) fn name_of_user() -> Value {
    form("What is your name?", "name", "string")
}

/// One question to the user.
pub(crate) fn form(message: &str, field: &str, kind: &str) -> Value {
    let schema = json!({ "type": "object", "properties": { field: { "type": kind } }, "required": [field] });
    json!({
        "method": "elicitation/create",
        "params": { "mode": "form", "message": message, "requestedSchema": schema },
    })
}

/// The answer to a question: an accepted form is an object. Anything else counts as no answer, so it is asked for again.
pub(crate) fn answered<'a>(given: Option<&'a InputResponses>, key: &str) -> Option<&'a Value> {
    given?.get(key).filter(|answer| answer.is_object())
}

/// Asks under one key.
pub(crate) fn ask(key: &str, question: Value) -> InputRequiredResult {
    InputRequiredResult::from_input_requests(BTreeMap::from([(key.to_owned(), as_model(question))]))
}

fn sampling(prompt: &str) -> Value {
    let message = json!({ "role": "user", "content": { "type": "text", "text": prompt } });
    json!({ "method": "sampling/createMessage", "params": { "messages": [message], "maxTokens": 100 } })
}

fn roots() -> Value {
    json!({ "method": "roots/list", "params": {} })
}

fn confirm() -> Value {
    form("Please confirm", "ok", "boolean")
}

fn one_round(given: Option<&InputResponses>, key: &str, question: Value) -> Answer {
    match answered(given, key) {
        Some(answer) => Ok(text(&format!("Hello, {answer}!"))),
        None => Ok(ask(key, question).into()),
    }
}

fn with_state(request: &CallToolRequestParams, questions: &[(&str, Value)]) -> Answer {
    let given = request.input_responses.as_ref();
    if questions.iter().all(|(key, _)| answered(given, key).is_some()) {
        opened(request)?;
        return Ok(text("state-ok"));
    }
    let asked = questions.iter().map(|(key, question)| ((*key).to_owned(), as_model(question.clone())));
    Ok(InputRequiredResult::new(Some(asked.collect()), Some(sealed("asked"))).into())
}

fn two_rounds(request: &CallToolRequestParams) -> Answer {
    let given = request.input_responses.as_ref();
    let round = |key: &str, question: Value| {
        let asked = BTreeMap::from([(key.to_owned(), as_model(question))]);
        CallToolResponse::from(InputRequiredResult::new(Some(asked), Some(sealed(key))))
    };
    if request.request_state.is_none() {
        return Ok(round("step1", form("Step 1: What is your name?", "name", "string")));
    }
    let state = opened(request)?;
    if state == "step1" && answered(given, "step1").is_some() {
        return Ok(round("step2", form("Step 2: What is your favorite color?", "color", "string")));
    }
    Ok(text("Both steps are done."))
}

fn only_what_is_supported(cx: &RequestContext<RoleServer>) -> CallToolResponse {
    let declared = cx.client_capabilities().unwrap_or_default();
    let mut asked = BTreeMap::new();
    if declared.sampling.is_some() {
        asked.insert("capital_question".to_owned(), as_model(sampling("What is the capital of France?")));
    }
    if declared.elicitation.is_some() {
        asked.insert("user_name".to_owned(), as_model(name_of_user()));
    }
    match asked.is_empty() {
        true => text("There is nothing this client could be asked."),
        false => InputRequiredResult::from_input_requests(asked).into(),
    }
}

/// `state`, a dot and its code.
fn sealed(state: &str) -> String {
    let code = code_of(state).finalize().into_bytes();
    format!("{state}.{}", data_encoding::HEXLOWER.encode(&code))
}

/// The state of a request, if it is one of ours.
fn opened(request: &CallToolRequestParams) -> Result<&str, ErrorData> {
    let refused = || ErrorData::invalid_params("requestState is not what this server gave out", None);
    let (state, code) =
        request.request_state.as_deref().and_then(|it| it.split_once('.')).ok_or_else(refused)?;
    let code = data_encoding::HEXLOWER.decode(code.as_bytes()).map_err(|_| refused())?;
    code_of(state).verify_slice(&code).map_err(|_| refused())?;
    Ok(state)
}

fn code_of(state: &str) -> Hmac<Sha256> {
    let mut code = Hmac::<Sha256>::new_from_slice(KEY).unwrap();
    code.update(state.as_bytes());
    code
}
