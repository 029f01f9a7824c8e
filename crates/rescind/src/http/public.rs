//! The routes for clients, proxies and APIs. They are few and asked often, so they are matched without a router.

use std::sync::Arc;

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use hyper::{
    Method,
    header::{ALLOW, HeaderValue},
};
use rescind_base::telemetry::metrics::Route;
use rescind_node::app::App;

use super::{auth, method_not_allowed, not_found, oauth, verify, well_known::Document};
use crate::auth::Caller;

pub(super) fn route(path: &str) -> Route {
    match path {
        path if verify::is_path(path) => Route::Verify,
        "/auth/login" => Route::Login,
        "/auth/refresh" => Route::Refresh,
        "/auth/logout" => Route::Logout,
        "/auth/leaked" => Route::Leaked,
        "/oauth2/token" => Route::Token,
        "/oauth2/introspect" => Route::Introspect,
        "/oauth2/revoke" => Route::Revoke,
        "/oauth2/authorize" => Route::Authorize,
        path if Document::is_path(path) => Route::Metadata,
        _ => Route::Other,
    }
}

/// Answers a request on the route of its path.
pub(super) async fn answer(app: Arc<App>, caller: Caller, route: Route, request: Request) -> Response {
    let (is_post, is_get) = match *request.method() {
        Method::POST => (true, false),
        Method::GET | Method::HEAD => (false, true),
        _ => (false, false),
    };
    let (app, caller) = (&app, &caller);
    match route {
        Route::Verify => verify::answer(app, caller, request).await,
        Route::Login if is_post => auth::login(app, caller, request).await.into_response(),
        Route::Refresh if is_post => auth::refresh(app, caller, request).await.into_response(),
        Route::Logout if is_post => auth::logout(app, caller, request).await.into_response(),
        Route::Leaked if is_post => auth::leaked(app, caller, request).await.into_response(),
        Route::Token if is_post => oauth::token(app, caller, request).await.into_response(),
        Route::Introspect if is_post => oauth::introspect(app, caller, request).await.into_response(),
        Route::Revoke if is_post => oauth::revoke(app, caller, request).await.into_response(),
        Route::Authorize if is_get || is_post => oauth::authorize().into_response(),
        Route::Authorize => only("GET,HEAD,POST"),
        Route::Metadata => match Document::at(request.uri().path(), app) {
            Some(document) if is_get => document.read(&request, app).ok_or_else(not_found).into_response(),
            Some(_) => only("GET,HEAD"),
            None => not_found().into_response(),
        },
        Route::Login
        | Route::Refresh
        | Route::Logout
        | Route::Leaked
        | Route::Token
        | Route::Introspect
        | Route::Revoke => only("POST"),
        Route::Feed | Route::Admin | Route::Dashboard | Route::Probe | Route::Other => {
            not_found().into_response()
        }
    }
}

/// The answer to a request of another method than these (RFC 9110 §15.5.6).
fn only(methods: &'static str) -> Response {
    let mut refused = method_not_allowed().into_response();
    refused.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    refused
}
