//! The suite's fixtures laid over a server: what is not a fixture, the server below answers.
#![expect(deprecated, reason = "the older revisions let a client set the level of logs")]

use std::path::Path;
use std::sync::Arc;

use aop::agents::{Agents, HostedAgent};
use aop::document::read_documents;
use aop::document::run_config::{Builtin, RunConfig, Runner};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CancelTaskParams, CompleteRequestParams,
    CompleteResult, ContentBlock, DiscoverResult, GetPromptRequestParams, GetPromptResponse, GetTaskParams,
    GetTaskResult, InitializeRequestParams, InitializeResult, JsonObject, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ReadResourceRequestParams, ReadResourceResponse, ServerConfig, SetLevelRequestParams,
    SubscribeRequestParams, SubscriptionFilter, Tool, UnsubscribeRequestParams, UpdateTaskParams,
};
use rmcp::service::{NotificationContext, RequestContext, SubscriptionContext, SubscriptionSink};
use rmcp::task_manager::TaskManager;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{asks, mrtr, prompts, resources, tasks, tools};

pub(crate) type Answer = Result<CallToolResponse, ErrorData>;
type Cx = RequestContext<RoleServer>;

/// Tools that change a list, so that the suite sees the notification of it.
const CHANGES_TOOLS: &str = "test_trigger_tool_change";
const CHANGES_PROMPTS: &str = "test_trigger_prompt_change";
/// The agent that comes and goes.
const CHANGED: &str = "now-and-then";

/// Cheap to clone: the server is made anew for each request without a session.
#[derive(Clone)]
pub(crate) struct Overlay<S> {
    below: S,
    /// Their change is what changes the list of tools.
    agents: Agents,
    tasks: TaskManager,
    prompts: Arc<watch::Sender<u64>>,
}

impl<S: ServerHandler> Overlay<S> {
    pub(crate) fn new(below: S, agents: Agents) -> Overlay<S> {
        let (prompts, _) = watch::channel(0);
        Overlay { below, agents, tasks: TaskManager::new(), prompts: Arc::new(prompts) }
    }

    fn change(&self, name: &str) -> Option<Answer> {
        match name {
            CHANGES_TOOLS => self.change_agents(),
            CHANGES_PROMPTS => self.prompts.send_modify(|count| *count += 1),
            _ => return None,
        }
        Some(Ok(text("Changed.")))
    }

    /// One agent comes, or goes.
    fn change_agents(&self) {
        let mut agents: Vec<HostedAgent> = self.agents.list().values().cloned().collect();
        let present = agents.len();
        agents.retain(|local| local.offer.name.as_str() != CHANGED);
        if agents.len() == present {
            agents.push(echo(CHANGED));
        }
        self.agents.replace(agents);
    }
}

/// An agent that repeats its task.
pub(crate) fn echo(name: &str) -> HostedAgent {
    let document =
        json!({ "agent": { "name": name, "description": "Repeats its task", "run": { "builtin": "echo" } } });
    let run_config = RunConfig::new(Runner::Builtin(Builtin::Echo), Path::new("."));
    HostedAgent { offer: read_documents(document).remove(0).unwrap(), run_config: Some(run_config) }
}

fn list() -> Vec<Tool> {
    let mut all = vec![tools::plain(CHANGES_TOOLS), tools::plain(CHANGES_PROMPTS)];
    all.extend(tools::list());
    all.extend(asks::list());
    all.extend(mrtr::list());
    all.extend(tasks::list());
    all
}

impl<S: ServerHandler> ServerHandler for Overlay<S> {
    fn get_info(&self) -> ServerConfig {
        let mut info = self.below.get_info();
        let mut capabilities = json!(info.capabilities);
        for (key, value) in [
            ("prompts", json!({ "listChanged": true })),
            ("resources", json!({ "subscribe": true, "listChanged": true })),
            ("tools", json!({ "listChanged": true })),
            ("logging", json!({})),
            ("completions", json!({})),
            ("extensions", json!({ "io.modelcontextprotocol/tasks": {} })),
        ] {
            capabilities[key] = value;
        }
        info.capabilities = as_model(capabilities);
        info
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        cx: Cx,
    ) -> Result<InitializeResult, ErrorData> {
        let capabilities = self.get_info().capabilities;
        let mut result = self.below.initialize(request, cx).await?;
        result.capabilities = capabilities;
        Ok(result)
    }

    async fn discover(&self, cx: Cx) -> Result<DiscoverResult, ErrorData> {
        let mut result = self.below.discover(cx).await?;
        result.capabilities = self.get_info().capabilities;
        Ok(result)
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        cx: Cx,
    ) -> Result<ListToolsResult, ErrorData> {
        let first = request.as_ref().is_none_or(|request| request.cursor.is_none());
        let mut page = self.below.list_tools(request, cx).await?;
        if first {
            page.tools.extend(list());
        }
        Ok(page)
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        list().into_iter().find(|tool| tool.name == name).or_else(|| self.below.get_tool(name))
    }

    async fn call_tool(&self, request: CallToolRequestParams, cx: Cx) -> Answer {
        if let Some(answer) = self.change(&request.name).or_else(|| mrtr::call(&request, &cx)) {
            return answer;
        }
        if let Some(answer) = tools::call(&request, &cx).await {
            return answer;
        }
        if let Some(answer) = asks::call(&request, &cx).await {
            return answer;
        }
        if let Some(answer) = tasks::call(&request, &cx, &self.tasks).await {
            return answer;
        }
        self.below.call_tool(request, cx).await
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _cx: Cx,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(ListPromptsResult::with_all_items(prompts::list()))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _cx: Cx,
    ) -> Result<GetPromptResponse, ErrorData> {
        prompts::get(&request)
    }

    async fn complete(&self, _request: CompleteRequestParams, _cx: Cx) -> Result<CompleteResult, ErrorData> {
        Ok(CompleteResult::default())
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        cx: Cx,
    ) -> Result<ListResourcesResult, ErrorData> {
        let first = request.as_ref().is_none_or(|request| request.cursor.is_none());
        let mut page = self.below.list_resources(request, cx).await?;
        if first {
            page.resources.extend(resources::list());
        }
        Ok(page)
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        cx: Cx,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let mut page = self.below.list_resource_templates(request, cx).await?;
        page.resource_templates.extend(resources::templates());
        Ok(page)
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        cx: Cx,
    ) -> Result<ReadResourceResponse, ErrorData> {
        match resources::read(&request.uri) {
            Some(result) => Ok(result.into()),
            None => self.below.read_resource(request, cx).await,
        }
    }

    async fn subscribe(&self, request: SubscribeRequestParams, _cx: Cx) -> Result<(), ErrorData> {
        watched(&request.uri)
    }

    async fn unsubscribe(&self, request: UnsubscribeRequestParams, _cx: Cx) -> Result<(), ErrorData> {
        watched(&request.uri)
    }

    async fn set_level(&self, _request: SetLevelRequestParams, _cx: Cx) -> Result<(), ErrorData> {
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        let mut accepted = self.below.accepted_subscription_filter(requested).unwrap_or_default();
        accepted.prompts_list_changed = requested.prompts_list_changed;
        Some(accepted)
    }

    async fn listen(&self, cx: SubscriptionContext) -> Result<(), ErrorData> {
        let sink = cx.sink().clone();
        tokio::select! {
            ended = self.below.listen(cx) => ended,
            () = tell_of_prompts(&sink, self.prompts.subscribe()) => Ok(()),
        }
    }

    async fn on_initialized(&self, cx: NotificationContext<RoleServer>) {
        self.below.on_initialized(cx).await;
    }

    async fn get_task(&self, request: GetTaskParams, _cx: Cx) -> Result<GetTaskResult, ErrorData> {
        Ok(GetTaskResult::new(self.tasks.get_task(&request.task_id)?))
    }

    async fn update_task(&self, request: UpdateTaskParams, _cx: Cx) -> Result<(), ErrorData> {
        self.tasks.update_task(&request.task_id, request.input_responses)
    }

    async fn cancel_task(&self, request: CancelTaskParams, _cx: Cx) -> Result<(), ErrorData> {
        self.tasks.cancel_task(&request.task_id)
    }
}

fn watched(uri: &str) -> Result<(), ErrorData> {
    match uri == resources::WATCHED {
        true => Ok(()),
        false => Err(ErrorData::resource_not_found("Not a resource to watch", Some(json!({ "uri": uri })))),
    }
}

async fn tell_of_prompts(sink: &SubscriptionSink, mut changes: watch::Receiver<u64>) {
    while changes.changed().await.is_ok() {
        // Who did not ask for it is not told.
        let _refused = sink.notify_prompt_list_changed().await;
    }
}

/// A fixture's answer.
pub(crate) fn text(message: &str) -> CallToolResponse {
    CallToolResult::success(vec![ContentBlock::text(message)]).into()
}

/// A fixture's failure.
pub(crate) fn failed(message: &str) -> CallToolResponse {
    CallToolResult::error(vec![ContentBlock::text(message)]).into()
}

pub(crate) fn as_model<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

pub(crate) fn object(value: Value) -> Arc<JsonObject> {
    Arc::new(as_model(value))
}
