//! The admin API: for the command line over the data folder's socket, and over the management listener for holders of a
//! management token. Both have the same operations.

mod access;
mod administrators;
mod clients;
mod creation;
mod document;
mod inside;
mod operation;
mod others;
mod problem;
mod webhooks;

use std::sync::Arc;

use axum::{Json, Router, middleware::from_fn_with_state, response::IntoResponse, routing::get};
use hyper::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use serde_json::Value;

pub use access::{Door, SUDO_USER};
pub(super) use access::{from_another_origin, suffices, suspicion};
pub(super) use inside::{Answer, Api, Beside, Inside, Known, Refused, segment};
use operation::Operation;
use problem::Problem;
use rescind_node::app::App;

const PREFIX: &str = "/admin/v1";

/// A page that shows the document, and needs nothing from elsewhere.
const PAGE: [(&str, &str, &str); 3] = [
    ("/docs", "text/html; charset=utf-8", include_str!("viewer/index.html")),
    ("/docs/viewer.js", "text/javascript; charset=utf-8", include_str!("viewer/viewer.js")),
    ("/docs/viewer.css", "text/css; charset=utf-8", include_str!("viewer/viewer.css")),
];
/// The page runs its own script, and is in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

fn operations() -> Vec<Operation> {
    [clients::operations(), others::operations(), webhooks::operations(), administrators::operations()]
        .into_iter()
        .flatten()
        .collect()
}

/// The description of the admin API, by OpenAPI 3.1.
pub fn document() -> Value {
    document::of(&operations())
}

pub(super) fn routes(app: &Arc<App>, door: Door) -> Router<Arc<App>> {
    let mut routes = operation_routes(app, door);
    routes = routes.route("/openapi.json", get(async || Json(document())));
    for (path, media_type, text) in PAGE {
        let headers = [
            (CONTENT_TYPE, media_type),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        routes = routes.route(path, get(async move || (headers, text).into_response()));
    }
    Router::new().nest(PREFIX, routes.layer(from_fn_with_state(door, access::no_page)))
}

/// The operations alone.
fn operation_routes(app: &Arc<App>, door: Door) -> Router<Arc<App>> {
    let mut routes = Router::new();
    for operation in operations() {
        let rule = access::Rule::of(&operation, app, door);
        routes =
            routes.route(operation.path, operation.route().layer(from_fn_with_state(rule, access::allowed)));
    }
    routes
        .fallback(async || Problem(super::not_found()))
        .method_not_allowed_fallback(async || Problem(super::method_not_allowed()))
}
