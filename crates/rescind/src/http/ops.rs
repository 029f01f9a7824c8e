//! Probes and metrics.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::{
    HeaderMap,
    header::{ACCEPT, CONTENT_TYPE, VARY},
};
use rescind_admin as admin;
use rescind_base::telemetry::metrics::Format;
use rescind_node::app::App;
use rescind_store::Postgres;
use serde_json::json;

use super::{
    error::{ApiError, Class},
    gauges::Gauges,
};

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        // Answers as long as the process runs.
        .route("/livez", get(async || Json(json!({ "status": "live" }))))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .route("/metrics", get(metrics))
}

/// Answers 200 if the process accepts new work and can do it. `?verbose` adds the details.
async fn ready(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let verbose =
        form_urlencoded::parse(query.unwrap_or_default().as_bytes()).any(|(name, _)| name == "verbose");
    let unavailable = |message: String| Err(ApiError::new(Class::Unavailable, message));
    if app.cluster.lease.check().is_err() {
        let lack = match app.store.postgres().is_some_and(Postgres::lacks_a_stand_by) {
            true => "the database's commits wait for no stand-by",
            false => "this node has no lease",
        };
        let why = app.cluster.not_renewed().filter(|_| verbose).map(|why| format!(": {why}"));
        return unavailable(format!("Not able to answer safely now: {lack}{}", why.unwrap_or_default()));
    }
    if let Err(apart) = app.cluster.node_clock.check() {
        return unavailable(format!("Not able to issue tokens safely now: {apart}"));
    }
    if !app.is_ready() {
        return unavailable("Draining: send new work elsewhere".into());
    }
    Ok(match verbose {
        true => Json(admin::status(&app)).into_response(),
        false => Json(json!({ "status": "ready" })).into_response(),
    })
}

async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, ApiError> {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>();
    let format = Format::accepted(&accept.join(","));
    let text = app.metrics.text(Gauges(Arc::clone(&app)), format).map_err(ApiError::internal)?;
    Ok(([(CONTENT_TYPE, format.media_type()), (VARY, "Accept")], text).into_response())
}
