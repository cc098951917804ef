//! Prompts of the suite.

use rmcp::ErrorData;
use rmcp::model::{
    ContentBlock, GetPromptRequestParams, GetPromptResponse, GetPromptResult, Prompt, PromptArgument,
    PromptMessage, ResourceContents, Role,
};

use super::mrtr::{answered, ask, form};
use super::tools::PNG;

pub(crate) fn list() -> Vec<Prompt> {
    let prompt = |name: &str, arguments: &[&str]| {
        let arguments = arguments.iter().map(|name| PromptArgument::new(*name).with_required(true)).collect();
        Prompt::new(name, Some("A fixture of the conformance suite."), Some(arguments))
    };
    vec![
        prompt("test_simple_prompt", &[]),
        prompt("test_prompt_with_arguments", &["arg1", "arg2"]),
        prompt("test_prompt_with_embedded_resource", &["resourceUri"]),
        prompt("test_prompt_with_image", &[]),
        prompt("test_input_required_result_prompt", &[]),
    ]
}

pub(crate) fn get(request: &GetPromptRequestParams) -> Result<GetPromptResponse, ErrorData> {
    let argument = |name: &str| {
        request.arguments.as_ref().and_then(|given| given.get(name)?.as_str()).unwrap_or_default().to_owned()
    };
    let content = match &*request.name {
        "test_simple_prompt" => vec![ContentBlock::text("This is a simple prompt for testing.")],
        "test_prompt_with_arguments" => vec![ContentBlock::text(format!(
            "Prompt with arguments: arg1='{}', arg2='{}'",
            argument("arg1"),
            argument("arg2")
        ))],
        "test_prompt_with_embedded_resource" => vec![
            ContentBlock::resource(ResourceContents::text(
                "Embedded resource content for testing.",
                argument("resourceUri"),
            )),
            ContentBlock::text("Please process the embedded resource above."),
        ],
        "test_prompt_with_image" => {
            vec![ContentBlock::image(PNG, "image/png"), ContentBlock::text("Please analyze the image above.")]
        }
        "test_input_required_result_prompt" => return Ok(with_context(request)),
        unknown => return Err(ErrorData::invalid_params(format!("Unknown prompt: {unknown}"), None)),
    };
    Ok(messages(content))
}

fn with_context(request: &GetPromptRequestParams) -> GetPromptResponse {
    match answered(request.input_responses.as_ref(), "user_context") {
        Some(answer) => messages(vec![ContentBlock::text(format!("The context: {answer}"))]),
        None => {
            let question = form("What context should the prompt use?", "context", "string");
            GetPromptResponse::InputRequired(ask("user_context", question))
        }
    }
}

fn messages(content: Vec<ContentBlock>) -> GetPromptResponse {
    GetPromptResult::new(content.into_iter().map(|it| PromptMessage::new(Role::User, it)).collect()).into()
}
