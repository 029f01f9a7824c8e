//! The service over HTTP.

mod admin;
mod auth;
mod bearer;
mod body;
#[cfg(test)]
mod canary;
pub mod client_ip;
mod error;
mod feed;
mod gauges;
mod oauth;
mod ops;
mod raw_answers;
mod verify;

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc};

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use hyper::{
    Method, Version,
    header::{CACHE_CONTROL, CONNECTION, HOST, HeaderValue, TRANSFER_ENCODING},
};
use thiserror::Error;
use tower::ServiceExt;
use tracing::{Instrument, Span, debug, error, info_span};

pub use body::{BodyError, parse as parse_json};
use client_ip::{Peer, TrustedProxies};
use error::{ApiError, Class, Failure, only_verdicts};
pub use feed::Vouched;
pub use raw_answers::{ErrorRewriter, too_many_connections};

use crate::{
    app::App,
    audit,
    clock::Clock,
    config::OnUnavailable,
    ksuid,
    random::Random,
    secret,
    telemetry::{metrics::Route, traces},
};

const REQUEST_ID: &str = "x-request-id";
const HEADERS_TOO_LARGE: &str = "A request has at most 100 headers of at most 16384 bytes together";
const MAX_HEADERS: usize = 100;
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// The routes of one listener, and the frame of every answer.
pub struct Door {
    app: Arc<App>,
    routes: Router,
    route_of: RouteOf,
    /// The proxies whose header names the caller. `None`: this listener has no use for the caller's address.
    proxies: Option<TrustedProxies>,
}

/// The routes for clients, proxies and APIs.
pub fn public(app: Arc<App>, proxies: TrustedProxies) -> Door {
    let routes = auth::routes().merge(verify::routes()).merge(oauth::routes());
    Door { proxies: Some(proxies), ..door(routes, app, public_route) }
}

/// The routes for probes, and the feed for verifiers.
pub fn management(app: Arc<App>) -> Door {
    door(ops::routes().merge(feed::routes()), app, management_route)
}

/// The probes and the admin API, for users who may open the data folder.
pub fn local(app: Arc<App>) -> Door {
    door(ops::routes().merge(admin::routes()), app, management_route)
}

fn public_route(path: &str) -> Route {
    match path {
        path if verify::is_path(path) => Route::Verify,
        "/auth/login" => Route::Login,
        "/auth/refresh" => Route::Refresh,
        "/auth/logout" => Route::Logout,
        "/oauth2/token" => Route::Token,
        "/oauth2/introspect" => Route::Introspect,
        "/oauth2/revoke" => Route::Revoke,
        path if path.starts_with("/.well-known/") => Route::Metadata,
        _ => Route::Other,
    }
}

fn management_route(path: &str) -> Route {
    match path {
        "/livez" | "/readyz" | "/healthz" | "/metrics" => Route::Probe,
        path if path.starts_with("/feed/") => Route::Feed,
        path if path.starts_with("/admin/") => Route::Admin,
        _ => Route::Other,
    }
}

/// Maps a path to its label in the metrics.
type RouteOf = fn(&str) -> Route;

fn door(routes: Router<Arc<App>>, app: Arc<App>, route_of: RouteOf) -> Door {
    let routes = routes
        .fallback(async || ApiError::new(Class::NotFound, "No such path"))
        .method_not_allowed_fallback(async || {
            ApiError::new(Class::MethodNotAllowed, "Method not allowed on this path")
        })
        .with_state(Arc::clone(&app));
    Door { app, routes, route_of, proxies: None }
}

impl Door {
    /// Answers a request, with a request id and `Cache-Control`. A request without a place is refused.
    ///
    /// This future holds all of a request while its body is waited for. So it is small and keeps no part of the
    /// buffer that the head was read into.
    pub fn answer(
        &self,
        mut request: Request,
        peer: Option<&Peer>,
        has_place: bool,
    ) -> impl Future<Output = Response> + Send + use<> {
        let app = Arc::clone(&self.app);
        let sent = request.headers().get(REQUEST_ID).filter(|id| is_sane(id));
        let sent = sent.and_then(|id| HeaderValue::from_bytes(id.as_bytes()).ok());
        let id = sent.unwrap_or_else(|| new_request_id(&app.clock, &app.random));
        let span = info_span!("request", id = id.to_str().unwrap_or_default());
        let started = app.clock.elapsed();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let route = (self.route_of)(&path);
        traces::asked(&span, &request, route);
        let refusal = span.in_scope(|| match has_place {
            true => refusal(&request),
            false => Some(turned_away(&app, route)),
        });
        if let (Some(proxies), Some(peer)) = (&self.proxies, peer) {
            let caller = proxies.resolve(peer, request.headers());
            request.extensions_mut().insert(caller);
        }
        let routed = match refusal {
            Some(refusal) => Err(refusal),
            None => {
                let routed = AssertUnwindSafe(self.routes.clone().oneshot(request)).catch_unwind();
                Ok(Box::pin(audit::REQUEST.scope(id.clone(), routed)))
            }
        };
        let answered = async move {
            let mut response = match routed {
                Ok(routed) => routed.await.map_or_else(panicked, |Ok(response)| response),
                Err(refusal) => refusal,
            };
            if let Some(Failure(cause)) = response.extensions_mut().remove()
                && let Some(times) = app.log_limits.failures.due(Arc::clone(&cause))
            {
                error!(status = %response.status(), %cause, times, "failed");
            }
            if route == Route::Verify {
                response = only_verdicts(response);
            }
            let (status, took) = (response.status().as_u16(), app.clock.elapsed().saturating_sub(started));
            app.metrics.answered(route, status, took);
            // The path may contain a token.
            debug!(%method, path = secret::shown(&path), status, took_us = took.as_micros(), "answered");
            traces::answered(&Span::current(), response.status());
            response.headers_mut().insert(REQUEST_ID, id);
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        };
        answered.instrument(span)
    }
}

/// The answer if too many requests are under way. At `/verify` it is a status that a proxy takes for a refusal.
fn turned_away(app: &App, route: Route) -> Response {
    match (route, app.on_unavailable) {
        (Route::Verify, OnUnavailable::Forbidden) => {
            ApiError::new(Class::Forbidden, "Not able to decide now").into_response()
        }
        _ => ApiError::too_many("requests").into_response(),
    }
}

fn is_sane(id: &HeaderValue) -> bool {
    (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// Refuses a request that no route may get.
fn refusal(request: &Request) -> Option<Response> {
    // The bytes after a CONNECT may be no HTTP.
    let connect = (request.method() == Method::CONNECT).then_some("CONNECT is not served");
    if let Some(problem) = connect.or_else(|| framing_problem(request)) {
        let mut refused = ApiError::new(Class::BadRequest, problem).into_response();
        // HTTP/2 forbids this header, and does not need it: its frames separate the requests.
        if request.version() <= Version::HTTP_11 {
            refused.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        return Some(refused);
    }
    let too_large = || ApiError::new(Class::HeadersTooLarge, HEADERS_TOO_LARGE).into_response();
    (!has_sane_headers(request)).then(too_large)
}

/// Finds framing that hyper accepts but a server before this one might read differently (RFC 9112 §3.2, §6.1, §6.3;
/// RFC 9113 §8.3.1).
fn framing_problem(request: &Request) -> Option<&'static str> {
    let headers = request.headers();
    let count = |name| headers.get_all(name).iter().count();
    let hosts = count(HOST);
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Some("A request has exactly one Host header");
    }
    let authority = request.uri().authority().filter(|_| request.version() == Version::HTTP_2);
    if let (Some(authority), Some(host)) = (authority, headers.get(HOST))
        && !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
    {
        return Some("Host and :authority name the same");
    }
    let chunked = headers
        .get(TRANSFER_ENCODING)
        .is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    (count(TRANSFER_ENCODING) > 1 || !chunked).then_some("The only transfer coding read is chunked")
}

fn has_sane_headers(request: &Request) -> bool {
    let headers = request.headers();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    headers.len() <= MAX_HEADERS && bytes <= MAX_HEADER_BYTES
}

fn new_request_id(clock: &Clock, random: &Random) -> HeaderValue {
    let id = ksuid::at(clock.now(), &random.bytes());
    HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    ApiError::internal(Panicked(secret::shown(text.unwrap_or("no text")))).into_response()
}

#[derive(Debug, Error)]
#[error("a handler panicked: {0}")]
struct Panicked(String);

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        extract::State,
        routing::any,
    };

    use super::*;
    use crate::{app::run_to_completion, config::Config};

    const FAILED: &str = r#"{"error":{"name":"InternalServerError","code":"INTERNAL_SERVER_ERROR","message":"Internal server error"}}"#;
    const DENIED: &str = r#"{"error":{"name":"ForbiddenError","code":"FORBIDDEN","message":"Not able to decide on this request"}}"#;

    async fn panics() -> Response {
        panic!("a handler's own words")
    }

    async fn panics_in_a_change() -> Result<(), ApiError> {
        Ok(run_to_completion(async { panic!("a handler's own words") }).await?)
    }

    // check 90
    #[tokio::test]
    async fn a_handler_that_panics_is_a_500_or_a_denial_and_ends_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.server.data_dir = folder.path().join("data");
        let app = App::open(&config, None, Clock::manual(ksuid::EPOCH), Random::seeded(1)).await.unwrap();
        let routes = Router::new()
            .route("/auth/login", any(panics))
            .route("/auth/refresh", any(panics_in_a_change))
            .route("/verify", any(panics))
            .route("/verify/{*rest}", any(panics_in_a_change))
            .route(
                "/auth/logout",
                any(async |State(app): State<Arc<App>>| {
                    app.store.clients().await.map(drop).map_err(ApiError::from)
                }),
            );
        let door = door(routes, app, public_route);
        for _ in 0..2 {
            for (path, status, expected) in [
                ("/auth/login", 500, FAILED),
                ("/auth/refresh", 500, FAILED),
                ("/verify", 403, DENIED),
                ("/verify/x", 403, DENIED),
                ("/auth/logout", 200, ""),
            ] {
                let request = Request::builder().uri(path).header(HOST, "x").body(Body::empty()).unwrap();
                let response = door.answer(request, None, true).await;
                assert_eq!(response.status().as_u16(), status, "{path}");
                assert!(
                    response.headers().contains_key(REQUEST_ID)
                        && response.headers()[CACHE_CONTROL] == "no-store"
                );
                let body = to_bytes(response.into_body(), 1000).await.unwrap();
                assert_eq!(str::from_utf8(&body).unwrap(), expected, "{path}");
            }
        }
    }
}
