#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
//! x
#[path = "conformance/asks.rs"]
mod asks;
#[path = "conformance/mrtr.rs"]
mod mrtr;
#[path = "conformance/overlay.rs"]
mod overlay;
#[path = "conformance/prompts.rs"]
mod prompts;
#[path = "conformance/resources.rs"]
mod resources;
#[path = "conformance/tasks.rs"]
mod tasks;
#[path = "conformance/tools.rs"]
mod tools;

use aop::agents::Agents;
use aop::proto::name::ZoneName;
use rmcp::ServerHandler;
use rmcp::model::*;
use rmcp::service::*;
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
};
use std::sync::Arc;

#[derive(Clone)]
struct StandIn(Agents);
impl ServerHandler for StandIn {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_resources().build())
            .with_server_info(Implementation::new("standin", "0"))
    }
    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _cx: RequestContext<rmcp::RoleServer>,
    ) -> Result<CallToolResponse, rmcp::ErrorData> {
        Err(rmcp::ErrorData::invalid_params(format!("Unknown tool: {}", request.name), None))
    }
    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _cx: RequestContext<rmcp::RoleServer>,
    ) -> Result<ReadResourceResponse, rmcp::ErrorData> {
        Err(rmcp::ErrorData::resource_not_found(
            "Resource not found",
            Some(serde_json::json!({"uri": request.uri})),
        ))
    }
    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }
    async fn listen(&self, cx: SubscriptionContext) -> Result<(), rmcp::ErrorData> {
        let mut changes = self.0.changes();
        loop {
            tokio::select! {
                () = cx.cancelled() => return Ok(()),
                _ = changes.changed() => { let _ = cx.sink().notify_tool_list_changed().await; }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in() {
    let agents = Agents::new(ZoneName::root());
    let overlay = overlay::Overlay::new(StandIn(agents.clone()), agents);
    let config =
        StreamableHttpServerConfig::default().with_legacy_session_mode(true).with_json_response(true);
    let service = StreamableHttpService::new(
        move || Ok(overlay.clone()),
        Arc::new(LocalSessionManager::default()),
        config,
    );
    let router = axum::Router::new().route_service("/mcp", service);
    let socket = tokio::net::TcpListener::bind("127.0.0.1:8931").await.unwrap();
    axum::serve(socket, router).await.unwrap();
}
