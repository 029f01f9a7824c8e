//! What is told of the process to those who watch it: metrics and traces.

pub mod metrics;
pub mod traces;
