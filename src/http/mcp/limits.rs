//! Limits around any MCP handler: every request has a deadline, a place among those at work, an end when its client
//! cancels it or goes, and an answer even if the handler panics.

use std::borrow::Cow;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::request::Parts;
use futures::FutureExt;
use rmcp::model::*;
use rmcp::service::{NotificationContext, RequestContext, SubscriptionContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use tracing::{Instrument, Span};

use crate::http::correlation;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{context, names};

/// Calls at work at once, waiting ones included.
const CALLS_MAX: usize = 256;
/// Longest call of a tool: the longest call of an agent, and a margin in which its own end is told.
const CALL_TIME_MAX: Duration = Duration::from_secs(305);
/// Other requests at work at once. They are short, and no number of slow calls keeps a client from listing tools.
const ANSWERS_MAX: usize = 256;
/// Longest answer to them.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// What all sessions and requests of a server share. Cheap to clone.
#[derive(Clone)]
pub(super) struct McpLimits {
    calls: Arc<RequestLimits>,
    answers: Arc<RequestLimits>,
    streams: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
}

/// How many requests of one kind may be at work, and how long each.
struct RequestLimits {
    free: Semaphore,
    time_max: Duration,
}

/// The handler of one session, or of one request that has none.
pub(super) struct Limited<H> {
    inner: H,
    limits: McpLimits,
    is_initialized: AtomicBool,
}

impl McpLimits {
    /// `streams` are the places of those that listen; `closing` ends them.
    pub(super) fn new(
        streams: Arc<Semaphore>,
        closing: watch::Receiver<bool>,
        metrics: Arc<Metrics>,
    ) -> McpLimits {
        let at_most = |count, time_max| Arc::new(RequestLimits { free: Semaphore::new(count), time_max });
        McpLimits {
            calls: at_most(CALLS_MAX, CALL_TIME_MAX),
            answers: at_most(ANSWERS_MAX, ANSWER_TIME_MAX),
            streams,
            closing,
            metrics,
        }
    }

    /// The places of those that listen.
    pub(super) fn streams(&self) -> &Arc<Semaphore> {
        &self.streams
    }

    /// Answers a short request of this method.
    async fn answer<T, F: Future<Output = Result<T, ErrorData>> + Send>(
        &self,
        method: &'static str,
        cx: RequestContext<RoleServer>,
        work: impl FnOnce(RequestContext<RoleServer>) -> F + Send,
    ) -> Result<T, ErrorData> {
        let (began, spans) = (Instant::now(), Spans::of(&cx, method, None));
        let done = spans.around(self.answers.run(cx, work)).await;
        self.end(method, error_type(&done), began, &spans);
        done
    }

    fn end(&self, method: &'static str, error: &'static str, began: Instant, spans: &Spans) {
        self.metrics.operated(method, error, began.elapsed());
        if !error.is_empty() {
            names::failed(&spans.traced, error);
        }
    }
}

/// The spans of a request of MCP.
struct Spans {
    /// Of the HTTP request that it came in.
    outer: Option<correlation::Spans>,
    traced: Span,
}

impl Spans {
    fn of(cx: &RequestContext<RoleServer>, method: &'static str, tool: Option<&str>) -> Spans {
        let outer = cx.extensions.get::<Parts>().and_then(|head| head.extensions.get::<correlation::Spans>());
        let traced = names::mcp(method, tool, &cx.id, cx.protocol_version());
        let said = cx.meta.0.0.get("traceparent").and_then(Value::as_str).and_then(|it| it.parse().ok());
        match (&said, outer) {
            // What the message says of itself is nearer than what it came in.
            (None, Some(outer)) => context::nest(&traced, &outer.traced),
            (_, outer) => {
                context::adopt(&traced, said.as_ref());
                if let Some(outer) = outer {
                    context::link(&traced, &outer.traced);
                }
            }
        }
        Spans { outer: outer.cloned(), traced }
    }

    async fn around<T>(&self, work: impl Future<Output = T>) -> T {
        match &self.outer {
            // The library answers in a task of its own.
            Some(outer) => outer.log(work.instrument(self.traced.clone())).await,
            None => Box::pin(work).instrument(self.traced.clone()).await,
        }
    }
}

/// How an answer failed, by the codes of JSON-RPC; empty where it did not.
fn error_type<T>(done: &Result<T, ErrorData>) -> &'static str {
    match done.as_ref().map_err(|error| error.code) {
        Ok(_) => "",
        Err(ErrorCode::INVALID_PARAMS) => "-32602",
        Err(ErrorCode::METHOD_NOT_FOUND) => "-32601",
        Err(ErrorCode::INTERNAL_ERROR) => "-32603",
        Err(_) => "_OTHER",
    }
}

impl RequestLimits {
    async fn run<T, F: Future<Output = Result<T, ErrorData>> + Send>(
        &self,
        cx: RequestContext<RoleServer>,
        work: impl FnOnce(RequestContext<RoleServer>) -> F + Send,
    ) -> Result<T, ErrorData> {
        // Not queued: what waits holds its request in memory.
        let _place = self.free.try_acquire().map_err(|_| {
            failed("as many requests as this node takes are at work already: try again in a moment".into())
        })?;
        let cancelled = cx.ct.clone();
        // After a panic the library answers nothing, and the client would wait for ever.
        let work = AssertUnwindSafe(async move { work(cx).await }).catch_unwind();
        tokio::select! {
            // What was cancelled stays cancelled, even if it is done by now.
            biased;
            () = cancelled.cancelled() => Err(failed("the request was cancelled".into())),
            done = timeout(self.time_max, work) => match done {
                Ok(Ok(done)) => done,
                Ok(Err(_)) => Err(failed("the node met a bug while answering: its log has the place".into())),
                Err(_) => Err(failed(format!("there was no answer within {} s", self.time_max.as_secs()))),
            },
        }
    }
}

impl<H> Limited<H> {
    pub(super) fn new(inner: H, limits: McpLimits) -> Limited<H> {
        Limited { inner, limits, is_initialized: AtomicBool::new(false) }
    }
}

fn failed(message: String) -> ErrorData {
    ErrorData::internal_error(message, None)
}

/// Guards each method that takes a request.
macro_rules! guarded {
    ($($name:literal $method:ident($request:ty) -> $answer:ty;)*) => {$(
        async fn $method(
            &self,
            request: $request,
            cx: RequestContext<RoleServer>,
        ) -> Result<$answer, ErrorData> {
            self.limits.answer($name, cx, |cx| self.inner.$method(request, cx)).await
        }
    )*};
}

#[expect(deprecated, reason = "older revisions still have these methods")]
impl<H: ServerHandler> ServerHandler for Limited<H> {
    // A method that is left out here has the library's default and never reaches the handler.
    guarded! {
        "initialize" initialize(InitializeRequestParams) -> InitializeResult;
        "completion/complete" complete(CompleteRequestParams) -> CompleteResult;
        "logging/setLevel" set_level(SetLevelRequestParams) -> ();
        "prompts/get" get_prompt(GetPromptRequestParams) -> GetPromptResponse;
        "prompts/list" list_prompts(Option<PaginatedRequestParams>) -> ListPromptsResult;
        "resources/list" list_resources(Option<PaginatedRequestParams>) -> ListResourcesResult;
        "resources/templates/list" list_resource_templates(Option<PaginatedRequestParams>) -> ListResourceTemplatesResult;
        "resources/read" read_resource(ReadResourceRequestParams) -> ReadResourceResponse;
        "resources/subscribe" subscribe(SubscribeRequestParams) -> ();
        "resources/unsubscribe" unsubscribe(UnsubscribeRequestParams) -> ();
        "tools/list" list_tools(Option<PaginatedRequestParams>) -> ListToolsResult;
        "_OTHER" on_custom_request(CustomRequest) -> CustomResult;
        "tasks/get" get_task(GetTaskParams) -> GetTaskResult;
        "tasks/update" update_task(UpdateTaskParams) -> ();
        "tasks/cancel" cancel_task(CancelTaskParams) -> ();
        "skills/list" list_skills(Option<PaginatedRequestParams>) -> ListSkillsResult;
        "skills/get" get_skill(GetSkillRequestParams) -> GetSkillResult;
        "resources/directory/read" read_resource_directory(ReadResourceDirectoryRequestParams) -> ReadResourceDirectoryResult;
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        cx: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let (began, spans) = (Instant::now(), Spans::of(&cx, "tools/call", Some(&request.name)));
        let work = self.limits.calls.run(cx, |cx| self.inner.call_tool(request, cx));
        let done = spans.around(work).await;
        let error = match &done {
            Ok(CallToolResponse::Complete(result)) if result.is_error == Some(true) => "tool_error",
            done => error_type(done),
        };
        self.limits.end("tools/call", error, began, &spans);
        done
    }

    // These two take no parameters, so the macro does not fit them.
    async fn ping(&self, cx: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.limits.answer("ping", cx, |cx| self.inner.ping(cx)).await
    }

    async fn discover(&self, cx: RequestContext<RoleServer>) -> Result<DiscoverResult, ErrorData> {
        self.limits.answer("server/discover", cx, |cx| self.inner.discover(cx)).await
    }

    /// Has no deadline: it lasts until the client goes or the node stops, and then ends well.
    async fn listen(&self, cx: SubscriptionContext) -> Result<(), ErrorData> {
        let Ok(_place) = self.limits.streams.try_acquire() else {
            return Err(failed("as many streams as this node takes are open already".into()));
        };
        let mut closing = self.limits.closing.clone();
        let cancelled = cx.request_context().ct.clone();
        let work = AssertUnwindSafe(self.inner.listen(cx)).catch_unwind();
        tokio::select! {
            biased;
            () = cancelled.cancelled() => Ok(()),
            () = crate::http::closed(&mut closing) => Ok(()),
            done = work => done.unwrap_or_else(|_| Err(failed("the node met a bug while listening".into()))),
        }
    }

    fn get_info(&self) -> ServerConfig {
        self.inner.get_info()
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.inner.get_tool(name)
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        self.inner.supported_protocol_versions()
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        self.inner.accepted_subscription_filter(requested)
    }

    async fn on_initialized(&self, cx: NotificationContext<RoleServer>) {
        // Once a session: what it starts lasts as long as the session.
        if !self.is_initialized.swap(true, Ordering::Relaxed) {
            self.inner.on_initialized(cx).await;
        }
    }

    async fn on_cancelled(&self, notice: CancelledNotificationParam, cx: NotificationContext<RoleServer>) {
        self.inner.on_cancelled(notice, cx).await;
    }

    async fn on_progress(&self, notice: ProgressNotificationParam, cx: NotificationContext<RoleServer>) {
        self.inner.on_progress(notice, cx).await;
    }

    async fn on_roots_list_changed(&self, cx: NotificationContext<RoleServer>) {
        self.inner.on_roots_list_changed(cx).await;
    }

    async fn on_custom_notification(&self, notice: CustomNotification, cx: NotificationContext<RoleServer>) {
        self.inner.on_custom_notification(notice, cx).await;
    }
}
