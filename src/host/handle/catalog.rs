//! Agents with their whole cards, page by page, for the catalogues of other standards. What is not public is in none.

use std::sync::Arc;

use super::{AgentReads, Handle, parse_cursor};
use crate::api::{self, ApiError};
use crate::host::view;
use crate::net::wall_clock;
use crate::proto::card::AgentCard;
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::io::Command;
use crate::proto::name::FullName;
use crate::proto::query::{Find, Found};
use crate::proto::search::Query;
use crate::proto::time::Timestamp;

/// An agent as its host describes it to everybody.
#[derive(Clone, Debug)]
pub struct CatalogAgent {
    /// Full name.
    pub name: FullName,
    /// Stable id.
    pub id: AgentId,
    /// On whose behalf it is registered.
    pub owner: PeerKey,
    /// The card of the greatest of its live records.
    pub card: Arc<AgentCard>,
    /// Rank; 0 where nothing was searched for.
    pub score: f32,
}

/// Some agents, and what they are all of.
#[derive(Clone, Debug, Default)]
pub struct CatalogPage {
    /// Best first where something was searched for, else by name.
    pub agents: Vec<CatalogAgent>,
    /// Each zone of the asked scope and how it answered.
    pub zones: Vec<api::ZoneAnswer>,
    /// Whether every zone of the asked scope answered whole.
    pub complete: bool,
    /// What the zones held this long ago is in the answer, milliseconds; none if that cannot be said of one of them.
    pub age_ms: Option<u64>,
    /// Where the next page begins; none on the last.
    pub cursor: Option<String>,
}

/// What is looked for.
#[derive(Clone, Debug, Default)]
pub struct CatalogQuery {
    /// Words; empty for every agent.
    pub text: String,
    /// Only what this node holds.
    pub local: bool,
    /// At most so many.
    pub limit: usize,
    /// Where an earlier page ended.
    pub cursor: Option<String>,
}

/// An agent that somebody named.
#[derive(Clone, Debug)]
pub struct NamedAgent {
    /// The agent.
    pub agent: CatalogAgent,
    /// Whether everybody may find it.
    pub is_public: bool,
    /// What it is called by here: its full name where it runs on this host, else its id, which nobody else can have.
    pub called: String,
}

/// Looks agents up at a node.
pub struct CatalogClient<'a>(&'a Handle);

impl<'a> CatalogClient<'a> {
    /// At this node.
    pub fn new(handle: &'a Handle) -> CatalogClient<'a> {
        CatalogClient(handle)
    }

    /// A page of agents that match. It may be shorter than `limit`.
    ///
    /// # Errors
    /// The cursor is none of this node's; the node has stopped or is too busy.
    pub async fn find(&self, query: CatalogQuery) -> Result<CatalogPage, ApiError> {
        let after = query.cursor.as_deref().map(parse_cursor).transpose()?;
        let (limit, local) = (query.limit, query.local);
        let query = Query { text: query.text, ..Query::default() };
        let answer = AgentReads::new(self.0)
            .answer(Command::Find(Find { query, limit, after, local, ..Find::default() }))
            .await?;
        Ok(CatalogPage {
            agents: answer
                .found
                .iter()
                .filter(|found| found.record.is_public())
                .map(|found| self.of(found))
                .collect(),
            zones: view::zones(&answer),
            complete: answer.is_complete(),
            age_ms: view::age_ms(answer.age()),
            cursor: answer.next.map(|cursor| cursor.to_string()),
        })
    }

    /// An agent that this node holds; nobody else is asked.
    ///
    /// # Errors
    /// The node has stopped or is too busy.
    pub async fn get(&self, id: AgentId) -> Result<Option<CatalogAgent>, ApiError> {
        let found = self.0.look(|node| node.agent(wall_clock(), &id)).await?;
        Ok(found.filter(|found| found.record.is_public()).map(|found| self.of(&found)))
    }

    /// An agent by full name, bare name, id or original name, wherever it is.
    ///
    /// # Errors
    /// It is unknown or ambiguous; the node has stopped or is too busy.
    pub async fn named(&self, agent: &str) -> Result<NamedAgent, ApiError> {
        let found = self.0.resolve(agent).await?;
        let agent = self.of(&found);
        let is_here =
            found.replicas.iter().any(|it| it.peer() == self.0.key) && self.0.agents.runs(&agent.name);
        let called = if is_here { agent.name.to_string() } else { agent.id.to_string() };
        Ok(NamedAgent { agent, is_public: found.record.is_public(), called })
    }

    /// The public agents that run on this host, by name, at most `limit`.
    ///
    /// # Errors
    /// As of [`CatalogClient::get`].
    pub async fn running_here(&self, limit: usize) -> Result<Vec<CatalogAgent>, ApiError> {
        let list = self.0.agents.list();
        let runs = move |name: &FullName| list.get(name).is_some_and(|local| local.run_config.is_some());
        self.0
            .look(|node| {
                let offers = node.own_offers().filter(|own| own.is_public() && runs(&own.name));
                let mut ids: Vec<(FullName, AgentId)> =
                    offers.map(|own| (own.name.clone(), AgentId::of(own.owner, &own.name))).collect();
                ids.sort_unstable();
                let held = ids.iter().filter_map(|(_, id)| node.agent(wall_clock(), id));
                held.take(limit).map(|found| self.of(&found)).collect()
            })
            .await
    }
}

impl CatalogClient<'_> {
    fn of(&self, found: &Found) -> CatalogAgent {
        let record = &found.record;
        CatalogAgent {
            name: record.name.clone(),
            id: found.id,
            owner: record.owner,
            card: self.0.descriptions.of(record).card.clone(),
            score: found.score,
        }
    }
}

impl CatalogAgent {
    /// When its document changed last; none for an agent that is no document.
    pub fn updated_at(&self) -> Option<Timestamp> {
        self.card.dates.map(|dates| dates.updated)
    }
}
