//! What stands before the handlers: hosts, origins, token, sizes, sessions, and a stop with streams open.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use aop::document::run_config::Builtin;
use futures::StreamExt;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::fixture::{
    LEGACY, McpFixture, Messages, PATIENCE, Setup, fixture, last_message, local, modern_message, start,
};

/// Sessions that this test tries to open; ten times as many as there are places.
const SESSIONS_TRIED: usize = 10_000;
const SESSIONS_MAX: usize = 1_000;
const STREAMS_MAX: usize = 256;

fn list(fixture: &McpFixture) -> RequestBuilder {
    fixture.modern_request("tools/list", json!({}))
}

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.unwrap().status()
}

#[tokio::test]
async fn only_names_of_this_node_and_its_own_pages_may_ask() {
    let fixture = fixture(Vec::new()).await;
    let port = fixture.base.rsplit(':').next().unwrap();
    for host in
        ["localhost", &format!("127.0.0.1:{port}"), "registry.example", "[::1]", "registry.example:8443"]
    {
        assert_eq!(status(list(&fixture).header("Host", host)).await, 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "10.1.2.3", "a@localhost"] {
        assert_eq!(status(list(&fixture).header("Host", host)).await, 403, "{host}");
    }
    for (host, origin, expected) in [
        ("localhost", format!("http://localhost:{port}"), 200),
        ("localhost", format!("http://127.0.0.1:{port}"), 200),
        ("registry.example", "https://registry.example".into(), 200),
        ("localhost", "http://evil.example".into(), 403),
        ("localhost", "null".into(), 403),
        ("localhost", "http://localhost:1".into(), 403),
        ("registry.example", format!("https://registry.example:{port}"), 403),
    ] {
        let response = list(&fixture).header("Host", host).header("Origin", &origin).send().await.unwrap();
        assert_eq!(response.status(), expected, "{host} {origin}");
        let allowed = response.headers().get("access-control-allow-origin");
        assert_eq!(allowed.map(|it| it.to_str().unwrap()), (expected == 200).then_some(origin.as_str()));
    }
    let form =
        fixture.client.post(fixture.url("/mcp")).header("Accept", "application/json, text/event-stream");
    assert_eq!(status(form.header("Content-Type", "text/plain").body("{}")).await, 415);
}

#[tokio::test]
async fn a_page_of_this_node_is_told_what_it_may_send_and_others_are_not() {
    let fixture = start(Setup { token: Some("s3cret"), ..Setup::default() }, |mcp| mcp).await;
    let ask = |origin: &str| {
        let asked = fixture.client.request(Method::OPTIONS, fixture.url("/mcp")).header("Origin", origin);
        asked.header("Access-Control-Request-Method", "POST").send()
    };
    let told = ask(&fixture.base).await.unwrap();
    assert_eq!(told.status(), 204);
    assert_eq!(told.headers()["access-control-allow-origin"], fixture.base.as_str());
    assert!(told.headers()["access-control-allow-headers"].to_str().unwrap().contains("mcp-session-id"));
    assert!(told.headers()["access-control-expose-headers"].to_str().unwrap().contains("mcp-session-id"));
    let refused = ask("https://evil.example").await.unwrap();
    assert_eq!(refused.status(), 403);
    assert!(refused.headers().get("access-control-allow-origin").is_none());
}

#[tokio::test]
async fn a_node_with_a_token_asks_for_it_here_too() {
    let fixture = start(Setup { token: Some("s3cret"), ..Setup::default() }, |mcp| mcp).await;
    let refused = list(&fixture).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.headers()["www-authenticate"], "Bearer");
    assert_eq!(status(list(&fixture).header("Authorization", "Bearer wrong")).await, 401);
    assert_eq!(status(fixture.client.get(fixture.url("/mcp/server-card"))).await, 401);
    assert_eq!(status(list(&fixture).header("Authorization", "Bearer s3cret")).await, 200);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_and_one_of_the_largest_input_is_taken() {
    let fixture = fixture(vec![local("echo", Builtin::Echo)]).await;
    let call = |bytes: usize| {
        let task = "x".repeat(bytes);
        fixture.modern_request("tools/call", json!({"name": "echo", "arguments": {"task": task}}))
    };
    assert_eq!(status(call(3 * 1024 * 1024 - 1024)).await, 200);
    let refused = call(4 * 1024 * 1024).send().await.unwrap();
    assert_eq!(refused.status(), 413);
    assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "too_large");
    // Neither does a body that does not say how long it is.
    let chunks = futures::stream::iter((0..80).map(|_| Ok::<_, std::io::Error>(vec![b' '; 64 * 1024])));
    let (headers, _) = modern_message(1, "tools/list", json!({}));
    let post = headers.into_iter().fold(fixture.post(), |post, (name, value)| post.header(name, value));
    assert_eq!(status(post.body(reqwest::Body::wrap_stream(chunks))).await, 413);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_sessions_are_not_opened_and_those_open_go_on() {
    let fixture = fixture(Vec::new()).await;
    let session = fixture.session().await;
    let params =
        json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}).to_string();
    let posts = futures::stream::iter(0..SESSIONS_TRIED).map(|_| {
        let post = fixture.post().body(body.clone());
        async move {
            let response = post.send().await.unwrap();
            let id = response.headers().get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
            (response.status(), id, response.text().await.unwrap())
        }
    });
    let answers: Vec<_> = posts.buffer_unordered(16).collect().await;
    let opened: Vec<&String> = answers.iter().filter_map(|(_, id, _)| id.as_ref()).collect();
    // As many as are asked for at once may come in between.
    assert!((SESSIONS_MAX - 1..SESSIONS_MAX + 16).contains(&opened.len()), "{}", opened.len());
    for (status, _, text) in answers.iter().filter(|(_, id, _)| id.is_none()) {
        assert_eq!(*status, 503);
        assert_eq!(serde_json::from_str::<Value>(text).unwrap()["error"]["code"], "unavailable");
    }
    assert!(session.ask("tools/list", json!({})).await["result"]["tools"].is_array());
    assert_eq!(list(&fixture).send().await.unwrap().status(), 200, "the newest revision needs no session");

    let delete = fixture.client.delete(fixture.url("/mcp")).header("Mcp-Session-Id", opened[0]);
    assert!(delete.send().await.unwrap().status().is_success());
    for more in &opened[1..20] {
        fixture.client.delete(fixture.url("/mcp")).header("Mcp-Session-Id", *more).send().await.unwrap();
    }
    fixture.session().await;
}

#[tokio::test]
async fn the_server_card_and_the_catalogue_name_this_node() {
    let fixture = fixture(Vec::new()).await;
    let card = fixture.client.get(fixture.url("/mcp/server-card")).send().await.unwrap();
    assert_eq!(card.headers()["content-type"], "application/mcp-server-card+json");
    let card: Value = card.json().await.unwrap();
    assert_eq!(card["remotes"][0]["url"], fixture.url("/mcp"));
    let catalog: Value = fixture
        .client
        .get(fixture.url("/.well-known/ai-catalog.json"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(catalog["entries"][1]["url"], fixture.url("/mcp/server-card"));
}

#[tokio::test]
async fn a_server_with_open_streams_and_calls_stops_in_time_and_ends_them() {
    let fixture = fixture(vec![local("sleep", Builtin::Sleep)]).await;
    let session = fixture.session().await;
    let mut events = Messages::of(session.listen().await);
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let mut listening =
        Messages::of(fixture.modern_request("subscriptions/listen", wanted).send().await.unwrap());
    listening.next().await.unwrap();
    let call = json!({"name": "sleep", "arguments": {"task": "60000"}, "_meta": {"progressToken": 1}});
    let mut call = Messages::of(session.send(9, "tools/call", call).await);
    call.next().await.unwrap();

    let (server, node, started) = (fixture.server, fixture.node, Instant::now());
    let stopping = tokio::spawn(async move {
        server.stop().await;
        node.stop().await.unwrap();
        started.elapsed()
    });
    let farewell = listening.next().await.unwrap();
    assert_eq!(farewell["id"], 1, "the listener is told: {farewell}");
    while timeout(PATIENCE, events.next()).await.unwrap().is_some() {}
    while timeout(PATIENCE, call.next()).await.unwrap().is_some() {}
    assert!(stopping.await.unwrap() < Duration::from_secs(5));
}

#[tokio::test]
async fn streams_are_counted_and_a_closed_one_makes_room() {
    let fixture = fixture(Vec::new()).await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        streams.push(fixture.session().await.listen().await);
    }
    let session = fixture.session().await;
    let get = || fixture.client.get(fixture.url("/mcp")).header("Accept", "text/event-stream");
    let refused = get().header("Mcp-Session-Id", &session.id).send().await.unwrap();
    assert_eq!(refused.status(), 429);
    let wanted = || {
        fixture.modern_request("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}))
    };
    let full = last_message(wanted().send().await.unwrap()).await;
    assert_eq!(full["error"]["code"], -32603, "{full}");
    assert_eq!(status(list(&fixture)).await, 200, "whoever only asks is answered");

    streams.truncate(STREAMS_MAX / 2);
    let room = async {
        // The end of a connection is seen a moment later.
        while get().header("Mcp-Session-Id", &session.id).send().await.unwrap().status() != 200 {}
    };
    timeout(PATIENCE, room).await.unwrap();
}

#[tokio::test]
async fn a_session_that_is_not_known_is_not_found_so_that_the_client_begins_again() {
    let fixture = fixture(Vec::new()).await;
    let post = fixture
        .post()
        .header("Mcp-Session-Id", "never")
        .body(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    assert_eq!(status(post).await, 404);
}

#[tokio::test]
async fn what_is_no_message_is_refused_and_the_server_lives() {
    let fixture = fixture(Vec::new()).await;
    for body in
        ["", "{", "[]", "null", r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#, &"[".repeat(100_000)]
    {
        let answered = status(fixture.post().body(body.to_owned())).await;
        assert!(answered.is_client_error(), "{answered} {}", &body[..body.len().min(60)]);
    }
    // A head that names another method than the body hides nothing.
    let wrong = list(&fixture).header("Mcp-Method", "subscriptions/listen");
    assert!(status(wrong).await.is_client_error());
    let mut raw = TcpStream::connect(fixture.base.strip_prefix("http://").unwrap()).unwrap();
    raw.write_all(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{").unwrap();
    drop(raw);
    let mut raw = TcpStream::connect(fixture.base.strip_prefix("http://").unwrap()).unwrap();
    raw.write_all(b"\x00\x01\r\n\r\n").unwrap();
    let read = tokio::task::spawn_blocking(move || raw.read(&mut [0; 16]));
    let _answered = read.await.unwrap();
    let answer = last_message(list(&fixture).send().await.unwrap()).await;
    assert!(answer["result"]["tools"].is_array());
}
