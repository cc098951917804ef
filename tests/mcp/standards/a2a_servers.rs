//! Servers of the official A2A SDKs behind a node, called from another one that knows both through a third.

use std::io::{BufRead, BufReader};
use std::path::Path;

use aop::api::{CallAnswer, Outcome};
use serde_json::{Value, json};

use super::{Server, python, python_03, script};
use crate::node::Node;

#[test]
fn a_server_of_the_sdk_of_1_0_is_called_in_every_way_that_its_cards_offer() {
    let Some(python) = python() else { return };
    // By the ends of their cards' addresses.
    check(&python, &[("by-rpc", "/rpc.json"), ("by-rpc-03", "/rpc03.json"), ("by-rest", "/rest.json")]);
}

#[test]
fn a_server_of_the_sdk_of_0_3_is_called_by_its_own_address() {
    let Some(python) = python_03() else { return };
    check(&python, &[("by-rpc-03", "/")]);
}

fn check(python: &Path, cards: &[(&str, &str)]) {
    let server = Server::start(&mut script(python, "server.py"));
    let agents: Vec<(&str, String)> = cards
        .iter()
        .map(|(name, card)| (*name, format!("a2a = {{ card = \"{}{card}\" }}", server.url)))
        .collect();
    let meeting = Node::start(&[], &[]);
    let host = Node::start(&agents, &[&meeting]);
    let asker = Node::start(&[], &[&meeting]);
    for (agent, _) in cards {
        asker.finds(agent);
        let said = asker.call(agent, &json!({"task": "hello"}));
        assert!(said.success && said.result == "heard hello", "{agent}: {said:?}");
        assert_eq!(said.served_by.as_deref(), Some(host.ready.peer_id.as_str()), "{agent}: {said:?}");

        let failed = asker.call(agent, &json!({"task": "fail"}));
        assert_eq!(failed.outcome, Some(Outcome::Done), "{agent}: {failed:?}");
        let error = failed.error.unwrap();
        assert!(
            error.code.text() == "agent_failed" && error.message.contains("no ink"),
            "{agent}: {error:?}"
        );

        let asked = asker.call(agent, &json!({"task": "ask"}));
        let error = asked.error.unwrap();
        assert!(
            error.code.text() == "needs_input" && error.message.contains("which city?"),
            "{agent}: {error:?}"
        );

        let (pieces, answer) = streamed(&asker, agent, &server);
        assert_eq!(pieces, ["one, ", "two"], "{agent}");
        assert!(answer.success && answer.result == "one, two", "{agent}: {answer:?}");
    }
}

/// Calls an agent that tells its rest only to whom has the beginning; the pieces that came before the answer.
fn streamed(asker: &Node, agent: &str, server: &Server) -> (Vec<String>, CallAnswer) {
    let url = format!("{}/v1/call/{agent}?timeout=30", asker.ready.http);
    let asked = ureq::post(&url).header("accept", "text/event-stream").send_json(json!({"task": "tell"}));
    let lines = BufReader::new(asked.unwrap().into_body().into_reader()).lines();
    let (mut kind, mut pieces) = (String::new(), Vec::new());
    for line in lines.map(Result::unwrap) {
        if let Some(event) = line.strip_prefix("event: ") {
            event.clone_into(&mut kind);
        }
        let Some(data) = line.strip_prefix("data: ") else { continue };
        match kind.as_str() {
            "partial" => {
                let piece: Value = serde_json::from_str(data).unwrap();
                pieces.push(piece["text"].as_str().unwrap().to_owned());
                ureq::get(format!("{}/go", server.url)).call().unwrap();
            }
            "answer" => return (pieces, serde_json::from_str(data).unwrap()),
            _ => {}
        }
    }
    panic!("the stream ended without an answer, after {pieces:?}");
}
