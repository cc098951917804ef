//! What clients of other standards see of a node: real nodes, each with its HTTP server and a token.

mod a2a;
mod ard;
mod cards;
mod registry;

use std::path::Path;
use std::time::Duration;

use aop::agents::{Agents, HostedAgent};
use aop::api::RegisterAnswer;
use aop::document::run_config::{Builtin, RunConfig, Runner};
use aop::document::{CardKeys, read_documents};
use aop::host::{self, Options, Running};
use aop::http::{self, RegistryAccess};
use aop::proto::address_block::TrustedNets;
use aop::proto::identity::Identity;
use aop::proto::name::ZoneName;
use libp2p::Multiaddr;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);
const TOKEN: &str = "a-token-of-this-test";

#[derive(Default)]
struct Setup {
    bootstrap: Vec<Multiaddr>,
    registry: RegistryAccess,
    /// The root zone alone, if none is given.
    zones: Vec<ZoneName>,
    agents: Vec<HostedAgent>,
    card_keys: CardKeys,
}

/// An agent that this program runs itself.
fn hosted(mut agent: Value, builtin: Builtin) -> HostedAgent {
    agent["run"] = json!({"builtin": "echo"});
    let mut offer = read_documents(json!({ "agent": agent })).remove(0).unwrap();
    // As for an agent that a file runs.
    offer.card.callable = true;
    let run_config = RunConfig::new(Runner::Builtin(builtin), Path::new("."));
    HostedAgent { offer, run_config: Some(run_config) }
}

/// One that answers with its task.
fn echo(name: &str) -> HostedAgent {
    hosted(json!({"name": name, "description": "says it again"}), Builtin::Echo)
}

struct Site {
    base: String,
    node: Running,
    server: http::Server,
    _folder: TempDir,
}

impl Site {
    async fn start(seed: u8, setup: Setup) -> Site {
        let folder = TempDir::new().unwrap();
        let zones = if setup.zones.is_empty() { vec![ZoneName::root()] } else { setup.zones };
        let agents = Agents::new(zones[0].clone());
        agents.replace(setup.agents);
        let usual = Options::new(Identity::from_seed([seed; 32]), "test", folder.path());
        let node = host::start(Options {
            bootstrap: setup.bootstrap,
            zones,
            agents,
            card_keys: setup.card_keys,
            ..usual
        })
        .await
        .unwrap();
        let settings = http::Settings {
            addr: "127.0.0.1:0".parse().unwrap(),
            names: Vec::new(),
            trusted_nets: TrustedNets::default(),
            token: http::Token::parse(TOKEN),
            registry: setup.registry,
        };
        let server = http::bind(settings).await.unwrap().serve(node.handle.clone());
        Site { base: server.url(), node, server, _folder: folder }
    }

    fn address(&self) -> Multiaddr {
        self.node.listen[0].clone()
    }

    /// Sends a request to a path; the status, the header that lets pages read the answer, and the answer.
    async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> (u16, Option<String>, Value) {
        let mut request = Client::new().get(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let allowed = response.headers().get("access-control-allow-origin");
        let allowed = allowed.map(|allowed| allowed.to_str().unwrap().to_owned());
        (response.status().as_u16(), allowed, response.json().await.unwrap_or_default())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let (status, _, answer) = self.ask(path, &[("authorization", &format!("Bearer {TOKEN}"))]).await;
        (status, answer)
    }

    fn to(&self, path: &str) -> RequestBuilder {
        Client::new().post(format!("{}{path}", self.base)).bearer_auth(TOKEN)
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let response: Response = self.to(path).json(body).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    async fn register(&self, documents: &Value) -> RegisterAnswer {
        serde_json::from_value(self.post("/v1/agents", documents).await.1).unwrap()
    }

    /// Waits until an agent of another node is held here.
    async fn hears_of(&self, agent: &str) {
        let mut events = self.node.handle.events();
        let heard = async {
            while self.node.handle.show(agent).await.is_err() {
                let _missed = events.recv().await;
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.expect("it is heard of");
    }

    async fn stop(self) {
        self.server.stop().await;
        self.node.stop().await.unwrap();
    }
}
