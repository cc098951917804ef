//! MCP servers behind a URL that answer as some servers do and none should: what is said of a call, and how soon.

use std::net::SocketAddr;
use std::sync::Mutex;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use rmcp::model::ErrorCode;

use super::*;

/// What the server does with a `tools/call`.
type Quirk = fn(&Seen) -> Response;

/// A request of a client, as far as a quirk looks at it.
struct Seen {
    id: Value,
    /// How many calls came before this one.
    earlier: usize,
}

/// A server with sessions, one tool, and one quirk.
struct Quirky {
    quirk: Quirk,
    /// The sessions that it knows, and what each request brought.
    state: Mutex<Board>,
}

#[derive(Default)]
struct Board {
    sessions: Vec<String>,
    opened: usize,
    calls: usize,
    authorizations: Vec<String>,
}

fn answer(status: u16, body: &str) -> Response {
    let headers = [("content-type", "application/json")];
    (axum::http::StatusCode::from_u16(status).unwrap(), headers, body.to_owned()).into_response()
}

fn result(id: &Value, result: Value) -> Response {
    answer(200, &json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string())
}

fn hello(id: &Value) -> Response {
    result(id, json!({"content": [{"type": "text", "text": "hello"}]}))
}

fn events(text: String) -> Response {
    ([("content-type", "text/event-stream")], text).into_response()
}

impl Quirky {
    /// Serves on loopback until the test ends.
    async fn start(quirk: Quirk) -> (Arc<Quirky>, SocketAddr) {
        let quirky = Arc::new(Quirky { quirk, state: Mutex::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/{*path}", any(Quirky::answer)).with_state(quirky.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        (quirky, address)
    }

    async fn answer(State(quirky): State<Arc<Quirky>>, request: Request) -> Response {
        if request.method() != "POST" {
            return answer(405, "");
        }
        let (head, body) = request.into_parts();
        let header =
            |name| head.headers.get(name).map(|it| it.to_str().unwrap().to_owned()).unwrap_or_default();
        let message: Value =
            serde_json::from_slice(&axum::body::to_bytes(body, 1 << 20).await.unwrap()).unwrap();
        let (id, session) = (message["id"].clone(), header("mcp-session-id"));
        let mut board = quirky.state.lock().unwrap();
        board.authorizations.push(header("authorization"));
        match message["method"].as_str().unwrap_or_default() {
            "initialize" => {
                let session = format!("session-{}", board.opened);
                board.opened += 1;
                board.sessions.push(session.clone());
                let info = json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                                  "serverInfo": {"name": "quirky", "version": "1"}});
                let mut response = result(&id, info);
                response.headers_mut().insert("mcp-session-id", session.parse().unwrap());
                response
            }
            _ if id.is_null() => answer(202, ""),
            "tools/list" => {
                result(&id, json!({"tools": [{"name": "hello", "inputSchema": {"type": "object"}}]}))
            }
            "tools/call" => {
                board.calls += 1;
                (quirky.quirk)(&Seen { id, earlier: board.calls - 1 })
            }
            "ping" if board.sessions.contains(&session) && board.calls != FORGETS_AFTER => {
                result(&id, json!({}))
            }
            "ping" => forgotten(),
            _ => {
                let error = json!({"code": ErrorCode::METHOD_NOT_FOUND, "message": "not here"});
                answer(200, &json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string())
            }
        }
    }
}

/// A server that forgets its sessions does so at this call.
const FORGETS_AFTER: usize = 2;

/// What servers of the TypeScript SDK's examples say of a session that they do not know.
fn forgotten() -> Response {
    answer(400, r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"No valid session ID"}}"#)
}

async fn upstream_of(quirk: Quirk) -> (Arc<Quirky>, Upstream) {
    let (quirky, address) = Quirky::start(quirk).await;
    let endpoint = Endpoint { url: format!("http://{address}/mcp"), ..Endpoint::default() };
    let upstream = start([McpServer::Url(endpoint)]);
    assert_eq!(ready(&upstream).await, ["hello"]);
    (quirky, upstream)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_back_ends_the_call_at_once() {
    let unknown = ("upstream_failed", Outcome::Unknown);
    let cases: [(&str, Quirk, (&str, Outcome)); 13] = [
        ("nothing but 202", |_| answer(202, ""), unknown),
        ("an empty body", |_| answer(200, ""), unknown),
        ("another answer", |_| hello(&json!(900)), unknown),
        (
            "no error of this request",
            |_| answer(200, r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32603,"message":"no ink"}}"#),
            ("agent_failed", Outcome::Done),
        ),
        (
            "half an emoji",
            |seen| answer(200, &format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"a":"\ud83d"}}}}"#, seen.id)),
            unknown,
        ),
        ("no JSON", |_| answer(200, "{\"jsonrpc\":"), unknown),
        ("a page", |_| ([("content-type", "text/html")], "<p>hello").into_response(), unknown),
        ("a stream without an answer", |_| events(": nothing\n\n".into()), unknown),
        (
            "a stream with NaN",
            |seen| {
                events(format!(
                    "data: {{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{{\"v\":NaN}}}}\n\n",
                    seen.id
                ))
            },
            unknown,
        ),
        (
            "a stream with another answer",
            |_| events("data: {\"jsonrpc\":\"2.0\",\"id\":900,\"result\":{}}\n\n".into()),
            unknown,
        ),
        ("a bad gateway", |_| answer(502, "<p>"), unknown),
        ("too many", |_| answer(429, "{}"), ("busy", Outcome::NotStarted)),
        (
            "soon",
            |_| {
                let mut soon = answer(503, "");
                soon.headers_mut().insert("retry-after", "7".parse().unwrap());
                soon
            },
            ("busy", Outcome::NotStarted),
        ),
    ];
    for (what, quirk, (code, outcome)) in cases {
        let (quirky, upstream) = upstream_of(quirk).await;
        let started = Instant::now();
        let failure = call(&upstream, "hello").await.expect_err(what);
        assert!(started.elapsed() < 2 * AT_ONCE, "{what}: {:?}", started.elapsed());
        assert_eq!((failure.code.text(), failure.outcome), (code, outcome), "{what}: {failure}");
        assert_eq!(quirky.state.lock().unwrap().calls, 1, "{what}: it may have run");
        if what == "soon" {
            assert!(failure.message.contains("7 s"), "{failure}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_forgotten_is_opened_again_and_the_call_repeated() {
    let plain: Quirk = |seen| match seen.earlier + 1 == FORGETS_AFTER {
        true => answer(400, "Bad Request: No valid session ID provided"),
        false => hello(&seen.id),
    };
    let as_json: Quirk = |seen| if seen.earlier + 1 == FORGETS_AFTER { forgotten() } else { hello(&seen.id) };
    let gone: Quirk =
        |seen| if seen.earlier + 1 == FORGETS_AFTER { answer(404, "") } else { hello(&seen.id) };
    for quirk in [plain, as_json, gone] {
        let (quirky, upstream) = upstream_of(quirk).await;
        assert_eq!(call(&upstream, "hello").await, Ok(json!("hello")));
        assert_eq!(call(&upstream, "hello").await, Ok(json!("hello")), "no call is lost");
        let board = quirky.state.lock().unwrap();
        assert_eq!((board.opened, board.calls), (2, 3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_followed_within_the_origin() {
    for status in [301, 302, 307, 308] {
        // Where the first path leads to the second, as an app below a mounted path does.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let quirky = Arc::new(Quirky { quirk: |seen| hello(&seen.id), state: Mutex::default() });
        let moved = move || async move {
            let status = axum::http::StatusCode::from_u16(status).unwrap();
            (status, [("location", "/mcp/")]).into_response()
        };
        let routes = Router::new()
            .route("/mcp", any(moved))
            .route("/mcp/", any(Quirky::answer))
            .with_state(quirky.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let headers = [("Authorization".to_owned(), GivenValue::Literal("Bearer k".into()))].into();
        let upstream = start([McpServer::Url(Endpoint { url: format!("http://{address}/mcp"), headers })]);
        assert_eq!(ready(&upstream).await, ["hello"], "{status}");
        assert_eq!(call(&upstream, "hello").await, Ok(json!("hello")));
        let board = quirky.state.lock().unwrap();
        assert!(board.authorizations.iter().all(|given| given == "Bearer k"), "{:?}", board.authorizations);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_another_origin_is_not_followed() {
    let (other, elsewhere) = Quirky::start(|seen| hello(&seen.id)).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let target = format!("http://{elsewhere}/mcp");
    let moved = move || {
        let target = target.clone();
        async move { (axum::http::StatusCode::TEMPORARY_REDIRECT, [("location", target)]).into_response() }
    };
    tokio::spawn(async move {
        axum::serve(listener, Router::new().route("/mcp", any(moved))).await.unwrap();
    });
    let endpoint = Endpoint { url: format!("http://{address}/mcp"), ..Endpoint::default() };
    let upstream = start([McpServer::Url(endpoint)]);
    until(&upstream, |tools| !tools.pending).await;
    assert_eq!(call(&upstream, "hello").await.unwrap_err().outcome, Outcome::NotStarted);
    assert!(other.state.lock().unwrap().authorizations.is_empty(), "nothing was asked there");
}
