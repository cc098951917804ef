//! MCP servers behind a URL that speak the older transport alone.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::routing::{get, post};
use futures::Stream;

use super::*;

/// A server with one tool, `hello`, and where it says that messages are posted.
struct Older {
    endpoint: &'static str,
    streams: Mutex<Vec<mpsc::Sender<Value>>>,
    opened: AtomicUsize,
    authorizations: Mutex<Vec<String>>,
}

impl Older {
    async fn start(endpoint: &'static str) -> (Arc<Older>, SocketAddr) {
        let older = Arc::new(Older {
            endpoint,
            streams: Mutex::default(),
            opened: AtomicUsize::new(0),
            authorizations: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // A POST to `/sse` is a 405.
        let routes = Router::new().route("/sse", get(Older::open)).route("/messages", post(Older::take));
        let routes = routes.with_state(older.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        (older, address)
    }

    async fn open(
        State(older): State<Arc<Older>>,
        headers: HeaderMap,
    ) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
        assert!(headers["accept"].to_str().unwrap().contains("text/event-stream"));
        let (sender, messages) = mpsc::channel(16);
        let session = older.opened.fetch_add(1, Ordering::Relaxed);
        older.streams.lock().unwrap().push(sender);
        let first = Event::default().event("endpoint").data(format!("{}?session={session}", older.endpoint));
        let rest = futures::stream::unfold(messages, |mut messages| async move {
            let message: Value = messages.recv().await?;
            Some((Ok(Event::default().event("message").data(message.to_string())), messages))
        });
        Sse::new(futures::StreamExt::chain(
            futures::stream::iter([Ok(Event::default().comment("hi")), Ok(first)]),
            rest,
        ))
    }

    async fn take(
        State(older): State<Arc<Older>>,
        Query(session): Query<std::collections::BTreeMap<String, usize>>,
        headers: HeaderMap,
        body: Bytes,
    ) -> StatusCode {
        let authorization = headers.get("authorization").map(|it| it.to_str().unwrap().to_owned());
        older.authorizations.lock().unwrap().extend(authorization);
        let message: Value = serde_json::from_slice(&body).unwrap();
        let result = match message["method"].as_str().unwrap_or_default() {
            "initialize" => json!({"protocolVersion": "2024-11-05", "capabilities": {"tools": {}},
                                   "serverInfo": {"name": "older", "version": "1"}}),
            "tools/list" => json!({"tools": [{"name": "hello", "inputSchema": {"type": "object"}}]}),
            "tools/call" => json!({"content": [{"type": "text", "text": format!("hello {session:?}")}]}),
            _ => return StatusCode::ACCEPTED,
        };
        let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
        let stream = older.streams.lock().unwrap()[session["session"]].clone();
        stream.send(answer).await.unwrap();
        StatusCode::ACCEPTED
    }
}

fn upstream_at(address: SocketAddr) -> Upstream {
    let headers = [("Authorization".to_owned(), GivenValue::Literal("Bearer key".into()))].into();
    super::start([McpServer::Url(Endpoint { url: format!("http://{address}/sse"), headers })])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_post_is_asked_over_its_stream_and_comes_back_over_it() {
    let (older, address) = Older::start("/messages").await;
    let upstream = upstream_at(address);
    until(&upstream, |tools| !tools.list.is_empty()).await;
    assert_eq!(names(&upstream.tools().borrow()), ["hello"]);
    assert_eq!(call(&upstream, "hello").await, Ok(json!("hello {\"session\": 0}")));
    // The end of the stream is the end of the connection.
    older.streams.lock().unwrap()[0] = mpsc::channel(1).0;
    assert_eq!(recovered(&upstream, "hello").await, json!("hello {\"session\": 1}"));
    let authorizations = older.authorizations.lock().unwrap();
    assert!(authorizations.len() >= 6 && authorizations.iter().all(|it| it == "Bearer key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_posted_at_no_other_origin_than_the_streams() {
    let (elsewhere, other) = Older::start("/messages").await;
    let named: &'static str = format!("http://{other}/messages").leak();
    let (older, address) = Older::start(named).await;
    let upstream = upstream_at(address);
    let deadline = Instant::now() + PATIENCE;
    while older.opened.load(Ordering::Relaxed) == 0 {
        assert!(Instant::now() < deadline, "no stream was opened");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let tools = until(&upstream, |tools| !tools.pending).await;
    assert!(tools.unlisted && tools.list.is_empty());
    assert!(elsewhere.authorizations.lock().unwrap().is_empty(), "no key went there");
}
