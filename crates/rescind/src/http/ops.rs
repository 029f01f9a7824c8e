//! Probes.

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::get};
use serde::Serialize;

use super::error::{ApiError, Class};
use crate::app::App;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/livez", get(live)).route("/readyz", get(ready)).route("/healthz", get(ready))
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

/// The process runs and answers.
async fn live() -> Json<Health> {
    Json(Health { status: "live" })
}

/// New work is welcome.
async fn ready(State(app): State<Arc<App>>) -> Result<Json<Health>, ApiError> {
    if app.is_ready() {
        Ok(Json(Health { status: "ready" }))
    } else {
        Err(ApiError::new(Class::Unavailable, "Draining: send new work elsewhere"))
    }
}
