//! Errors as the contract's envelope, and the only place where a failure becomes a status code.

use std::{borrow::Cow, error::Error as StdError};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use hyper::{
    StatusCode,
    header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Serialize;
use serde_json::json;
use tracing::{debug, error};

use crate::{admin, auth, store::StoreError};

/// An answer other than success.
#[derive(Debug)]
pub struct ApiError {
    class: Class,
    message: Cow<'static, str>,
    /// For `WWW-Authenticate`.
    challenge: Option<&'static str>,
    /// For `Retry-After`, in seconds.
    retry_after: Option<u64>,
    /// Logged, never told.
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

/// The contract's table of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Validation,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    PayloadTooLarge,
    UriTooLong,
    UnsupportedMediaType,
    TooManyRequests,
    HeadersTooLarge,
    Internal,
    Unavailable,
}

impl Class {
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Class::Validation => (StatusCode::BAD_REQUEST, "ValidationException", "VALIDATION_FAILURE"),
            Class::BadRequest => (StatusCode::BAD_REQUEST, "BadRequestError", "BAD_REQUEST"),
            Class::Unauthorized => (StatusCode::UNAUTHORIZED, "UnauthorizedError", "UNAUTHORIZED"),
            Class::Forbidden => (StatusCode::FORBIDDEN, "ForbiddenError", "FORBIDDEN"),
            Class::NotFound => (StatusCode::NOT_FOUND, "NotFoundError", "NOT_FOUND"),
            Class::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowedError", "METHOD_NOT_ALLOWED")
            }
            Class::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "RequestTimeoutError", "REQUEST_TIMEOUT"),
            Class::PayloadTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLargeError", "PAYLOAD_TOO_LARGE")
            }
            Class::UriTooLong => (StatusCode::URI_TOO_LONG, "UriTooLongError", "URI_TOO_LONG"),
            Class::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaTypeError", "UNSUPPORTED_MEDIA_TYPE")
            }
            Class::TooManyRequests => {
                (StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsError", "TOO_MANY_REQUESTS")
            }
            Class::HeadersTooLarge => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "HeadersTooLargeError", "HEADERS_TOO_LARGE")
            }
            Class::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "INTERNAL_SERVER_ERROR")
            }
            Class::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableError", "SERVICE_UNAVAILABLE")
            }
        }
    }
}

#[derive(Serialize)]
struct Envelope<'m> {
    error: Body<'m>,
}

#[derive(Serialize)]
struct Body<'m> {
    name: &'static str,
    code: &'static str,
    message: &'m str,
}

impl ApiError {
    /// An error of this class with the text that the caller is told.
    pub fn new(class: Class, message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError { class, message: message.into(), challenge: None, retry_after: None, cause: None }
    }

    /// No token where one is needed (RFC 6750 §3.1: no error code).
    pub fn authorization_required() -> ApiError {
        ApiError::new(Class::Unauthorized, "Authorization header required")
            .challenge("Bearer realm=\"rescind\"")
    }

    /// A token's error, on a path that a token protects (RFC 6750 §3).
    pub fn bearer(error: auth::Error) -> ApiError {
        let error = ApiError::from(error);
        match error.class {
            Class::Unauthorized => error.challenge("Bearer realm=\"rescind\", error=\"invalid_token\""),
            _ => error,
        }
    }

    fn challenge(mut self, value: &'static str) -> ApiError {
        self.challenge = Some(value);
        self
    }

    fn retry_after(mut self, seconds: u64) -> ApiError {
        self.retry_after = Some(seconds);
        self
    }

    /// What stands behind it, for the log.
    pub fn caused_by(mut self, cause: impl StdError + Send + Sync + 'static) -> ApiError {
        self.cause = Some(Box::new(cause));
        self
    }

    fn internal(cause: impl StdError + Send + Sync + 'static) -> ApiError {
        ApiError::new(Class::Internal, "Internal server error").caused_by(cause)
    }

    /// The envelope as it stands in a body.
    pub fn body(&self) -> String {
        let (_, name, code) = self.class.parts();
        json!(Envelope { error: Body { name, code, message: &self.message } }).to_string()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, name, code) = self.class.parts();
        match &self.cause {
            Some(cause) if status.is_server_error() => {
                error!(%status, cause = %chain(cause.as_ref()), "failed")
            }
            Some(cause) => debug!(%status, cause = %chain(cause.as_ref()), "refused"),
            None => debug!(%status, message = %self.message, "refused"),
        }
        let body = Envelope { error: Body { name, code, message: &self.message } };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.extend(self.challenge.map(|value| (WWW_AUTHENTICATE, HeaderValue::from_static(value))));
        headers.extend(self.retry_after.map(|seconds| (RETRY_AFTER, HeaderValue::from(seconds))));
        response
    }
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        match error {
            StoreError::Unavailable(_) => {
                let message = "The service cannot answer safely now. Retry after 1 seconds.";
                ApiError::new(Class::Unavailable, message).retry_after(1).caused_by(error)
            }
            StoreError::Unreadable(_) => ApiError::internal(error),
        }
    }
}

impl From<auth::Error> for ApiError {
    fn from(error: auth::Error) -> ApiError {
        match error {
            auth::Error::InvalidCredentials => ApiError::new(Class::Unauthorized, "Invalid credentials"),
            auth::Error::InvalidToken(_) | auth::Error::Reused => {
                ApiError::new(Class::Unauthorized, "Invalid token").caused_by(error)
            }
            auth::Error::TokenExpired => ApiError::new(Class::Unauthorized, "Token expired"),
            auth::Error::AddressNotAllowed => ApiError::new(Class::Forbidden, "IP address not authorized"),
            auth::Error::Throttled(after) => {
                let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
                let message = format!("Rate limit exceeded. Retry after {seconds} seconds.");
                ApiError::new(Class::TooManyRequests, message).retry_after(seconds)
            }
            auth::Error::Store(error) => error.into(),
        }
    }
}

impl From<admin::Error> for ApiError {
    fn from(error: admin::Error) -> ApiError {
        match error {
            admin::Error::Invalid { .. } => ApiError::new(Class::Validation, error.to_string()),
            admin::Error::NotFound(_) => ApiError::new(Class::NotFound, error.to_string()),
            admin::Error::Refused(message) => ApiError::new(Class::BadRequest, message),
            admin::Error::Store(error) => error.into(),
            admin::Error::Seal(error) => ApiError::internal(error),
            admin::Error::Keys(error) => ApiError::internal(error),
        }
    }
}
