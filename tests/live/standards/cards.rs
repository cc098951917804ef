//! What a node says of the documents that it was given: who signed a card, and what a record is called elsewhere.

use aop::document::CardKeys;
use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};

use super::{Setup, Site};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_signed_a_card_is_shown_and_an_unsigned_one_is_not_hidden() {
    let signer = SigningKey::from_bytes(&[9; 32]);
    let x = BASE64URL_NOPAD.encode(signer.verifying_key().as_bytes());
    let known = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "of-acme", "x": x}]});
    let card_keys = CardKeys::read(&known.to_string()).unwrap();
    let site = Site::start(41, Setup { card_keys, ..Setup::default() }).await;

    // In the canonical order, and without anything empty.
    let payload = concat!(
        r#"{"capabilities":{"streaming":false},"defaultInputModes":["text/plain"],"defaultOutputModes":["text/plain"],"#,
        r#""description":"d","name":"Signed","skills":[{"description":"d","id":"s","name":"s","tags":["t"]}],"#,
        r#""supportedInterfaces":[{"protocolBinding":"JSONRPC","protocolVersion":"1.0","url":"https://a.example/x"}],"#,
        r#""version":"1"}"#
    );
    let header = json!({"alg": "EdDSA", "kid": "of-acme"}).to_string();
    let protected = BASE64URL_NOPAD.encode(header.as_bytes());
    let signed = format!("{protected}.{}", BASE64URL_NOPAD.encode(payload.as_bytes()));
    let signature = BASE64URL_NOPAD.encode(&signer.sign(signed.as_bytes()).to_bytes());
    let mut card: Value = serde_json::from_str(payload).unwrap();
    let unsigned = card.clone();
    card["signatures"] = json!([{"protected": protected, "signature": signature}]);
    let mut changed = card.clone();
    changed["description"] = json!("changed");

    for (card, expected) in [
        (card, json!({"state": "verified", "key": "of-acme", "covers_all": true})),
        (changed, json!({"state": "unverified"})),
        (unsigned, json!({"state": "unsigned"})),
    ] {
        let id = site.register(&card).await.registered[0].id.clone();
        let (_, shown) = site.get(&format!("/v1/agents/{id}")).await;
        assert_eq!(shown["signature"], expected, "{shown}");
    }
    let record = json!({"name": "example/agent", "version": "1", "schema_version": "1.0.0", "description": "d",
                        "skills": [{"name": "nlp/summary", "id": 7}], "authors": [], "locators": []});
    let id = site.register(&record).await.registered[0].id.clone();
    let (_, shown) = site.get(&format!("/v1/agents/{id}")).await;
    let content_id = shown["content_id"].as_str().unwrap();
    assert!(content_id.starts_with("baeare") && content_id.len() == 59, "{content_id}");
    assert_eq!(shown.get("signature"), None);
    site.stop().await;
}
