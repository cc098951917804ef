//! Two real nodes in one process: one registers an agent, the other finds and calls it.
//!
//! `cargo run --example two_nodes`

use std::error::Error;
use std::path::Path;

use aop::agents::{Agents, HostedAgent};
use aop::api::FindQuery;
use aop::document::run_config::{Builtin, RunConfig, Runner};
use aop::host::{self, CallOptions, Options, Running};
use aop::proto::card::{AgentCard, Offer, Scope};
use aop::proto::identity::Identity;
use aop::proto::name::ZoneName;
use serde_json::json;

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let parrot = HostedAgent {
        offer: Offer {
            name: "parrot".parse()?,
            zone: None,
            scope: Scope::Public,
            card: AgentCard {
                description: "Repeats its task".into(),
                callable: true,
                ..AgentCard::default()
            },
            grants: Vec::new(),
        },
        run_config: Some(RunConfig::new(Runner::Builtin(Builtin::Echo), Path::new("."))),
    };
    let folders = (tempfile::tempdir()?, tempfile::tempdir()?);
    let host = start(1, folders.0.path(), vec![parrot], &[]).await?;
    let caller = start(2, folders.1.path(), Vec::new(), &[&host]).await?;

    // The record comes by gossip or sync, whichever is first; each event is a reason to look again.
    let mut events = caller.handle.events();
    let found = loop {
        let query = FindQuery { q: "repeats".into(), ..FindQuery::default() };
        if let Some(found) = caller.handle.find(query).await?.results.pop() {
            break found;
        }
        events.recv().await?;
    };
    println!("found {}: {}", found.agent, found.description);
    let answer = caller.handle.call(&found.agent, json!({"task": "hello"}), CallOptions::default()).await?;
    println!("{} answered {}", answer.served_by.unwrap_or_default(), answer.result);
    assert_eq!(answer.result, "hello");
    caller.stop().await?;
    Ok(host.stop().await?)
}

async fn start(
    seed: u8,
    data_dir: &Path,
    hosted: Vec<HostedAgent>,
    bootstrap: &[&Running],
) -> Result<Running, Box<dyn Error>> {
    let agents = Agents::new(ZoneName::root());
    agents.replace(hosted);
    let options = Options {
        bootstrap: bootstrap.iter().map(|node| node.listen[0].clone()).collect(),
        agents,
        ..Options::new(Identity::from_seed([seed; 32]), "example", data_dir)
    };
    Ok(host::start(options).await?)
}
