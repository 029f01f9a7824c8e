//! The service over HTTP.

mod admin;
mod auth;
mod bearer;
mod body;
#[cfg(test)]
mod canary;
pub mod client_ip;
mod dashboard;
mod denials;
mod error;
mod feed;
mod gauges;
mod oauth;
mod ops;
mod panics;
mod public;
mod raw_answers;
mod verify;
mod well_known;

use std::{ops::ControlFlow, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request, response::Response};
use futures_util::{
    FutureExt,
    future::{Either, ready},
};
use hyper::{
    Method, Version,
    body::Body as _,
    header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING},
};
use tower::ServiceExt;
use tracing::{Instrument, Level, Span, debug, enabled, error};

pub use admin::{Door, SUDO_USER, document};
pub use body::{BodyError, parse as parse_json};
use client_ip::{Peer, TrustedProxies};
use denials::Way;
use error::{ApiError, Class, Failure, only_verdicts};
pub use feed::Vouched;
use panics::{caught, panicked};
pub use raw_answers::{ErrorRewriter, too_many_connections};

use rescind_base::{
    clock::Clock,
    ksuid,
    random::Random,
    secret,
    telemetry::{metrics::Route, step},
};
use rescind_node::{app::App, audit};

use crate::{auth::Caller, traces};

const REQUEST_ID: &str = "x-request-id";
const HEADERS_TOO_LARGE: &str = "A request has at most 100 headers of at most 16384 bytes together";
const MAX_HEADERS: usize = 100;
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// The routes of one listener, and the frame of every answer.
pub struct Routes {
    app: Arc<App>,
    /// Their header names the caller.
    proxies: TrustedProxies,
    handlers: Handlers,
}

enum Handlers {
    Public,
    Other { router: Router, route_of: fn(&str) -> Route },
}

/// The routes for clients, proxies and APIs.
pub fn public(app: Arc<App>, proxies: TrustedProxies) -> Routes {
    Routes { app, proxies, handlers: Handlers::Public }
}

/// The routes for probes, the feed for verifiers, and the admin API for holders of a management token.
pub fn management(app: Arc<App>, door: Door) -> Routes {
    let routes = ops::routes().merge(feed::routes()).merge(admin::routes(&app, door));
    other(routes.merge(dashboard::routes(&app, door)), app, management_route)
}

/// The probes and the admin API, for users who may open the data folder.
pub fn local(app: Arc<App>) -> Routes {
    other(ops::routes().merge(admin::routes(&app, Door::Socket)), app, management_route)
}

fn management_route(path: &str) -> Route {
    match path {
        "/livez" | "/readyz" | "/healthz" | "/metrics" => Route::Probe,
        path if path.starts_with("/feed/") => Route::Feed,
        path if path.starts_with("/admin/") => Route::Admin,
        path if path == dashboard::PREFIX || path.starts_with("/dashboard/") => Route::Dashboard,
        _ => Route::Other,
    }
}

fn other(router: Router<Arc<App>>, app: Arc<App>, route_of: fn(&str) -> Route) -> Routes {
    let router = router
        .fallback(async || not_found())
        .method_not_allowed_fallback(async || method_not_allowed())
        .with_state(Arc::clone(&app));
    Routes { app, proxies: TrustedProxies::default(), handlers: Handlers::Other { router, route_of } }
}

fn not_found() -> ApiError {
    ApiError::new(Class::NotFound, "No such path")
}

fn method_not_allowed() -> ApiError {
    ApiError::new(Class::MethodNotAllowed, "Method not allowed on this path")
}

/// The number of the user who sends a request, if a program of this machine does.
#[derive(Debug, Clone, Copy)]
struct Uid(u32);

/// One request from its head to its answer.
#[derive(Debug)]
pub struct Exchange {
    id: HeaderValue,
    route: Route,
    is_head: bool,
    caller: Caller,
    /// How the request came, for a denial. `None`: its head is still at hand, or its caller tells all.
    way: Option<Box<Way>>,
    started: Duration,
    /// For traces.
    span: Span,
    /// For a line at level debug. The path may contain a token.
    shown: Option<Box<(Method, String)>>,
}

impl Routes {
    /// Answers a request if its head and memory suffice. Such an answer waits for nothing, and needs no place. With any
    /// other request, [`Routes::answer`] goes on.
    pub fn answer_at_once<B>(
        &self,
        request: &mut hyper::Request<B>,
        peer: &Peer,
    ) -> ControlFlow<Response, Exchange> {
        let app = &*self.app;
        if let Some(uid) = peer.uid {
            request.extensions_mut().insert(Uid(uid));
        }
        let path = request.uri().path();
        let route = match &self.handlers {
            Handlers::Public => public::route(path),
            Handlers::Other { route_of, .. } => route_of(path),
        };
        let sent = request.headers().get(REQUEST_ID).filter(|id| is_sane(id));
        let id = sent.cloned().unwrap_or_else(|| new_request_id(&app.clock, &app.random));
        let span = step!("request", id = id.to_str().unwrap_or_default());
        traces::asked(&span, request, route);
        let exchange = Exchange {
            id: id.clone(),
            route,
            // axum's router leaves an answer's body out by itself, and a second length would end the connection.
            is_head: request.method() == Method::HEAD && matches!(self.handlers, Handlers::Public),
            caller: self.proxies.resolve(peer, request.headers()),
            way: None,
            started: app.clock.elapsed(),
            span: span.clone(),
            shown: enabled!(Level::DEBUG).then(|| Box::new((request.method().clone(), secret::shown(path)))),
        };
        let answered = audit::REQUEST.sync_scope(audit::Request::new(id), || {
            let _entered = span.enter();
            let decide = || {
                refusal(request, route).or_else(|| match (&self.handlers, route) {
                    (Handlers::Public, Route::Verify) => verify::at_once(app, &exchange.caller, request),
                    _ => None,
                })
            };
            let response = exchange.finish(app, caught(decide, route)?);
            let way = || Way::of(&self.proxies, &exchange.caller, route, request);
            denials::keep(app, &exchange, response.status(), way);
            Some(response)
        });
        answered.map_or(ControlFlow::Continue(exchange), ControlFlow::Break)
    }

    /// Answers a request that came over no connection, and needs no place.
    pub async fn serve(&self, mut request: Request, peer: &Peer) -> Response {
        match self.answer_at_once(&mut request, peer) {
            ControlFlow::Break(response) => response,
            ControlFlow::Continue(exchange) => self.answer(exchange, request, true).await,
        }
    }

    /// Answers a request. One without a place is refused.
    ///
    /// This future holds all of a request while its body is waited for. So it is small and keeps no part of the
    /// buffer that the head was read into.
    pub fn answer(
        &self,
        mut exchange: Exchange,
        mut request: Request,
        has_place: bool,
    ) -> impl Future<Output = Response> + Send + use<> {
        let app = Arc::clone(&self.app);
        exchange.id = HeaderValue::from_bytes(exchange.id.as_bytes()).unwrap_or(exchange.id);
        let (id, span, route) = (exchange.id.clone(), exchange.span.clone(), exchange.route);
        if route.is_for_callers() && Way::needs_head(&exchange.caller, route) {
            exchange.way = Some(Box::new(Way::of(&self.proxies, &exchange.caller, route, &request)));
        }
        let asked = audit::Request::new(id);
        let handled = match &self.handlers {
            _ if !has_place => Either::Left(ready(turned_away(&app, route))),
            Handlers::Public => {
                let answer = public::answer(Arc::clone(&app), exchange.caller.clone(), route, request);
                Either::Right(Either::Left(answer))
            }
            Handlers::Other { router, .. } => {
                request.extensions_mut().insert(exchange.caller.clone());
                Either::Right(Either::Right(router.clone().oneshot(request).map(|Ok(response)| response)))
            }
        };
        // No `async` block, which would hold the future twice: as it was captured, and as it is awaited.
        let handled = AssertUnwindSafe(handled).catch_unwind();
        let answered = handled.map(move |answer| {
            let response = exchange.finish(&app, answer.unwrap_or_else(|panic| panicked(panic, route)));
            let way = exchange.way.take();
            let of_caller = || Way::of_caller(&exchange.caller);
            denials::keep(&app, &exchange, response.status(), || way.map_or_else(of_caller, |way| *way));
            response
        });
        audit::REQUEST.scope(asked, answered.instrument(span))
    }
}

impl Exchange {
    /// Whether an answer waits for a body that nobody has read. A proxy that asks at `/verify` about another request may
    /// announce that request's body and never send it, and strangers at the feed are not waited for.
    pub fn waits_for_body(&self) -> bool {
        !matches!(self.route, Route::Verify | Route::Feed)
    }

    /// Counts and logs an answer, and adds the headers of every answer.
    fn finish(&self, app: &App, mut response: Response) -> Response {
        let Exchange { id, route, is_head, started, span, shown, .. } = self;
        if let Some(Failure(cause)) = response.extensions_mut().remove()
            && let Some(times) = app.log_limits.failures.due(Arc::clone(&cause))
        {
            error!(status = %response.status(), %cause, times, "failed");
        }
        if *route == Route::Verify {
            response = only_verdicts(response);
        }
        let (status, took) = (response.status().as_u16(), app.clock.elapsed().saturating_sub(*started));
        app.metrics.answered(*route, status, took);
        if let Some((method, path)) = shown.as_deref() {
            debug!(%method, path, status, took_us = took.as_micros(), "answered");
        }
        traces::answered(span, response.status());
        response.headers_mut().insert(REQUEST_ID, id.clone());
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // hyper leaves such a body out over HTTP/1.1 only.
        if *is_head {
            let length = response.body().size_hint().exact().map(HeaderValue::from);
            response.headers_mut().extend(length.map(|length| (CONTENT_LENGTH, length)));
            *response.body_mut() = Body::empty();
        }
        response
    }
}

/// The answer if too many requests are under way. At `/verify` it is a status that a proxy takes for a refusal.
fn turned_away(app: &App, route: Route) -> Response {
    let refused = ApiError::too_many("requests");
    let refused = if route == Route::Verify { refused.undecided(app.on_unavailable) } else { refused };
    refused.at(route)
}

fn is_sane(id: &HeaderValue) -> bool {
    (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// Refuses a request that no route may get.
fn refusal<B>(request: &hyper::Request<B>, route: Route) -> Option<Response> {
    // The bytes after a CONNECT may be no HTTP.
    let connect = (request.method() == Method::CONNECT).then_some("CONNECT is not served");
    if let Some(problem) = connect.or_else(|| framing_problem(request)) {
        let mut refused = ApiError::new(Class::BadRequest, problem).at(route);
        // HTTP/2 forbids this header, and does not need it: its frames separate the requests.
        if request.version() <= Version::HTTP_11 {
            refused.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        return Some(refused);
    }
    let too_large = || ApiError::new(Class::HeadersTooLarge, HEADERS_TOO_LARGE).at(route);
    (!has_sane_headers(request)).then(too_large)
}

/// Finds framing that hyper accepts but a server before this one might read differently (RFC 9112 §3.2, §6.1, §6.3;
/// RFC 9113 §8.3.1).
fn framing_problem<B>(request: &hyper::Request<B>) -> Option<&'static str> {
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

fn has_sane_headers<B>(request: &hyper::Request<B>) -> bool {
    let headers = request.headers();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    headers.len() <= MAX_HEADERS && bytes <= MAX_HEADER_BYTES
}

fn new_request_id(clock: &Clock, random: &Random) -> HeaderValue {
    let id = ksuid::at(clock.now(), &random.of_public_ids());
    HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use axum::{body::to_bytes, extract::State, routing::any};
    use rescind_node::{app::run_to_completion, config::Config};

    use super::*;

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
        let router = Router::new()
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
        let routes = other(router, app, public::route);
        assert_eq!(caught(|| panic!("a rule's own words"), Route::Other).unwrap().status().as_u16(), 500);
        for _ in 0..2 {
            for (path, status, expected) in [
                ("/auth/login", 500, FAILED),
                ("/auth/refresh", 500, FAILED),
                ("/verify", 403, DENIED),
                ("/verify/x", 403, DENIED),
                ("/auth/logout", 200, ""),
            ] {
                let request = Request::builder().uri(path).header(HOST, "x").body(Body::empty()).unwrap();
                let response = routes.serve(request, &Peer::LOCAL).await;
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
