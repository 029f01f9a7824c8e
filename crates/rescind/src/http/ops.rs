//! Probes and metrics.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::header::CONTENT_TYPE;
use serde::Serialize;

use super::{
    error::{ApiError, Class},
    gauges::Gauges,
};
use crate::{admin, app::App, store::Postgres, telemetry::metrics};

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .route("/metrics", get(metrics))
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

/// Answers as long as the process runs.
async fn live() -> Json<Health> {
    Json(Health { status: "live" })
}

/// Answers 200 if the process accepts new work and can do it. `?verbose` adds the details.
async fn ready(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let verbose =
        form_urlencoded::parse(query.unwrap_or_default().as_bytes()).any(|(name, _)| name == "verbose");
    if app.cluster.lease.check().is_err() {
        let lacks_a_stand_by = app.store.postgres().is_some_and(Postgres::lacks_a_stand_by);
        let mut message = match lacks_a_stand_by {
            true => "Not able to answer safely now: the database's commits wait for no stand-by",
            false => "Not able to answer safely now: this node has no lease",
        }
        .to_owned();
        if let Some(why) = app.cluster.refusal().filter(|_| verbose) {
            message = format!("{message}: {why}");
        }
        return Err(ApiError::new(Class::Unavailable, message));
    }
    if let Err(apart) = app.cluster.node_clock.check() {
        return Err(ApiError::new(
            Class::Unavailable,
            format!("Not able to issue tokens safely now: {apart}"),
        ));
    }
    if !app.is_ready() {
        return Err(ApiError::new(Class::Unavailable, "Draining: send new work elsewhere"));
    }
    let brief = || Json(Health { status: "ready" }).into_response();
    Ok(if verbose { Json(admin::status(&app)).into_response() } else { brief() })
}

async fn metrics(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let text = app.metrics.text(Gauges(Arc::clone(&app))).map_err(ApiError::internal)?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}
