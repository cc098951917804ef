//! The MCP registry's reading API, v0.1: published documents of MCP servers, unaltered, for the clients that install from a
//! registry (<https://github.com/modelcontextprotocol/registry>).
//!
//! A page is asked for with nothing but its cursor, and not URL-encoded: the cursor carries the whole question, in letters
//! that need no encoding. Who may ask without the token, and from which pages, the operator says (`http.registry`).

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use data_encoding::BASE64URL_NOPAD;
use form_urlencoded::parse;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::ApiError;
use crate::document::parse_date;
use crate::host::{Handle, PublishedServer, ServerDocuments, ServerQuery};
use crate::proto::time::Timestamp;

/// Documents of a page where nothing is said, and at most.
const PAGE: usize = 30;
const PAGE_MAX: usize = 100;
/// Longest search, bytes.
const SEARCH_BYTES_MAX: usize = 512;
/// Where a registry says what it knows of a document.
const OFFICIAL: &str = "io.modelcontextprotocol.registry/official";
/// The origin of Visual Studio Code, which no page of the web can have.
pub(super) const EDITOR_ORIGIN: &str = "vscode-file://vscode-app";
/// How long a browser keeps what it was told of this, seconds.
const CORS_AGE: &str = "600";
/// The last second of the year 9999, which is the last that RFC 3339 can say.
const LAST_SECOND: u64 = 253_402_300_799;

/// Who may read the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RegistryAccess {
    /// Whoever may use the node, and the editor that runs beside it.
    #[default]
    Own,
    /// Everybody, from every page, without the token.
    Public,
}

/// Whether a path is one of this API.
pub(super) fn is_path(path: &str) -> bool {
    path.strip_prefix("/v0.1/servers").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub(super) fn router(handle: Handle, access: RegistryAccess) -> Router {
    Router::new()
        .route("/v0.1/servers", get(list).options(preflight))
        .route("/v0.1/servers/{name}/versions", get(versions).options(preflight))
        .route("/v0.1/servers/{name}/versions/{version}", get(version).options(preflight))
        .with_state(Arc::new(handle))
        .layer(from_fn_with_state(access, say_who_may_read))
}

/// Pages read an answer only where it says that they may.
async fn say_who_may_read(State(access): State<RegistryAccess>, request: Request, next: Next) -> Response {
    let is_editor = request.headers().get(header::ORIGIN).is_some_and(|origin| origin == EDITOR_ORIGIN);
    let mut response = next.run(request).await;
    let allowed = match access {
        RegistryAccess::Public => Some("*"),
        RegistryAccess::Own => is_editor.then_some(EDITOR_ORIGIN),
    };
    if let Some(allowed) = allowed {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static(allowed));
        response.headers_mut().append(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

async fn preflight() -> Response {
    let told = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type"),
        (header::ACCESS_CONTROL_MAX_AGE, CORS_AGE),
    ];
    (StatusCode::NO_CONTENT, told).into_response()
}

/// `GET /v0.1/servers`.
async fn list(State(handle): State<Arc<Handle>>, RawQuery(raw): RawQuery) -> Result<Response, Refused> {
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
) -> Result<Response, Refused> {
    let Path(name) = name.map_err(Refused::path)?;
    let server = ServerDocuments::new(&handle).get(&name).await?.ok_or_else(|| Refused::unknown(&name))?;
    Ok(page(&[server], None))
}

/// `GET /v0.1/servers/{name}/versions/{version}`, where `latest` is one.
async fn version(
    State(handle): State<Arc<Handle>>,
    named: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Refused> {
    let Path((name, version)) = named.map_err(Refused::path)?;
    let server = ServerDocuments::new(&handle).get(&name).await?;
    let server = server.filter(|server| version == "latest" || server.version() == Some(&version));
    Ok(Json(shown(&server.ok_or_else(|| Refused::unknown(&name))?)).into_response())
}

fn page(servers: &[PublishedServer], next: Option<String>) -> Response {
    let mut metadata = json!({"count": servers.len()});
    if let Some(next) = next {
        metadata["nextCursor"] = next.into();
    }
    let servers: Vec<Value> = servers.iter().map(shown).collect();
    Json(json!({"servers": servers, "metadata": metadata})).into_response()
}

fn shown(server: &PublishedServer) -> Value {
    let mut official = json!({
        "status": if server.deprecated.is_some() { "deprecated" } else { "active" },
        "publishedAt": date(server.published_at),
        "updatedAt": date(server.updated_at),
        "isLatest": true,
    });
    // Where a registry gave no reason the card has the bare word.
    if let Some(why) = server.deprecated.as_ref().filter(|why| *why != "deprecated") {
        official["statusMessage"] = json!(why);
    }
    // What others say of it goes along; of its state here this node speaks for itself.
    let mut meta = server.meta.clone();
    meta.insert(OFFICIAL.to_owned(), official);
    json!({"server": server.server, "_meta": meta})
}

fn date(at: Timestamp) -> String {
    let since = std::time::Duration::from_millis(at.0.min(LAST_SECOND * 1000));
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since).to_string()
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
    fn read(raw: &str) -> Result<Question, Refused> {
        let mut question = Question { limit: PAGE, ..Question::default() };
        let (mut cursor, mut limit) = (None, None);
        for (name, value) in parse(raw.as_bytes()) {
            match &*name {
                "cursor" if !value.is_empty() => cursor = Some(Question::of_cursor(&value)?),
                "limit" => limit = Some(read_limit(&value)?),
                "search" if value.len() > SEARCH_BYTES_MAX => {
                    return Err(Refused::bad(format!("`search` has more than {SEARCH_BYTES_MAX} bytes")));
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

    fn of_cursor(text: &str) -> Result<Question, Refused> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok();
        let question: Option<Question> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let question = question.filter(|question| (1..=PAGE_MAX).contains(&question.limit));
        question.ok_or_else(|| {
            Refused::bad("`cursor` is none that this node gave: begin again without it".into())
        })
    }

    /// The cursor of the page after a name.
    fn after(&self, name: &str) -> String {
        let Question { search, since, version, limit, .. } = self;
        let (search, version) = (search.clone(), version.clone());
        let next = Question { after: Some(name.to_owned()), search, since: *since, version, limit: *limit };
        BASE64URL_NOPAD.encode(&serde_json::to_vec(&next).unwrap_or_default())
    }
}

fn read_limit(value: &str) -> Result<usize, Refused> {
    let limit = value.parse::<usize>().ok().filter(|limit| (1..=PAGE_MAX).contains(limit));
    limit.ok_or_else(|| Refused::bad(format!("`limit` is a number from 1 to {PAGE_MAX}")))
}

fn read_date(value: &str) -> Result<Timestamp, Refused> {
    parse_date(value).ok_or_else(|| {
        Refused::bad("`updated_since` is a date of RFC 3339, such as 2026-11-30T09:00:00Z".into())
    })
}

/// Why there is no answer. The schema has `error`, the official server `title` and its siblings; clients read the status.
struct Refused(StatusCode, String);

impl Refused {
    fn bad(detail: String) -> Refused {
        Refused(StatusCode::BAD_REQUEST, detail)
    }

    fn path(rejection: PathRejection) -> Refused {
        Refused::bad(rejection.body_text())
    }

    fn unknown(name: &str) -> Refused {
        let detail = format!("this node answers for no server `{}`", name.escape_debug());
        Refused(StatusCode::NOT_FOUND, detail)
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Refused {
        let status =
            StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        Refused(status, error.message)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Refused(status, detail) = self;
        let title = status.canonical_reason().unwrap_or_default();
        let told = json!({"error": detail, "title": title, "status": status.as_u16(), "detail": detail});
        (status, Json(told)).into_response()
    }
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
            assert!(Question::read(bad).is_err_and(|refused| refused.0 == StatusCode::BAD_REQUEST), "{bad}");
        }
        assert!(Question::read(&format!("search={}", "x".repeat(SEARCH_BYTES_MAX + 1))).is_err());
    }

    #[test]
    fn paths_of_the_registry_are_known() {
        assert!(is_path("/v0.1/servers") && is_path("/v0.1/servers/a%2Fb/versions"));
        assert!(!is_path("/v0.1/serversx") && !is_path("/v1/find") && !is_path("/v0.1"));
    }
}
