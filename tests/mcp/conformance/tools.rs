//! Tools of the suite that answer by themselves: each kind of content, errors, progress, schemas, changes of the list.

use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResult, ClientCapabilities, ContentBlock, ProgressNotificationParam,
    ResourceContents, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde_json::{Value, json};

use super::overlay::{Answer, as_model, object, text};

/// A red pixel, PNG.
pub(crate) const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
/// No sound, WAV.
const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=";
/// The suite wants to see events arrive one after another.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// A tool without arguments.
pub(crate) fn plain(name: &'static str) -> Tool {
    with_schema(name, json!({ "type": "object", "properties": {} }))
}

/// A tool with its input schema.
pub(crate) fn with_schema(name: &'static str, schema: Value) -> Tool {
    Tool::new(name, "A fixture of the conformance suite.", object(schema))
}

pub(crate) fn list() -> Vec<Tool> {
    let mut tools: Vec<Tool> = [
        "test_simple_text",
        "test_image_content",
        "test_audio_content",
        "test_embedded_resource",
        "test_multiple_content_types",
        "test_error_handling",
        "test_tool_with_progress",
        "test_reconnection",
        "test_missing_capability",
    ]
    .map(plain)
    .into();
    tools.push(with_schema("json_schema_2020_12_tool", schema_2020_12()));
    tools.push(with_schema(
        "test_custom_header",
        json!({
            "type": "object",
            "properties": { "region": { "type": "string", "x-mcp-header": "Region" } },
            "required": ["region"],
        }),
    ));
    tools
}

pub(crate) async fn call(request: &CallToolRequestParams, cx: &RequestContext<RoleServer>) -> Option<Answer> {
    let content = match &*request.name {
        "test_simple_text" => vec![ContentBlock::text("This is a simple text response for testing.")],
        "test_image_content" => vec![ContentBlock::image(PNG, "image/png")],
        "test_audio_content" => vec![ContentBlock::audio(WAV, "audio/wav")],
        "test_embedded_resource" => vec![ContentBlock::resource(ResourceContents::text(
            "This is an embedded resource content.",
            "test://embedded-resource",
        ))],
        "test_multiple_content_types" => every_kind(),
        "test_error_handling" => {
            let content = ContentBlock::text("This tool intentionally returns an error for testing");
            return Some(Ok(CallToolResult::error(vec![content]).into()));
        }
        "test_tool_with_progress" => return Some(report_progress(cx).await),
        "test_reconnection" => {
            tokio::time::sleep(PAUSE).await;
            vec![ContentBlock::text("Done, whether or not the stream was kept.")]
        }
        "test_missing_capability" => return Some(ask_for_sampling(cx)),
        "json_schema_2020_12_tool" | "test_custom_header" => {
            vec![ContentBlock::text(json!(request.arguments).to_string())]
        }
        _ => return None,
    };
    Some(Ok(CallToolResult::success(content).into()))
}

fn every_kind() -> Vec<ContentBlock> {
    let resource = ResourceContents::text(r#"{"test":"data","value":123}"#, "test://mixed-content-resource");
    vec![
        ContentBlock::text("Multiple content types test:"),
        ContentBlock::image(PNG, "image/png"),
        ContentBlock::resource(resource.with_mime_type("application/json")),
    ]
}

async fn report_progress(cx: &RequestContext<RoleServer>) -> Answer {
    for done in [0.0, 50.0, 100.0] {
        if let Some(token) = cx.meta.get_progress_token() {
            let report = ProgressNotificationParam::new(token, done).with_total(100.0);
            let _gone = cx.peer.notify_progress(report).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(text("Reported."))
}

fn ask_for_sampling(cx: &RequestContext<RoleServer>) -> Answer {
    let needed: ClientCapabilities = as_model(json!({ "sampling": {} }));
    match cx.client_capabilities().is_some_and(|declared| declared.sampling.is_some()) {
        true => Ok(text("The client can sample.")),
        false => Err(ErrorData::missing_required_client_capability(needed)),
    }
}

fn schema_2020_12() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": { "street": { "type": "string" }, "city": { "type": "string" } },
            },
        },
        "properties": {
            "name": { "type": "string" },
            "address": { "$ref": "#/$defs/address" },
            "contactMethod": { "type": "string", "enum": ["phone", "email"] },
            "phone": { "type": "string" },
            "email": { "type": "string" },
        },
        "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }] }],
        "if": { "properties": { "contactMethod": { "const": "phone" } }, "required": ["contactMethod"] },
        "then": { "required": ["phone"] },
        "else": { "required": ["email"] },
        "additionalProperties": false,
    })
}
