//! Tools of the suite that write to the client while they run, as the handshake revisions allow: requests for a sample or
//! for the user's input, and log messages. The revision of 2026 has `mrtr.rs` instead and asks for logs per request.
#![expect(deprecated, reason = "the older revisions have logging and sampling, and the suite asks for both")]

use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, ClientResult, ElicitRequest, LoggingLevel, LoggingMessageNotificationParam,
    SamplingMessage, ServerRequest, Tool,
};
use rmcp::service::{RequestContext, ServiceError};
use serde_json::{Value, json};

use super::overlay::{Answer, as_model, failed, text};
use super::tools::{PAUSE, plain, with_schema};

pub(crate) fn list() -> Vec<Tool> {
    let one_text = |name: &str| {
        let properties = json!({ name: { "type": "string" } });
        json!({ "type": "object", "properties": properties, "required": [name] })
    };
    vec![
        plain("test_tool_with_logging"),
        plain("test_logging_tool"),
        with_schema("test_sampling", one_text("prompt")),
        with_schema("test_elicitation", one_text("message")),
        plain("test_elicitation_sep1034_defaults"),
        plain("test_elicitation_sep1330_enums"),
    ]
}

pub(crate) async fn call(request: &CallToolRequestParams, cx: &RequestContext<RoleServer>) -> Option<Answer> {
    let argument = |name: &str| {
        request.arguments.as_ref().and_then(|given| given.get(name)?.as_str()).unwrap_or_default().to_owned()
    };
    let answer = match &*request.name {
        "test_tool_with_logging" => {
            for message in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
                log(cx, message).await;
                tokio::time::sleep(PAUSE).await;
            }
            Ok("Logged.".to_owned())
        }
        "test_logging_tool" => {
            if cx.meta.log_level().is_some() {
                log(cx, "The request asked for logs").await;
            }
            Ok("Logged if asked to.".to_owned())
        }
        "test_sampling" => sample(cx, argument("prompt")).await,
        "test_elicitation" => elicit(cx, &argument("message"), user_schema()).await,
        "test_elicitation_sep1034_defaults" => elicit(cx, "Please check the defaults", defaults()).await,
        "test_elicitation_sep1330_enums" => elicit(cx, "Please choose", choices()).await,
        _ => return None,
    };
    Some(Ok(answer.map_or_else(|error| failed(&error.to_string()), |message| text(&message))))
}

async fn log(cx: &RequestContext<RoleServer>, message: &str) {
    let message = LoggingMessageNotificationParam::new(LoggingLevel::Info, json!(message));
    let _gone = cx.peer.notify_logging_message(message).await;
}

async fn sample(cx: &RequestContext<RoleServer>, prompt: String) -> Result<String, ServiceError> {
    let params = json!({ "messages": [SamplingMessage::user_text(prompt)], "maxTokens": 100 });
    let sample = cx.peer.create_message(as_model(params)).await?;
    Ok(format!("LLM response: {}", json!(sample.message.content)))
}

async fn elicit(
    cx: &RequestContext<RoleServer>,
    message: &str,
    schema: Value,
) -> Result<String, ServiceError> {
    let params = as_model(json!({ "mode": "form", "message": message, "requestedSchema": schema }));
    match cx.peer.send_request(ServerRequest::ElicitRequest(ElicitRequest::new(params))).await? {
        ClientResult::ElicitResult(given) => {
            let (action, content) = (json!(given.action), json!(given.content));
            Ok(format!("User response: action={action}, content={content}"))
        }
        _ => Err(ServiceError::UnexpectedResponse),
    }
}

fn user_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "username": { "type": "string", "description": "User's response" },
            "email": { "type": "string", "description": "User's email address" },
        },
        "required": ["username", "email"],
    })
}

fn defaults() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "default": "John Doe" },
            "age": { "type": "integer", "default": 30 },
            "score": { "type": "number", "default": 95.5 },
            "status": { "type": "string", "enum": ["active", "inactive", "pending"], "default": "active" },
            "verified": { "type": "boolean", "default": true },
        },
    })
}

fn choices() -> Value {
    let titled = |kind: &str| {
        json!([
            { "const": "value1", "title": format!("First {kind}") },
            { "const": "value2", "title": format!("Second {kind}") },
            { "const": "value3", "title": format!("Third {kind}") },
        ])
    };
    let plain = json!(["option1", "option2", "option3"]);
    json!({
        "type": "object",
        "properties": {
            "untitledSingle": { "type": "string", "enum": plain },
            "titledSingle": { "type": "string", "oneOf": titled("Option") },
            "legacyEnum": {
                "type": "string",
                "enum": ["opt1", "opt2", "opt3"],
                "enumNames": ["Option One", "Option Two", "Option Three"],
            },
            "untitledMulti": { "type": "array", "items": { "type": "string", "enum": plain } },
            "titledMulti": { "type": "array", "items": { "anyOf": titled("Choice") } },
        },
    })
}
