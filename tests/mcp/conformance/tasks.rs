//! Tools of the suite that answer with a task, which the client then polls (the tasks extension of revision 2026-07-28).

use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, ContentBlock,
    CreateTaskResult, Tool,
};
use rmcp::service::RequestContext;
use rmcp::task_manager::{TaskContext, TaskExit, TaskFuture, TaskManager, TaskOptions};
use rmcp::{ErrorData, RoleServer};
use serde_json::{Value, json};

use super::mrtr::{answered, ask, form, name_of_user};
use super::overlay::{Answer, as_model, text};
use super::tools::{plain, with_schema};

/// Poll hint, milliseconds: the suite waits for what it gets.
const POLL_MS: u64 = 100;
/// How long `failing_job` works before it fails.
const FAILS_AFTER: Duration = Duration::from_secs(1);

pub(crate) fn list() -> Vec<Tool> {
    vec![
        with_schema("greet", json!({ "type": "object", "properties": { "name": { "type": "string" } } })),
        with_schema(
            "slow_compute",
            json!({
                "type": "object",
                "properties": { "seconds": { "type": "number" }, "label": { "type": "string" } },
            }),
        ),
        plain("failing_job"),
        plain("protocol_error_job"),
        with_schema(
            "confirm_delete",
            json!({ "type": "object", "properties": { "filename": { "type": "string" } } }),
        ),
        plain("multi_input"),
        plain("test_tool_with_task"),
    ]
}

pub(crate) async fn call(
    request: &CallToolRequestParams,
    cx: &RequestContext<RoleServer>,
    tasks: &TaskManager,
) -> Option<Answer> {
    let argument = |name: &str| request.arguments.as_ref().and_then(|given| given.get(name)).cloned();
    let supported = cx.client_capabilities().is_some_and(|declared| declared.supports_tasks());
    let work: TaskFutureOf = match &*request.name {
        "greet" => {
            let name = argument("name").unwrap_or_else(|| json!("World"));
            return Some(Ok(text(&format!("Hello, {}!", name.as_str().unwrap_or("World")))));
        }
        "slow_compute" => {
            let work = Duration::from_secs_f64(argument("seconds").and_then(|it| it.as_f64()).unwrap_or(1.0));
            if !supported {
                tokio::time::sleep(work).await;
                return Some(Ok(text("Computed.")));
            }
            Box::new(move |cx| Box::pin(compute(cx, work)))
        }
        "failing_job" => Box::new(|_| Box::pin(fail())),
        "protocol_error_job" => {
            Box::new(|_| Box::pin(async { Err(ErrorData::internal_error("The job broke", None).into()) }))
        }
        "confirm_delete" => Box::new(|cx| Box::pin(confirm(cx))),
        "multi_input" => Box::new(|cx| Box::pin(ask_twice(cx))),
        "test_tool_with_task" => match answered(request.input_responses.as_ref(), "user_name").cloned() {
            None => return Some(Ok(ask("user_name", name_of_user()).into())),
            Some(name) => Box::new(move |_| Box::pin(async move { done(&format!("Hello, {name}!")) })),
        },
        _ => return None,
    };
    Some(if supported { Ok(spawned(tasks, work)) } else { Err(tasks_needed()) })
}

type TaskFutureOf = Box<dyn FnOnce(TaskContext) -> TaskFuture + Send>;

fn spawned(tasks: &TaskManager, work: TaskFutureOf) -> CallToolResponse {
    let options = TaskOptions::new().with_poll_interval_ms(POLL_MS);
    CallToolResponse::Task(CreateTaskResult::new(tasks.spawn(options, work)))
}

fn tasks_needed() -> ErrorData {
    let needed = ClientCapabilities::builder().enable_tasks().build();
    ErrorData::missing_required_client_capability(needed)
}

fn done(message: &str) -> Result<CallToolResult, TaskExit> {
    Ok(CallToolResult::success(vec![ContentBlock::text(message)]))
}

async fn compute(cx: TaskContext, work: Duration) -> Result<CallToolResult, TaskExit> {
    tokio::select! {
        () = tokio::time::sleep(work) => done("Computed."),
        () = cx.cancelled() => Err(TaskExit::Cancelled),
    }
}

async fn fail() -> Result<CallToolResult, TaskExit> {
    tokio::time::sleep(FAILS_AFTER).await;
    Ok(CallToolResult::error(vec![ContentBlock::text("The job failed, as it always does")]))
}

async fn confirm(cx: TaskContext) -> Result<CallToolResult, TaskExit> {
    let answer = input(&cx, "confirm", form("Really delete?", "confirm", "boolean")).await?;
    done(&format!("Confirmed: {answer}"))
}

async fn ask_twice(cx: TaskContext) -> Result<CallToolResult, TaskExit> {
    let (first, second) = tokio::try_join!(
        input(&cx, "first", form("The first name?", "name", "string")),
        input(&cx, "second", form("The second name?", "name", "string")),
    )?;
    done(&format!("Both: {first}, {second}"))
}

async fn input(cx: &TaskContext, key: &str, question: Value) -> Result<Value, TaskExit> {
    cx.request_input(key, as_model(question)).await
}
