//! A handler that panics is answered with a fault, and ends nothing else.

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe},
};

use axum::response::Response;
use rescind_base::{secret, telemetry::metrics::Route};
use thiserror::Error;

use super::error::ApiError;

/// Answers with what `decide` returns, or if it panics with a fault.
pub(super) fn caught(decide: impl FnOnce() -> Option<Response>, route: Route) -> Option<Response> {
    panic::catch_unwind(AssertUnwindSafe(decide)).unwrap_or_else(|panic| Some(panicked(panic, route)))
}

/// The answer of a handler that panicked.
pub(super) fn panicked(panic: Box<dyn Any + Send>, route: Route) -> Response {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    ApiError::internal(Panicked(secret::shown(text.unwrap_or("no text")))).at(route)
}

#[derive(Debug, Error)]
#[error("a handler panicked: {0}")]
struct Panicked(String);
