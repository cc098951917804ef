//! The cloneable handle through which the surfaces reach the node. What memory answers is read at once; every other call is one
//! request to the driver.

mod batch;
mod call;
mod catalog;
mod documents;
mod health;
mod imports;
mod queues;
mod reads;
mod register;
mod tasks;

pub use self::batch::{BATCH_CALLS_MAX, call_batch};
pub use self::call::CallOptions;
pub use self::catalog::{CatalogAgent, CatalogClient, CatalogPage, CatalogQuery, NamedAgent};
pub use self::documents::{PublishedServer, ServerDocuments, ServerQuery};
pub use self::health::{DriverState, HealthClient};
pub use self::imports::{ImportClient, ImportSettings};
pub use self::queues::QueueClient;
pub use self::reads::AgentReads;
pub use self::tasks::{OpenCall, TASK_WAIT_MAX, TaskClient};

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{Mutex, broadcast};

use self::health::DriverWatch;
use super::described::Descriptions;
use super::events::Events;
use super::imports::Imports;
use super::joined::{JOINED_MAX, JoinedZones};
use super::monitor::Monitor;
use super::tasks::Tasks;
use super::view::{self, Detail, Snapshot};
use crate::agents::Agents;
use crate::api::{self, ApiError, ZoneRole};
use crate::document::{CardKeys, Refusal};
use crate::net::calls::CallClient;
use crate::net::client::{NodeClient, Patience};
use crate::net::driver::{Event, ReadContext};
use crate::net::wall_clock;
use crate::proto::card::{Offer, Residency};
use crate::proto::identity::PeerKey;
use crate::proto::io::{Command, Reply, Role};
use crate::proto::name::ZoneName;
use crate::proto::node::Node;
use crate::proto::query::{Found, Resolution};
use crate::proto::registration::{Registered, WriteError};
use crate::proto::search::Cursor;
use crate::telemetry::metrics::Metrics;

/// Steps in which what a status shows of a large registry is hashed, so that whoever writes comes in between.
const PREPARATIONS_MAX: usize = 64;
/// Offers given to the driver at once, so that reads and gossip come in between.
const OFFERS_AT_ONCE: usize = 64;

/// What a handle is made of.
pub(super) struct HandleOf {
    pub(super) node: NodeClient,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) key: PeerKey,
    pub(super) expects_peers: bool,
    pub(super) agents: Agents,
    pub(super) calls: CallClient,
    pub(super) joined: JoinedZones,
    pub(super) residency: Vec<Residency>,
    pub(super) card_keys: CardKeys,
    pub(super) metrics: Arc<Metrics>,
}

/// Talks to a running node. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) node: NodeClient,
    events: broadcast::Sender<Event>,
    key: PeerKey,
    expects_peers: bool,
    pub(super) agents: Agents,
    calls: CallClient,
    joined: Arc<Mutex<JoinedZones>>,
    tasks: Tasks,
    /// Where data stays at hosts that inputs may go to, if not everywhere.
    residency: Arc<[Residency]>,
    descriptions: Descriptions,
    imports: Imports,
    pub(super) metrics: Arc<Metrics>,
    pub(super) monitor: Monitor,
    driver: Arc<DriverWatch>,
}

impl Handle {
    pub(super) fn new(of: HandleOf) -> Handle {
        Handle {
            node: of.node,
            events: of.events,
            key: of.key,
            expects_peers: of.expects_peers,
            agents: of.agents,
            calls: of.calls,
            joined: Arc::new(Mutex::new(of.joined)),
            tasks: Tasks::default(),
            residency: of.residency.into(),
            descriptions: Descriptions::new(of.card_keys),
            imports: Imports::default(),
            metrics: of.metrics,
            monitor: Monitor::default(),
            driver: Arc::default(),
        }
    }

    /// Key of the node.
    pub fn key(&self) -> PeerKey {
        self.key
    }

    /// Registers agents in `zone`, the home zone if none is given there and in the offer, but never in the place of another
    /// agent or of a newer version. Answers in order, when everything registered is durable.
    pub async fn register(
        &self,
        zone: Option<ZoneName>,
        offers: Vec<Offer>,
    ) -> Result<Vec<Result<api::Registered, Refusal>>, ApiError> {
        self.register_all(zone, offers, Command::Register).await
    }

    /// [`Handle::register`] in the place of whatever this node offers under the names.
    pub async fn replace(
        &self,
        zone: Option<ZoneName>,
        offers: Vec<Offer>,
    ) -> Result<Vec<Result<api::Registered, Refusal>>, ApiError> {
        self.register_all(zone, offers, Command::Replace).await
    }

    /// The agents of this host.
    pub fn local_agents(&self) -> &Agents {
        &self.agents
    }

    /// Offers the agents of this host to the world, and withdraws those it offered before and no longer has.
    /// Refusals that are not among `told` are logged; answers with all of them.
    pub(super) async fn offer_local_agents(&self, told: &BTreeSet<String>) -> BTreeSet<String> {
        let mut refusals = BTreeSet::new();
        let (offers, withdraw) = self.agents.offers();
        let names: Vec<String> = offers.iter().map(|offer| offer.name.to_string()).collect();
        let Ok(Reply::Registered(results)) =
            self.command(Command::OfferFiles { offers, withdraw }, Patience::Endless).await
        else {
            return refusals;
        };
        for (name, result) in names.into_iter().zip(results) {
            if let Err(Refusal { name, code, message }) = registered(name, result) {
                let refusal = format!("agent {name} is not registered: {message} ({code})");
                if !told.contains(&refusal) {
                    tracing::warn!(event = "agent_refused", "{refusal}");
                }
                refusals.insert(refusal);
            }
        }
        refusals
    }

    /// Withdraws an agent given by full name, bare name, id or original name. Answers when that is durable. One of a file is
    /// there as long as its file says so.
    pub async fn deregister(&self, agent: &str) -> Result<api::Registered, ApiError> {
        let name = self.resolve(agent).await?.record.name.clone();
        if let Some(own) = self.agents.get(&name) {
            return Err(view::of_file(&name.to_string(), &own));
        }
        match self.command(Command::Deregister(name), Patience::Client).await? {
            Reply::Deregistered(Ok(registered)) => {
                tracing::info!(event = "agent_deregistered", agent = %registered.name, "agent deregistered");
                Ok(view::registered(&registered))
            }
            Reply::Deregistered(Err(error)) => Err(view::write_error(&error)),
            _ => Err(view::stopped()),
        }
    }

    /// Withdraws what this node offers as this agent in this version, in `zone` as for [`Handle::register`]; none if it
    /// offers no such. Answers when that is durable.
    pub async fn withdraw_version(
        &self,
        zone: Option<ZoneName>,
        offer: Offer,
    ) -> Result<Option<api::Registered>, ApiError> {
        let offer = Offer { zone: offer.zone.or(zone), ..offer };
        match self.command(Command::WithdrawVersion(Box::new(offer)), Patience::Client).await? {
            Reply::Deregistered(Ok(registered)) => Ok(Some(view::registered(&registered))),
            Reply::Deregistered(Err(WriteError::NotFound(_))) => Ok(None),
            Reply::Deregistered(Err(error)) => Err(view::write_error(&error)),
            _ => Err(view::stopped()),
        }
    }

    /// Offers an agent again that an earlier data folder offered with this node's key. Answers when that is durable.
    pub async fn adopt(&self, agent: &str) -> Result<api::Registered, ApiError> {
        let name = self.resolve(agent).await?.record.name.clone();
        match self.command(Command::Adopt(name), Patience::Client).await? {
            Reply::Adopted(Ok(registered)) => Ok(view::registered(&registered)),
            Reply::Adopted(Err(error)) => Err(view::write_error(&error)),
            _ => Err(view::stopped()),
        }
    }

    /// Takes part in a zone from now on, also after the next start. Answers when that is durable.
    pub async fn join_zone(&self, zone: &str, role: ZoneRole) -> Result<api::ZoneChange, ApiError> {
        let zone = parse_zone(zone)?;
        let as_role = match role {
            ZoneRole::Member => Role::Member,
            ZoneRole::Follower => Role::Follower,
            ZoneRole::Below | ZoneRole::Known => {
                return Err(view::bad_request("role: a zone is joined as `member` or `follower`".into()));
            }
        };
        // One at a time, so that the file says what the last one did.
        let mut joined = self.joined.lock().await;
        if !joined.has_room(&zone) {
            return Err(view::too_many_zones(JOINED_MAX));
        }
        self.change_zone(Command::JoinZone { zone: zone.clone(), role: as_role }).await?;
        tracing::info!(event = "zone_joined", %zone, role = ?as_role, "zone joined");
        let until_the_end =
            |error| view::zone_unkept(&format!("{zone} is joined until this node ends"), &error);
        joined.join(&zone, as_role).await.map_err(until_the_end)?;
        let differs = joined.in_settings(&zone).filter(|named| *named != as_role);
        let note = |_| {
            "the settings name this zone in the other role, which holds again from the next start on".into()
        };
        Ok(api::ZoneChange {
            zone: zone.to_string(),
            role: Some(role),
            notes: differs.map(note).into_iter().collect(),
        })
    }

    /// Takes part in a zone no more: what this host offers there is withdrawn, what it held is forgotten. Answers when that is
    /// durable; a zone that the settings name comes back with the next start.
    pub async fn leave_zone(&self, zone: &str) -> Result<api::ZoneChange, ApiError> {
        let zone = parse_zone(zone)?;
        let mut joined = self.joined.lock().await;
        // The file first: a zone that was left cannot be left again for its sake.
        let not_left = |error| view::zone_unkept(&format!("{zone} is not left"), &error);
        joined.leave(&zone).await.map_err(not_left)?;
        self.change_zone(Command::LeaveZone(zone.clone())).await?;
        tracing::info!(event = "zone_left", %zone, "zone left");
        let note = |_| {
            "the settings name this zone, and the next start joins it again; to stay out of it, take it out of them"
                .into()
        };
        Ok(api::ZoneChange {
            zone: zone.to_string(),
            role: None,
            notes: joined.in_settings(&zone).map(note).into_iter().collect(),
        })
    }

    async fn change_zone(&self, change: Command) -> Result<(), ApiError> {
        match self.command(change, Patience::Client).await? {
            Reply::Zone(changed) => changed.map_err(|error| view::zone_error(&error)),
            _ => Err(view::stopped()),
        }
    }

    /// The tree of zones as this node sees it.
    pub async fn zones(&self) -> Result<api::Zones, ApiError> {
        let anchors = self.look(|node| node.config().zone_keys.clone()).await?;
        match self.command(Command::Tree, Patience::Client).await? {
            Reply::Tree(tree) => Ok(view::tree(&tree, &anchors)),
            _ => Err(view::stopped()),
        }
    }

    /// Whom names mean here, by name.
    pub async fn owners(&self) -> Result<api::Owners, ApiError> {
        match self.command(Command::Owners, Patience::Client).await? {
            Reply::Owners(owners) => Ok(api::Owners { owners: owners.iter().map(view::owner).collect() }),
            _ => Err(view::stopped()),
        }
    }

    /// A name, full or bare, means this owner from now on. Answers when that is durable.
    pub async fn trust_owner(&self, name: &str, owner: &str) -> Result<api::Owner, ApiError> {
        let owner: PeerKey = owner.parse().map_err(|error| view::bad_request(format!("owner: {error}")))?;
        self.owner(Command::TrustOwner { name: name.to_owned(), owner }).await
    }

    /// A name means nobody in particular any more. Answers with whom it meant, when that is durable.
    pub async fn forget_owner(&self, name: &str) -> Result<api::Owner, ApiError> {
        self.owner(Command::ForgetOwner(name.to_owned())).await
    }

    async fn owner(&self, change: Command) -> Result<api::Owner, ApiError> {
        match self.command(change, Patience::Client).await? {
            Reply::Owner(owner) => {
                owner.map(|known| view::owner(&known)).map_err(|it| view::owner_error(&it))
            }
            _ => Err(view::stopped()),
        }
    }

    /// Health and the state of every zone.
    pub async fn status(&self) -> Result<api::Status, ApiError> {
        Ok(snapshot(self, Detail::Fingerprints).await?.status(&self.monitor.trends()))
    }

    /// The same with the version vector of every zone, which may take megabytes.
    pub async fn status_with_vectors(&self) -> Result<api::Status, ApiError> {
        Ok(snapshot(self, Detail::Vectors).await?.status(&self.monitor.trends()))
    }

    /// Connected peers, bootstrap peers first.
    pub async fn peers(&self) -> Result<api::Peers, ApiError> {
        self.read(view::peers).await
    }

    /// How the last hour went, or the last day by longer steps.
    ///
    /// # Errors
    /// There is no such step, or nothing is kept of what is named.
    pub fn history(&self, query: &api::HistoryQuery) -> Result<api::History, ApiError> {
        view::history(&self.monitor, query)
    }

    /// Events from now on.
    pub fn events(&self) -> Events {
        Events::new(self.events.subscribe(), self.metrics.clone())
    }

    /// What is counted.
    pub(crate) fn counted(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Resolves when the node has stopped.
    pub(super) async fn stopped(&self) {
        self.node.stopped().await;
    }

    fn own(&self) -> view::Own<'_> {
        view::Own {
            key: self.key,
            agents: &self.agents,
            unreached: self.calls.unreached(),
            descriptions: &self.descriptions,
        }
    }

    async fn resolve(&self, agent: &str) -> Result<Found, ApiError> {
        self.resolved(agent, Command::Resolve(agent.to_owned())).await
    }

    async fn resolved(&self, agent: &str, question: Command) -> Result<Found, ApiError> {
        let Reply::Resolved(resolution) = self.command(question, Patience::Client).await? else {
            return Err(view::stopped());
        };
        match resolution {
            Resolution::One(found) => Ok(found),
            Resolution::Ambiguous { candidates, count, known } => {
                Err(view::ambiguous(agent, &candidates, count, known.as_ref()))
            }
            Resolution::Unknown => {
                let similar = self.look(|node| node.memory(wall_clock()).similar_names(agent)).await?;
                Err(view::not_found(agent, &similar))
            }
            Resolution::NotSynced => Err(view::not_synced(agent)),
        }
    }

    async fn command(&self, command: Command, patience: Patience) -> Result<Reply, ApiError> {
        self.node.command(command, patience).await.map_err(view::unanswered)
    }

    async fn look<T>(&self, question: impl FnOnce(&Node) -> T) -> Result<T, ApiError> {
        self.node.look(question).await.map_err(view::unanswered)
    }

    async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut ReadContext<'_>) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        self.node.read(Patience::Client, question).await.map_err(view::unanswered)
    }
}

async fn snapshot(handle: &Handle, detail: Detail) -> Result<Snapshot, ApiError> {
    if detail != Detail::Numbers {
        for _ in 0..PREPARATIONS_MAX {
            if handle.read(Snapshot::prepare).await? {
                break;
            }
        }
    }
    handle.read(move |seen| Snapshot::take(seen, detail)).await
}

fn registered(name: String, result: Result<Registered, WriteError>) -> Result<api::Registered, Refusal> {
    match result {
        Ok(registered) => Ok(view::registered(&registered)),
        Err(error @ (WriteError::Refused(_) | WriteError::NotGranted(_))) => {
            let message = format!("{error}; {}", view::write_fix(&error));
            Err(Refusal { name, code: error.code(), message })
        }
        Err(error) => Err(Refusal { name, code: error.code(), message: error.to_string() }),
    }
}

fn parse_zone(text: &str) -> Result<ZoneName, ApiError> {
    text.parse().map_err(|error| view::bad_request(format!("zone: {error}")))
}

fn parse_residency(text: &str) -> Result<Residency, ApiError> {
    text.parse().map_err(|error| view::bad_request(format!("residency: {error}")))
}

fn parse_cursor(text: &str) -> Result<Cursor, ApiError> {
    text.parse()
        .map_err(|_| view::bad_request("cursor: not one that this node gave out; start without it".into()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::host::{Options, start};
    use crate::net::REQUESTS_MAX;
    use crate::proto::code::Code;
    use crate::proto::identity::Identity;

    async fn lone(folder: &std::path::Path) -> crate::host::Running {
        let options = Options::new(Identity::from_seed([7; 32]), "test", folder);
        start(options).await.unwrap()
    }

    /// The driver stands still in a read while others fill its queue.
    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn who_finds_the_queue_full_is_told_so_and_what_waits_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let node = lone(folder.path()).await;
        let handle = node.handle.clone();
        let (go_on, stands) = std::sync::mpsc::sync_channel::<()>(1);
        let (standing, stood) = tokio::sync::oneshot::channel();
        let blocker = handle.clone();
        let still = tokio::spawn(async move {
            let block = move |_: &mut ReadContext<'_>| {
                standing.send(()).unwrap();
                stands.recv().unwrap();
            };
            blocker.read(block).await
        });
        stood.await.unwrap();
        let waiting: Vec<_> = (0..REQUESTS_MAX)
            .map(|_| {
                let handle = handle.clone();
                tokio::spawn(async move { handle.find(api::FindQuery::default()).await })
            })
            .collect();
        while handle.node.room() > 0 {
            tokio::task::yield_now().await;
        }
        let offer = Offer {
            name: "late".parse().unwrap(),
            zone: None,
            scope: crate::proto::card::Scope::Public,
            card: crate::proto::card::AgentCard::default(),
            grants: Vec::new(),
        };
        let asked = async {
            tokio::join!(
                handle.find(api::FindQuery::default()),
                handle.show("a"),
                handle.call("a", serde_json::Value::Null, CallOptions::default()),
                handle.register(None, vec![offer]),
            )
        };
        let answers = tokio::time::timeout(Duration::from_secs(30), asked).await;
        let (find, show, call, register) = answers.expect("nobody waits without end");
        let errors = [find.unwrap_err(), show.unwrap_err(), call.unwrap_err(), register.unwrap_err()];
        for error in errors {
            assert_eq!((error.code, error.code.http_status()), (Code::Busy, 429), "{error:?}");
            assert!(error.fix.contains("try again"), "{error:?}");
        }
        go_on.send(()).unwrap();
        still.await.unwrap().unwrap();
        for found in waiting {
            found.await.unwrap().unwrap();
        }
        assert!(handle.find(api::FindQuery::default()).await.is_ok());
        node.stop().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_driver_that_breaks_down_says_so_as_often_as_it_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let mut node = lone(folder.path()).await;
        let broken = node.handle.read(|_: &mut ReadContext<'_>| panic!("on purpose")).await;
        assert_eq!(broken.unwrap_err().code, Code::Unavailable);
        for _ in 0..2 {
            let reason = node.failed().await;
            assert!(reason.contains("broke down"), "{reason}");
        }
        assert!(node.stop().await.unwrap_err().to_string().contains("broke down"));
    }
}
