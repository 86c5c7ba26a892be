//! What the server API answers when it doesn't do what it was asked.
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use thiserror::Error;

use crate::protocol::codes::ErrorCode;

/// Why a call wasn't done. Unless the variant says otherwise, nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ApiError {
    /// No key, or a wrong one.
    #[error("unauthorized: {0}")]
    Unauthorized(&'static str),
    /// The body isn't JSON.
    #[error("bad request: {0}")]
    Malformed(String),
    /// The body is longer than allowed.
    #[error("limit exceeded: the body has more than {0} bytes")]
    BodyTooLong(usize),
    /// The body is JSON, but not what the method takes.
    #[error("bad request: {0}")]
    BadRequest(String),
    /// Too much of something.
    #[error("limit exceeded: {0}")]
    LimitExceeded(String),
    /// The channel's namespace isn't configured.
    #[error("unknown channel: the namespace of `{0}` is not configured")]
    UnknownChannel(String),
    /// The channel or this version can't do it.
    #[error("not available: {0}")]
    NotAvailable(String),
    /// No such method.
    #[error("method not found: {0}")]
    MethodNotFound(String),
    /// A position that no node of this cluster gave.
    #[error("unrecoverable position: `since.epoch` is not an epoch of this cluster")]
    UnknownPosition,
    /// The owner of the channel refused, with this code.
    #[error("{}", .0.message())]
    Refused(ErrorCode),
    /// The node has no room for the request now.
    #[error("too many requests: the node is busy, try again")]
    Busy,
    /// No answer in time: whether it was done is unknown.
    #[error("internal server error: no answer in time, so whether it was done is unknown")]
    NoAnswer,
}

/// The error as `cent` reads it.
#[derive(Serialize)]
pub(super) struct ErrorBody {
    code: u32,
    message: String,
}

/// A reply that consists of an error.
#[derive(Serialize)]
pub(super) struct ErrorReply {
    pub(super) error: ErrorBody,
}

impl ApiError {
    /// The number that says what kind of error it is.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unauthorized(_) => ErrorCode::Unauthorized,
            Self::Malformed(_) | Self::BadRequest(_) => ErrorCode::BadRequest,
            Self::BodyTooLong(_) | Self::LimitExceeded(_) => ErrorCode::LimitExceeded,
            Self::UnknownChannel(_) => ErrorCode::UnknownChannel,
            Self::NotAvailable(_) => ErrorCode::NotAvailable,
            Self::MethodNotFound(_) => ErrorCode::MethodNotFound,
            Self::UnknownPosition => ErrorCode::UnrecoverablePosition,
            Self::Refused(code) => *code,
            Self::Busy => ErrorCode::TooManyRequests,
            Self::NoAnswer => ErrorCode::Internal,
        }
    }

    /// The HTTP status: 200 for errors of a call that was understood, as clients of this API expect.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::BodyTooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::OK,
        }
    }

    pub(super) fn body(&self) -> ErrorBody {
        ErrorBody { code: self.code().code(), message: self.to_string() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status(), Json(ErrorReply { error: self.body() })).into_response()
    }
}
