//! Forward-auth: a proxy asks whether the request before it may pass.
//!
//! The answer is `200` with an empty body and the identity headers, or `401` or `403`: proxies take
//! anything else for a fault, and some let faults pass.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::any,
};
use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use rescind_verifier::VerifiedToken;

use super::{
    bearer::bearer,
    error::{ApiError, Class},
};
use crate::{
    app::App,
    auth::{self, Caller},
};

const CLIENT: HeaderName = HeaderName::from_static("x-rescind-client");
const CLIENT_NAME: HeaderName = HeaderName::from_static("x-rescind-client-name");
const SCOPES: HeaderName = HeaderName::from_static("x-rescind-scopes");
const SESSION: HeaderName = HeaderName::from_static("x-rescind-session");
const ACCEL_EXPIRES: HeaderName = HeaderName::from_static("x-accel-expires");

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/verify", any(verify)).route("/verify/{*rest}", any(verify))
}

async fn verify(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    let mut response = match decide(&app, caller, &headers).await {
        Ok(token) => identity(&token).into_response(),
        Err(error) => error.into_response(),
    };
    response.headers_mut().insert(ACCEL_EXPIRES, HeaderValue::from_static("0"));
    response
}

async fn decide(app: &App, caller: Caller, headers: &HeaderMap) -> Result<VerifiedToken, ApiError> {
    let token = bearer(headers)?;
    auth::verify(app, token, caller).await.map_err(|error| match error {
        auth::Error::Store(cause) => {
            ApiError::new(Class::Forbidden, "Not able to decide now").caused_by(cause)
        }
        error => ApiError::bearer(error),
    })
}

/// Who may pass. Every header is always there, so that the proxy overwrites whatever a client sent.
fn identity(token: &VerifiedToken) -> HeaderMap {
    let (claims, client) = (token.claims(), token.client());
    let text = |text: &str| HeaderValue::from_bytes(text.as_bytes()).unwrap_or(HeaderValue::from_static(""));
    HeaderMap::from_iter([
        (CLIENT, HeaderValue::from(claims.client)),
        (CLIENT_NAME, text(&client.name)),
        (SCOPES, text(token.scopes().as_str())),
        (SESSION, HeaderValue::from(claims.session)),
    ])
}
