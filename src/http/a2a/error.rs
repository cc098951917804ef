//! What A2A answers where there is no task: by its codes (specification of 1.0, section 3.3 and 5.4), in the form of JSON-RPC or
//! of HTTP.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::KIND;
use crate::a2a::{Malformed, Version};
use crate::api::ApiError;
use crate::http::surface::sentence;

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct A2aError {
    kind: ErrorKind,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorKind {
    TaskNotFound,
    TaskNotCancelable,
    NoPushNotifications,
    Unsupported,
    ContentType,
    NoExtendedCard,
    OtherVersion,
    NotJson,
    InvalidRequest,
    NoMethod,
    InvalidParams,
    /// The node is too busy or has stopped.
    Unavailable,
}

impl ErrorKind {
    /// Its code in JSON-RPC, its reason, and its status and the status' word in HTTP.
    fn told(self) -> (i32, &'static str, StatusCode, &'static str) {
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        match self {
            ErrorKind::TaskNotFound => (-32001, "TASK_NOT_FOUND", StatusCode::NOT_FOUND, "NOT_FOUND"),
            ErrorKind::TaskNotCancelable => (-32002, "TASK_NOT_CANCELABLE", BAD, "FAILED_PRECONDITION"),
            ErrorKind::NoPushNotifications => {
                (-32003, "PUSH_NOTIFICATION_NOT_SUPPORTED", BAD, "FAILED_PRECONDITION")
            }
            ErrorKind::Unsupported => (-32004, "UNSUPPORTED_OPERATION", BAD, "FAILED_PRECONDITION"),
            ErrorKind::ContentType => (-32005, "CONTENT_TYPE_NOT_SUPPORTED", BAD, "INVALID_ARGUMENT"),
            ErrorKind::NoExtendedCard => {
                (-32007, "EXTENDED_AGENT_CARD_NOT_CONFIGURED", BAD, "FAILED_PRECONDITION")
            }
            ErrorKind::OtherVersion => (-32009, "VERSION_NOT_SUPPORTED", BAD, "FAILED_PRECONDITION"),
            ErrorKind::NotJson => (-32700, "INVALID_REQUEST", BAD, "INVALID_ARGUMENT"),
            ErrorKind::InvalidRequest => (-32600, "INVALID_REQUEST", BAD, "INVALID_ARGUMENT"),
            ErrorKind::NoMethod => (-32601, "METHOD_NOT_FOUND", StatusCode::NOT_FOUND, "NOT_FOUND"),
            ErrorKind::InvalidParams => (-32602, "INVALID_PARAMS", BAD, "INVALID_ARGUMENT"),
            ErrorKind::Unavailable => (-32603, "UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
        }
    }
}

impl A2aError {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> A2aError {
        A2aError { kind, message: message.into() }
    }

    pub(super) fn no_task(id: &str) -> A2aError {
        let shown: String = id.chars().take(64).collect();
        A2aError::new(ErrorKind::TaskNotFound, format!("Task not found: {}", shown.escape_debug()))
    }

    /// As JSON-RPC tells it to a client of this version.
    pub(super) fn rpc(&self, version: Version) -> Value {
        let (code, ..) = self.kind.told();
        match version {
            Version::V1 => json!({"code": code, "message": self.message, "data": self.details()}),
            Version::V03 => json!({"code": code, "message": self.message}),
        }
    }

    /// As HTTP tells it.
    pub(super) fn rest(&self) -> Response {
        let (_, _, status, word) = self.kind.told();
        let error = json!({
            "code": status.as_u16(), "status": word, "message": self.message, "details": self.details(),
        });
        (status, [(header::CONTENT_TYPE, KIND)], json!({"error": error}).to_string()).into_response()
    }

    fn details(&self) -> Value {
        let (_, reason, ..) = self.kind.told();
        json!([{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason, "domain": "a2a-protocol.org", "metadata": {},
        }])
    }
}

impl From<Malformed> for A2aError {
    fn from(malformed: Malformed) -> A2aError {
        A2aError::new(ErrorKind::InvalidParams, malformed.to_string())
    }
}

impl From<ApiError> for A2aError {
    fn from(error: ApiError) -> A2aError {
        let kind = match error.code.http_status() {
            429 | 500.. => ErrorKind::Unavailable,
            404 => ErrorKind::TaskNotFound,
            _ => ErrorKind::InvalidParams,
        };
        A2aError::new(kind, sentence(&error))
    }
}

/// What the pipeline refused, in a form that clients of both bindings read.
pub(in crate::http) fn of_pipeline(status: StatusCode, error: &ApiError) -> Value {
    let kind = match status {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ErrorKind::ContentType,
        StatusCode::NOT_FOUND | StatusCode::CONFLICT => ErrorKind::Unsupported,
        StatusCode::TOO_MANY_REQUESTS => ErrorKind::Unavailable,
        status if status.is_server_error() => ErrorKind::Unavailable,
        _ => ErrorKind::InvalidRequest,
    };
    let error = A2aError::new(kind, sentence(error)).rpc(Version::V1);
    json!({"jsonrpc": "2.0", "id": null, "error": error})
}
