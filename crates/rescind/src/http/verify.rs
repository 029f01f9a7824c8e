//! Forward-auth: a proxy asks whether the request that it received may pass.
//!
//! 1. Yes is `200` with an empty body and all identity headers, so that the proxy overwrites each one that the
//!    client sent.
//! 2. No is `401` or `403` and nothing else: proxies take other statuses for a fault, and some proxies let the request
//!    pass then. (`forward_auth.unavailable = "503"` is for proxies that are known to refuse it. What hyper cannot read,
//!    or has more than 100 headers, never gets here: it is answered 400 or 431, and the connection closes.)
//! 3. Only the `Authorization` header, the caller's address and, at `/verify` itself, the query decide. The proxy's
//!    configuration writes the query up to `path=`. It can only require more, and a mistake in it denies. The client
//!    wrote everything else that a proxy forwards, and the query under `/verify/…` too.
//! 4. A request with identity headers is refused, unless a trusted proxy sent it: a direct caller needs none.

use std::{borrow::Cow, fmt::Write};

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use bytes::BytesMut;
use hyper::{
    HeaderMap, Uri,
    header::{HeaderName, HeaderValue},
};
use rescind_base::model::Check;
use rescind_node::{app::App, audit};
use rescind_verifier::{Denied, VerifiedToken};
use tracing::warn;

use super::{
    bearer::bearer,
    error::{ApiError, Class},
};
use crate::auth::{self, Caller};

const IDENTITY_PREFIX: &str = "x-rescind-";
const CLIENT: HeaderName = HeaderName::from_static("x-rescind-client");
const CLIENT_NAME: HeaderName = HeaderName::from_static("x-rescind-client-name");
const SCOPES: HeaderName = HeaderName::from_static("x-rescind-scopes");
const SESSION: HeaderName = HeaderName::from_static("x-rescind-session");
const ACCEL_EXPIRES: HeaderName = HeaderName::from_static("x-accel-expires");

const PATH: &str = "/verify";

/// The number of headers of an answer with the identity.
const HEADERS: usize = 8;
/// The most headers that a connection's map keeps room for.
const MOST_KEPT: usize = 32;
/// The length of two numbers as text.
const TEXTS: usize = 40;

/// Whether a path is `/verify` or below it, where every answer must be a verdict.
pub(super) fn is_path(path: &str) -> bool {
    path.strip_prefix(PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Answers from memory. `None`: the store must be read.
///
/// The answer's headers are written where the request's were, which hyper uses again for the next request.
pub(super) fn at_once<B>(app: &App, caller: &Caller, request: &mut hyper::Request<B>) -> Option<Response> {
    let decided = match asked(app, caller, request) {
        Ok((asked, token)) => judge(app, &asked, token, auth::verify_in_memory(app, token, caller)?),
        Err(error) => Err(error),
    };
    if decided.is_err() {
        // What explains a denial is still in the request.
        return Some(respond(decided, HeaderMap::new()));
    }
    let mut headers = std::mem::take(request.headers_mut());
    headers.clear();
    // A large map would stay with its connection.
    let headers = if headers.capacity() > MOST_KEPT { HeaderMap::new() } else { headers };
    Some(respond(decided, headers))
}

/// Answers from memory or the store.
pub(super) async fn answer(app: &App, caller: &Caller, request: Request) -> Response {
    // Nobody reads the body, which would take a part of its connection's window until the answer.
    let request = request.map(drop);
    let decided = match asked(app, caller, &request) {
        Ok((asked, token)) => judge(app, &asked, token, auth::verify(app, token, caller).await),
        Err(error) => Err(error),
    };
    respond(decided, HeaderMap::new())
}

/// Returns the requirements and the token of a request.
fn asked<'r, B>(
    app: &App,
    caller: &Caller,
    request: &'r hyper::Request<B>,
) -> Result<(Asked<'r>, &'r str), ApiError> {
    let (uri, headers) = (request.uri(), request.headers());
    if !caller.through_proxy && headers.keys().any(is_identity) {
        audit::refused_by(Check::IdentityHeaders);
        return Err(ApiError::new(Class::Forbidden, "Identity headers are the service's own"));
    }
    let asked = Asked::read(query(uri)).map_err(|slip| slipped(app, caller, slip))?;
    let token = bearer(headers).map_err(|error| asked.announced(app, error))?;
    Ok((asked, token))
}

/// Checks a valid token against the requirements of the request.
fn judge(
    app: &App,
    asked: &Asked<'_>,
    text: &str,
    verdict: Result<VerifiedToken, auth::Error>,
) -> Result<VerifiedToken, ApiError> {
    let token = verdict.map_err(|error| match error {
        auth::Error::Store(cause) => ApiError::from(cause).undecided(app.on_unavailable),
        error => asked.announced(app, ApiError::bearer(error)),
    })?;
    for needed in &asked.scopes {
        if !needed.split(' ').filter(|scope| !scope.is_empty()).all(|scope| token.has_scope(scope)) {
            auth::lacks(app, text, token.claims(), Denied::ScopeMissing);
            return Err(asked.announced(app, ApiError::insufficient_scope(needed)));
        }
    }
    let profile = app.memory.issuer.profile();
    if asked.audience.as_ref().is_some_and(|audience| !token.claims().is_for(audience, profile)) {
        auth::lacks(app, text, token.claims(), Denied::WrongAudience);
        return Err(asked.announced(app, ApiError::bearer(Denied::WrongAudience.into())));
    }
    Ok(token)
}

/// The answer. `headers` are empty.
fn respond(decided: Result<VerifiedToken, ApiError>, headers: HeaderMap) -> Response {
    let mut response = match decided {
        Ok(token) => {
            let mut response = Response::new(Body::empty());
            *response.headers_mut() = headers;
            identify(&token, response.headers_mut());
            response
        }
        Err(error) => error.into_response(),
    };
    response.headers_mut().insert(ACCEL_EXPIRES, HeaderValue::from_static("0"));
    response
}

/// The requirements in the query, beyond a valid token.
#[derive(Default)]
pub(super) struct Asked<'q> {
    pub(super) scopes: Vec<Cow<'q, str>>,
    pub(super) audience: Option<Cow<'q, str>>,
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

    /// The error, with the metadata of the API that was named, if this service publishes it.
    fn announced(&self, app: &App, error: ApiError) -> ApiError {
        let named =
            app.protected_resources.iter().find(|resource| self.audience.as_deref() == Some(resource.uri()));
        match named {
            Some(resource) => error.resource_metadata(&resource.metadata_url()),
            None => error,
        }
    }
}

/// The part of a request's target that the proxy's configuration writes.
fn query(uri: &Uri) -> &str {
    uri.query().filter(|_| uri.path() == PATH).unwrap_or_default()
}

/// What a proxy requires of a token. `None`: it cannot be read.
pub(super) fn asked_of(uri: &Uri) -> Option<Asked<'_>> {
    Asked::read(query(uri)).ok()
}

/// The path that a proxy asks about, where it is in the target.
pub(super) fn path_asked_about(uri: &Uri) -> Option<&str> {
    let below = uri.path().strip_prefix(PATH).filter(|path| !path.is_empty());
    below.or_else(|| query(uri).split('&').find_map(|parameter| parameter.strip_prefix("path=")))
}

fn slipped(app: &App, caller: &Caller, Slip(parameter): Slip<'_>) -> ApiError {
    audit::refused_by(Check::UnknownParameter);
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

fn identify(token: &VerifiedToken, headers: &mut HeaderMap) {
    let (claims, client) = (token.claims(), token.client());
    // One allocation for all texts.
    let mut texts = BytesMut::with_capacity(TEXTS + client.name.len() + client.scopes.as_str().len());
    let mut value = |text: &dyn std::fmt::Display| {
        _ = write!(texts, "{text}");
        HeaderValue::from_maybe_shared(texts.split().freeze()).unwrap_or(HeaderValue::from_static(""))
    };
    headers.reserve(HEADERS);
    headers.insert(CLIENT, value(&claims.client));
    headers.insert(CLIENT_NAME, value(&client.name));
    headers.insert(SCOPES, value(&token.scopes()));
    headers.insert(SESSION, value(&claims.session));
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
