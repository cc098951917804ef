//! Errors as HTTP sends them: the status follows from the code, one JSON body.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::api::{ApiError, ErrorBody};
use crate::proto::code::Code;

/// An error on its way to the client.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    error: ApiError,
}

impl Failure {
    /// An error of our own; the status follows from `code`.
    pub(super) fn new(code: Code, message: impl Into<String>, fix: impl Into<String>) -> Failure {
        ApiError { code, message: message.into(), fix: fix.into(), suggestions: Vec::new() }.into()
    }

    /// The content type is not JSON: the one status that its code does not determine.
    pub(super) fn not_json() -> Failure {
        let failure = Failure::new(
            Code::BadRequest,
            "the body must be JSON and say so",
            "send the header `Content-Type: application/json`",
        );
        Failure { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, ..failure }
    }

    /// The head of the request is too long.
    pub(super) fn long_head(bytes_max: usize) -> Failure {
        let failure = Failure::new(
            Code::TooLarge,
            format!("the head of the request has more than {bytes_max} bytes"),
            "send shorter headers and a shorter query",
        );
        Failure { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, ..failure }
    }

    /// What another server in this process refused in a text of its own.
    pub(super) fn foreign(status: StatusCode, message: &str) -> Failure {
        let fix = match status {
            StatusCode::NOT_ACCEPTABLE => "send `Accept: application/json, text/event-stream`",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                "send one JSON-RPC message as `Content-Type: application/json`"
            }
            _ => "see the MCP specification of the revision that you speak",
        };
        Failure { status, ..Failure::new(Code::BadRequest, message, fix) }
    }

    /// A limit on things at work was reached.
    pub(super) fn busy(what: &str, limit: usize) -> Failure {
        Failure::new(
            Code::RateLimited,
            format!("{limit} {what} are at work already"),
            "try again in a moment, with fewer at once",
        )
    }

    /// The answer took longer than allowed; whether a write happened is unknown.
    pub(super) fn late(limit: Duration) -> Failure {
        Failure::new(
            Code::TimedOut,
            format!("the node did not answer within {} s; a write may still take effect", limit.as_secs()),
            "look with `aop status`, then try again with less",
        )
    }

    /// A handler panicked: a bug of ours, in the log with its place.
    pub(super) fn panicked() -> Failure {
        Failure::new(
            Code::Internal,
            "the node met a bug while answering",
            "the node's log has the place: report it",
        )
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Failure {
        let status = StatusCode::from_u16(error.code.http_status());
        // Every code has a valid status; one without would be a fault of ours.
        Failure { status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), error }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        // HTTP asks for a challenge with every 401.
        let challenge = self.status == StatusCode::UNAUTHORIZED;
        let error = self.error.clone();
        let mut response = (self.status, Json(ErrorBody { error: self.error })).into_response();
        // Whoever speaks another standard is told in its shape.
        response.extensions_mut().insert(error);
        if challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
