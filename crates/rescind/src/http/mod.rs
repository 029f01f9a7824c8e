//! The service over HTTP.

mod admin;
mod auth;
mod bearer;
mod body;
pub mod client_ip;
mod error;
mod feed;
mod oauth;
mod ops;
mod verify;
mod wire;

use std::{any::Any, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use hyper::{
    Version,
    header::{CACHE_CONTROL, CONNECTION, HOST, HeaderValue, TRANSFER_ENCODING},
};
use svix_ksuid::{Ksuid, KsuidLike};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{Instrument, debug, error, info_span};

pub use body::{BodyTimeout, parse as parse_json};
use client_ip::TrustedProxies;
use error::{ApiError, Class, only_verdicts};
pub use wire::{Enveloped, too_many_connections};

use crate::{app::App, clock::Clock, random::Random, traces};

const REQUEST_ID: &str = "x-request-id";
const HEADERS_TOO_LARGE: &str = "A request has at most 100 headers of at most 16384 bytes together";
/// 2014-05-13T16:53:20Z, where KSUIDs begin.
const KSUID_EPOCH: u64 = 1_400_000_000;
const MAX_HEADERS: usize = 100;
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// What clients, proxies and APIs ask.
pub fn public(app: Arc<App>, proxies: TrustedProxies) -> Router {
    let routes = auth::routes()
        .merge(verify::routes())
        .merge(oauth::routes())
        .layer(middleware::from_fn_with_state(proxies, client_ip::resolve));
    finish(routes, app, verify::is_path)
}

/// What probes ask, and what verifiers follow.
pub fn management(app: Arc<App>) -> Router {
    finish(ops::routes().merge(feed::routes()), app, |_| false)
}

/// The same and the admin API, for whoever may open the data folder.
pub fn local(app: Arc<App>) -> Router {
    finish(ops::routes().merge(admin::routes()), app, |_| false)
}

type PathTest = fn(&str) -> bool;

/// `is_verdict` tells the paths whose every answer is a verdict.
fn finish(routes: Router<Arc<App>>, app: Arc<App>, is_verdict: PathTest) -> Router {
    routes
        .fallback(async || ApiError::new(Class::NotFound, "No such path"))
        .method_not_allowed_fallback(async || {
            ApiError::new(Class::MethodNotAllowed, "Method not allowed on this path")
        })
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state((Arc::clone(&app), is_verdict), frame))
        .with_state(app)
}

/// What every request and answer has.
async fn frame(
    State((app, is_verdict)): State<(Arc<App>, PathTest)>,
    request: Request,
    next: Next,
) -> Response {
    let sent = request.headers().get(REQUEST_ID).filter(|id| is_sane(id)).cloned();
    let id = sent.unwrap_or_else(|| new_request_id(&app.clock, &app.random));
    let span = info_span!("request", id = id.to_str().unwrap_or_default());
    traces::asked(&span, &request);
    let started = app.clock.elapsed();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());

    let mut response = async {
        let mut response = match refusal(&request) {
            None => next.run(request).await,
            Some(refusal) => refusal,
        };
        if is_verdict(&path) {
            response = only_verdicts(response);
        }
        let took = app.clock.elapsed().saturating_sub(started);
        debug!(%method, path, status = response.status().as_u16(), took_us = took.as_micros(), "answered");
        response
    }
    .instrument(span.clone())
    .await;
    traces::answered(&span, response.status());
    response.headers_mut().insert(REQUEST_ID, id);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn is_sane(id: &HeaderValue) -> bool {
    (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// What is refused wherever it is sent.
fn refusal(request: &Request) -> Option<Response> {
    if let Some(problem) = framing_problem(request) {
        let mut refused = ApiError::new(Class::BadRequest, problem).into_response();
        // In HTTP/2 another request cannot be mistaken for this one's body, nor may this be said.
        if request.version() <= Version::HTTP_11 {
            refused.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        return Some(refused);
    }
    let too_large = || ApiError::new(Class::HeadersTooLarge, HEADERS_TOO_LARGE).into_response();
    (!has_sane_headers(request)).then(too_large)
}

/// What hyper reads in one way, but another server on the way might read in another (RFC 9112 §3.2,
/// §6.1, §6.3; RFC 9113 §8.3.1).
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

/// A KSUID: they sort by time.
fn new_request_id(clock: &Clock, random: &Random) -> HeaderValue {
    let seconds = u32::try_from(clock.now().saturating_sub(KSUID_EPOCH)).unwrap_or(u32::MAX);
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&seconds.to_be_bytes());
    bytes[4..].copy_from_slice(&*random.bytes::<16>());
    let id = Ksuid::from_bytes(bytes).to_string();
    HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    error!(panic = text.unwrap_or("no text"), "a handler panicked");
    ApiError::new(Class::Internal, "Internal server error").into_response()
}
