//! A guard around any MCP handler: every request has a deadline, a place among those at work, an end when its client
//! cancels it or goes, and an answer even if the handler panics.

use std::borrow::Cow;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use rmcp::model::*;
use rmcp::service::{NotificationContext, Peer, RequestContext, SubscriptionContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use tokio::sync::{Semaphore, watch};
use tokio::time::{interval, timeout};

/// Requests at work at once, waiting calls included.
const AT_WORK_MAX: usize = 256;
/// Longest call of a tool: the longest call of an agent, and a margin in which its own end is told.
const CALL_TIME_MAX: Duration = Duration::from_secs(305);
/// Longest answer to anything else.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// How often it is seen whether the session of a request has gone.
const GONE_CHECK: Duration = Duration::from_secs(1);

/// The handler and what guards it. Cheap to clone where the handler is.
#[derive(Clone)]
pub(super) struct Guarded<H> {
    inner: H,
    at_work: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
}

impl<H: ServerHandler> Guarded<H> {
    pub(super) fn new(inner: H, closing: watch::Receiver<bool>) -> Guarded<H> {
        Guarded { inner, at_work: Arc::new(Semaphore::new(AT_WORK_MAX)), closing }
    }

    async fn guard<T, F: Future<Output = Result<T, ErrorData>> + Send>(
        &self,
        limit: Duration,
        cx: RequestContext<RoleServer>,
        work: impl FnOnce(RequestContext<RoleServer>) -> F + Send,
    ) -> Result<T, ErrorData> {
        let Ok(_place) = self.at_work.try_acquire() else {
            return Err(failed(format!("{AT_WORK_MAX} requests are at work already: try again in a moment")));
        };
        let (cancelled, peer) = (cx.ct.clone(), cx.peer.clone());
        let work = AssertUnwindSafe(async move { work(cx).await }).catch_unwind();
        tokio::select! {
            biased;
            () = cancelled.cancelled() => Err(failed("the request was cancelled".into())),
            done = timeout(limit, work) => match done {
                Ok(Ok(done)) => done,
                Ok(Err(_)) => Err(failed("the node met a bug while answering: its log has the place".into())),
                Err(_) => Err(failed(format!("there was no answer within {} s", limit.as_secs()))),
            },
            // The end of a session does not cancel what it asked for.
            () = gone(&peer) => Err(failed("the session has ended".into())),
        }
    }
}

fn failed(message: String) -> ErrorData {
    ErrorData::internal_error(message, None)
}

async fn gone(peer: &Peer<RoleServer>) {
    let mut ticks = interval(GONE_CHECK);
    while !peer.is_transport_closed() {
        ticks.tick().await;
    }
}

/// Guards each method that takes a request.
macro_rules! guarded {
    ($($limit:ident $method:ident($request:ty) -> $answer:ty;)*) => {$(
        async fn $method(
            &self,
            request: $request,
            cx: RequestContext<RoleServer>,
        ) -> Result<$answer, ErrorData> {
            self.guard($limit, cx, |cx| self.inner.$method(request, cx)).await
        }
    )*};
}

#[expect(deprecated, reason = "older revisions still have these methods")]
impl<H: ServerHandler> ServerHandler for Guarded<H> {
    guarded! {
        ANSWER_TIME_MAX initialize(InitializeRequestParams) -> InitializeResult;
        ANSWER_TIME_MAX complete(CompleteRequestParams) -> CompleteResult;
        ANSWER_TIME_MAX set_level(SetLevelRequestParams) -> ();
        ANSWER_TIME_MAX get_prompt(GetPromptRequestParams) -> GetPromptResponse;
        ANSWER_TIME_MAX list_prompts(Option<PaginatedRequestParams>) -> ListPromptsResult;
        ANSWER_TIME_MAX list_resources(Option<PaginatedRequestParams>) -> ListResourcesResult;
        ANSWER_TIME_MAX list_resource_templates(Option<PaginatedRequestParams>) -> ListResourceTemplatesResult;
        ANSWER_TIME_MAX read_resource(ReadResourceRequestParams) -> ReadResourceResponse;
        ANSWER_TIME_MAX subscribe(SubscribeRequestParams) -> ();
        ANSWER_TIME_MAX unsubscribe(UnsubscribeRequestParams) -> ();
        CALL_TIME_MAX call_tool(CallToolRequestParams) -> CallToolResponse;
        ANSWER_TIME_MAX list_tools(Option<PaginatedRequestParams>) -> ListToolsResult;
        ANSWER_TIME_MAX on_custom_request(CustomRequest) -> CustomResult;
        ANSWER_TIME_MAX get_task(GetTaskParams) -> GetTaskResult;
        ANSWER_TIME_MAX update_task(UpdateTaskParams) -> ();
        ANSWER_TIME_MAX cancel_task(CancelTaskParams) -> ();
        ANSWER_TIME_MAX list_skills(Option<PaginatedRequestParams>) -> ListSkillsResult;
        ANSWER_TIME_MAX get_skill(GetSkillRequestParams) -> GetSkillResult;
        ANSWER_TIME_MAX read_resource_directory(ReadResourceDirectoryRequestParams) -> ReadResourceDirectoryResult;
    }

    async fn ping(&self, cx: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.guard(ANSWER_TIME_MAX, cx, |cx| self.inner.ping(cx)).await
    }

    async fn discover(&self, cx: RequestContext<RoleServer>) -> Result<DiscoverResult, ErrorData> {
        self.guard(ANSWER_TIME_MAX, cx, |cx| self.inner.discover(cx)).await
    }

    /// Has no deadline: it lasts until the client goes or the node stops, and then ends well.
    async fn listen(&self, cx: SubscriptionContext) -> Result<(), ErrorData> {
        let mut closing = self.closing.clone();
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
        self.inner.on_initialized(cx).await;
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
