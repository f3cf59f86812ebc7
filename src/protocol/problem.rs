//! Refusals over HTTP: problem documents (RFC 9457), the same for both doors.

use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::refusal::{ErrorCode, Refusal};

/// A refusal as an HTTP answer.
#[derive(Debug)]
pub struct Problem {
    refusal: Refusal,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem that concerns no single field.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Refusal::new(code, detail).into()
    }

    /// What is refused, and why.
    pub fn into_refusal(self) -> Refusal {
        self.refusal
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    /// Adds that the same may be asked again after a time (RFC 9110, 10.2.3).
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.headers.push((RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1)));
        self
    }
}

impl ErrorCode {
    /// The status of an HTTP answer with this code.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::OriginNotAllowed => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyIncomplete => StatusCode::REQUEST_TIMEOUT,
            Self::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
            Self::TooManyAttempts | Self::TooManyConnections => StatusCode::TOO_MANY_REQUESTS,
            Self::KeyReused | Self::NotReloaded => StatusCode::CONFLICT,
            Self::Full | Self::NotStored => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, headers: Vec::new() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        /// `type` is left out, which means `about:blank`: the status says what kind of problem it
        /// is, and `code` says which.
        #[derive(Serialize)]
        struct Document<'a> {
            title: &'a str,
            status: u16,
            code: &'a str,
            detail: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            field: Option<&'a str>,
        }
        let status = self.refusal.code.status();
        let document = Document {
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            code: self.refusal.code.as_str(),
            detail: &self.refusal.message,
            field: self.refusal.field.as_deref(),
        };
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = (status, [(CONTENT_TYPE, "application/problem+json")], body).into_response();
        response.headers_mut().extend(self.headers);
        // For whoever counts what was answered.
        response.extensions_mut().insert(self.refusal.code);
        response
    }
}
