//! The metrics as text for Prometheus (OpenMetrics 1.0).

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::text::{encode_eof, encode_registry},
    registry::Registry,
};

use super::Metrics;

/// The media type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Metrics {
    /// The present metrics, and those that `now` collects.
    ///
    /// # Errors
    ///
    /// Fails if a metric cannot be encoded.
    pub fn text(&self, now: impl Collector) -> Result<String, fmt::Error> {
        let mut looked_up = Registry::with_prefix("rescind");
        looked_up.register_collector(Box::new(now));
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        encode_registry(&mut text, &looked_up)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}
