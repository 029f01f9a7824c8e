//! Metrics, their trends, the spans of traces, and the log: the process's reports for monitoring.

pub mod log_queue;
pub mod metrics;
pub mod trends;

use std::{error::Error, iter::successors};

/// Returns an error and its causes on one line.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let causes = successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The target of spans for traces only. Log lines have the span of their request.
pub const STEP: &str = "rescind::step";

/// A span for a part of a request.
#[macro_export]
macro_rules! step {
    ($name:literal $(, $field:ident = $value:expr)*) => {
        tracing::info_span!(target: $crate::telemetry::STEP, $name $(, $field = $value)*)
    };
}
pub use step;
