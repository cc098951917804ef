//! The search tool: a page of what matches, how many match in all, and a cursor to go on.

use rmcp::model::JsonObject;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ServerState;
use super::discovery::{Answer, LIMIT_MAX, bad_input, discovery_info, one_or_several, read, refused};
use crate::api::{Agent, FindAnswer, FindQuery};
use crate::proto::call::CallFailure;
use crate::proto::search::Asked;

/// Results of a search without a limit.
const LIMIT: usize = 20;
/// Agents that are looked at to count the matches of a search: more than anybody reads, and some tenths of a second.
const COUNTED_MAX: usize = 10_000;
/// Of these, at once.
const COUNTED_AT_ONCE: usize = 1_000;
/// The fields that a search may be narrowed to, as the paper's authors name them.
pub(super) const FIELDS: [&str; 4] = ["name", "description", "tags", "capabilities"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Search {
    query: String,
    #[serde(default, deserialize_with = "one_or_several")]
    search_fields: Vec<String>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default, deserialize_with = "one_or_several")]
    tags: Vec<String>,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    cursor: Option<String>,
}

/// Answers `search_agents`.
pub(super) async fn search(node: &ServerState, arguments: &JsonObject) -> Answer {
    let asked: Search = read(arguments)?;
    let fields = &asked.search_fields;
    if let Some(strange) = fields.iter().find(|field| !FIELDS.contains(&field.as_str())) {
        return Err(bad_input(format!("`search_fields`: `{strange}` is none of {}", FIELDS.join(", "))));
    }
    let words = Asked::of(&asked.query);
    let limit = asked.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    let tools = node.catalog.tools();
    let mut matching: Vec<Value> = Vec::new();
    let mut page = find(node, &asked, limit, asked.cursor.clone()).await?;
    let found = loop {
        // In the registry's order, so the first that match are the best.
        let fits = page.results.iter().filter(|agent| matches_in(agent, &words, fields));
        matching.extend(fits.map(|agent| discovery_info(node, &tools, agent)));
        match page.cursor.clone().filter(|_| matching.len() < limit) {
            // Never more than are missing, so that the cursor leads on behind the last that is given.
            Some(cursor) => page = find(node, &asked, limit - matching.len(), Some(cursor)).await?,
            None => break page,
        }
    };
    let total = match &asked.cursor {
        None => count(node, &asked, &words, found.cursor.clone(), matching.len()).await?,
        Some(_) => {
            let first = find(node, &asked, COUNTED_AT_ONCE, None).await?;
            let fits = first.results.iter().filter(|agent| matches_in(agent, &words, fields)).count();
            count(node, &asked, &words, first.cursor, fits).await?
        }
    };
    Ok(json!({
        "success": true,
        "total_matches": total,
        "matching_agents": matching,
        "cursor": found.cursor,
        "query": asked.query,
        "search_fields": if fields.is_empty() { json!(FIELDS) } else { json!(fields) },
        "complete": found.complete,
        "age_ms": found.age_ms,
        "zones": found.zones,
    }))
}

async fn find(
    node: &ServerState,
    asked: &Search,
    limit: usize,
    cursor: Option<String>,
) -> Result<FindAnswer, CallFailure> {
    let query = FindQuery {
        q: asked.query.clone(),
        zone: asked.zone.clone(),
        tag: asked.tags.clone(),
        limit: Some(limit),
        cursor,
        ..FindQuery::default()
    };
    node.handle.find(query).await.map_err(refused)
}

/// Matches in all, of which `counted` lie before `cursor`. Above [`COUNTED_MAX`] they are that many at least.
async fn count(
    node: &ServerState,
    asked: &Search,
    words: &Asked,
    mut cursor: Option<String>,
    mut counted: usize,
) -> Result<usize, CallFailure> {
    let mut looked_at = 0;
    while let Some(after) = cursor.take().filter(|_| looked_at < COUNTED_MAX) {
        let page = find(node, asked, COUNTED_AT_ONCE, Some(after)).await?;
        looked_at += page.results.len();
        counted += page.results.iter().filter(|it| matches_in(it, words, &asked.search_fields)).count();
        cursor = page.cursor;
    }
    Ok(counted)
}

/// Whether a word of the query, or one that stands for it, is in one of the fields; all count where none is named.
fn matches_in(agent: &Agent, asked: &Asked, fields: &[String]) -> bool {
    let is_in = |text: &String| asked.is_in(text);
    fields.is_empty()
        || fields.iter().any(|field| match field.as_str() {
            "name" => is_in(&agent.agent),
            "description" => is_in(&agent.description),
            "tags" => agent.tags.iter().any(is_in),
            _ => agent.capabilities.iter().any(is_in),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_can_be_narrowed_to_fields() {
        let agent = Agent {
            agent: "weather@.".into(),
            description: "Tells forecasts".into(),
            tags: vec!["sky".into()],
            ..Agent::default()
        };
        let matches = |query: &str, fields: &[&str]| {
            matches_in(&agent, &Asked::of(query), &fields.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert!(matches("forecast", &["description"]) && !matches("forecast", &["name", "tags"]));
        assert!(matches("sky", &["tags"]) && matches("anything", &[]));
    }
}
