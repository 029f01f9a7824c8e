//! The metrics that are read when Prometheus requests them.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use rescind_admin as admin;
use rescind_base::telemetry::log_queue;
use rescind_node::app::{App, ClockView};

/// Reads the present values from `App`.
pub(super) struct Gauges(pub(super) Arc<App>);

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = admin::status(&self.0);
        let build = [("version", status.version.as_str()), ("store", status.store.as_str())];
        let about = "What is running";
        encoder.encode_descriptor("build", about, None, MetricType::Info)?.encode_info(&build)?;
        let about = "Lines of the log that were dropped";
        let metric = encoder.encode_descriptor("log_lines_dropped", about, None, MetricType::Counter)?;
        ConstCounter::new(log_queue::dropped()).encode(metric)?;
        let counts = &self.0.audit.denial_counts;
        for (name, about, count) in [
            ("denials_kept", "Denials kept, so that they can be explained", counts.kept()),
            (
                "denials_left_out",
                "Denials not kept, because their client or network had too many",
                counts.left_out(),
            ),
        ] {
            let metric = encoder.encode_descriptor(name, about, None, MetricType::Counter)?;
            ConstCounter::new(count).encode(metric)?;
        }
        let mut gauge = |name, help, value: f64| {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)
        };
        gauge("ready", "Whether new work is welcome, and can be done", f64::from(u8::from(status.ready)))?;
        gauge("clients", "Clients known", status.clients as f64)?;
        gauge(
            "credentials",
            "Credentials that were not revoked",
            self.0.memory.registry.credentials() as f64,
        )?;
        let credentials = self.0.memory.registry.credential_times(self.0.clock.now());
        gauge(
            "credential_oldest_timestamp_seconds",
            "When the oldest of them was created; 0 if there is none",
            credentials.oldest.unwrap_or_default() as f64,
        )?;
        gauge(
            "credential_next_expiry_timestamp_seconds",
            "When the next of them expires; 0 if none will",
            credentials.next_expiry.unwrap_or_default() as f64,
        )?;
        gauge("sessions_in_memory", "Sessions remembered", status.sessions_in_memory as f64)?;
        gauge("attached_verifiers", "Exact verifiers that follow", status.attached_verifiers as f64)?;
        let ClockView { in_doubt, ahead_seconds, ahead_of_database_seconds } = status.clock;
        gauge("clock_in_doubt", "The wall clock is not believed", f64::from(u8::from(in_doubt)))?;
        gauge("clock_ahead_seconds", "Of what the store and the boot clock tell", ahead_seconds as f64)?;
        let Some(cluster) = status.cluster else { return Ok(()) };
        let seconds = |ms: u64| ms as f64 / 1000.0;
        gauge("lease_seconds", "For how long memory may still answer", seconds(cluster.lease_ms))?;
        gauge("change_head", "The last change there was", cluster.head as f64)?;
        gauge("change_applied", "The last change in memory", cluster.applied as f64)?;
        let synchronous = !cluster.synchronous_standby_names.is_empty();
        gauge(
            "database_synchronous",
            "Whether commits wait for a stand-by",
            f64::from(u8::from(synchronous)),
        )?;
        let ahead = ahead_of_database_seconds.unwrap_or_default();
        gauge("clock_ahead_of_database_seconds", "Of the database's clock", ahead as f64)?;
        let mut by_node = |name, help, value: fn(&admin::NodeView) -> f64| {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            cluster.nodes.iter().try_for_each(|node| {
                let labels = [("node", node.node.to_string()), ("name", node.name.clone())];
                ConstGauge::new(value(node)).encode(metric.encode_family(&labels)?)
            })
        };
        by_node("node_acknowledged", "The last change acknowledged", |node| node.acknowledged as f64)?;
        by_node("node_lag", "Changes not acknowledged", |node| node.lag as f64)?;
        by_node("node_heard_seconds", "Since it was heard of", |node| node.heard_ms_ago as f64 / 1000.0)
    }
}
