//! A running node whose store fails for a while: it serves, refuses writes with the reason, and goes on by itself.

use std::time::Duration;

use aop::api::{FindQuery, Health};
use aop::document::Offer;
use aop::host::{self, Options, Running};
use aop::net::store::{MemoryFolder, Store};
use aop::net::swarm::Discovery;
use aop::net::transport::transport;
use aop::proto::card::{AgentCard, Scope};
use aop::proto::code::Code;
use aop::proto::identity::Identity;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

fn offer(name: &str) -> Offer {
    Offer {
        name: name.parse().unwrap(),
        zone: None,
        scope: Scope::Public,
        card: AgentCard { description: "x".into(), ..AgentCard::default() },
        grants: Vec::new(),
    }
}

async fn start(folder: &MemoryFolder) -> Running {
    let seed = [9; 32];
    let options = Options::new(Identity::from_seed(seed), "test", "unused");
    let (store, loaded) = Store::in_memory(folder);
    let keypair = libp2p::identity::Keypair::ed25519_from_bytes(seed).unwrap();
    host::start_with(options, Discovery::Dht, transport(&keypair).unwrap(), store, loaded).await.unwrap()
}

async fn problems(node: &Running) -> Vec<Code> {
    node.handle.status().await.unwrap().problems.into_iter().map(|problem| problem.code).collect()
}

async fn found(node: &Running) -> Vec<String> {
    let answer = node.handle.find(FindQuery::default()).await.unwrap();
    answer.results.into_iter().map(|found| found.agent).collect()
}

/// Registers one agent; answers with its refusal, if there is one.
async fn register(node: &Running, name: &str) -> Option<(Code, String)> {
    let answer = node.handle.register(None, vec![offer(name)]).await.unwrap().remove(0);
    answer.err().map(|refusal| (refusal.code, refusal.message))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_store_fails_serves_and_takes_writes_again_by_itself() {
    let folder = MemoryFolder::default();
    let node = start(&folder).await;
    assert_eq!(register(&node, "kept").await, None);
    folder.set_failure(Some("no space left"));
    let (code, message) = register(&node, "lost").await.unwrap();
    assert_eq!(code, Code::StoreFailed);
    assert!(message.contains("no space left") && message.contains("free disk space"), "{message}");
    assert_eq!(node.handle.deregister("kept").await.unwrap_err().code, Code::StoreFailed);
    assert_eq!(found(&node).await, ["kept@."]);
    let status = node.handle.status().await.unwrap();
    assert_eq!(status.health, Health::Degraded);
    assert_eq!(problems(&node).await, [Code::StoreFailed]);
    let mut events = node.handle.events();
    folder.set_failure(None);
    let well = async {
        // Nobody tells when it is well again; a refused write says that it is not.
        while register(&node, "late").await.is_some() {
            let _event = timeout(Duration::from_millis(100), events.recv()).await;
        }
    };
    timeout(PATIENCE, well).await.expect("it is well again without a restart");
    assert_eq!(problems(&node).await, []);
    assert_eq!(found(&node).await, ["kept@.", "late@."]);
    node.stop().await.unwrap();
    let node = start(&folder).await;
    assert_eq!(found(&node).await, ["kept@.", "late@."], "and what was acknowledged is kept");
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_node_that_starts_on_a_full_disk_serves_what_it_holds_and_stops_well() {
    let folder = MemoryFolder::default();
    let node = start(&folder).await;
    assert_eq!(register(&node, "kept").await, None);
    node.stop().await.unwrap();
    folder.set_failure(Some("no space left"));
    let node = start(&folder).await;
    assert_eq!(found(&node).await, ["kept@."]);
    assert_eq!(problems(&node).await, [Code::StoreFailed]);
    assert_eq!(register(&node, "late").await.map(|(code, _)| code), Some(Code::StoreFailed));
    node.stop().await.unwrap();
}
