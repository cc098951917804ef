//! Imports: a real node reads scripted registries over HTTP, through their changes and their faults.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aop::api::{Import, ImportKind, ImportRun, ReplicaState, StartImport};
use aop::host::{self, HttpReadings, ImportClient, ImportSettings, Options, Running};
use aop::proto::code::Code;
use aop::proto::identity::Identity;
use aop::telemetry::exposition::Format;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);
const OFFICIAL: &str = "io.modelcontextprotocol.registry/official";
/// Documents of a page.
const PAGE: usize = 2;

/// An upstream: paths and what stands there, faults of the next answers, and what was asked.
#[derive(Clone, Default)]
struct Upstream(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    /// Of `/v0.1/servers`: entries, each with the day of its last change.
    servers: Vec<(u32, Value)>,
    files: BTreeMap<String, Value>,
    faults: VecDeque<Option<Response>>,
    asked: Vec<String>,
    /// What every request must carry.
    token: Option<String>,
}

impl Upstream {
    /// Answers on this machine; its address.
    async fn serve(&self) -> String {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(socket, router).await });
        url
    }

    fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    /// A version changes on a day; it is the latest of its name from then on.
    fn set(&self, day: u32, name: &str, version: &str, status: &str) {
        self.script(|script| {
            for (changed, entry) in &mut script.servers {
                if entry["server"]["name"] == name && entry["_meta"][OFFICIAL]["isLatest"] == true {
                    entry["_meta"][OFFICIAL]["isLatest"] = json!(false);
                    *changed = day;
                }
            }
            script.servers.retain(|(_, entry)| {
                entry["server"]["name"] != name || entry["server"]["version"] != version
            });
            script.servers.push((day, entry(day, name, version, status)));
        });
    }

    fn fail(&self, fault: impl IntoResponse) {
        self.script(|script| script.faults.push_back(Some(fault.into_response())));
    }

    fn asked(&self) -> Vec<String> {
        self.script(|script| std::mem::take(&mut script.asked))
    }
}

fn date(day: u32) -> String {
    format!("2026-10-{day:02}T08:30:00.123456Z")
}

fn entry(day: u32, name: &str, version: &str, status: &str) -> Value {
    json!({
        "server": {
            "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
            "name": name, "description": format!("does {version}"), "version": version,
            "remotes": [{"type": "streamable-http", "url": "https://mcp.example.org/mcp"}],
        },
        "_meta": {
            OFFICIAL: {"status": status, "publishedAt": date(1), "updatedAt": date(day), "isLatest": true},
            "org.example/scan": {"verdict": "clean"},
        },
    })
}

async fn answer(State(upstream): State<Upstream>, request: Request) -> Response {
    upstream.script(|script| {
        script.asked.push(request.uri().to_string());
        let given = request.headers().get("x-token").and_then(|token| token.to_str().ok());
        if script.token.is_some() && given != script.token.as_deref() {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        if let Some(Some(fault)) = script.faults.pop_front() {
            return fault;
        }
        if let Some(file) = script.files.get(request.uri().path()) {
            return axum::Json(file.clone()).into_response();
        }
        match request.uri().path() {
            "/v0.1/servers" if !script.servers.is_empty() => page(&script.servers, request.uri().query()),
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    })
}

/// One page: what is not deleted, or whatever changed since a day.
fn page(servers: &[(u32, Value)], query: Option<&str>) -> Response {
    let query: BTreeMap<String, String> =
        form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect();
    let day = |since: &String| since.strip_prefix("2026-10-").unwrap()[..2].parse::<u32>().unwrap();
    let since = query.get("updated_since").map(day);
    let meant: Vec<&Value> = servers
        .iter()
        .filter(|(day, entry)| match since {
            Some(since) => *day >= since,
            None => entry["_meta"][OFFICIAL]["status"] != "deleted",
        })
        .map(|(_, entry)| entry)
        .collect();
    let from: usize = query.get("cursor").map_or(0, |cursor| cursor.parse().unwrap());
    let next = (from + PAGE < meant.len()).then(|| (from + PAGE).to_string());
    let servers: Vec<&Value> = meant.into_iter().skip(from).take(PAGE).collect();
    let metadata = json!({"count": servers.len(), "nextCursor": next});
    axum::Json(json!({"servers": servers, "metadata": metadata})).into_response()
}

async fn node(folder: &Path, seed: u8, peer: Option<&Running>, imports: Vec<ImportSettings>) -> Running {
    let bootstrap = peer.map(|peer| peer.listen[0].clone()).into_iter().collect();
    let options = Options::new(Identity::from_seed([seed; 32]), "test", folder);
    host::start(Options { bootstrap, imports, ..options }).await.unwrap()
}

/// Waits until a reading that was asked for, or began by itself, has ended.
async fn ended(client: &ImportClient, url: &str) -> Import {
    let over = async {
        loop {
            let found = client.list().imports.into_iter().find(|import| import.url.starts_with(url)).unwrap();
            if found.run.is_none() && found.last.is_some() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, over).await.expect("a reading ends")
}

async fn import(node: &Running, url: &str) -> (Import, ImportRun) {
    let client = ImportClient::new(node.handle.clone());
    client.start(StartImport { url: url.into(), ..StartImport::default() }).await.unwrap();
    let import = ended(&client, url).await;
    let last = import.last.clone().unwrap();
    (import, last)
}

/// Original name, version and what its registry says, of all that is offered.
async fn holdings(node: &Running) -> BTreeSet<String> {
    let page = node.handle.agents(None, 1_000, None).await.unwrap();
    let mut held = BTreeSet::new();
    for agent in page.results {
        let detail = node.handle.show(&agent.id).await.unwrap();
        let status = if detail.card["deprecated"].is_string() { "deprecated" } else { "active" };
        let name = detail.card["original_name"].as_str().unwrap_or(&agent.agent).to_owned();
        held.insert(format!("{name} {} {status}", detail.card["version"].as_str().unwrap_or("-")));
    }
    held
}

fn set(held: &[&str]) -> BTreeSet<String> {
    held.iter().map(ToString::to_string).collect()
}

/// A restart asks for what is new alone, and offers the rest until the import is removed.
async fn restarted(
    site: Running,
    peer: &Running,
    folder: &Path,
    url: &str,
    upstream: &Upstream,
    held: &BTreeSet<String>,
) {
    site.stop().await.unwrap();
    upstream.asked();
    let site = node(folder, 1, Some(peer), Vec::new()).await;
    assert_eq!(holdings(&site).await, *held);
    let (_, run) = import(&site, url).await;
    assert_eq!((run.error, run.new, run.changed), (None, 0, 0));
    assert!(upstream.asked().iter().all(|path| path.contains("updated_since=2026-10-03")));
    let client = ImportClient::new(site.handle.clone());
    client.remove(url).await.unwrap();
    assert!(client.list().imports.is_empty() && holdings(&site).await.is_empty());
    site.stop().await.unwrap();
}

fn told_to_wait(seconds: &str) -> Response {
    (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, seconds.to_owned())]).into_response()
}

/// One reading after the other fails, each for another reason.
async fn faults_change_nothing(site: &Running, url: &str, upstream: &Upstream, held: &BTreeSet<String>) {
    let before = ended(&ImportClient::new(site.handle.clone()), url).await.seen_ms;
    assert!(before.is_some());
    let elsewhere = [(header::LOCATION, "http://192.168.0.1/")];
    let faults: Vec<(Response, &str)> = vec![
        (StatusCode::INTERNAL_SERVER_ERROR.into_response(), "500"),
        (told_to_wait("120"), "120 s"),
        ("{\"servers\": [{\"ser".into_response(), "not JSON"),
        ("<html>hello</html>".into_response(), "HTML"),
        (axum::Json(json!({"servers": {"a": 1}})).into_response(), "array `servers`"),
        (vec![b' '; 17 << 20].into_response(), "bytes"),
        ((StatusCode::FOUND, elsewhere).into_response(), "another origin"),
    ];
    for (fault, why) in faults {
        upstream.fail(fault);
        let (import, run) = import(site, url).await;
        let error = run.error.unwrap();
        assert!(error.code == Code::UpstreamFailed && error.message.contains(why), "{why}: {error:?}");
        assert_eq!((import.seen_ms, run.new + run.changed + run.withdrawn), (before, 0), "{why}");
        assert_eq!(holdings(site).await, *held, "{why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_is_followed_through_its_changes_and_a_fault_changes_nothing() {
    let (folder, peer_folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let upstream = Upstream::default();
    let url = upstream.serve().await;
    let peer = node(peer_folder.path(), 2, None, Vec::new()).await;
    let site = node(folder.path(), 1, Some(&peer), Vec::new()).await;
    for name in ["org.a/one", "org.a/two", "Org.A/two", "org.b/three", "org.b/four"] {
        upstream.set(1, name, "1.0.0", "active");
    }
    upstream.set(1, "org.c/gone", "9.9.9", "deleted");
    let first = set(&[
        "org.a/one 1.0.0 active",
        "org.a/two 1.0.0 active",
        "Org.A/two 1.0.0 active",
        "org.b/three 1.0.0 active",
        "org.b/four 1.0.0 active",
    ]);
    // Nothing is taken of a list whose last page fails.
    upstream.script(|script| script.faults.extend([None, None]));
    upstream.fail(StatusCode::BAD_GATEWAY);
    let (shown, run) = import(&site, &url).await;
    assert_eq!((run.pages, shown.held, shown.seen_ms), (2, 0, None));
    assert!(run.error.unwrap().message.starts_with("page 3: ") && holdings(&site).await.is_empty());
    let (_, run) = import(&site, &url).await;
    assert_eq!((run.error, run.new, run.pages, run.documents), (None, 5, 3, 5));
    assert_eq!(holdings(&site).await, first);

    // A newer version, and the older one told again; a warning; a deletion, also of what was never held; something broken.
    upstream.set(2, "org.a/one", "1.1.0", "active");
    upstream.set(2, "org.a/two", "1.0.0", "deprecated");
    upstream.set(2, "org.b/three", "1.0.0", "deleted");
    upstream.set(2, "org.c/gone", "9.9.9", "deleted");
    upstream.script(|script| script.servers.push((2, json!({"server": {"name": "broken"}, "_meta": {}}))));
    faults_change_nothing(&site, &url, &upstream, &first).await;
    upstream.fail(told_to_wait("1"));
    upstream.asked();
    let (_, run) = import(&site, &url).await;
    assert_eq!((&run.error, run.new, run.changed, run.withdrawn), (&None, 0, 2, 1));
    assert_eq!(run.skipped["missing_field"], 1, "{run:?}");
    let asked = upstream.asked();
    assert!(asked.iter().all(|path| path.contains("updated_since=2026-10-01T08%3A29%3A00")), "{asked:?}");
    let second = set(&[
        "org.a/one 1.1.0 active",
        "org.a/two 1.0.0 deprecated",
        "Org.A/two 1.0.0 active",
        "org.b/four 1.0.0 active",
    ]);
    assert_eq!(holdings(&site).await, second);

    // What was deleted comes back, and what is deprecated is not any more; nobody is a member for it.
    upstream.set(3, "org.b/three", "1.0.0", "active");
    upstream.set(3, "org.a/two", "1.0.0", "active");
    let (shown, run) = import(&site, &url).await;
    assert_eq!((run.error, run.new, run.changed, shown.held), (None, 1, 1, 5));
    let last = holdings(&site).await;
    assert!(last.contains("org.b/three 1.0.0 active") && last.contains("org.a/two 1.0.0 active"), "{last:?}");
    let spread = async {
        while holdings(&peer).await != last {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, spread).await.expect("all of it spreads");
    let status = peer.handle.status().await.unwrap();
    assert_eq!((status.zones[0].agents, status.zones[0].members), (5, 2));

    restarted(site, &peer, folder.path(), &url, &upstream, &last).await;
    peer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_imported_is_a_listing_with_its_registrys_words_and_dates() {
    let folder = TempDir::new().unwrap();
    let upstream = Upstream::default();
    let url = upstream.serve().await;
    upstream.set(4, "org.example/tool", "1.2.0", "active");
    let site = node(folder.path(), 3, None, Vec::new()).await;
    let (shown, _) = import(&site, &url).await;
    assert_eq!((shown.kind, shown.zones), (Some(ImportKind::Mcp), vec![".".to_owned()]));
    let detail = site.handle.show("org.example/tool").await.unwrap();
    assert_eq!((detail.agent.owner, detail.agent.callable), (shown.owner.clone(), false));
    assert_eq!(detail.agent.replicas[0].state, ReplicaState::Listed);
    let document = entry(4, "org.example/tool", "1.2.0", "active");
    assert_eq!(
        (&detail.card["original"], &detail.card["registry_meta"]),
        (&document["server"], &document["_meta"])
    );
    let servers = host::ServerDocuments::new(&site.handle);
    let server = servers.get("org.example/tool").await.unwrap().expect("an own import is answered for");
    assert_eq!(json!(server.server), document["server"]);
    let day = |day: u64| 1_790_843_400_123 + (day - 1) * 86_400_000;
    assert_eq!((server.published_at.0, server.updated_at.0), (day(1), day(4)));
    // Other zones are another import.
    let client = ImportClient::new(site.handle.clone());
    let elsewhere = StartImport { url: url.clone(), zones: vec!["lab".into()], kind: None };
    assert_eq!(client.start(elsewhere).await.unwrap_err().code, Code::Conflict);
    for bad in ["ftp://a.example", "registry", "http://me@a.example", "http://a.example/?key=1"] {
        let bad = StartImport { url: bad.into(), ..StartImport::default() };
        assert_eq!(client.start(bad).await.unwrap_err().code, Code::BadRequest);
    }
    let unserved = StartImport { url: "http://a.example".into(), zones: vec!["lab".into()], kind: None };
    assert_eq!(client.start(unserved).await.unwrap_err().code, Code::ZoneNotServed);
    site.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_lead_in_a_circle_are_given_up_and_a_catalogue_brings_what_it_may() {
    let folder = TempDir::new().unwrap();
    let (upstream, private) = (Upstream::default(), Upstream::default());
    let (url, private_url) = (upstream.serve().await, private.serve().await);
    let site = node(folder.path(), 4, None, Vec::new()).await;
    let circle =
        json!({"servers": [entry(1, "org.a/one", "1.0.0", "active")], "metadata": {"nextCursor": "again"}});
    upstream.script(|script| script.files.insert("/v0.1/servers".into(), circle));
    let (_, run) = import(&site, &url).await;
    assert!(run.error.is_some_and(|error| error.message.contains("circle")));
    assert!(holdings(&site).await.is_empty());

    let server = |name: &str| {
        let schema = "https://static.modelcontextprotocol.io/schemas/v1/server-card.schema.json";
        json!({"$schema": schema, "name": name, "version": "1.0.0", "description": "d"})
    };
    let card = |name: &str| {
        let url = "https://a.example";
        json!({"name": name, "version": "1", "protocolVersion": "0.3.0", "url": url, "skills": []})
    };
    let of = |kind: &str, rest: Value| {
        let kind = format!("application/{kind}+json");
        let mut entry = json!({"identifier": "urn:air:a.example:x", "displayName": "x", "type": kind});
        entry.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        entry
    };
    site.handle.register(None, aop_document(&card("known"))).await.unwrap();
    let known = site.handle.show("known").await.unwrap().agent.id;
    private.script(|script| script.files.insert("/card".into(), card("stolen")));
    let entries = json!({"specVersion": "1.0", "entries": [
        of("mcp-server-card", json!({"data": server("org.a/served")})),
        of("a2a-agent-card", json!({"data": card("carried")})),
        of("a2a-agent-card", json!({"url": "/named.json"})),
        of("a2a-agent-card", json!({"url": format!("{private_url}/card")})),
        of("a2a-agent-card", json!({"data": card("known"), "metadata": {"aopId": known}})),
        of("ai-catalog", json!({"url": "/more.json"})),
        of("mcp-server-card", json!({})),
    ]});
    upstream.script(|script| {
        script.files.clear();
        script.files.insert("/.well-known/ard.json".into(), entries);
        script.files.insert("/named.json".into(), card("named"));
    });
    let (shown, run) = import(&site, &url).await;
    assert_eq!((shown.kind, &run.error, run.new), (Some(ImportKind::Ard), &None, 3), "{run:?}");
    let skipped = [("held", 1), ("no_document", 1), ("not_fetched", 1), ("other_type", 1)];
    let skipped: BTreeMap<String, usize> =
        skipped.into_iter().map(|(why, count)| (why.to_owned(), count)).collect();
    assert_eq!(run.skipped, skipped);
    assert!(private.asked().is_empty(), "nobody sends this host into its own network");
    let (_, run) = import(&site, &url).await;
    assert_eq!((run.new, run.unchanged), (0, 3), "and nothing is written twice");

    // A directory of agents, page by page.
    let other = Upstream::default();
    let directory = other.serve().await;
    let entry = |name: &str| of("a2a-agent-card", json!({"data": card(name)}));
    let results = json!({"results": [entry("listed")], "nextPageToken": ""});
    other.script(|script| script.files.insert("/v1/agents".into(), results));
    let (shown, run) = import(&site, &directory).await;
    assert_eq!((shown.kind, run.new), (Some(ImportKind::Agents), 1));
    site.stop().await.unwrap();
}

fn aop_document(document: &Value) -> Vec<aop::document::Offer> {
    aop::document::read_documents(document.clone()).into_iter().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_of_the_settings_begins_by_itself_and_its_key_stays_here() {
    let folder = TempDir::new().unwrap();
    let upstream = Upstream::default();
    let url = upstream.serve().await;
    upstream.set(1, "org.a/one", "1.0.0", "active");
    // The one variable that is set everywhere.
    let token = std::env::var("PATH").unwrap();
    upstream.script(|script| script.token = Some(token.clone()));
    let settings = |variable: &str| ImportSettings {
        url: url.clone(),
        zones: Vec::new(),
        kind: None,
        every: Duration::from_secs(3_600),
        header_env: BTreeMap::from([("x-token".to_owned(), variable.to_owned())]),
    };
    let site = node(folder.path(), 5, None, vec![settings("AOP_TEST_UNSET")]).await;
    let client = ImportClient::new(site.handle.clone());
    let error = ended(&client, &url).await.last.unwrap().error.unwrap();
    assert!(error.message.contains("`AOP_TEST_UNSET` is not set"), "{error:?}");
    assert!(upstream.asked().is_empty());
    site.stop().await.unwrap();

    let site = node(folder.path(), 5, None, vec![settings("PATH")]).await;
    let client = ImportClient::new(site.handle.clone());
    // The last reading failed a moment ago: only a wish reads it again so soon.
    let shown = client.start(StartImport { url: url.clone(), ..StartImport::default() }).await.unwrap();
    assert_eq!(shown.every_s, Some(3_600));
    let import = ended(&client, &url).await;
    let run = import.last.clone().unwrap();
    assert_eq!((run.error, run.new), (None, 1));
    let told = serde_json::to_string(&client.list()).unwrap();
    let file = std::fs::read_to_string(folder.path().join("imports.json")).unwrap();
    let seed = file.split("\"seed\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    for secret in [&seed, &token, "x-token"] {
        assert!(!told.contains(secret), "{told}");
    }
    assert!(!file.contains(&token) && !file.contains("x-token"));
    let health = aop::host::HealthClient::new(site.handle.clone());
    assert!(!health.metrics(Format::Text, &HttpReadings::default()).await.unwrap().contains(&url));
    let wait = Duration::from_millis(import.next_ms.unwrap().saturating_sub(run.ended_ms.unwrap()));
    assert!((Duration::from_secs(3_200)..Duration::from_secs(4_000)).contains(&wait), "{wait:?}");
    site.stop().await.unwrap();
}
