//! What ties a request to the log and to a trace: its id, and the spans that it is worked on in.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Version, header};
use tracing::{Instrument, Span};

use crate::proto::call::TraceParent;
use crate::telemetry::{context, names};

/// Names a request in the answer and in the log.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id of a client, bytes.
const REQUEST_ID_BYTES_MAX: usize = 64;
/// What is asked every few seconds by programs is no part of any trace.
const UNTRACED: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// The spans of a request.
#[derive(Clone, Debug)]
pub(super) struct Spans {
    /// Of the log.
    logged: Span,
    /// Of a trace.
    pub(super) traced: Span,
}

impl Spans {
    /// Does the work in them.
    pub(super) async fn around<T>(&self, work: impl Future<Output = T>) -> T {
        self.log(work.instrument(self.traced.clone())).await
    }

    /// Does the work in that of the log alone.
    pub(super) async fn log<T>(&self, work: impl Future<Output = T>) -> T {
        // Boxed, as all that is large and deep within others: a thread's stack is small.
        Box::pin(work).instrument(self.logged.clone()).await
    }
}

/// The id of a request and its spans.
pub(super) fn begin<B>(request: &Request<B>, method: &'static str) -> (HeaderValue, Spans) {
    let id = request_id(request.headers());
    let is_traced = !UNTRACED.contains(&request.uri().path());
    let traced = if is_traced { traced(request, method) } else { Span::none() };
    context::adopt(&traced, trace_parent(request.headers()).as_ref());
    let logged = tracing::warn_span!("http", request = id.to_str().unwrap_or_default());
    (id, Spans { logged, traced })
}

fn traced<B>(request: &Request<B>, method: &'static str) -> Span {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host: Option<Authority> = host.and_then(|host| host.parse().ok());
    let version = if request.version() == Version::HTTP_10 { "1.0" } else { "1.1" };
    names::http(method, version, host.as_ref().map(|host| (host.host(), host.port_u16())))
}

/// What is malformed counts as not there, as W3C Trace Context wants.
pub(super) fn trace_parent(headers: &HeaderMap) -> Option<TraceParent> {
    headers.get("traceparent")?.to_str().ok()?.parse().ok()
}

/// That of the client, where it is one that a log can have; else a new one of 16 digits.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_good = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    let given = headers.get(REQUEST_ID).filter(is_good).cloned();
    given.unwrap_or_else(|| {
        let drawn = format!("{:016x}", rand::random::<u64>());
        HeaderValue::from_str(&drawn).unwrap_or(HeaderValue::from_static("-"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_a_log_can_have_is_kept_and_another_one_replaced() {
        let id = |given: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(given).unwrap());
            request_id(&headers)
        };
        let (longest, longer) = ("a".repeat(64), "a".repeat(65));
        for good in ["7", "order-17-B", &longest] {
            assert_eq!(id(good), good);
        }
        for bad in ["", "a b", "a=b", "a_b", "\u{e9}", &longer] {
            let drawn = id(bad);
            assert!(drawn != bad && drawn.len() == 16, "{bad:?}: {drawn:?}");
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
