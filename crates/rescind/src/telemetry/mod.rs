//! Metrics and traces: the process's reports for monitoring.

pub mod metrics;
pub mod traces;
