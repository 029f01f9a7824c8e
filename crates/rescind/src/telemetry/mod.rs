//! Metrics, their trends, traces and the log: the process's reports for monitoring.

pub mod log_queue;
pub mod metrics;
pub mod traces;
pub mod trends;

use std::{error::Error, iter::successors};

/// Returns an error and its causes on one line.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let causes = successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
