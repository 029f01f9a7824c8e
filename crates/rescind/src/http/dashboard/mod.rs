//! The dashboard: pages for administrators on the management listener.
//!
//! 1. It has no rules of its own. A page reads, and a form changes, by the operations of the admin API (`form.rs`), so
//!    that roles, the audit log and receipts are the same.
//! 2. Every page but the sign-in, an enrolment and a secret that is handed over needs a sign-in (`visit.rs`).
//! 3. Nothing changes by GET. A POST is answered only from a page of this origin, with the fields of a form.
//! 4. A page runs only the scripts beside it, is in no frame, and loads nothing from elsewhere. All works without scripts.

mod administrators;
mod allowlist;
mod audit;
mod chart;
mod client;
mod clients;
mod cluster;
mod credentials;
mod form;
mod handover;
mod key_lives;
mod keys;
mod management_tokens;
mod overview;
mod page;
mod refused;
mod scale;
mod settings;
mod shown_client;
mod shown_once;
mod signing_in;
mod usage;
mod visit;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use hyper::{
    Method,
    header::{
        CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use rescind_node::app::App;

use super::{
    admin::{Door, Inside, from_another_origin, suspicion},
    error::{ApiError, Class},
};

pub(super) const PREFIX: &str = "/dashboard";

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const ASSETS: [(&str, &str, &str); 4] = [
    ("/icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ("/style.css", "text/css; charset=utf-8", include_str!("assets/style.css")),
    ("/dashboard.js", "text/javascript; charset=utf-8", include_str!("assets/dashboard.js")),
    ("/htmx.min.js", "text/javascript; charset=utf-8", include_str!("assets/htmx.min.js")),
];

/// What the pages share.
struct Dashboard {
    app: Arc<App>,
    door: Door,
    inside: Arc<Inside>,
}

pub(super) fn routes(app: &Arc<App>, door: Door) -> Router<Arc<App>> {
    let inside = Arc::new(Inside::new(app, door));
    let dashboard = Arc::new(Dashboard { app: Arc::clone(app), door, inside });
    let mut pages = Router::new()
        .route("/", get(async || Redirect::to(overview::PATH)))
        .merge(signing_in::routes())
        .merge(form::routes())
        .merge(clients::routes())
        .merge(client::routes())
        .merge(allowlist::routes())
        .merge(handover::routes())
        .merge(administrators::routes())
        .merge(overview::routes())
        .merge(audit::routes())
        .merge(keys::routes())
        .merge(cluster::routes())
        .merge(management_tokens::routes())
        .merge(settings::routes())
        .merge(refused::routes());
    for (path, media_type, text) in ASSETS {
        let asset = ([(CONTENT_TYPE, media_type)], text);
        pages = pages.route(path, get(async move || asset.into_response()));
    }
    let pages = pages
        .fallback(async || page::refused(super::not_found()))
        .method_not_allowed_fallback(async || page::refused(super::method_not_allowed()))
        .layer(from_fn_with_state(Arc::clone(&dashboard), framed))
        .with_state(dashboard);
    Router::new()
        .route("/", get(async || Redirect::to(PREFIX)))
        .route("/dashboard/", get(async || Redirect::to(PREFIX)))
        .nest(PREFIX, pages)
}

/// Refuses requests that no page of the dashboard makes, and adds the headers of every answer.
async fn framed(State(dashboard): State<Arc<Dashboard>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    // A link on another page may lead here. Nothing changes by it, and the browser keeps the cookie back.
    let is_read = [Method::GET, Method::HEAD].contains(request.method());
    let elsewhere = !is_read && from_another_origin(headers) != Some(false);
    let elsewhere = elsewhere.then_some("The dashboard answers the forms of its own pages only");
    let mut response = match suspicion(dashboard.door, headers).or(elsewhere) {
        Some(problem) => page::refused(ApiError::new(Class::Forbidden, problem)),
        None => next.run(request).await,
    };
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // A link may have a secret in its path. Forms need the origin.
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
