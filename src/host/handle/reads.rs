//! What a node knows of agents: results in this process, and the same as JSON, of which only what changes is made anew.

use std::time::{Duration, Instant};

use tracing::Instrument;

use super::{Handle, parse_cursor, parse_residency, parse_zone};
use crate::api::{self, ApiError};
use crate::host::view::{self, Shown};
use crate::net::client::Patience;
use crate::proto::io::{Command, Reply};
use crate::proto::limits::ANSWER_AGE;
use crate::proto::query::{Answer, Find};
use crate::proto::search::{Asked, Query};
use crate::telemetry::names;

/// Results of `find` without a limit.
const FIND_LIMIT: usize = 20;
/// Most results at once; larger limits are clamped.
const LIMIT_MAX: usize = 1_000;
/// How the JSON of an answer without results begins.
const NO_RESULTS: &str = r#"{"results":["#;
/// What a result takes, about, bytes.
const RESULT_BYTES: usize = 768;

/// An answer, and what is said of it beside its results.
struct Searched<T> {
    answer: Answer,
    asked: Option<Asked>,
    /// Without results.
    rest: T,
}

impl Handle {
    /// Searches what this node holds, and says what of the asked scope that is.
    pub async fn find(&self, query: api::FindQuery) -> Result<api::FindAnswer, ApiError> {
        let Searched { answer, asked, rest } = AgentReads(self).search(query).await?;
        let results = self.own().shown(&answer.found, asked.as_ref());
        Ok(api::FindAnswer { results: results.into_iter().map(Shown::agent).collect(), ..rest })
    }

    /// One agent, whole.
    pub async fn show(&self, agent: &str) -> Result<api::AgentDetail, ApiError> {
        let json = AgentReads(self).show(agent).await?;
        serde_json::from_slice(&json).map_err(|_| view::stopped())
    }

    /// Every agent of a held zone and those below, in a stable order.
    pub async fn agents(
        &self,
        zone: Option<String>,
        limit: usize,
        cursor: Option<String>,
    ) -> Result<api::AgentPage, ApiError> {
        let Searched { answer, rest, .. } = AgentReads(self).list(zone, limit, cursor).await?;
        let results = self.own().shown(&answer.found, None);
        Ok(api::AgentPage { results: results.into_iter().map(Shown::agent).collect(), ..rest })
    }
}

/// Reads agents as JSON, for whoever passes it on.
pub struct AgentReads<'a>(&'a Handle);

impl<'a> AgentReads<'a> {
    /// Of this node.
    pub fn new(handle: &'a Handle) -> AgentReads<'a> {
        AgentReads(handle)
    }

    /// What memory says, or others.
    pub(super) async fn answer(&self, question: Command) -> Result<Answer, ApiError> {
        match self.0.command(question, Patience::Client).await? {
            Reply::Found(answer) => Ok(answer),
            _ => Err(view::stopped()),
        }
    }

    /// [`Handle::find`] as JSON.
    pub async fn find(&self, query: api::FindQuery) -> Result<Vec<u8>, ApiError> {
        let Searched { answer, asked, rest } = self.search(query).await?;
        Ok(json(&self.0.own().shown(&answer.found, asked.as_ref()), &rest))
    }

    /// [`Handle::show`] as JSON.
    pub async fn show(&self, agent: &str) -> Result<Vec<u8>, ApiError> {
        let found = self.0.resolve(agent).await?;
        let detail = self.0.descriptions.detail(&found.record);
        let mut json = Vec::with_capacity(detail.len() + RESULT_BYTES);
        self.0.own().show(&found, None).write(&detail, &mut json);
        Ok(json)
    }

    /// [`Handle::agents`] as JSON.
    pub async fn agents(
        &self,
        zone: Option<String>,
        limit: usize,
        cursor: Option<String>,
    ) -> Result<Vec<u8>, ApiError> {
        let Searched { answer, rest, .. } = self.list(zone, limit, cursor).await?;
        Ok(json(&self.0.own().shown(&answer.found, None), &rest))
    }

    async fn search(&self, query: api::FindQuery) -> Result<Searched<api::FindAnswer>, ApiError> {
        let started = Instant::now();
        let zone = query.zone.as_deref().map(parse_zone).transpose()?;
        let cursor = query.cursor.as_deref().map(parse_cursor).transpose()?;
        let limit = query.limit.unwrap_or(FIND_LIMIT).clamp(1, LIMIT_MAX);
        let asked = query.why.then(|| Asked::of(&query.q));
        let (local, max_age) = (query.local, query.max_age_ms.map_or(ANSWER_AGE, Duration::from_millis));
        let residency = query.residency.as_deref().map(parse_residency).transpose()?;
        let api::FindQuery { q: text, tag: tags, capability: capabilities, .. } = query;
        let query = Query { text, zone, zones: Vec::new(), tags, capabilities, residency };
        let span = names::find(query.zone.as_ref());
        let find = Find { query, limit, after: cursor, local, max_age };
        let answer = self.answer(Command::Find(find)).instrument(span.clone()).await;
        let answer = answer.inspect_err(|error| names::failed(&span, error.code.text()))?;
        names::found(&span, answer.is_complete(), answer.found.len());
        let (complete, zones) = (answer.is_complete(), view::zones(&answer));
        self.0.metrics.found(started.elapsed(), complete, zones.iter().map(|zone| zone.status.text()));
        let rest = api::FindAnswer {
            results: Vec::new(),
            complete,
            age_ms: view::age_ms(answer.age()),
            zones,
            cursor: answer.next.as_ref().map(ToString::to_string),
            elapsed_ms: view::ms(started.elapsed()),
        };
        Ok(Searched { answer, asked, rest })
    }

    async fn list(
        &self,
        zone: Option<String>,
        limit: usize,
        cursor: Option<String>,
    ) -> Result<Searched<api::AgentPage>, ApiError> {
        let zone = zone.as_deref().map(parse_zone).transpose()?;
        let cursor = cursor.as_deref().map(parse_cursor).transpose()?;
        let limit = limit.clamp(1, LIMIT_MAX);
        let query = Query { zone, ..Query::default() };
        let answer = self
            .answer(Command::List(Find { query, limit, after: cursor, local: true, ..Find::default() }))
            .await?;
        let rest = api::AgentPage {
            results: Vec::new(),
            zones: view::zones(&answer),
            complete: answer.is_complete(),
            age_ms: view::age_ms(answer.age()),
            cursor: answer.next.as_ref().map(ToString::to_string),
        };
        Ok(Searched { answer, asked: None, rest })
    }
}

/// The JSON of an answer, by that of what is said beside its results.
fn json(results: &[Shown<'_>], rest: &impl serde::Serialize) -> Vec<u8> {
    // Shapes of this program, with texts for keys: nothing of which this fails.
    let rest = serde_json::to_vec(rest).unwrap_or_default();
    let mut json = Vec::with_capacity(rest.len() + results.len() * RESULT_BYTES);
    json.extend_from_slice(NO_RESULTS.as_bytes());
    for (at, result) in results.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        result.write("", &mut json);
    }
    debug_assert!(rest.starts_with(NO_RESULTS.as_bytes()));
    json.extend_from_slice(&rest[NO_RESULTS.len()..]);
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Options, start};
    use crate::proto::card::{AgentCard, Endpoint, Offer, Origin, Scope};
    use crate::proto::identity::Identity;

    /// Cards with and without each optional part, and texts that JSON has to escape or that are no JSON.
    fn offers() -> Vec<Offer> {
        let odd = "\"quoted\" \\ and \u{7} and \u{202e}";
        let schema = |text: &str| Some(text.to_owned());
        let cards = [
            AgentCard::default(),
            AgentCard {
                description: odd.into(),
                tags: vec!["weather".into(), odd.into()],
                capabilities: vec!["forecast".into()],
                role: Some("worker".into()),
                model: Some(odd.into()),
                callable: true,
                deprecated: Some("gone".into()),
                original_name: Some("ai.exa/exa".into()),
                endpoints: vec![Endpoint { address: "https://a.example".into(), ..Endpoint::default() }],
                input_schema: schema("{\"type\": \"object\",\n \"b\": 1, \"a\": 1e3}"),
                output_schema: schema("no JSON"),
                ..AgentCard::default()
            },
            AgentCard {
                origin: Origin::A2a,
                original: Some(r#"{"name": "weather", "signatures": []}"#.into()),
                ..AgentCard::default()
            },
            AgentCard {
                description: "Weather by the hour".into(),
                input_schema: schema(&format!("{}{}", "[".repeat(125), "]".repeat(125))),
                output_schema: schema("[]"),
                ..AgentCard::default()
            },
        ];
        let offer = |(at, card)| Offer {
            name: format!("weather-{at}").parse().unwrap(),
            zone: None,
            scope: Scope::Public,
            card,
            grants: Vec::new(),
        };
        cards.into_iter().enumerate().map(offer).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn json_that_is_copied_is_that_of_the_shapes() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options::new(Identity::from_seed([7; 32]), "test", folder.path());
        let node = start(options).await.unwrap();
        let handle = &node.handle;
        for answer in handle.register(None, offers()).await.unwrap() {
            answer.unwrap();
        }
        let query = |q: &str, why, limit| api::FindQuery { q: q.into(), why, limit, ..Default::default() };
        let queries = [query("", false, None), query("weather", true, None), query("nobody", false, Some(1))];
        // Twice: what was made before is copied.
        for query in queries.iter().chain(&queries) {
            let json = AgentReads(handle).find(query.clone()).await.unwrap();
            let mut read: api::FindAnswer = serde_json::from_slice(&json).unwrap();
            let mut typed = handle.find(query.clone()).await.unwrap();
            (read.elapsed_ms, typed.elapsed_ms) = (0.0, 0.0);
            assert_eq!(read, typed);
            let parsed = |json: &[u8]| serde_json::from_slice::<serde_json::Value>(json).unwrap();
            let results = serde_json::to_vec(&typed.results).unwrap();
            assert_eq!(parsed(&json)["results"], parsed(&results));
        }
        let page = AgentReads(handle).agents(None, 2, None).await.unwrap();
        let page: api::AgentPage = serde_json::from_slice(&page).unwrap();
        assert_eq!(page, handle.agents(None, 2, None).await.unwrap());
        for name in ["weather-0", "weather-1", "weather-2", "weather-3"] {
            let json = AgentReads(handle).show(name).await.unwrap();
            let detail: api::AgentDetail = serde_json::from_slice(&json).unwrap();
            assert_eq!(detail, handle.show(name).await.unwrap());
            let listed = handle.agents(None, 9, None).await.unwrap().results;
            assert!(listed.contains(&detail.agent), "{:?}", detail.agent);
        }
        let shown = handle.show("weather-1").await.unwrap();
        assert_eq!(shown.input_schema, serde_json::json!({"type": "object", "b": 1, "a": 1e3}));
        assert!(shown.output_schema.is_null(), "{}", shown.output_schema);
        assert_eq!(shown.card["output_schema"], "no JSON");
        let text = String::from_utf8(AgentReads(handle).show("weather-1").await.unwrap()).unwrap();
        assert_eq!(
            text.matches("{\"type\": \"object\",\n \"b\": 1, \"a\": 1e3}").count(),
            2,
            "as it was signed"
        );
        assert!(handle.show("weather-2").await.unwrap().signature.is_some());
        let deep = handle.show("weather-3").await.unwrap();
        assert!(deep.input_schema.is_null() && deep.card["input_schema"].is_string(), "too deep for readers");
        node.stop().await.unwrap();
    }
}
