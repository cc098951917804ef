//! Agentic Resource Discovery, v0.91 (<https://github.com/ards-project/ard-spec>): the manifest of this host, and below `/ard` a
//! registry of what this node holds, which searches the whole mesh unless it is told not to.
//!
//! Nothing that is not public is in any answer, and no name of others stands where a name is a claim: identifiers are under the
//! owner's key. A search says which zones answered, in members that the standard leaves open.

mod entry;
mod filter;
mod identifier;
mod manifest;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use data_encoding::BASE64URL_NOPAD;
use form_urlencoded::parse;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use self::entry::{Shown, entry, head, of_node};
use self::filter::{FacetQuestion, Facets, Filter, bad};
use self::identifier::Identifier;
use super::body;
use super::failure::Failure;
use super::surface::{RegistryAccess, base, cacheable, preflight, say_who_may_read};
use crate::api;
use crate::host::{CatalogAgent, CatalogClient, CatalogPage, CatalogQuery, Handle};
use crate::proto::code::Code;

/// Results of a search where nothing is said, and at most.
const RESULTS: usize = 10;
const RESULTS_MAX: usize = 100;
/// Entries of a page of the list where nothing is said.
const ITEMS: usize = 20;
/// Largest body, bytes: a filter of thousands of values.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// Agents that are looked at in one question where some may be left out.
const LOOKED_AT_ONCE: usize = 250;
/// Questions of one search to this node, and to the mesh, whose answers take messages. What is beyond is on the next page.
const HELD_ROUNDS_MAX: usize = 40;
const MESH_ROUNDS_MAX: usize = 4;
/// Agents that are looked at to count.
const EXPLORED_MAX: usize = 100_000;
/// Searches of the mesh and counts at once: each is a hundred times the work of other requests.
const HEAVY_MAX: usize = 16;

/// What the routes share.
struct Ard {
    handle: Handle,
    heavy: Semaphore,
}

pub(super) fn router(handle: Handle, access: RegistryAccess) -> Router {
    Router::new()
        .route(manifest::PATH, get(manifest::manifest).options(preflight))
        .route(manifest::CATALOG_PATH, get(manifest::manifest).options(preflight))
        .route("/robots.txt", get(manifest::robots))
        .route("/ard/search", post(search).options(preflight))
        .route("/ard/explore", post(explore).options(preflight))
        .route("/ard/agents", get(list).options(preflight))
        .route("/ard/agents/{identifier}", get(show).options(preflight))
        .with_state(Arc::new(Ard { handle, heavy: Semaphore::new(HEAVY_MAX) }))
        .layer(from_fn_with_state(access, say_who_may_read))
}

impl Ard {
    fn heavy(&self) -> Result<SemaphorePermit<'_>, Failure> {
        self.heavy.try_acquire().map_err(|_| Failure::busy("searches of the mesh", HEAVY_MAX))
    }

    fn catalog(&self) -> CatalogClient<'_> {
        CatalogClient::new(&self.handle)
    }
}

/// How far a search goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Federation {
    /// The whole mesh.
    #[default]
    Auto,
    /// What this node holds, and who else should be asked.
    Referrals,
    /// What this node holds.
    None,
}

#[derive(Debug, Default, Deserialize)]
struct QueryModel {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    filter: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SearchQuestion {
    query: QueryModel,
    #[serde(default)]
    federation: Federation,
    #[serde(default)]
    page_size: Option<u64>,
    #[serde(default)]
    page_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExploreQuestion {
    #[serde(default)]
    query: QueryModel,
    result_type: ResultType,
}

#[derive(Debug, Deserialize)]
struct ResultType {
    facets: Vec<FacetQuestion>,
}

/// Where a search goes on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct PageToken {
    #[serde(rename = "c")]
    cursor: Option<String>,
    /// Agents behind the cursor that were looked at.
    #[serde(rename = "s", default)]
    skipped: usize,
    /// The score of the best result of all pages, by which the scores of each are told.
    #[serde(rename = "b")]
    best: f32,
}

impl PageToken {
    fn read(text: &str) -> Result<PageToken, Failure> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok();
        let token: Option<PageToken> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        token.ok_or_else(|| bad("`pageToken` is none that this node gave", "begin again without it"))
    }

    fn text(&self) -> String {
        BASE64URL_NOPAD.encode(&serde_json::to_vec(self).unwrap_or_default())
    }
}

/// `POST /ard/search`.
async fn search(State(ard): State<Arc<Ard>>, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    let asked: SearchQuestion = question(body).await?;
    let text = asked.query.text.filter(|text| !text.trim().is_empty());
    let text = text.ok_or_else(|| bad("`query.text` is missing or empty", "say what is looked for"))?;
    let filter = Filter::read(&asked.query.filter)?;
    let size = page_size(asked.page_size, RESULTS)?;
    let token = asked.page_token.as_deref().map(PageToken::read).transpose()?.unwrap_or_default();
    let local = asked.federation != Federation::Auto;
    let _place = (!local).then(|| ard.heavy()).transpose()?;
    let base = base(&headers);
    let mut search = Search { ard: &ard, filter, base: &base, text, local, best: token.best };
    let (entries, page, next) = search.page(size, token).await?;
    let told = SearchAnswer {
        results: entries,
        complete: page.complete,
        zones: page.zones,
        age_ms: page.age_ms,
        // No node tells others the address of its API: what is not held is named under `zones`.
        referrals: (asked.federation == Federation::Referrals).then_some([]),
        page_token: next.map(|next| next.text()),
    };
    Ok(axum::Json(told).into_response())
}

/// Answer of a search.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SearchAnswer {
    results: Vec<Shown>,
    complete: bool,
    zones: Vec<api::ZoneAnswer>,
    age_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referrals: Option<[(); 0]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    page_token: Option<String>,
}

/// A page of the list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListAnswer {
    items: Vec<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    page_token: Option<String>,
}

struct Search<'a> {
    ard: &'a Ard,
    filter: Filter,
    base: &'a str,
    text: String,
    local: bool,
    best: f32,
}

impl Search<'_> {
    /// At most `size` entries that match, what they are of, and where the next page begins.
    async fn page(
        &mut self,
        size: usize,
        from: PageToken,
    ) -> Result<(Vec<Shown>, CatalogPage, Option<PageToken>), Failure> {
        let (mut entries, mut next) = (Vec::new(), from);
        let mut rounds = if self.local { HELD_ROUNDS_MAX } else { MESH_ROUNDS_MAX };
        loop {
            // Where none is left out a round is what fits.
            let limit = if self.filter.is_empty() { size - entries.len() } else { LOOKED_AT_ONCE };
            let (text, cursor) = (self.text.clone(), next.cursor.clone());
            let query = CatalogQuery { text, local: self.local, limit, cursor };
            let mut page = self.ard.catalog().find(query).await?;
            let agents = std::mem::take(&mut page.agents);
            if self.best <= 0.0 {
                self.best = agents.first().map_or(0.0, |agent| agent.score);
            }
            next.best = self.best;
            for (at, agent) in agents.iter().enumerate().skip(next.skipped) {
                if entries.len() == size {
                    return Ok((entries, page, Some(PageToken { skipped: at, ..next })));
                }
                entries.extend(self.result(agent));
            }
            rounds -= 1;
            let after = page.cursor.take().map(|after| PageToken { cursor: Some(after), skipped: 0, ..next });
            match after {
                Some(after) if rounds > 0 && entries.len() < size => next = after,
                after => return Ok((entries, page, after)),
            }
        }
    }

    fn result(&self, agent: &CatalogAgent) -> Option<Shown> {
        if !self.filter.is_empty() && !self.filter.reads_data() && !self.filter.matches(&head(agent)) {
            return None;
        }
        let mut shown = entry(agent, self.base);
        if self.filter.reads_data() && !self.filter.matches(&shown.whole()) {
            return None;
        }
        let share = if self.best > 0.0 { agent.score / self.best } else { 0.0 };
        shown.entry.insert("score".into(), ((100.0 * share).round().clamp(0.0, 100.0) as u8).into());
        shown.entry.insert("source".into(), format!("{}/ard", self.base).into());
        Some(shown)
    }
}

/// `POST /ard/explore`: over all that this node holds and that matches.
async fn explore(State(ard): State<Arc<Ard>>, body: Body) -> Result<Response, Failure> {
    let asked: ExploreQuestion = question(body).await?;
    let filter = Filter::read(&asked.query.filter)?;
    let mut facets = Facets::read(asked.result_type.facets)?;
    let _place = ard.heavy()?;
    let is_whole = filter.reads_data() || facets.reads_data();
    let text = asked.query.text.unwrap_or_default();
    let mut query = CatalogQuery { text, local: true, limit: LOOKED_AT_ONCE, cursor: None };
    let mut looked_at = 0;
    loop {
        let page = ard.catalog().find(query.clone()).await?;
        looked_at += page.agents.len();
        for agent in &page.agents {
            let entry = if is_whole { entry(agent, "").whole() } else { head(agent) };
            if filter.matches(&entry) {
                facets.count(&entry);
            }
        }
        if page.cursor.is_none() || looked_at >= EXPLORED_MAX {
            let (facets, is_all) = (facets.told(), page.cursor.is_none());
            return Ok(axum::Json(json!({"resultType": "facets", "facets": facets, "complete": is_all}))
                .into_response());
        }
        query.cursor = page.cursor;
    }
}

/// `GET /ard/agents`: all that this node holds, by name.
async fn list(
    State(ard): State<Arc<Ard>>,
    headers: HeaderMap,
    RawQuery(raw): RawQuery,
) -> Result<Response, Failure> {
    let mut query = CatalogQuery { local: true, limit: ITEMS, ..CatalogQuery::default() };
    for (name, value) in parse(raw.unwrap_or_default().as_bytes()) {
        match &*name {
            "pageSize" => query.limit = page_size(Some(value.parse().unwrap_or(0)), ITEMS)?,
            "pageToken" if !value.is_empty() => query.cursor = PageToken::read(&value)?.cursor,
            "filter" | "orderBy" if !value.is_empty() => {
                let message = format!("the list knows no `{name}`");
                return Err(bad(message, "POST /ard/search takes a filter; the list is ordered by name"));
            }
            _ => {}
        }
    }
    let page = ard.catalog().find(query).await?;
    let base = base(&headers);
    let next = page.cursor.map(|cursor| PageToken { cursor: Some(cursor), ..PageToken::default() });
    let items = page.agents.iter().map(|agent| entry(agent, &base)).collect();
    let told = ListAnswer { items, page_token: next.map(|next| next.text()) };
    Ok(cacheable(&headers, "application/json", text_of(&told)))
}

/// `GET /ard/agents/{identifier}`: out of what this node holds alone.
async fn show(
    State(ard): State<Arc<Ard>>,
    headers: HeaderMap,
    identifier: Result<Path<String>, PathRejection>,
) -> Result<Response, Failure> {
    let Path(text) = identifier.map_err(|rejection| bad(rejection.body_text(), ""))?;
    let identifier = Identifier::read(&text).ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        let message =
            format!("`{}` is no identifier `urn:air:PUBLISHER:NAMESPACE:NAME`", shown.escape_debug());
        bad(message, "percent-encode it once, as one segment of the path")
    })?;
    let base = base(&headers);
    let found = match &identifier {
        Identifier::Node(key, entry) if *key == ard.handle.key() => Some(of_node(*key, *entry, &base)),
        identifier => match identifier.agent() {
            Some(id) => ard.catalog().get(id).await?.map(|agent| entry(&agent, &base)),
            None => None,
        },
    };
    let found = found.ok_or_else(|| {
        Failure::new(Code::NotFound, "this node holds no such entry", "POST /ard/search asks the whole mesh")
    })?;
    Ok(cacheable(&headers, "application/json", text_of(&found)))
}

/// As JSON; what these answers are made of always can be.
fn text_of(told: &impl Serialize) -> String {
    serde_json::to_string(told).unwrap_or_default()
}

async fn question<T: DeserializeOwned>(body: Body) -> Result<T, Failure> {
    let bytes = body::read(body, BODY_BYTES_MAX, "ask with a shorter filter").await?;
    serde_json::from_slice(&bytes).map_err(|error| bad(format!("the body is no such question: {error}"), ""))
}

fn page_size(asked: Option<u64>, usual: usize) -> Result<usize, Failure> {
    match asked {
        None => Ok(usual),
        Some(0) => Err(bad("`pageSize` is no number from 1", format!("at most {RESULTS_MAX}"))),
        Some(size) => Ok(usize::try_from(size).unwrap_or(RESULTS_MAX).min(RESULTS_MAX)),
    }
}
