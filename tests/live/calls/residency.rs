//! Inputs go only where data stays: demanded by a caller, or by the operator of its node.

use super::*;

/// An agent of one owner that two hosts offer, each with its own word for where data stays.
fn owned(host: u8, residency: &str) -> HostedAgent {
    let owner = Identity::from_seed([7; 32]);
    let mut local = agent("owned", Builtin::Echo);
    local.offer.card.residency = Some(residency.into());
    local.offer.grants = vec![grant(&owner, host)];
    local
}

async fn caller(seed: u8, bootstrap: &Node, residency: &[&str], locals: Vec<HostedAgent>) -> Node {
    let residency = residency.iter().map(|word| word.parse().unwrap()).collect();
    let bootstrap = vec![bootstrap.running.listen[0].clone()];
    Node::start_with(seed, locals, |options| Options { bootstrap, residency, ..options }).await
}

async fn call(node: &Node, agent: &str, demanded: &[&str]) -> CallAnswer {
    let mut options = timed(Duration::from_secs(10));
    demanded.iter().for_each(|word| options.context.demand(word.parse().unwrap()));
    node.handle().call(agent, task("x"), options).await.unwrap()
}

/// Waits until the node knows all hosts of the agent.
async fn knows_hosts(node: &Node, count: usize) {
    let mut events = node.handle().events();
    let waiting = async {
        while node.handle().show("owned").await.map_or(0, |found| found.agent.replicas.len()) < count {
            // A missed event only means that there is something to look at.
            let _event = events.recv().await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("it hears of both hosts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_goes_only_to_the_hosts_whose_own_cards_say_so() {
    let mut plain = agent("plain", Builtin::Echo);
    plain.offer.card.residency = None;
    let europe = Node::start(1, &[], vec![owned(1, "EU"), plain]).await;
    let america = Node::start(2, &[&europe], vec![owned(2, "us")]).await;
    let free = caller(3, &europe, &[], Vec::new()).await;
    let bound = caller(4, &europe, &["US"], vec![agent("own", Builtin::Echo)]).await;
    for node in [&free, &bound] {
        knows_hosts(node, 2).await;
        node.knows_of("plain").await;
    }
    for _ in 0..6 {
        assert_eq!(call(&free, "owned", &["eu"]).await.served_by, Some(europe.peer()));
        assert_eq!(call(&free, "owned", &["us"]).await.served_by, Some(america.peer()));
        assert_eq!(
            call(&bound, "owned", &[]).await.served_by,
            Some(america.peer()),
            "its operator wants it so"
        );
    }
    assert!(call(&free, "plain", &[]).await.success);
    for (node, agent, demanded) in [
        (&free, "owned", &["br"][..]),
        (&free, "owned", &["eu", "us"]),
        (&free, "plain", &["eu"]),
        (&bound, "owned", &["eu"]),
        (&bound, "plain", &[]),
        (&europe, "plain@.", &["eu"]),
        (&bound, "own@.", &["us"]),
    ] {
        let answer = call(node, agent, demanded).await;
        assert_eq!(failure(&answer), ("not_allowed", "not_started"), "{agent} {demanded:?}");
        assert_eq!((answer.served_by.as_ref(), answer.attempts), (None, 0), "nobody was asked");
        let message = &answer.error.unwrap().message;
        assert!(demanded.iter().all(|word| message.contains(&format!("`{word}`"))), "{message}");
    }
    assert!(call(&bound, "own", &[]).await.success, "nothing leaves this node");
}
