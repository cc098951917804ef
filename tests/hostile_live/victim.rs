//! The node that is attacked, and its honest clients.

use std::time::Duration;

use aop::agents::Agents;
use aop::api::{Event, FindQuery, Status};
use aop::document::Offer;
use aop::host::{self, Options, Running};
use aop::proto::address_block::TrustedNets;
use aop::proto::card::{AgentCard, Scope};
use aop::proto::code::Code;
use aop::proto::identity::Identity;
use aop::proto::name::ZoneName;
use libp2p::Multiaddr;
use tempfile::TempDir;
use tokio::time::timeout;

/// Far more than anything takes on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// What a client waits for an answer while the node is attacked.
const ANSWER: Duration = Duration::from_secs(20);

pub(crate) struct Victim {
    pub(crate) node: Running,
    _folder: TempDir,
}

impl Victim {
    pub(crate) async fn start(seed: u8, bootstrap: Vec<Multiaddr>) -> Victim {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            identity: Identity::from_seed([seed; 32]),
            network: "test".into(),
            zones: vec![ZoneName::root()],
            follows: Vec::new(),
            bootstrap,
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            trusted_nets: TrustedNets::default(),
            data_dir: folder.path().into(),
            agents: Agents::new(ZoneName::root()),
        };
        Victim { node: host::start(options).await.unwrap(), _folder: folder }
    }

    pub(crate) fn address(&self) -> Multiaddr {
        self.node.listen[0].clone()
    }

    /// Registers an agent, which must be acknowledged whatever else goes on.
    pub(crate) async fn register(&self, name: &str) {
        let card = AgentCard { description: "honest".into(), ..AgentCard::default() };
        let (name, scope) = (name.parse().unwrap(), Scope::Public);
        let offer = Offer { name, zone: None, scope, card, grants: Vec::new() };
        let answer = timeout(ANSWER, self.node.handle.register(None, vec![offer])).await;
        answer.expect("a client has its answer").unwrap().remove(0).unwrap();
    }

    /// The agents that a search finds, which must be answered whatever else goes on.
    pub(crate) async fn found(&self) -> Vec<String> {
        let query = FindQuery { limit: Some(1_000), ..FindQuery::default() };
        let answer = timeout(ANSWER, self.node.handle.find(query)).await.expect("a client has its answer");
        answer.unwrap().results.into_iter().map(|found| found.agent).collect()
    }

    pub(crate) async fn status(&self) -> Status {
        timeout(ANSWER, self.node.handle.status()).await.expect("a client has its answer").unwrap()
    }

    /// How often something was refused for this reason.
    pub(crate) async fn refused(&self, code: Code) -> u64 {
        self.status().await.refused.get(&code).copied().unwrap_or(0)
    }

    /// Waits until `is_met`; looks again with each event.
    pub(crate) async fn until(&self, what: &str, is_met: impl AsyncFn() -> bool) {
        let mut events = self.node.handle.events();
        let waiting = async {
            while !is_met().await {
                // Not every change is an event.
                let _event: Result<Result<Event, _>, _> =
                    timeout(Duration::from_millis(200), events.recv()).await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("not in {PATIENCE:?}: {what}"));
    }
}
