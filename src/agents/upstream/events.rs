//! Messages to an MCP server of the older HTTP transport (HTTP+SSE, revision 2024-11-05): one stream stays open and brings all
//! messages of the server; its first event names where this host posts its own.

use std::sync::Arc;

use futures::StreamExt;
use reqwest::{Url, redirect};
use rmcp::RoleClient;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::transport::common::client_side_sse::BoxedSseResponse;
use rmcp::transport::streamable_http_client::StreamableHttpClient;

use super::http::{self, Headers, REDIRECTS_MAX};
use super::message::in_place_of;
use super::session::MESSAGE_BYTES_MAX;
use crate::agents::secrets::Secrets;
use crate::agents::web;
use crate::document::run_config::Endpoint;

/// An open stream, and the address that it named.
pub(super) struct EventStream {
    http: reqwest::Client,
    events: BoxedSseResponse,
    post: Url,
    headers: Headers,
    secrets: Arc<Secrets>,
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotPosted(String);

impl EventStream {
    /// Opens the stream and waits for its first event.
    ///
    /// # Errors
    /// Why there can be none, for the log.
    pub(super) async fn open(endpoint: &Endpoint, secrets: Arc<Secrets>) -> Result<EventStream, String> {
        let url = Url::parse(&endpoint.url).map_err(|error| format!("its URL: {error}"))?;
        let within = |attempt: redirect::Attempt<'_>| {
            let before = attempt.previous();
            match before.last().is_some_and(|from| web::is_within(from, attempt.url()).is_ok()) {
                true if before.len() <= REDIRECTS_MAX => attempt.follow(),
                _ => attempt.stop(),
            }
        };
        let http = http::client(&url, redirect::Policy::custom(within))?;
        let headers = http::headers(endpoint)?;
        let (place, size_max) = (endpoint.url.as_str().into(), MESSAGE_BYTES_MAX);
        let opened =
            http.get_stream_with_max_sse_event_size(place, None, None, None, headers.clone(), size_max);
        let mut events = opened.await.map_err(|error| format!("no stream of events: {error}"))?;
        while let Some(event) = events.next().await {
            let event = event.map_err(|error| format!("its stream of events: {error}"))?;
            if event.event.as_deref() == Some("endpoint") {
                let post = address_in(&url, event.data.unwrap_or_default().trim())?;
                return Ok(EventStream { http, events, post, headers, secrets });
            }
        }
        Err("its stream of events ended and named no `endpoint`".into())
    }

    async fn posted(request: reqwest::RequestBuilder, secrets: Arc<Secrets>) -> Result<(), NotPosted> {
        let untold = |why: String| NotPosted(secrets.hide_keys(&why));
        let response = request.send().await.map_err(|error| untold(web::chain(&error.without_url())))?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(NotPosted(format!("the server takes no message: HTTP {status}"))),
        }
    }
}

/// Where to post, which must be of the stream's own origin: this host's messages carry the keys of the agent's file.
fn address_in(stream: &Url, named: &str) -> Result<Url, String> {
    let mut post = stream.join(named).map_err(|error| format!("its `endpoint` is no address: {error}"))?;
    if post.origin() != stream.origin() {
        return Err("its `endpoint` is at another origin than its stream".into());
    }
    let _of_http = (post.set_username(stream.username()), post.set_password(stream.password()));
    Ok(post)
}

impl Transport<RoleClient> for EventStream {
    type Error = NotPosted;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), NotPosted>> + Send + 'static {
        let request = self.http.post(self.post.clone()).headers(self.headers.clone().into_iter().collect());
        EventStream::posted(request.json(&message), self.secrets.clone())
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            // A stream that broke is opened anew with the whole connection: no event has a number to go on from.
            let event = self.events.next().await?.ok()?;
            if event.event.as_deref().is_some_and(|kind| kind != "message") {
                continue;
            }
            let Some(text) = event.data else { continue };
            match serde_json::from_str(&text) {
                Ok(message) => return Some(message),
                Err(_) => match in_place_of(text.as_bytes()) {
                    Some(error) => return Some(error),
                    None => continue,
                },
            }
        }
    }

    async fn close(&mut self) -> Result<(), NotPosted> {
        self.events = futures::stream::empty().boxed();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_posted_within_the_origin_of_the_stream() {
        let stream = Url::parse("http://a.example:81/mcp/sse").unwrap();
        for (named, post) in [
            ("/messages/?session_id=7", "http://a.example:81/messages/?session_id=7"),
            ("messages", "http://a.example:81/mcp/messages"),
            ("http://a.example:81/x", "http://a.example:81/x"),
        ] {
            assert_eq!(address_in(&stream, named).unwrap().as_str(), post);
        }
        for elsewhere in
            ["http://a.example/x", "https://a.example:81/x", "//b.example/x", "http://[", "data:x"]
        {
            address_in(&stream, elsewhere).unwrap_err();
        }
    }
}
