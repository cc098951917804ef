//! The MCP registry's reading API, v0.1: published documents of MCP servers, unaltered, for the clients that install from a
//! registry (<https://github.com/modelcontextprotocol/registry>).
//!
//! A page is asked for with nothing but its cursor, and not URL-encoded: the cursor carries the whole question, in letters
//! that need no encoding. Who may ask without the token, and from which pages, the operator says (`http.registry`).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use data_encoding::BASE64URL_NOPAD;
use form_urlencoded::parse;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::date;
use super::failure::Failure;
use super::surface::{RegistryAccess, preflight, say_who_may_read};
use crate::document::parse_date;
use crate::host::{Handle, PublishedServer, ServerDocuments, ServerQuery};
use crate::proto::code::Code;
use crate::proto::time::Timestamp;

/// Documents of a page where nothing is said, and at most.
const PAGE: usize = 30;
const PAGE_MAX: usize = 100;
/// Longest search, bytes.
const SEARCH_BYTES_MAX: usize = 512;
/// Where a registry says what it knows of a document.
const OFFICIAL: &str = "io.modelcontextprotocol.registry/official";

pub(super) fn router(handle: Handle, access: RegistryAccess) -> Router {
    Router::new()
        .route("/v0.1/servers", get(list).options(preflight))
        .route("/v0.1/servers/{name}/versions", get(versions).options(preflight))
        .route("/v0.1/servers/{name}/versions/{version}", get(version).options(preflight))
        .with_state(Arc::new(handle))
        .layer(from_fn_with_state(access, say_who_may_read))
}

/// `GET /v0.1/servers`.
async fn list(State(handle): State<Arc<Handle>>, RawQuery(raw): RawQuery) -> Result<Response, Failure> {
    let question = Question::read(raw.as_deref().unwrap_or_default())?;
    let mut servers = ServerDocuments::new(&handle)
        .list(ServerQuery {
            after: question.after.clone(),
            text: question.search.clone(),
            since: question.since,
            version: question.version.clone(),
            limit: question.limit + 1,
        })
        .await?;
    let is_last = servers.len() <= question.limit;
    servers.truncate(question.limit);
    let next = servers.last().filter(|_| !is_last).map(|last| question.after(&last.name));
    Ok(page(&servers, next))
}

/// `GET /v0.1/servers/{name}/versions`: one, for a node keeps the greatest.
async fn versions(
    State(handle): State<Arc<Handle>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Failure> {
    let Path(name) = name.map_err(path)?;
    let server = ServerDocuments::new(&handle).get(&name).await?.ok_or_else(|| unknown(&name))?;
    Ok(page(&[server], None))
}

/// `GET /v0.1/servers/{name}/versions/{version}`, where `latest` is one.
async fn version(
    State(handle): State<Arc<Handle>>,
    named: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Failure> {
    let Path((name, version)) = named.map_err(path)?;
    let server = ServerDocuments::new(&handle).get(&name).await?;
    let server = server.filter(|server| version == "latest" || server.version() == version);
    Ok(Json(shown(&server.ok_or_else(|| unknown(&name))?)).into_response())
}

fn page(servers: &[PublishedServer], next: Option<String>) -> Response {
    let metadata = Metadata { count: servers.len(), next_cursor: next };
    Json(Page { servers: servers.iter().map(shown).collect(), metadata }).into_response()
}

fn shown(server: &PublishedServer) -> ServerResponse<'_> {
    let official = Official {
        status: if server.deprecated.is_some() { "deprecated" } else { "active" },
        published_at: date(server.published_at),
        updated_at: date(server.updated_at),
        is_latest: true,
        // Where a registry gave no reason the card has the bare word.
        status_message: server.deprecated.as_deref().filter(|why| *why != "deprecated"),
    };
    // What others say of it goes along; of its state here this node speaks for itself.
    let others =
        server.meta.iter().filter(|(who, _)| *who != OFFICIAL).map(|(who, said)| (who.as_str(), said));
    ServerResponse { server: &server.server, meta: Meta { others: others.collect(), official } }
}

/// Answer of the list, and of the versions of a server.
#[derive(Serialize)]
struct Page<'a> {
    servers: Vec<ServerResponse<'a>>,
    metadata: Metadata,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Serialize)]
struct ServerResponse<'a> {
    server: &'a RawValue,
    #[serde(rename = "_meta")]
    meta: Meta<'a>,
}

#[derive(Serialize)]
struct Meta<'a> {
    #[serde(flatten)]
    others: BTreeMap<&'a str, &'a Value>,
    #[serde(rename = "io.modelcontextprotocol.registry/official")]
    official: Official<'a>,
}

/// What this registry says of a document.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Official<'a> {
    status: &'static str,
    published_at: String,
    updated_at: String,
    is_latest: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_message: Option<&'a str>,
}

/// What a page is of, and where it begins. As text it is a cursor.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Question {
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    search: Option<String>,
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(rename = "l")]
    limit: usize,
}

impl Question {
    /// Parameters that the API does not know are passed over, as clients of later versions expect.
    fn read(raw: &str) -> Result<Question, Failure> {
        let mut question = Question { limit: PAGE, ..Question::default() };
        let (mut cursor, mut limit) = (None, None);
        for (name, value) in parse(raw.as_bytes()) {
            match &*name {
                "cursor" if !value.is_empty() => cursor = Some(Question::of_cursor(&value)?),
                "limit" => limit = Some(read_limit(&value)?),
                "search" if value.len() > SEARCH_BYTES_MAX => {
                    return Err(bad(format!("`search` has more than {SEARCH_BYTES_MAX} bytes")));
                }
                "search" if !value.is_empty() => question.search = Some(value.into_owned()),
                "updated_since" if !value.is_empty() => question.since = Some(read_date(&value)?),
                "version" if !value.is_empty() && value != "latest" => {
                    question.version = Some(value.into_owned());
                }
                _ => {}
            }
        }
        let mut question = cursor.unwrap_or(question);
        question.limit = limit.unwrap_or(question.limit);
        Ok(question)
    }

    fn of_cursor(text: &str) -> Result<Question, Failure> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok();
        let question: Option<Question> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let question = question.filter(|question| (1..=PAGE_MAX).contains(&question.limit));
        question.ok_or_else(|| bad("`cursor` is none that this node gave: begin again without it"))
    }

    /// The cursor of the page after a name.
    fn after(&self, name: &str) -> String {
        let Question { search, since, version, limit, .. } = self;
        let (search, version) = (search.clone(), version.clone());
        let next = Question { after: Some(name.to_owned()), search, since: *since, version, limit: *limit };
        BASE64URL_NOPAD.encode(&serde_json::to_vec(&next).unwrap_or_default())
    }
}

fn read_limit(value: &str) -> Result<usize, Failure> {
    let limit = value.parse::<usize>().ok().filter(|limit| (1..=PAGE_MAX).contains(limit));
    limit.ok_or_else(|| bad(format!("`limit` is a number from 1 to {PAGE_MAX}")))
}

fn read_date(value: &str) -> Result<Timestamp, Failure> {
    parse_date(value)
        .ok_or_else(|| bad("`updated_since` is a date of RFC 3339, such as 2026-11-30T09:00:00Z"))
}

fn bad(message: impl Into<String>) -> Failure {
    Failure::new(Code::BadRequest, message, "")
}

fn path(rejection: PathRejection) -> Failure {
    bad(rejection.body_text())
}

fn unknown(name: &str) -> Failure {
    let message = format!("this node answers for no server `{}`", name.escape_debug());
    Failure::new(Code::NotFound, message, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_carries_the_whole_question_and_needs_no_encoding() {
        let asked =
            Question::read("search=Web&limit=2&updated_since=2026-11-30T09:00:00Z&version=latest&x=1");
        let asked = asked.unwrap_or_else(|_| panic!("it is well formed"));
        let cursor = asked.after("ai.exa/exa");
        assert!(cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{cursor}");
        let next = Question::read(&format!("cursor={cursor}")).unwrap_or_else(|_| panic!("it is ours"));
        assert_eq!(next, Question { after: Some("ai.exa/exa".into()), ..asked });
    }

    #[test]
    fn what_is_no_question_is_refused() {
        for bad in [
            "limit=0",
            "limit=101",
            "limit=x",
            "updated_since=yesterday",
            "cursor=%00",
            "cursor=AAAA",
            "updated_since=1969-01-01T00:00:00Z",
        ] {
            assert!(
                Question::read(bad).is_err_and(|refused| format!("{refused:?}").contains("BadRequest")),
                "{bad}"
            );
        }
        assert!(Question::read(&format!("search={}", "x".repeat(SEARCH_BYTES_MAX + 1))).is_err());
    }
}
