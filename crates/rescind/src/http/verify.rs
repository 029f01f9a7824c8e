//! Forward-auth: a proxy asks whether the request before it may pass.
//!
//! 1. Yes is `200`, an empty body and the identity headers, every one of them, so that the proxy
//!    overwrites whatever the client sent.
//! 2. No is `401` or `403` and nothing else: proxies take other statuses for a fault, and some let
//!    faults pass. (`forward_auth.unavailable = "503"` is for proxies that are known not to.)
//! 3. Only the `Authorization` header, the caller's address and the query decide, and the query can
//!    only ask for more. Whatever else a proxy forwards was written by the client.
//! 4. A request that carries identity headers itself, from anybody but a trusted proxy, is refused:
//!    a direct caller has no business with them.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
    routing::any,
};
use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use rescind_verifier::{Denied, Scopes, VerifiedToken};

use super::{
    bearer::bearer,
    error::{ApiError, Class},
};
use crate::{
    app::App,
    auth::{self, Caller},
    config::Undecided,
};

const IDENTITY_PREFIX: &str = "x-rescind-";
const CLIENT: HeaderName = HeaderName::from_static("x-rescind-client");
const CLIENT_NAME: HeaderName = HeaderName::from_static("x-rescind-client-name");
const SCOPES: HeaderName = HeaderName::from_static("x-rescind-scopes");
const SESSION: HeaderName = HeaderName::from_static("x-rescind-session");
const ACCEL_EXPIRES: HeaderName = HeaderName::from_static("x-accel-expires");

const PATH: &str = "/verify";

/// Whether a path is one of those below, whose every answer is a verdict.
pub(super) fn is_path(path: &str) -> bool {
    path.strip_prefix(PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route(PATH, any(verify))
        // A proxy that appends the path of the request before it appends "/" for its root.
        .route("/verify/", any(verify))
        .route("/verify/{*rest}", any(verify))
}

async fn verify(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let mut response = match decide(&app, &caller, query.as_deref().unwrap_or_default(), &headers).await {
        Ok(token) => identity(&token).into_response(),
        Err(error) => error.into_response(),
    };
    response.headers_mut().insert(ACCEL_EXPIRES, HeaderValue::from_static("0"));
    response
}

async fn decide(
    app: &App,
    caller: &Caller,
    query: &str,
    headers: &HeaderMap,
) -> Result<VerifiedToken, ApiError> {
    if !caller.through_proxy && headers.keys().any(is_identity) {
        return Err(ApiError::new(Class::Forbidden, "Identity headers are the service's own"));
    }
    let token = auth::verify(app, bearer(headers)?, caller).await.map_err(|error| match error {
        auth::Error::Store(cause) => undecided(app.undecided, cause),
        error => ApiError::bearer(error),
    })?;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "scope" => {
                // What cannot be a scope is one that nobody has.
                let needed = value.parse::<Scopes>().map_err(|_| Denied::ScopeMissing);
                needed.and_then(|needed| token.require(&needed)).map_err(|missing| {
                    app.metrics.denied(missing);
                    ApiError::insufficient_scope(&value)
                })?;
            }
            "aud" if value != app.issuer.profile().audience() => {
                app.metrics.denied(Denied::WrongAudience);
                return Err(ApiError::bearer(Denied::WrongAudience.into()));
            }
            _ => {}
        }
    }
    Ok(token)
}

fn undecided(answer: Undecided, cause: crate::store::StoreError) -> ApiError {
    match answer {
        Undecided::Forbidden => ApiError::new(Class::Forbidden, "Not able to decide now").caused_by(cause),
        Undecided::Unavailable => cause.into(),
    }
}

/// An identity header, also by the names that CGI-like upstreams take for it: to them, every
/// character other than a letter or digit is the same.
fn is_identity(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    name.len() >= IDENTITY_PREFIX.len()
        && name
            .iter()
            .zip(IDENTITY_PREFIX.bytes())
            .all(|(&b, p)| b == p || (p == b'-' && !b.is_ascii_alphanumeric()))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    // check 60
    #[test]
    fn identity_headers_are_known_by_their_aliases() {
        for name in
            ["x-rescind-client", "x_rescind_client", "x.rescind-anything", "x-rescind_", "x!rescind~client"]
        {
            assert!(is_identity(&name.parse().unwrap()), "{name}");
        }
        for name in ["x-rescind", "x-request-id", "rescind-client", "xx-rescind-client", "x-rescinded"] {
            assert!(!is_identity(&name.parse().unwrap()), "{name}");
        }
    }
}
