//! The mapping of published documents, on whole published collections and on anything at all.

use std::collections::{BTreeMap, BTreeSet};

use aop::document::{CARD_BYTES_MAX, Offer, Refusal, check, read_documents};
use aop::proto::card::Origin;
use proptest::prelude::*;
use serde_json::{Value, json};

type Outcome = Result<Offer, Refusal>;

fn corpus(file: &str) -> Vec<Value> {
    let path = format!("{}/tests/data/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn counts(outcomes: &[Outcome]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for outcome in outcomes {
        *counts
            .entry(outcome.as_ref().map_or_else(|refusal| refusal.code.text(), |_| "taken"))
            .or_default() += 1;
    }
    counts
}

fn taken(outcomes: &[Outcome]) -> Vec<&Offer> {
    outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect()
}

#[test]
fn every_server_of_the_published_list_is_registered_once_with_its_greatest_version() {
    let documents = corpus("mcp-servers.json");
    let outcomes = read_documents(Value::Array(documents.clone()));
    assert_eq!(outcomes.len(), documents.len());
    assert_eq!(counts(&outcomes), BTreeMap::from([("older_version", 129), ("taken", 122)]));
    let published: BTreeSet<&str> = documents.iter().map(|one| one["name"].as_str().unwrap()).collect();
    let names: BTreeSet<_> = taken(&outcomes).into_iter().map(|one| one.name.clone()).collect();
    assert_eq!(names.len(), published.len());
    let version = |name: &str| {
        let found = taken(&outcomes).into_iter().find(|one| one.name.as_str() == name);
        found.unwrap().card.version.clone().unwrap()
    };
    assert_eq!(version("dev-svelte_mcp"), "0.1.11");
    assert_eq!(version("finance-orbt_intelligence"), "3.3.0.1");
    assert_eq!(version("io-github-github_github-mcp-server"), "0.20.1");
    assert_eq!(version("io-github-aimoda_rigol-dho824-mcp"), "0.1.143-main.2b177ae");
    // Upper case, a dash in a domain, a dot behind the slash: only these names are ambiguous.
    let hashed = |one: &&Offer| one.name.as_str().len() != one.card.original_name.as_deref().unwrap().len();
    assert_eq!(taken(&outcomes).into_iter().filter(hashed).count(), 20);
}

#[test]
fn every_single_document_of_the_published_list_is_taken() {
    for document in corpus("mcp-servers.json") {
        let outcome = read_documents(document.clone()).remove(0);
        let one = outcome.unwrap_or_else(|refusal| panic!("{refusal:?}"));
        assert_eq!(one.card.origin, Origin::ServerJson);
        assert_eq!(one.card.description, document["description"].as_str().unwrap());
        let original: Value = serde_json::from_str(one.card.original.as_deref().unwrap()).unwrap();
        assert_eq!(original, document, "the original is kept");
        assert!(one.card.tags.contains(&"mcp".into()) && !one.card.callable);
        let addresses =
            ["remotes", "packages"].iter().filter_map(|key| document[key].as_array()).map(Vec::len);
        assert_eq!(one.card.endpoints.len(), addresses.sum::<usize>());
    }
}

#[test]
fn every_published_a2a_card_is_taken() {
    let documents = corpus("a2a-cards.json");
    let outcomes = read_documents(Value::Array(documents.clone()));
    assert_eq!(counts(&outcomes), BTreeMap::from([("taken", 65)]));
    for (document, one) in documents.iter().zip(taken(&outcomes)) {
        assert_eq!(one.card.origin, Origin::A2a);
        let original: Value = serde_json::from_str(one.card.original.as_deref().unwrap()).unwrap();
        assert_eq!(original, document["card"]);
        assert_eq!(one.card.endpoints[0].address, document["card"]["url"].as_str().unwrap());
        assert_eq!(one.card.tags[0], "a2a");
    }
}

#[test]
fn the_a2a_samples_are_taken_in_both_shapes() {
    let folder = format!("{}/tests/data/a2a-samples", env!("CARGO_MANIFEST_DIR"));
    let files =
        std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()));
    let documents: Vec<Value> = files.map(|text| serde_json::from_str(&text.unwrap()).unwrap()).collect();
    let outcomes: Vec<_> = documents.iter().flat_map(|one| read_documents(one.clone())).collect();
    assert_eq!(counts(&outcomes), BTreeMap::from([("taken", 7)]));
    // Two of them are the same agent in its two shapes, with one version.
    assert_eq!(
        counts(&read_documents(json!(documents))),
        BTreeMap::from([("duplicate_name", 1), ("taken", 6)])
    );
    assert!(taken(&outcomes).iter().all(|one| !one.card.endpoints.is_empty()));
}

#[test]
fn one_card_of_each_format_looks_like_this() {
    let servers = corpus("mcp-servers.json");
    let postman = servers.into_iter().find(|one| one["name"] == "com.postman/postman-mcp-server").unwrap();
    let card = corpus("a2a-cards.json").remove(0);
    let shown: Vec<Value> = read_documents(json!([postman, card])).iter().map(shown).collect();
    insta::assert_json_snapshot!(shown);
}

fn shown(outcome: &Outcome) -> Value {
    let one = outcome.as_ref().unwrap();
    let mut card = serde_json::to_value(&one.card).unwrap();
    card["original"] = json!("(left out)");
    json!({"name": one.name, "card": card})
}

#[test]
fn what_is_registered_does_not_depend_on_the_order() {
    let registered = |documents: &[Value]| -> BTreeSet<String> {
        read_documents(json!(documents)).into_iter().flatten().map(|one| format!("{one:?}")).collect()
    };
    let mut documents = corpus("mcp-servers.json");
    let forward = registered(&documents);
    documents.reverse();
    assert_eq!(forward, registered(&documents));
}

/// JSON that is often nearly a document.
fn anything() -> impl Strategy<Value = Value> {
    let keys = [
        "agent",
        "server",
        "card",
        "$schema",
        "name",
        "description",
        "version",
        "packages",
        "remotes",
        "type",
        "url",
        "registryType",
        "identifier",
        "skills",
        "capabilities",
        "tags",
        "id",
        "supportedInterfaces",
        "_meta",
        "run",
        "command",
        "chat",
        "scope",
        "timeout_s",
        "input_schema",
        "zone",
        "rate_limit",
        "topics",
        "transport",
        "io.modelcontextprotocol.registry/publisher-provided",
    ];
    let key =
        prop_oneof![4 => proptest::sample::select(keys.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,5}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[a-z.]{1,8}/[a-z-]{1,8}|https://[a-z]{1,5}|[0-9.]{1,6}|.*/server\\.schema\\.json"
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            proptest::collection::vec((key.clone(), inner), 0..10)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn any_json_is_answered_once_for_each_document(body in anything()) {
        let documents = body.as_array().map_or(1, Vec::len);
        let outcomes = read_documents(body);
        prop_assert_eq!(outcomes.len(), documents);
        for outcome in outcomes {
            match outcome {
                Ok(one) => prop_assert_eq!(check(&one.card), Ok(())),
                Err(refusal) => {
                    prop_assert!(refusal.message.contains("; "), "says what to do: {}", refusal.message);
                    prop_assert!(!refusal.message.contains(char::is_control) && refusal.message.len() < 2_000);
                }
            }
        }
    }
}

#[test]
fn a_document_too_large_for_a_record_is_refused_with_both_numbers() {
    let document = json!({"name": "a.b/c", "version": "1", "_meta": {"x": "y".repeat(CARD_BYTES_MAX)}});
    let refusal = read_documents(document).remove(0).unwrap_err();
    assert_eq!((refusal.code.text(), refusal.name.as_str()), ("too_large", "a.b/c"));
    assert!(refusal.message.contains("bytes as a card, more than the 47104"), "{}", refusal.message);
}
