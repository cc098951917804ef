//! The registry of MCP servers as clients read it: real nodes, one HTTP request after the other.

use std::collections::BTreeSet;
use std::time::Duration;

use aop::api::AgentDetail;
use aop::http::RegistryAccess;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{PATIENCE, Setup, Site, TOKEN};

const OFFICIAL: &str = "io.modelcontextprotocol.registry/official";

impl Site {
    /// Names of all pages, each asked for with the cursor of the one before and nothing else.
    async fn names(&self, query: &str) -> Vec<String> {
        let (mut names, mut next) = (Vec::new(), query.to_owned());
        loop {
            let (status, page) = self.get(&format!("/v0.1/servers?{next}")).await;
            assert_eq!(status, 200, "{page}");
            let servers = page["servers"].as_array().unwrap();
            assert_eq!(page["metadata"]["count"], servers.len());
            names.extend(servers.iter().map(|entry| entry["server"]["name"].as_str().unwrap().to_owned()));
            let Some(cursor) = page["metadata"]["nextCursor"].as_str() else { return names };
            next = format!("cursor={cursor}");
        }
    }
}

fn document(name: &str, description: &str) -> Value {
    json!({
        "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
        "name": name, "description": description, "version": "1.2.0", "x-of-nobody": {"kept": [1, null]},
        "remotes": [{"type": "streamable-http", "url": "https://mcp.example.org/mcp"}],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_are_served_as_they_were_published_page_by_page() {
    let site = Site::start(1, Setup::default()).await;
    let mut documents: Vec<Value> =
        (0..7).map(|number| document(&format!("org.example/tool-{number}"), "reads the weather")).collect();
    documents[3]["title"] = json!("Ocean Currents");
    let said = json!({"status": "deprecated", "statusMessage": "use another"});
    documents[5] = json!({"server": documents[5], "_meta": {OFFICIAL: said}});
    let answer = site.register(&json!(documents)).await;
    assert_eq!(answer.registered.len(), 7, "{answer:?}");
    // An agent of another kind is none of its servers.
    site.register(&json!({"name": "native", "description": "d"})).await;

    let all: Vec<String> = (0..7).map(|number| format!("org.example/tool-{number}")).collect();
    assert_eq!(site.names("").await, all);
    assert_eq!(site.names("limit=3&version=latest").await, all);
    assert_eq!(site.names("limit=1&search=CURRENTS").await, [all[3].clone()]);
    assert_eq!(site.names("limit=2&search=tool-").await, all);
    assert_eq!(site.names("search=weather&limit=4").await, all, "it is in all descriptions");
    assert_eq!(site.names("version=9.9.9").await, Vec::<String>::new());
    assert_eq!(site.names("updated_since=2020-01-01T00:00:00Z&limit=5").await, all);
    assert_eq!(site.names("updated_since=2100-01-01T00:00:00Z").await, Vec::<String>::new());

    let (status, latest) = site.get("/v0.1/servers/org.example%2Ftool-3/versions/latest").await;
    assert_eq!((status, &latest["server"]), (200, &documents[3]), "nothing is added and nothing is lost");
    let official = &latest["_meta"][OFFICIAL];
    assert_eq!((&official["status"], &official["isLatest"]), (&json!("active"), &json!(true)));
    assert_eq!(official["publishedAt"], official["updatedAt"]);
    let (_, deprecated) = site.get("/v0.1/servers/org.example%2Ftool-5/versions/1.2.0").await;
    let official = &deprecated["_meta"][OFFICIAL];
    assert_eq!((&official["status"], &official["statusMessage"]), (&said["status"], &said["statusMessage"]));
    let (_, versions) = site.get("/v0.1/servers/org.example%2Ftool-3/versions").await;
    assert_eq!((&versions["servers"][0], versions["metadata"]["count"].as_u64()), (&latest, Some(1)));

    for (path, status) in [
        ("/v0.1/servers/org.example%2Fnone/versions/latest", 404),
        ("/v0.1/servers/org.example%2Ftool-3/versions/9.9.9", 404),
        ("/v0.1/servers?limit=101", 400),
        ("/v0.1/servers?updated_since=yesterday", 400),
        ("/v0.1/servers?cursor=%00", 400),
    ] {
        let (given, refused) = site.get(path).await;
        assert_eq!((given, refused["status"].as_u64()), (status, Some(u64::from(status))), "{path}");
        assert!(refused["detail"].is_string() && refused["error"].is_string(), "{refused}");
    }
    site.stop().await;
}

/// As Visual Studio Code's gallery asks: without a token, the next page without what was searched for and by a cursor that
/// is not encoded, and each server by its name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_editors_gallery_has_every_name_once_and_finds_each_by_it() {
    let site = Site::start(7, Setup { registry: RegistryAccess::Public, ..Setup::default() }).await;
    let names: Vec<String> = (100..230).map(|number| format!("org.example/tool-{number}")).collect();
    let documents: Vec<Value> = names.iter().map(|name| document(name, "reads the weather")).collect();
    site.register(&json!(documents)).await;
    let fetch = async |path: &str| {
        let (status, allowed, answer) = site.ask(path, &[("origin", "vscode-file://vscode-app")]).await;
        // Anything else is thrown away before it is read.
        assert!(status == 200 && allowed.as_deref() == Some("*"), "{path}: {status} {allowed:?} {answer}");
        answer
    };
    let pages = async |search: &str, again: &str| {
        let asked = format!("limit=50&version=latest{search}");
        let (mut pages, mut next) = (Vec::<Vec<String>>::new(), asked);
        loop {
            let page = fetch(&format!("/v0.1/servers?{next}")).await;
            let servers = page["servers"].as_array().unwrap();
            for entry in servers {
                let texts =
                    ["name", "description", "version"].map(|field| entry["server"][field].is_string());
                assert!(texts == [true; 3] && entry["_meta"][OFFICIAL].is_object(), "{entry}");
            }
            pages.push(servers.iter().map(|it| it["server"]["name"].as_str().unwrap().to_owned()).collect());
            let Some(cursor) = page["metadata"]["nextCursor"].as_str() else { return pages };
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            assert!(cursor.bytes().all(is_plain), "{cursor}");
            next = format!("{again}cursor={cursor}");
        }
    };
    fetch("/v0.1/servers?limit=1").await;
    // The cursor carries all of the question, whether or not a part of it is said again.
    for again in ["limit=50&version=latest&", ""] {
        let all = pages("", again).await;
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [50, 50, 30]);
        assert_eq!(all.concat(), names);
        let found = pages("&search=tool-1", again).await;
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [50, 50], "the search goes on");
        assert_eq!(found.concat(), names[..100]);
    }
    for name in &names {
        let path = format!("/v0.1/servers/{}/versions/latest", name.replace('/', "%2F"));
        assert_eq!(fetch(&path).await["server"]["name"], name.as_str());
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_is_sent_again_keeps_its_dates_and_one_that_changed_says_when() {
    let site = Site::start(2, Setup::default()).await;
    let dates = async || {
        let (_, shown) = site.get("/v0.1/servers/org.example%2Ftool/versions/latest").await;
        let official = shown["_meta"][OFFICIAL].clone();
        ["publishedAt", "updatedAt"].map(|field| official[field].as_str().unwrap().to_owned())
    };
    site.register(&document("org.example/tool", "one")).await;
    let first = dates().await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    site.register(&document("org.example/tool", "one")).await;
    assert_eq!(dates().await, first);
    site.register(&document("org.example/tool", "two")).await;
    let [published, updated] = dates().await;
    assert_eq!(published, first[0]);
    assert!(updated > first[1], "{updated}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_document_is_shown_under_no_name_until_the_operator_names_its_owner() {
    let own = Site::start(3, Setup::default()).await;
    let stranger = Site::start(4, Setup { bootstrap: vec![own.address()], ..Setup::default() }).await;
    own.register(&document("org.example/contested", "ours")).await;
    let theirs = json!([document("org.example/contested", "theirs"), document("ai.famous/server", "theirs")]);
    let registered = stranger.register(&theirs).await.registered;
    let famous = registered.iter().find(|one| one.agent.contains("famous")).unwrap();
    let heard = async {
        loop {
            let (status, shown) = own.get(&format!("/v1/agents/{}", famous.id)).await;
            if status == 200 {
                return serde_json::from_value::<AgentDetail>(shown).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let detail = timeout(PATIENCE, heard).await.expect("it is heard of");
    assert_eq!(own.names("").await, ["org.example/contested"]);
    let contested = "/v0.1/servers/org.example%2Fcontested/versions/latest";
    assert_eq!(own.get(contested).await.1["server"]["description"], "ours");
    assert_eq!(own.get("/v0.1/servers/ai.famous%2Fserver/versions/latest").await.0, 404);

    let owner = detail.agent.owner.split('/').next().unwrap().to_owned();
    own.node.handle.trust_owner(&famous.agent, &owner).await.unwrap();
    let names: BTreeSet<String> = own.names("").await.into_iter().collect();
    assert_eq!(names, BTreeSet::from(["ai.famous/server".to_owned(), "org.example/contested".to_owned()]));
    assert_eq!(own.get(contested).await.1["server"]["description"], "ours", "own documents come first");
    stranger.stop().await;
    own.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_read_the_registry_is_for_the_operator_to_say() {
    let page = ("origin", "https://example.org");
    let editor = ("origin", "vscode-file://vscode-app");
    let bearer = format!("Bearer {TOKEN}");
    let token = ("authorization", bearer.as_str());
    let site = Site::start(5, Setup::default()).await;
    let asked = async |site: &Site, path: &str, headers: &[(&str, &str)]| {
        let (status, allowed, _) = site.ask(path, headers).await;
        (status, allowed)
    };
    let path = "/v0.1/servers?limit=1";
    assert_eq!(asked(&site, path, &[]).await, (401, None));
    assert_eq!(asked(&site, path, &[editor, token]).await, (200, Some(editor.1.to_owned())));
    assert_eq!(asked(&site, path, &[editor]).await.0, 401, "the editor has no token either");
    assert_eq!(asked(&site, path, &[page, token]).await, (403, None));
    assert_eq!(asked(&site, "/v1/status", &[editor, token]).await.0, 403, "and is let in nowhere else");
    site.stop().await;

    let site = Site::start(6, Setup { registry: RegistryAccess::Public, ..Setup::default() }).await;
    for headers in [&[][..], &[page], &[editor]] {
        assert_eq!(asked(&site, path, headers).await, (200, Some("*".to_owned())), "{headers:?}");
    }
    assert_eq!(
        asked(&site, "/v0.1/servers/a%2Fb/versions/latest", &[page]).await,
        (404, Some("*".to_owned()))
    );
    assert_eq!(asked(&site, "/v1/status", &[]).await.0, 401, "nothing else is open");
    assert_eq!(asked(&site, "/v1/status", &[page, token]).await.0, 403);
    let client = reqwest::Client::new();
    let url = format!("{}/v0.1/servers", site.base);
    let told = client.request(reqwest::Method::OPTIONS, &url).header(page.0, page.1).send().await.unwrap();
    assert_eq!(
        (told.status().as_u16(), &told.headers()["access-control-allow-methods"]),
        (204, &"GET, OPTIONS".parse().unwrap())
    );
    let written = client.post(&url).header(page.0, page.1).json(&json!({})).send().await.unwrap();
    assert_eq!(written.status().as_u16(), 403);
    site.stop().await;
}
