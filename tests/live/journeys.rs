//! Journeys of `docs/architecture.md` on real libp2p over loopback and real stores on disk, in one process.

use std::path::Path;
use std::time::Duration;

use aop::api::{self, ZoneRole};
use aop::document::Offer;
use aop::host::{self, Options, Running};
use aop::proto::card::{AgentCard, Scope};
use aop::proto::identity::Identity;
use aop::proto::name::ZoneName;
use tempfile::TempDir;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

fn offer(name: &str, description: &str) -> Offer {
    Offer {
        name: name.parse().unwrap(),
        zone: None,
        scope: Scope::Public,
        card: AgentCard { description: description.into(), ..AgentCard::default() },
        grants: Vec::new(),
    }
}

async fn start(seed: u8, dir: &Path, bootstrap: &[&Running]) -> Running {
    let bootstrap = bootstrap.iter().map(|node| node.listen[0].clone()).collect();
    let options = Options { bootstrap, ..Options::new(Identity::from_seed([seed; 32]), "test", dir) };
    host::start(options).await.unwrap()
}

/// Waits for events of the node until `is_met` says so.
async fn until(node: &Running, what: &str, is_met: impl AsyncFn() -> bool) {
    let mut events = node.handle.events();
    let waiting = async {
        while !is_met().await {
            // Missed events only mean that there is something to look at.
            let _event = events.recv().await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("not in {PATIENCE:?}: {what}"));
}

/// What the node says of the zone `lab`; nothing if it takes no part.
async fn lab(node: &Running) -> Option<api::ZoneReport> {
    node.handle.status().await.unwrap().zones.into_iter().find(|report| report.zone == "lab")
}

async fn holds_in_lab(node: &Running, agents: usize) -> bool {
    lab(node).await.is_some_and(|report| report.agents == agents)
}

async fn zone(node: &Running) -> api::ZoneReport {
    node.handle.status().await.unwrap().zones.remove(0)
}

async fn holds(node: &Running, agents: usize) -> bool {
    zone(node).await.agents == agents
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_registers_the_others_find_and_a_late_joiner_too() {
    let dirs: Vec<TempDir> = (0..3).map(|_| TempDir::new().unwrap()).collect();
    let a = start(1, dirs[0].path(), &[]).await;
    let b = start(2, dirs[1].path(), &[&a]).await;
    until(&b, "a is a peer", async || zone(&b).await.peers == 1).await;
    let offers = vec![offer("summarizer", "Summarises long documents"), offer("painter", "Paints")];
    let registered = a.handle.register(None, offers).await.unwrap();
    assert!(registered.iter().all(Result::is_ok), "{registered:?}");
    until(&b, "gossip reached b", async || holds(&b, 2).await).await;

    let c = start(3, dirs[2].path(), &[&a]).await;
    until(&c, "sync reached c", async || holds(&c, 2).await).await;
    let query = api::FindQuery { q: "long document".into(), ..api::FindQuery::default() };
    let find = async || c.handle.find(query.clone()).await.unwrap();
    assert_eq!(find().await.results[0].agent, "summarizer@.");
    until(&c, "its first sync ended", async || find().await.complete).await;
    assert!(find().await.age_ms.is_some_and(|age_ms| age_ms <= 90_000));

    a.handle.deregister("painter").await.unwrap();
    until(&c, "the deletion reached c", async || holds(&c, 1).await).await;
    assert_eq!(c.handle.show("painter").await.unwrap_err().code.text(), "not_found");
    for node in [a, b, c] {
        node.stop().await.unwrap();
    }
}

/// All know one bootstrap peer, which is not in the zone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_a_zone_while_it_runs_has_what_was_there_and_what_comes_until_it_leaves() {
    let dirs: Vec<TempDir> = (0..3).map(|_| TempDir::new().unwrap()).collect();
    let zone: ZoneName = "lab".parse().unwrap();
    let hub = start(6, dirs[0].path(), &[]).await;
    let (a, b) = (start(7, dirs[1].path(), &[&hub]).await, start(8, dirs[2].path(), &[&hub]).await);
    let early = b.handle.register(Some(zone.clone()), vec![offer("early", "Too early")]).await.unwrap();
    assert!(early[0].is_err(), "b is not in the zone yet");

    a.handle.join_zone("lab", ZoneRole::Member).await.unwrap();
    a.handle.register(Some(zone.clone()), vec![offer("old", "Of a")]).await.unwrap()[0].as_ref().unwrap();
    b.handle.join_zone("lab", ZoneRole::Member).await.unwrap();
    until(&b, "sync brought what was there", async || holds_in_lab(&b, 1).await).await;
    a.handle.register(Some(zone.clone()), vec![offer("new", "Of a")]).await.unwrap()[0].as_ref().unwrap();
    until(&b, "what comes", async || holds_in_lab(&b, 2).await).await;
    b.handle.register(Some(zone.clone()), vec![offer("mine", "Of b")]).await.unwrap()[0].as_ref().unwrap();
    until(&a, "what b says", async || holds_in_lab(&a, 3).await).await;
    assert!(lab(&hub).await.is_none() && holds(&hub, 0).await, "the hub knows nothing of the zone");

    b.handle.leave_zone("lab").await.unwrap();
    assert!(lab(&b).await.is_none());
    assert_eq!(b.handle.leave_zone("lab").await.unwrap_err().code.text(), "zone_not_served");
    until(&a, "b is gone with what it offered", async || holds_in_lab(&a, 2).await).await;
    let alone = async || lab(&a).await.is_some_and(|report| report.peers == 0);
    until(&a, "a is alone in the zone", alone).await;
    for node in [a, b, hub] {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_has_what_it_had_and_learns_what_it_missed() {
    let dirs: Vec<TempDir> = (0..2).map(|_| TempDir::new().unwrap()).collect();
    let a = start(4, dirs[0].path(), &[]).await;
    let b = start(5, dirs[1].path(), &[&a]).await;
    until(&b, "a is a peer", async || zone(&b).await.peers == 1).await;
    b.handle.register(None, vec![offer("mine", "Of b")]).await.unwrap()[0].as_ref().unwrap();
    until(&a, "gossip reached a", async || holds(&a, 1).await).await;
    b.stop().await.unwrap();

    a.handle.register(None, vec![offer("missed", "Of a")]).await.unwrap()[0].as_ref().unwrap();
    let b = start(5, dirs[1].path(), &[&a]).await;
    assert_eq!(b.handle.show("mine").await.unwrap().agent.description, "Of b");
    until(&b, "sync reached b", async || holds(&b, 2).await).await;
    let same = async || {
        let (a, b) = (zone(&a).await, zone(&b).await);
        (a.as_of == b.as_of).then_some(a.fingerprint == b.fingerprint)
    };
    assert!(same().await.unwrap_or(true));
    for node in [a, b] {
        node.stop().await.unwrap();
    }
}
