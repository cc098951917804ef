//! Names of spans and of what they say, all of them here: conventions change, and what others search for has one place.
//!
//! They are those of OpenTelemetry's semantic conventions, of HTTP (stable), of RPC (release candidate), of generative agents and
//! MCP (development, `semantic-conventions-genai` 0.1.0); what begins with `aop.` is our own. Inputs and outputs are in none
//! of them, only their sizes.
//!
//! The macros want names as they stand, so this file has the spans themselves.

use std::fmt::Display;

use tracing::Span;
use tracing::field::{Empty, display};

use super::context;
use crate::proto::call::{CallFailure, CallId};
use crate::proto::identity::PeerKey;
use crate::proto::name::{FullName, ZoneName};
use crate::sanitize::clean_short;

/// The version of the conventions, as collectors read it.
pub(crate) const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.45.0";
/// Of every span of a trace, and of nothing else. The log has spans of its own.
pub(crate) const TARGET: &str = "aop::trace";

/// Name of the protocol of calls, as its streams have it.
const CALL_METHOD: &str = "aop.call/1";
/// Longest text of a client in a span, bytes.
const TEXT_BYTES_MAX: usize = 128;

/// A request of an HTTP client to this `server`, as it names it; its route is not known before it was answered.
pub(crate) fn http(method: &'static str, version: &'static str, server: Option<(&str, Option<u16>)>) -> Span {
    let address = server.map(|(address, _)| clean_short(address, TEXT_BYTES_MAX));
    tracing::info_span!(
        target: TARGET, parent: None, "http",
        otel.name = method, otel.kind = "server", otel.status_code = Empty, error.type = Empty,
        http.request.method = method, http.route = Empty, http.response.status_code = Empty,
        url.scheme = "http", network.protocol.version = version, network.transport = "tcp",
        server.address = address, server.port = server.and_then(|(_, port)| port),
    )
}

/// It was answered.
pub(crate) fn http_answered(span: &Span, method: &'static str, route: Option<&str>, status: u16) {
    if let Some(route) = route {
        context::rename(span, format!("{method} {route}"));
        span.record("http.route", route);
    }
    span.record("http.response.status_code", status);
    // What a client did wrong is no error of the server.
    if status >= 500 {
        span.record("error.type", display(status)).record("otel.status_code", "ERROR");
    }
}

/// A request of an MCP client, in the revision that it speaks; of a tool if it calls one.
pub(crate) fn mcp(
    method: &'static str,
    tool: Option<&str>,
    id: &impl Display,
    version: Option<impl Display>,
) -> Span {
    let tool = tool.map(|tool| clean_short(tool, TEXT_BYTES_MAX));
    tracing::info_span!(
        target: TARGET, parent: None, "mcp",
        otel.name = tool.as_ref().map_or_else(|| method.to_owned(), |tool| format!("{method} {tool}")),
        otel.kind = "server", otel.status_code = Empty, error.type = Empty,
        mcp.method.name = method, gen_ai.tool.name = tool.as_deref(),
        gen_ai.operation.name = tool.as_ref().map(|_| "execute_tool"),
        jsonrpc.request.id = clean_short(&id.to_string(), TEXT_BYTES_MAX), network.transport = "tcp",
        mcp.protocol.version = version.map(|version| clean_short(&version.to_string(), TEXT_BYTES_MAX)),
    )
}

/// A call of an agent at whichever host takes it.
pub(crate) fn invoke_elsewhere(agent: &FullName, id: &impl Display, call: CallId) -> Span {
    tracing::info_span!(
        target: TARGET, "invoke_agent",
        otel.name = format!("invoke_agent {agent}"), otel.kind = "client", otel.status_code = Empty,
        error.type = Empty, gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = %agent,
        gen_ai.agent.id = %id, aop.zone = %agent.zone, aop.call.id = %call, aop.call.attempts = Empty,
        aop.call.outcome = Empty, aop.input.size = Empty, aop.output.size = Empty,
    )
}

/// The work of an agent of this host.
pub(crate) fn invoke_here(agent: &FullName, runner: &'static str, call: CallId) -> Span {
    tracing::info_span!(
        target: TARGET, "invoke_agent",
        otel.name = format!("invoke_agent {agent}"), otel.kind = "internal", otel.status_code = Empty,
        error.type = Empty, gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = %agent,
        aop.zone = %agent.zone, aop.call.id = %call, aop.runner = runner, aop.call.wait_ms = Empty,
        aop.call.outcome = Empty, aop.input.size = Empty, aop.output.size = Empty,
    )
}

/// What a call has to do with a host.
pub(crate) fn offer(within: &Span, host: &PeerKey, call: CallId) -> Span {
    tracing::info_span!(
        target: TARGET, parent: within, "offer",
        otel.name = format!("{CALL_METHOD} Offer"), otel.kind = "client", otel.status_code = Empty,
        error.type = Empty, rpc.system.name = "aop", rpc.method = CALL_METHOD, rpc.status_code = Empty,
        aop.peer.id = %host, aop.call.id = %call,
    )
}

/// A call that another node offers.
pub(crate) fn offered(peer: &PeerKey, call: CallId) -> Span {
    tracing::info_span!(
        target: TARGET, parent: None, "offered",
        otel.name = CALL_METHOD, otel.kind = "server", otel.status_code = Empty, error.type = Empty,
        rpc.system.name = "aop", rpc.method = CALL_METHOD, rpc.status_code = Empty,
        aop.peer.id = %peer, aop.call.id = %call, aop.input.size = Empty, aop.output.size = Empty,
    )
}

/// A model that is asked at this URL. Whoever runs it, it speaks as the first of its kind does, which the conventions take for
/// its name.
pub(crate) fn chat(model: &str, url: &str) -> Span {
    let (address, port) = server_of(url);
    tracing::info_span!(
        target: TARGET, "chat",
        otel.name = format!("chat {model}"), otel.kind = "client", otel.status_code = Empty, error.type = Empty,
        gen_ai.operation.name = "chat", gen_ai.request.model = model, gen_ai.provider.name = "openai",
        gen_ai.usage.input_tokens = Empty, gen_ai.usage.output_tokens = Empty,
        server.address = address, server.port = port,
    )
}

/// What the model's server says that it took, tokens.
pub(crate) fn used(span: &Span, input: u64, output: u64) {
    span.record("gen_ai.usage.input_tokens", input).record("gen_ai.usage.output_tokens", output);
}

/// An HTTP server of an agent that is asked, at this URL if that is known before.
pub(crate) fn post(url: Option<&str>) -> Span {
    let (address, port) = url.map(server_of).unwrap_or_default();
    tracing::info_span!(
        target: TARGET, "post",
        otel.name = "POST", otel.kind = "client", otel.status_code = Empty, error.type = Empty,
        http.request.method = "POST", server.address = address, server.port = port,
    )
}

/// Host and port of a URL, and nothing else: the rest may hold keys.
fn server_of(url: &str) -> (Option<String>, Option<u16>) {
    let url = reqwest::Url::parse(url).ok();
    let address = url.as_ref().and_then(|url| url.host_str().map(str::to_owned));
    (address, url.and_then(|url| url.port_or_known_default()))
}

/// A tool of an MCP server that is called.
pub(crate) fn tool(tool: &str) -> Span {
    let tool = clean_short(tool, TEXT_BYTES_MAX);
    tracing::info_span!(
        target: TARGET, "tool",
        otel.name = format!("tools/call {tool}"), otel.kind = "client", otel.status_code = Empty,
        error.type = Empty, mcp.method.name = "tools/call", gen_ai.operation.name = "execute_tool",
        gen_ai.tool.name = tool, network.transport = Empty, mcp.protocol.version = Empty,
    )
}

/// How its server is spoken with, and in which revision.
pub(crate) fn spoken(span: &Span, transport: &'static str, version: Option<impl Display>) {
    span.record("network.transport", transport);
    if let Some(version) = version {
        span.record("mcp.protocol.version", clean_short(&version.to_string(), TEXT_BYTES_MAX));
    }
}

/// A program that is run.
pub(crate) fn run(program: &str) -> Span {
    tracing::info_span!(
        target: TARGET, "run",
        otel.name = format!("run {program}"), otel.kind = "internal", otel.status_code = Empty,
        error.type = Empty, process.executable.name = program, process.exit.code = Empty,
    )
}

/// With which code it ended.
pub(crate) fn exited(span: &Span, code: i32) {
    span.record("process.exit.code", code);
}

/// A search.
pub(crate) fn find(zone: Option<&ZoneName>) -> Span {
    tracing::info_span!(
        target: TARGET, "find",
        otel.kind = "internal", otel.status_code = Empty, error.type = Empty,
        aop.zone = zone.map(display), aop.find.complete = Empty, aop.find.results = Empty,
    )
}

/// What it found.
pub(crate) fn found(span: &Span, is_complete: bool, results: usize) {
    span.record("aop.find.complete", is_complete).record("aop.find.results", results);
}

/// Agents that a client registers.
pub(crate) fn register(count: usize) -> Span {
    tracing::info_span!(
        target: TARGET, "register",
        otel.kind = "internal", otel.status_code = Empty, error.type = Empty,
        aop.register.offers = count, aop.register.refused = Empty,
    )
}

/// How that ended.
pub(crate) fn registered(span: &Span, refused: usize) {
    span.record("aop.register.refused", refused);
}

/// A comparison with a peer.
pub(crate) fn sync(peer: &PeerKey) -> Span {
    tracing::info_span!(
        target: TARGET, parent: None, "sync",
        otel.kind = "internal", otel.status_code = Empty, error.type = Empty,
        aop.peer.id = %peer, aop.sync.questions = Empty, aop.sync.sent = Empty, aop.sync.received = Empty,
    )
}

/// What it took: questions of this node, bytes of them, bytes of the answers.
pub(crate) fn synced(span: &Span, questions: u64, sent: u64, received: u64) {
    span.record("aop.sync.questions", questions)
        .record("aop.sync.sent", sent)
        .record("aop.sync.received", received);
}

/// How long the work waited for its place.
pub(crate) fn waited(span: &Span, wait: std::time::Duration) {
    span.record("aop.call.wait_ms", wait.as_millis() as u64);
}

/// How many hosts were asked.
pub(crate) fn attempted(span: &Span, attempts: u32) {
    span.record("aop.call.attempts", attempts);
}

/// How much went in.
pub(crate) fn took_in(span: &Span, bytes: usize) {
    span.record("aop.input.size", bytes);
}

/// How much came out.
pub(crate) fn gave_out(span: &Span, bytes: usize) {
    span.record("aop.output.size", bytes);
}

/// How a call ended.
pub(crate) fn ended(span: &Span, failure: Option<&CallFailure>) {
    span.record("aop.call.outcome", failure.map_or("ok", |failure| failure.outcome.text()));
    let code = failure.map_or("ok", |failure| failure.code.text());
    span.record("rpc.status_code", code);
    if failure.is_some() {
        failed(span, code);
    }
}

/// It failed; the code is one of this program's.
pub(crate) fn failed(span: &Span, code: &'static str) {
    span.record("error.type", code).record("otel.status_code", "ERROR");
}
