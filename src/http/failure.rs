//! Errors as HTTP sends them: one table from stable code to status, one JSON body.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::api::{ApiError, ErrorBody};

/// Status of each stable code; a code that is missing here is our bug and answers 500.
const STATUS: [(&str, StatusCode); 17] = [
    ("bad_request", StatusCode::BAD_REQUEST),
    ("unauthorized", StatusCode::UNAUTHORIZED),
    ("forbidden", StatusCode::FORBIDDEN),
    ("not_yours", StatusCode::FORBIDDEN),
    ("not_found", StatusCode::NOT_FOUND),
    ("unknown_route", StatusCode::NOT_FOUND),
    ("bad_method", StatusCode::METHOD_NOT_ALLOWED),
    ("conflict", StatusCode::CONFLICT),
    ("ambiguous", StatusCode::CONFLICT),
    ("duplicate_identity", StatusCode::CONFLICT),
    ("too_large", StatusCode::PAYLOAD_TOO_LARGE),
    ("rate_limited", StatusCode::TOO_MANY_REQUESTS),
    ("clock_unsafe", StatusCode::SERVICE_UNAVAILABLE),
    ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
    ("store_failed", StatusCode::SERVICE_UNAVAILABLE),
    ("timed_out", StatusCode::SERVICE_UNAVAILABLE),
    ("internal", StatusCode::INTERNAL_SERVER_ERROR),
];

/// An error on its way to the client.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    error: ApiError,
}

impl Failure {
    /// An error of our own; the status follows from `code`.
    pub(super) fn new(code: &str, message: impl Into<String>, fix: impl Into<String>) -> Failure {
        ApiError { code: code.into(), message: message.into(), fix: fix.into(), suggestions: Vec::new() }
            .into()
    }

    /// The content type is not JSON: the one status that its code does not determine.
    pub(super) fn not_json() -> Failure {
        let failure = Failure::new(
            "bad_request",
            "the body must be JSON and say so",
            "send the header `Content-Type: application/json`",
        );
        Failure { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, ..failure }
    }

    /// A limit on things at work was reached.
    pub(super) fn busy(what: &str, limit: usize) -> Failure {
        Failure::new(
            "rate_limited",
            format!("{limit} {what} are at work already"),
            "try again in a moment, with fewer at once",
        )
    }

    /// The answer took longer than allowed; whether a write happened is unknown.
    pub(super) fn late(limit: Duration) -> Failure {
        Failure::new(
            "timed_out",
            format!("the node did not answer within {} s; a write may still take effect", limit.as_secs()),
            "look with `aop status`, then try again with less",
        )
    }

    /// A handler panicked: a bug of ours, in the log with its place.
    pub(super) fn panicked() -> Failure {
        Failure::new(
            "internal",
            "the node met a bug while answering",
            "the node's log has the place: report it",
        )
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Failure {
        let known = STATUS.iter().find(|(code, _)| *code == error.code);
        Failure { status: known.map_or(StatusCode::INTERNAL_SERVER_ERROR, |(_, status)| *status), error }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let challenge = self.status == StatusCode::UNAUTHORIZED;
        let mut response = (self.status, Json(ErrorBody { error: self.error })).into_response();
        if challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_follows_from_the_code() {
        for (code, status) in
            [("not_yours", 403), ("not_found", 404), ("conflict", 409), ("store_failed", 503)]
        {
            assert_eq!(Failure::new(code, "", "").status.as_u16(), status, "{code}");
        }
        assert_eq!(Failure::new("never_heard", "", "").status.as_u16(), 500);
    }
}
