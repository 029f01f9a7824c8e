//! Forward-auth: a proxy asks whether the request that it received may pass.
//!
//! 1. Yes is `200` with an empty body and all identity headers, so that the proxy overwrites each one that the
//!    client sent.
//! 2. No is `401` or `403` and nothing else: proxies take other statuses for a fault, and some proxies let the request
//!    pass then. (`forward_auth.unavailable = "503"` is for proxies that are known to refuse it.)
//! 3. Only the `Authorization` header, the caller's address and, at `/verify` itself, the query decide. The proxy's
//!    configuration writes the query up to `path=`. It can only require more, and a mistake in it denies. The client
//!    wrote everything else that a proxy forwards, and the query under `/verify/…` too.
//! 4. A request with identity headers is refused, unless a trusted proxy sent it: a direct caller needs none.

use std::{borrow::Cow, sync::Arc};

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
use tracing::warn;

use super::{
    bearer::bearer,
    error::{ApiError, Class},
};
use crate::{
    app::App,
    auth::{self, Caller},
    config::OnUnavailable,
};

const IDENTITY_PREFIX: &str = "x-rescind-";
const CLIENT: HeaderName = HeaderName::from_static("x-rescind-client");
const CLIENT_NAME: HeaderName = HeaderName::from_static("x-rescind-client-name");
const SCOPES: HeaderName = HeaderName::from_static("x-rescind-scopes");
const SESSION: HeaderName = HeaderName::from_static("x-rescind-session");
const ACCEL_EXPIRES: HeaderName = HeaderName::from_static("x-accel-expires");

const PATH: &str = "/verify";

/// Whether a path is `/verify` or below it, where every answer must be a verdict.
pub(super) fn is_path(path: &str) -> bool {
    path.strip_prefix(PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route(PATH, any(verify_as_asked))
        // A proxy that appends the client's path appends "/" for the root.
        .route("/verify/", any(verify_any))
        .route("/verify/{*rest}", any(verify_any))
}

async fn verify_as_asked(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    verify(&app, &caller, query.as_deref().unwrap_or_default(), &headers).await
}

async fn verify_any(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    verify(&app, &caller, "", &headers).await
}

async fn verify(app: &App, caller: &Caller, query: &str, headers: &HeaderMap) -> Response {
    let mut response = match decide(app, caller, query, headers).await {
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
    let asked = Asked::read(query).map_err(|slip| slipped(app, caller, slip))?;
    let token = auth::verify(app, bearer(headers)?, caller).await.map_err(|error| match error {
        auth::Error::Store(cause) => undecided(app.on_unavailable, cause),
        error => ApiError::bearer(error),
    })?;
    for scope in asked.scopes {
        // No client can have a scope that does not parse.
        let needed = scope.parse::<Scopes>().map_err(|_| Denied::ScopeMissing);
        needed.and_then(|needed| token.require(&needed)).map_err(|missing| {
            app.metrics.denied(missing);
            ApiError::insufficient_scope(&scope)
        })?;
    }
    if asked.audience.is_some_and(|audience| audience != app.memory.issuer.profile().audience()) {
        app.metrics.denied(Denied::WrongAudience);
        return Err(ApiError::bearer(Denied::WrongAudience.into()));
    }
    Ok(token)
}

/// The requirements in the query, beyond a valid token.
#[derive(Default)]
struct Asked<'q> {
    scopes: Vec<Cow<'q, str>>,
    audience: Option<Cow<'q, str>>,
}

/// A parameter that is unknown, empty, or given twice where only one is allowed.
struct Slip<'q>(&'q str);

impl<'q> Asked<'q> {
    fn read(query: &'q str) -> Result<Asked<'q>, Slip<'q>> {
        let mut asked = Asked::default();
        let ours = query.split('&').take_while(|parameter| !parameter.starts_with("path="));
        for parameter in ours.filter(|parameter| !parameter.is_empty()) {
            let pair = form_urlencoded::parse(parameter.as_bytes()).next();
            let (name, value) = pair.filter(|(_, value)| !value.trim().is_empty()).ok_or(Slip(parameter))?;
            match name.as_ref() {
                "scope" => asked.scopes.push(value),
                "aud" if asked.audience.is_none() => asked.audience = Some(value),
                _ => return Err(Slip(parameter)),
            }
        }
        Ok(asked)
    }
}

fn slipped(app: &App, caller: &Caller, Slip(parameter): Slip<'_>) -> ApiError {
    if let Some(times) = app.log_limits.parameters.due(caller.peer) {
        // Any caller of this listener may have written the parameter, and a long text may be a secret.
        let name = parameter.split('=').next().filter(|name| name.len() <= 16);
        let name = name.unwrap_or("one of more than 16 characters");
        warn!(
            parameter = name, peer = %caller.peer, times,
            "/verify was asked with a parameter that is unknown, empty or there twice, and denied: correct the proxy's configuration"
        );
    }
    ApiError::new(Class::Forbidden, "Unknown or empty query parameter")
}

fn undecided(answer: OnUnavailable, cause: crate::store::StoreError) -> ApiError {
    match answer {
        OnUnavailable::Forbidden => {
            ApiError::new(Class::Forbidden, "Not able to decide now").caused_by(cause)
        }
        OnUnavailable::Unavailable => cause.into(),
    }
}

/// Whether this is an identity header, or a name that a CGI-like upstream reads as one. Such an upstream treats all
/// characters other than letters and digits alike.
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
