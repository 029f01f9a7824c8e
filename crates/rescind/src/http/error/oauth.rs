//! Errors as the OAuth endpoints tell them.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{ApiError, Class, respond};

/// An error of an OAuth endpoint (RFC 6749 §5.2).
#[derive(Debug)]
pub(in crate::http) struct OAuthError {
    code: &'static str,
    error: ApiError,
}

impl OAuthError {
    /// An error by its OAuth code.
    pub(in crate::http) fn new(
        class: Class,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> OAuthError {
        OAuthError { code, error: ApiError::new(class, message) }
    }

    /// Invalid or missing client authentication.
    pub(in crate::http) fn invalid_client() -> OAuthError {
        let error = ApiError::new(Class::Unauthorized, "Client authentication failed");
        OAuthError { code: "invalid_client", error: error.challenge("Basic realm=\"rescind\"") }
    }

    /// The error without a challenge, for a client that did not use HTTP Basic (RFC 6749 §5.2): openid-client does not
    /// read the body beside a challenge.
    pub(in crate::http) fn unchallenged(mut self) -> OAuthError {
        self.error.challenge = None;
        self
    }
}

impl From<ApiError> for OAuthError {
    fn from(error: ApiError) -> OAuthError {
        let code = match error.class {
            Class::Validation
            | Class::BadRequest
            | Class::NotFound
            | Class::MethodNotAllowed
            | Class::Conflict
            | Class::PreconditionFailed
            | Class::PayloadTooLarge
            | Class::UnsupportedMediaType
            | Class::UnsupportedEncoding
            | Class::HeadersTooLarge => "invalid_request",
            Class::Unauthorized => "invalid_token",
            Class::Forbidden => "insufficient_scope",
            Class::TooManyRequests | Class::Unavailable => "temporarily_unavailable",
            Class::Internal => "server_error",
        };
        OAuthError { code, error }
    }
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let OAuthError { code, error } = self;
        respond(&error, json!({ "error": code, "error_description": error.message }))
    }
}
