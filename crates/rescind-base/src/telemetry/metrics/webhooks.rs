//! What webhooks have sent, for each by its name.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder},
    metrics::{MetricType, TypedMetric, counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// The metrics of the webhooks of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Webhooks {
    delivered: ByName<Counter>,
    failed: ByName<Counter>,
    dead: ByName<Counter>,
    lag: ByName<Gauge>,
}

/// A metric for each webhook, in the order of their names.
#[derive(Debug, Clone, Default)]
struct ByName<M>(Arc<Mutex<BTreeMap<String, M>>>);

impl<M: Clone + Default> ByName<M> {
    fn of(&self, webhook: &str) -> M {
        self.lock().entry(webhook.to_owned()).or_default().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, M>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: EncodeMetric + TypedMetric + Clone + Default> EncodeMetric for ByName<M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        self.lock().iter().try_for_each(|(name, metric)| {
            metric.encode(encoder.encode_family(&[("webhook", name.as_str())])?)
        })
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

impl Webhooks {
    pub(super) fn register(&self, to: &mut Registry) {
        to.register("webhook_delivered", "Events that a receiver has accepted", self.delivered.clone());
        to.register("webhook_failed", "Attempts that a receiver has not accepted", self.failed.clone());
        to.register("webhook_dead", "Events after their last attempt", self.dead.clone());
        to.register("webhook_lag_events", "Ids of the audit log that were not looked at", self.lag.clone());
    }

    /// Reports a webhook from now on.
    pub fn add(&self, webhook: &str) {
        self.lag(webhook, 0);
        for counter in [&self.delivered, &self.failed, &self.dead] {
            counter.of(webhook);
        }
    }

    /// Counts an event that was accepted.
    pub fn delivered(&self, webhook: &str) {
        self.delivered.of(webhook).inc();
    }

    /// Counts an attempt that failed.
    pub fn failed(&self, webhook: &str) {
        self.failed.of(webhook).inc();
    }

    /// Counts an event after its last attempt.
    pub fn died(&self, webhook: &str) {
        self.dead.of(webhook).inc();
    }

    /// Notes how far the webhook is behind the audit log.
    pub fn lag(&self, webhook: &str, events: u64) {
        self.lag.of(webhook).set(i64::try_from(events).unwrap_or(i64::MAX));
    }
}
