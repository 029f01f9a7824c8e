//! Errors as the contract's envelope, and the only place where a failure becomes a status code.

mod oauth;

use std::{borrow::Cow, error::Error as StdError, sync::Arc};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use hyper::{
    StatusCode,
    header::{ACCEPT_ENCODING, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
};
use rescind_admin as admin;
use rescind_base::telemetry::{metrics::Route, with_causes};
use rescind_node::{app::App, config::OnUnavailable};
use rescind_store::StoreError;
use rescind_verifier::Denied;
use serde::Serialize;
use tracing::debug;

use crate::auth;
pub(super) use oauth::OAuthError;

/// An answer other than success.
#[derive(Debug)]
pub struct ApiError {
    class: Class,
    message: Cow<'static, str>,
    /// For `WWW-Authenticate`.
    challenge: Option<Cow<'static, str>>,
    /// For `Retry-After`, in seconds.
    retry_after: Option<u64>,
    /// The path of what an earlier request created.
    created: Option<Box<str>>,
    /// For the log. The caller never gets it.
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

/// The cause of a failed request, kept in the answer's extensions until it is logged.
#[derive(Debug, Clone)]
pub(super) struct Failure(pub(super) Arc<str>);

/// The contract's table of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Validation,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    /// An idempotency key was used before.
    Conflict,
    /// The client is not of a version that the request names.
    PreconditionFailed,
    PayloadTooLarge,
    UnsupportedMediaType,
    /// Of a body. The answer lists the supported encodings (RFC 7694 §3).
    UnsupportedEncoding,
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
            Class::Conflict => (StatusCode::CONFLICT, "ConflictError", "CONFLICT"),
            Class::PreconditionFailed => {
                (StatusCode::PRECONDITION_FAILED, "PreconditionFailedError", "PRECONDITION_FAILED")
            }
            Class::PayloadTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLargeError", "PAYLOAD_TOO_LARGE")
            }
            Class::UnsupportedMediaType | Class::UnsupportedEncoding => {
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

#[derive(Serialize)]
struct Details<'m> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'m str,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<&'m str>,
    #[serde(flatten)]
    envelope: Envelope<'m>,
}

impl ApiError {
    /// An error of this class, with the text that the caller gets.
    pub fn new(class: Class, message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError {
            class,
            message: message.into(),
            challenge: None,
            // Whoever is refused for now is always told when to come again.
            retry_after: matches!(class, Class::TooManyRequests | Class::Unavailable).then_some(1),
            created: None,
            cause: None,
        }
    }

    /// The request has no token (RFC 6750 §3.1: no error code).
    pub fn authorization_required() -> ApiError {
        ApiError::new(Class::Unauthorized, "Authorization header required")
            .challenge("Bearer realm=\"rescind\"")
    }

    /// An error of the Bearer token, with its challenge (RFC 6750 §3).
    pub fn bearer(error: auth::Error) -> ApiError {
        // A missing certificate is no reason that a verifier knows.
        let challenge = error.denial().unwrap_or(Denied::Malformed).challenge();
        let error = ApiError::from(error);
        match (error.class, challenge) {
            (Class::Unauthorized, Some(challenge)) => error.challenge(challenge),
            _ => error,
        }
    }

    /// The token is valid but lacks this scope (RFC 6750 §3.1).
    pub fn insufficient_scope(needed: &str) -> ApiError {
        // A text that does not fit into a quoted string cannot be a scope either.
        let plain = needed.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\');
        let scope = if plain { format!(", scope=\"{needed}\"") } else { String::new() };
        ApiError::from(auth::Error::ScopeMissing)
            .challenge(format!("Bearer realm=\"rescind\", error=\"insufficient_scope\"{scope}"))
    }

    /// Names the URL of the API's metadata in the challenge, if there is one (RFC 9728 §5.1).
    pub(super) fn resource_metadata(mut self, url: &str) -> ApiError {
        if let Some(challenge) = &mut self.challenge {
            challenge.to_mut().push_str(&format!(", resource_metadata=\"{url}\""));
        }
        self
    }

    fn challenge(mut self, value: impl Into<Cow<'static, str>>) -> ApiError {
        self.challenge = Some(value.into());
        self
    }

    /// No place is free for another of these. The request had no effect.
    pub(super) fn too_many(what: &str) -> ApiError {
        ApiError::new(Class::Unavailable, format!("Too many {what}. Retry after 1 second."))
    }

    /// The error as operators get it. They are told why an embedded store refuses, as `rescind status` tells it.
    pub(super) fn for_operators(mut self, app: &App) -> ApiError {
        let store = app.store.embedded().filter(|_| self.class == Class::Unavailable);
        let why = store
            .and_then(|store| store.unwritable().or(self.cause.as_deref().map(|cause| with_causes(cause))));
        if let Some(why) = why {
            self.message = format!("The service cannot answer safely now: {why}").into();
        }
        self
    }

    /// The error as a verdict of `/verify`.
    pub(super) fn undecided(self, answer: OnUnavailable) -> ApiError {
        let message = Cow::Borrowed("Not able to decide now");
        match answer {
            OnUnavailable::Forbidden => {
                ApiError { class: Class::Forbidden, message, retry_after: None, ..self }
            }
            OnUnavailable::Unavailable => self,
        }
    }

    /// Sets the time after which the caller may retry.
    pub(super) fn retry_after(mut self, seconds: u64) -> ApiError {
        self.retry_after = Some(seconds);
        self
    }

    /// Adds the cause, for the log.
    pub fn caused_by(mut self, cause: impl StdError + Send + Sync + 'static) -> ApiError {
        self.cause = Some(Box::new(cause));
        self
    }

    /// Adds the path of what an earlier request created.
    pub(super) fn about(mut self, created: Option<String>) -> ApiError {
        self.created = created.map(String::into_boxed_str);
        self
    }

    pub(super) fn internal(cause: impl StdError + Send + Sync + 'static) -> ApiError {
        ApiError::new(Class::Internal, "Internal server error").caused_by(cause)
    }

    /// The text that the caller gets.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The envelope as the text of a body.
    pub fn body(&self) -> String {
        serde_json::to_string(&self.envelope()).unwrap_or_default()
    }

    fn envelope(&self) -> Envelope<'_> {
        let (_, name, code) = self.class.parts();
        Envelope { error: Body { name, code, message: &self.message } }
    }

    /// The answer of a route.
    pub(super) fn at(self, route: Route) -> Response {
        if route == Route::Admin { self.into_problem() } else { self.into_response() }
    }

    /// The answer as problem details (RFC 9457 §3), with the envelope as a member.
    pub(super) fn into_problem(self) -> Response {
        let (status, ..) = self.class.parts();
        let problem = Details {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: &self.message,
            created: self.created.as_deref(),
            envelope: self.envelope(),
        };
        let mut response = respond(&self, problem);
        let media_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, media_type);
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        respond(&self, self.envelope())
    }
}

/// Replaces an answer that a proxy may take for a fault by a refusal (`http/verify.rs`, rule 2).
pub(super) fn only_verdicts(response: Response) -> Response {
    match response.status() {
        StatusCode::OK
        | StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::SERVICE_UNAVAILABLE => response,
        _ => {
            let denied = ApiError::new(Class::Forbidden, "Not able to decide on this request");
            let mut denied = denied.into_response();
            // If the request's end is unclear, the connection must still close after the answer.
            denied.headers_mut().extend(response.headers().get(CONNECTION).map(|v| (CONNECTION, v.clone())));
            denied
        }
    }
}

fn respond(error: &ApiError, body: impl Serialize) -> Response {
    let (status, ..) = error.class.parts();
    let mut response = (status, Json(body)).into_response();
    let challenge = error.challenge.as_ref().and_then(|value| HeaderValue::try_from(value.as_ref()).ok());
    let encodings =
        (error.class == Class::UnsupportedEncoding).then_some(HeaderValue::from_static("identity"));
    let headers = response.headers_mut();
    headers.extend(challenge.map(|value| (WWW_AUTHENTICATE, value)));
    headers.extend(error.retry_after.map(|seconds| (RETRY_AFTER, HeaderValue::from(seconds))));
    headers.extend(encodings.map(|value| (ACCEPT_ENCODING, value)));
    match error.cause.as_deref() {
        Some(cause) if status.is_server_error() => {
            response.extensions_mut().insert(Failure(with_causes(cause).into()));
        }
        Some(cause) => debug!(%status, cause = with_causes(cause), "refused"),
        None => debug!(%status, reason = &*error.message, "refused"),
    }
    response
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        match error {
            StoreError::Unavailable(_) | StoreError::Unsuitable(_) => {
                let message = "The service cannot answer safely now. Retry after 1 second.";
                ApiError::new(Class::Unavailable, message).caused_by(error)
            }
            StoreError::Unreadable(_) | StoreError::Damaged(_) => ApiError::internal(error),
        }
    }
}

impl From<auth::Error> for ApiError {
    fn from(error: auth::Error) -> ApiError {
        match error {
            auth::Error::InvalidCredentials => ApiError::new(Class::Unauthorized, "Invalid credentials"),
            auth::Error::InvalidToken(_) | auth::Error::Reused | auth::Error::Uncertified => {
                ApiError::new(Class::Unauthorized, "Invalid token").caused_by(error)
            }
            auth::Error::TokenExpired => ApiError::new(Class::Unauthorized, "Token expired"),
            auth::Error::AddressNotAllowed => ApiError::new(Class::Forbidden, "IP address not authorized"),
            auth::Error::ScopeMissing => ApiError::new(Class::Forbidden, "Insufficient scope"),
            auth::Error::ResourceMissing => {
                ApiError::new(Class::BadRequest, "The client does not have this resource")
            }
            auth::Error::Throttled(_) | auth::Error::OverQuota(_) => {
                let seconds = error.retry_after().unwrap_or(1);
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
            admin::Error::NotFound(_) | admin::Error::NotKept(_) => {
                ApiError::new(Class::NotFound, error.to_string())
            }
            admin::Error::Changed => ApiError::new(Class::PreconditionFailed, error.to_string()),
            admin::Error::Refused(message) => ApiError::new(Class::BadRequest, message),
            admin::Error::Store(error) => error.into(),
            admin::Error::Seal(error) => ApiError::internal(error),
            admin::Error::Keys(error) => ApiError::internal(error),
        }
    }
}
