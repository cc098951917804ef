//! Agentic Resource Discovery as its clients use it.

use std::collections::BTreeSet;

use aop::document::run_config::Builtin;
use aop::http::RegistryAccess;
use serde_json::{Value, json};

use super::{Setup, Site, echo, hosted};

fn server(name: &str, description: &str) -> Value {
    json!({
        "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
        "name": name, "description": description, "version": "1.2.0",
        "remotes": [{"type": "streamable-http", "url": "https://mcp.example.org/mcp"}],
    })
}

fn card(name: &str) -> Value {
    json!({
        "name": name, "description": "forecasts the weather of the sea", "version": "2", "url": "https://a.example/x",
        "protocolVersion": "0.3.0", "capabilities": {}, "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [{"id": "s", "name": "s", "description": "d", "tags": ["sea"], "examples": ["how high?", "how cold?"]}],
    })
}

async fn search(site: &Site, question: Value) -> Value {
    let (status, answer) = site.post("/ard/search", &question).await;
    assert_eq!(status, 200, "{question}: {answer}");
    answer
}

fn names(answer: &Value) -> Vec<&str> {
    let of = |result: &'static str| answer[result].as_array().into_iter().flatten();
    of("results").chain(of("items")).map(|entry| entry["displayName"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_registered_is_found_page_by_page_by_words_and_by_filters() {
    let site = Site::start(21, Setup { agents: vec![echo("ledger")], ..Setup::default() }).await;
    site.hears_of("ledger").await;
    let servers: Vec<Value> =
        (0..6).map(|it| server(&format!("org.example/tool-{it}"), "reads the weather")).collect();
    site.register(&json!(servers)).await;
    site.register(&card("Sea Weather")).await;

    let (mut seen, mut token, mut scores) = (BTreeSet::new(), None, Vec::new());
    loop {
        let mut asked = json!({"query": {"text": "weather"}, "pageSize": 3, "federation": "none"});
        if let Some(token) = token {
            asked["pageToken"] = token;
        }
        let page = search(&site, asked).await;
        assert!(page["complete"] == true && page["zones"][0]["status"] == "held", "{page}");
        for result in page["results"].as_array().unwrap() {
            assert_ne!(result.get("url").is_some(), result.get("data").is_some(), "{result}");
            assert_eq!(result["source"], format!("{}/ard", site.base));
            scores.push(result["score"].as_u64().unwrap());
            assert!(seen.insert(result["identifier"].as_str().unwrap().to_owned()), "each once: {result}");
        }
        assert!(page["results"].as_array().unwrap().len() <= 3);
        match page.get("pageToken") {
            Some(next) => token = Some(next.clone()),
            None => break,
        }
    }
    assert_eq!((seen.len(), scores[0]), (7, 100));
    assert!(scores.is_sorted_by(|one, next| one >= next), "{scores:?}");

    let filtered = |filter: Value| json!({"query": {"text": "weather sea", "filter": filter}, "pageSize": 2});
    let a2a = search(&site, filtered(json!({"type": "application/a2a-agent-card+json"}))).await;
    assert_eq!((names(&a2a), a2a.get("pageToken")), (vec!["Sea Weather"], None), "{a2a}");
    assert_eq!(a2a["results"][0]["representativeQueries"], json!(["how high?", "how cold?"]));
    let mut of_servers = filtered(json!({"data.remotes.type": ["sse", "streamable-http"]}));
    let first = search(&site, of_servers.clone()).await;
    of_servers["pageToken"] = first["pageToken"].clone();
    let second = search(&site, of_servers).await;
    let both: BTreeSet<&str> = names(&first).into_iter().chain(names(&second)).collect();
    assert_eq!(both.len(), 4, "a page that a filter cut goes on where it ended: {first} {second}");

    let (status, explored) = site
        .post("/ard/explore", &json!({"resultType": {"facets": [{"field": "type"}, {"field": "publisher"}]}}))
        .await;
    assert_eq!((status, &explored["resultType"]), (200, &json!("facets")));
    let kinds = &explored["facets"]["type"]["buckets"];
    assert_eq!(kinds[0], json!({"value": "application/mcp-server-card+json", "count": 6}), "{explored}");
    assert_eq!(explored["facets"]["publisher"]["buckets"][0]["count"], 8, "all are this node's");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_is_read_by_its_identifier_and_readers_that_have_it_are_told_so() {
    let site = Site::start(22, Setup { agents: vec![echo("tide")], ..Setup::default() }).await;
    site.hears_of("tide").await;
    site.register(&server("org.example/tool", "reads the weather")).await;
    let (_, listed) = site.get("/ard/agents?pageSize=1").await;
    let token = listed["pageToken"].as_str().unwrap();
    let (_, next) = site.get(&format!("/ard/agents?pageSize=1&pageToken={token}")).await;
    assert_eq!((names(&listed), names(&next)), (vec!["org.example/tool"], vec!["tide"]));

    let urn = listed["items"][0]["identifier"].as_str().unwrap();
    let encoded = urn.replace(':', "%3A");
    let path = format!("/ard/agents/{encoded}");
    let response = reqwest::Client::new().get(format!("{}{path}", site.base)).bearer_auth(super::TOKEN);
    let response = response.send().await.unwrap();
    let tag = response.headers()["etag"].clone();
    assert_eq!(response.json::<Value>().await.unwrap(), listed["items"][0]);
    let bearer = format!("Bearer {}", super::TOKEN);
    let known = [("authorization", bearer.as_str()), ("if-none-match", tag.to_str().unwrap())];
    assert_eq!(site.ask(&path, &known).await.0, 304);

    for (identifier, status, code) in [
        ("urn:air:ard-conformance.invalid:probe:not-found".to_owned(), 404, "NOT_FOUND"),
        (urn.replace("tool", "nothing"), 404, "NOT_FOUND"),
        ("not-a-valid-ard-urn".to_owned(), 400, "INVALID_ARGUMENT"),
        (encoded.replace('%', "%25"), 400, "INVALID_ARGUMENT"),
    ] {
        let (given, refused) = site.get(&format!("/ard/agents/{identifier}")).await;
        assert_eq!((given, refused["errorCode"].as_str()), (status, Some(code)), "{identifier}: {refused}");
        assert!(refused["message"].is_string());
    }
    for (asked, code) in [
        (json!({}), 400),
        (json!({"query": {}}), 400),
        (json!({"query": {"text": " "}}), 400),
        (json!({"query": {"text": "x"}, "federation": "maybe"}), 400),
        (json!({"query": {"text": "x"}, "pageSize": 0}), 400),
        (json!({"query": {"text": "x"}, "pageToken": "nonsense"}), 400),
        (json!({"query": {"text": "x", "filter": {"a:b": "x"}}}), 400),
        (json!([1]), 400),
        (json!({"query": {"text": "x"}, "pageSize": 100_000}), 200),
    ] {
        let (status, refused) = site.post("/ard/search", &asked).await;
        assert_eq!(status, code, "{asked}: {refused}");
        assert!(code == 200 || refused["errorCode"] == "INVALID_ARGUMENT", "{refused}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_shows_itself_and_its_agents_where_everybody_looks() {
    let private = hosted(json!({"name": "inner", "scope": "node", "description": "d"}), Builtin::Echo);
    let agents = vec![echo("tide"), private];
    let site = Site::start(23, Setup { agents, registry: RegistryAccess::Public, ..Setup::default() }).await;
    site.hears_of("tide").await;
    site.hears_of("inner").await;
    let (status, allowed, manifest) =
        site.ask("/.well-known/ard.json", &[("origin", "https://example.org")]).await;
    assert_eq!((status, allowed.as_deref(), &manifest["specVersion"]), (200, Some("*"), &json!("1.0")));
    assert_eq!(site.ask("/.well-known/ai-catalog.json", &[]).await.2, manifest);
    let entries = manifest["entries"].as_array().unwrap();
    let kinds: Vec<&str> = entries.iter().map(|entry| entry["type"].as_str().unwrap()).collect();
    let registry = "application/ai-registry+json";
    assert_eq!(kinds, [registry, "application/mcp-server-card+json", "application/a2a-agent-card+json"]);
    assert!(!manifest.to_string().contains("inner"), "what is not public is in no catalogue");
    assert_eq!(entries[0]["url"], format!("{}/ard", site.base), "where the search is");
    for entry in entries {
        let path = format!("/ard/agents/{}", entry["identifier"].as_str().unwrap().replace(':', "%3A"));
        assert_eq!(site.ask(&path, &[]).await.2, *entry, "each is read by its identifier, too");
    }
    let card = entries[2]["url"].as_str().unwrap().strip_prefix(&site.base).unwrap();
    assert_eq!(site.ask(card, &[]).await.2["name"], "tide");
    assert_eq!(
        site.ask("/a2a/inner/.well-known/agent-card.json", &[]).await.0,
        404,
        "nor has it a card for everybody"
    );
    let (_, own) = site.get("/a2a/inner/.well-known/agent-card.json").await;
    assert_eq!(own["name"], "inner", "but for the operator");
    for text in ["inner", "tide"] {
        let asked = json!({"query": {"text": text}, "federation": "none"});
        let answer = reqwest::Client::new().post(format!("{}/ard/search", site.base)).json(&asked);
        let found: Value = answer.send().await.unwrap().json().await.unwrap();
        assert_eq!(names(&found).len(), usize::from(text == "tide"), "{found}");
    }
    let page = reqwest::get(&site.base).await.unwrap();
    assert_eq!(page.headers()["link"], "</.well-known/ard.json>; rel=\"ard\"");
    let robots = reqwest::get(format!("{}/robots.txt", site.base)).await.unwrap().text().await.unwrap();
    assert!(robots.contains(&format!("Agentmap: {}/.well-known/ard.json", site.base)), "{robots}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_of_the_mesh_finds_what_is_not_held_here_and_says_which_zones_answered() {
    let root = Site::start(24, Setup::default()).await;
    let sea = "sea.example.org".parse().unwrap();
    let other = Setup {
        zones: vec![sea],
        agents: vec![echo("tide")],
        bootstrap: vec![root.address()],
        ..Setup::default()
    };
    let other = Site::start(25, other).await;
    let third = Setup { bootstrap: vec![root.address()], ..Setup::default() };
    let third = Site::start(26, third).await;
    let asked = |federation: &str| json!({"query": {"text": "tide"}, "federation": federation});
    let found = async {
        loop {
            let answer = search(&third, asked("auto")).await;
            if !names(&answer).is_empty() {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let answer = tokio::time::timeout(super::PATIENCE, found).await.expect("it is found");
    let zones: Vec<&str> =
        answer["zones"].as_array().unwrap().iter().map(|zone| zone["zone"].as_str().unwrap()).collect();
    assert!(zones.contains(&"sea.example.org"), "{answer}");
    let held = search(&third, asked("none")).await;
    assert_eq!((names(&held).len(), held.get("referrals")), (0, None));
    assert_eq!(search(&third, asked("referrals")).await["referrals"], json!([]));
    for site in [third, other, root] {
        site.stop().await;
    }
}
