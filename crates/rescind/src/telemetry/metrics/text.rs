//! The metrics as text that Prometheus reads (OpenMetrics 1.0).

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
    /// The metrics as they are now, and those that `now` looks up.
    ///
    /// # Errors
    ///
    /// If one of them cannot be written.
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
