//! Messages to an MCP server behind a URL.
//!
//! The library carries them; what lies around it here makes every answer end its request, notices a session that the server
//! forgot, and follows redirects within the origin. The address comes from the agent's file alone, and no error repeats it.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Url, redirect};
use rmcp::model::{
    ClientJsonRpcMessage, ClientRequest, JsonRpcMessage, PingRequest, RequestId, ServerJsonRpcMessage,
};
use rmcp::transport::common::client_side_sse::{BoxedSseResponse, ExponentialBackoff};
use rmcp::transport::streamable_http_client::{
    StreamableHttpClient, StreamableHttpClientTransport, StreamableHttpClientTransportConfig,
    StreamableHttpError, StreamableHttpPostResponse, StreamableHttpResponseLimits,
};

use super::message::{in_place_of, unreadable};
use super::server::CALLS_MAX;
use super::session::MESSAGE_BYTES_MAX;
use crate::agents::secrets::{Secrets, read_all};
use crate::agents::web;
use crate::document::run_config::Endpoint;

/// How long connecting to a URL may take; after that nobody is there.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Attempts to resume a broken response stream, after 1, 2 and 4 seconds: then its call fails.
const RESUMES_MAX: usize = 3;
/// Redirects of one request: a slash at the end and a path that moved are two; more lead in a circle.
pub(super) const REDIRECTS_MAX: usize = 5;

type HttpError = StreamableHttpError<reqwest::Error>;
type Posted = Result<StreamableHttpPostResponse, HttpError>;
#[expect(clippy::disallowed_types, reason = "the library takes headers so")]
pub(super) type Headers = std::collections::HashMap<HeaderName, HeaderValue>;

/// A transport to the server at this address. It notes in `is_refused` that the server takes no POST there, as servers of the
/// older transport do.
///
/// # Errors
/// Why there can be none, for the log.
pub(super) fn transport(
    endpoint: &Endpoint,
    secrets: Arc<Secrets>,
    is_refused: Arc<AtomicBool>,
) -> Result<StreamableHttpClientTransport<HttpClient>, String> {
    let url = Url::parse(&endpoint.url).map_err(|error| format!("its URL: {error}"))?;
    let moved = Arc::<Mutex<Option<Arc<str>>>>::default();
    let http = client(&url, follow(moved.clone()))?;
    let mut resumes = ExponentialBackoff::default();
    resumes.max_times = Some(RESUMES_MAX);
    let mut config = StreamableHttpClientTransportConfig::with_uri(endpoint.url.as_str())
        // Each call may have its cancellation beside it.
        .max_concurrent_requests(2 * CALLS_MAX)
        .max_sse_event_size(MESSAGE_BYTES_MAX)
        .max_json_response_size(MESSAGE_BYTES_MAX);
    config.retry_config = Arc::new(resumes);
    config.custom_headers = headers(endpoint)?;
    Ok(StreamableHttpClientTransport::with_client(HttpClient { http, moved, secrets, is_refused }, config))
}

/// A client for the server at this address.
///
/// # Errors
/// Why there can be none, for the log.
pub(super) fn client(url: &Url, redirects: redirect::Policy) -> Result<reqwest::Client, String> {
    web::builder(url)
        .connect_timeout(CONNECT_MAX)
        .redirect(redirects)
        // A connection whose last answer was not read to its end would delay the next request.
        .pool_max_idle_per_host(0)
        .build()
        .map_err(|error| format!("no HTTP client: {}", web::chain(&error)))
}

/// The headers of every request.
///
/// # Errors
/// Which of them is none, for the log.
pub(super) fn headers(endpoint: &Endpoint) -> Result<Headers, String> {
    let mut headers = Headers::new();
    for (name, value) in read_all(&endpoint.headers)? {
        let name = HeaderName::from_str(name).map_err(|_| format!("`{name}` is no name of a header"))?;
        let value =
            HeaderValue::from_str(&value).map_err(|_| format!("`{name}` has no value of a header"))?;
        headers.insert(name, value);
    }
    Ok(headers)
}

/// Redirects that keep a POST a POST are followed within the origin; of the others the place is noted, and the POST is sent
/// there again. What leads elsewhere is not followed, and the log names the place.
fn follow(moved: Arc<Mutex<Option<Arc<str>>>>) -> redirect::Policy {
    let span = tracing::Span::current();
    redirect::Policy::custom(move |attempt| {
        let before = attempt.previous();
        let Some(from) = before.last().filter(|_| before.len() <= REDIRECTS_MAX) else {
            return attempt.stop();
        };
        if let Err(why) = web::is_within(from, attempt.url()) {
            span.in_scope(|| tracing::warn!("an MCP server is not followed: {why}"));
            return attempt.stop();
        }
        match attempt.status().as_u16() {
            307 | 308 => attempt.follow(),
            301 | 302 => {
                *moved.lock().unwrap_or_else(PoisonError::into_inner) = Some(attempt.url().as_str().into());
                attempt.stop()
            }
            _ => attempt.stop(),
        }
    })
}

/// The library's client, and what it lacks.
#[derive(Clone)]
pub(super) struct HttpClient {
    http: reqwest::Client,
    /// Where the server said it is, within the origin.
    moved: Arc<Mutex<Option<Arc<str>>>>,
    secrets: Arc<Secrets>,
    /// Whether the server takes no POST here.
    is_refused: Arc<AtomicBool>,
}

/// One message and what goes with it.
#[derive(Clone)]
struct Parcel {
    uri: Arc<str>,
    session: Option<Arc<str>>,
    token: Option<String>,
    headers: Headers,
    limits: StreamableHttpResponseLimits,
}

impl HttpClient {
    fn place(&self, uri: &Arc<str>) -> Arc<str> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_else(|| uri.clone())
    }

    /// Sends a message to where the server is.
    async fn send(&self, message: ClientJsonRpcMessage, parcel: &Parcel) -> Posted {
        let mut place = self.place(&parcel.uri);
        for _ in 0..REDIRECTS_MAX {
            let Parcel { session, token, headers, limits, .. } = parcel.clone();
            let sent = self.http.post_message_with_response_limits(
                place.clone(),
                message.clone(),
                session,
                token,
                headers,
                limits,
            );
            let sent = sent.await.map_err(|error| self.untold(error));
            let now = self.place(&parcel.uri);
            if sent.is_ok() || now == place {
                return sent;
            }
            place = now;
        }
        Err(StreamableHttpError::UnexpectedServerResponse("it redirects in a circle".into()))
    }

    /// Sends a request, and sees that whatever comes back ends it.
    async fn ask(&self, message: ClientJsonRpcMessage, id: RequestId, parcel: Parcel) -> Posted {
        let answered = self.send(message, &parcel).await;
        if parcel.session.is_none() && takes_no_post(&answered) {
            self.is_refused.store(true, Ordering::Relaxed);
        }
        if is_refusal(&answered, &id) && self.has_forgotten(&parcel).await {
            // The library opens the session again and repeats the request, once: the server did not look at it.
            return Err(StreamableHttpError::SessionExpired);
        }
        match answered? {
            StreamableHttpPostResponse::Json(answer, session) => {
                Ok(StreamableHttpPostResponse::Json(answer_to(answer, &id), session))
            }
            StreamableHttpPostResponse::Sse(events, session) => {
                let events = events.map(move |event| {
                    event.map(|mut event| {
                        event.data = event.data.map(|data| event_for(data, &id));
                        event
                    })
                });
                Ok(StreamableHttpPostResponse::Sse(events.boxed(), session))
            }
            _ => Err(StreamableHttpError::UnexpectedServerResponse(
                "it took the request and answers nothing".into(),
            )),
        }
    }

    /// Whether the server knows the session no more: then it refuses a ping as well.
    async fn has_forgotten(&self, parcel: &Parcel) -> bool {
        if parcel.session.is_none() {
            return false;
        }
        let id = RequestId::String("still-there".into());
        let ping =
            ClientJsonRpcMessage::request(ClientRequest::PingRequest(PingRequest::default()), id.clone());
        let answered = self.send(ping, parcel).await;
        matches!(answered, Err(StreamableHttpError::SessionExpired)) || is_refusal(&answered, &id)
    }

    /// An error without the address and the keys of the agent's file.
    fn untold(&self, error: HttpError) -> HttpError {
        match error {
            StreamableHttpError::Client(error) => StreamableHttpError::Client(error.without_url()),
            StreamableHttpError::UnexpectedServerResponse(said) => {
                StreamableHttpError::UnexpectedServerResponse(self.secrets.hide_keys(&said).into())
            }
            error => error,
        }
    }
}

impl StreamableHttpClient for HttpClient {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        token: Option<String>,
        headers: Headers,
    ) -> Posted {
        let limits = StreamableHttpResponseLimits::default();
        self.post_message_with_response_limits(uri, message, session, token, headers, limits).await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        token: Option<String>,
        headers: Headers,
        limits: StreamableHttpResponseLimits,
    ) -> Posted {
        let parcel = Parcel { uri, session, token, headers, limits };
        match &message {
            JsonRpcMessage::Request(request) => {
                let id = request.id.clone();
                self.ask(message, id, parcel).await
            }
            _ => self.send(message, &parcel).await,
        }
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        token: Option<String>,
        headers: Headers,
    ) -> Result<(), HttpError> {
        let deleted = self.http.delete_session(self.place(&uri), session, token, headers).await;
        deleted.map_err(|error| self.untold(error))
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        token: Option<String>,
        headers: Headers,
    ) -> Result<BoxedSseResponse, HttpError> {
        self.get_stream_with_max_sse_event_size(uri, session, last_event, token, headers, MESSAGE_BYTES_MAX)
            .await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        token: Option<String>,
        headers: Headers,
        size_max: usize,
    ) -> Result<BoxedSseResponse, HttpError> {
        let place = self.place(&uri);
        let http = &self.http;
        let stream = http
            .get_stream_with_max_sse_event_size(place, session, last_event, token, headers, size_max)
            .await;
        stream.map_err(|error| self.untold(error))
    }
}

/// Whether the server would not look at the request: servers that do not know a session cannot say whose error it is, or
/// say it in plain words.
fn is_refusal(answered: &Posted, id: &RequestId) -> bool {
    match answered {
        Ok(StreamableHttpPostResponse::Json(JsonRpcMessage::Error(error), _)) => {
            error.id.as_ref() != Some(id)
        }
        // 401 and 403 are about who asks, in any session.
        Err(StreamableHttpError::UnexpectedServerResponse(said)) => {
            said.starts_with("HTTP 4") && !said.starts_with("HTTP 401") && !said.starts_with("HTTP 403")
        }
        _ => false,
    }
}

/// Whether nobody takes messages at this address: the statuses after which the specification has a client try the older
/// transport (2025-03-26, backwards compatibility).
fn takes_no_post(answered: &Posted) -> bool {
    let Err(StreamableHttpError::UnexpectedServerResponse(said)) = answered else { return false };
    ["HTTP 400", "HTTP 404", "HTTP 405"].iter().any(|status| said.starts_with(status))
}

/// The only message of a response, as the answer of its request: HTTP says whose it is, whatever id stands in it.
fn answer_to(answer: ServerJsonRpcMessage, id: &RequestId) -> ServerJsonRpcMessage {
    match answer {
        JsonRpcMessage::Error(error) => JsonRpcMessage::error(error.error, Some(id.clone())),
        JsonRpcMessage::Response(response) if is_same(&response.id, id) => JsonRpcMessage::Response(response),
        _ => {
            tracing::warn!("an MCP server answers another request than it was asked");
            unreadable(Some(id.clone()))
        }
    }
}

/// The data of an event among those that end with the answer of this request.
fn event_for(data: String, id: &RequestId) -> String {
    let answer = match serde_json::from_str::<ServerJsonRpcMessage>(&data) {
        Ok(JsonRpcMessage::Error(error)) if error.id.as_ref() == Some(id) => return data,
        Ok(JsonRpcMessage::Response(response)) if is_same(&response.id, id) => return data,
        Ok(answer @ (JsonRpcMessage::Error(_) | JsonRpcMessage::Response(_))) => answer_to(answer, id),
        // Requests and reports that come before the answer.
        Ok(_) => return data,
        Err(_) => match in_place_of(data.as_bytes()) {
            Some(answer) => answer_to(answer, id),
            None => return data,
        },
    };
    serde_json::to_string(&answer).unwrap_or(data)
}

/// Some servers give a number back as text.
fn is_same(given: &RequestId, id: &RequestId) -> bool {
    given == id || given.to_string() == id.to_string()
}
