//! The metrics. docs/metrics.md lists all of them for operators.
//!
//! Metrics counted as events occur are here, and each event costs one or two atomic additions. Those that every request
//! raises are counted for each core. Metrics that are read on request are in `gauges.rs` of `rescind` and, of the process, in
//! `process.rs`. All are always reported in the same order.

mod counted;
mod format;
mod histogram;
mod labels;
mod per_core;
mod process;
mod webhooks;

use std::{
    fmt::{self, Debug},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{
        EncodeMetric,
        text::{encode_eof, encode_registry},
    },
    metrics::{TypedMetric, counter::Counter, gauge::Gauge},
    registry::Registry,
};
use rescind_verifier::{Denied, UnixSeconds};

pub use counted::Counted;
pub use format::Format;
pub use histogram::{Durations, Histogram};
use labels::{Answer, Each, EachOfTwo, Label};
pub use labels::{Listener, Outcome, Route};
use per_core::HotCounter;
use process::Process;
pub use webhooks::Webhooks;

/// The counters of a process.
#[derive(Debug)]
pub struct Metrics {
    process: Process,
    registry: Registry,
    requests: Each<Route, Each<Answer, HotCounter>>,
    durations: Each<Route, Histogram>,
    denials: Each<Denied, HotCounter>,
    logins: Each<Outcome, Counter>,
    refreshes: Each<Outcome, Counter>,
    connections: Each<Listener, Occupancy>,
    requests_under_way: Each<Listener, Occupancy>,
    /// Verifications that needed the store.
    pub lookups: Counter,
    /// Verifications that followers have reported.
    pub verifications_reported: Counter,
    /// Sessions that the last sweep kept.
    pub sessions_live: Gauge,
    /// Clients flagged for not caching their tokens.
    pub tokens_not_cached: Counter,
    /// From a change's commit to the end of its propagation.
    pub settled: Histogram,
    /// How often the database lacked a change that had been answered for.
    pub histories_lost: Counter,
    commits: Histogram,
    certificate_expires: Gauge,
    backed_up: Gauge,
    pub webhooks: Webhooks,
}

/// The use of a listener's bounded number of places.
#[derive(Debug, Clone, Default)]
pub struct Occupancy {
    pub taken: Gauge,
    pub turned_away: Counter,
}

/// The cost of a store's commits.
#[derive(Debug, Clone)]
pub struct Commits {
    /// From the begin of the transaction on.
    pub took: Histogram,
    /// How many changes shared one commit.
    pub changes: Histogram,
}

impl Commits {
    /// No commits yet.
    pub fn none() -> Commits {
        Commits { took: Histogram::of_durations(), changes: Histogram::of_numbers() }
    }
}

impl Metrics {
    /// All metrics at zero, except those that the store already counts.
    pub fn new(commits: &Commits) -> Metrics {
        let mut registry = Registry::with_prefix("rescind");
        let to = &mut registry;
        let requests = Each::new(|_: Route| Each::new(|_: Answer| HotCounter::default()));
        to.register("requests", "Requests answered", EachOfTwo(requests.clone()));
        // The metrics are registered in the order of these lines, and that is their order in the text.
        let mut metrics = Metrics {
            requests,
            durations: each(
                to,
                "request_duration_seconds",
                "From a request's head to its answer's",
                Histogram::of_durations,
            ),
            denials: each(to, "denials", "Access tokens refused", HotCounter::default),
            logins: each(to, "logins", "Logins, and why there was none", Counter::default),
            refreshes: each(to, "refreshes", "Refreshes, and why there was none", Counter::default),
            connections: occupancy(
                to,
                ("connections", "Connections open"),
                ("connections_turned_away", "Connections refused, or closed to make room"),
            ),
            requests_under_way: occupancy(
                to,
                ("requests_under_way", "Requests not yet answered"),
                (
                    "requests_turned_away",
                    "Requests refused, or given up to make room, because there were too many",
                ),
            ),
            lookups: one(to, "verification_lookups", "Verifications that asked the store", Counter::default),
            verifications_reported: one(
                to,
                "verifications_reported",
                "Verifications that followers have reported",
                Counter::default,
            ),
            sessions_live: one(to, "sessions_live", "Sessions stored that are not over", Gauge::default),
            tokens_not_cached: one(
                to,
                "tokens_not_cached",
                "Times that a client was found to log in for nearly every request",
                Counter::default,
            ),
            settled: one(
                to,
                "revocation_settle_seconds",
                "From a change's commit until it is known everywhere",
                Histogram::of_durations,
            ),
            histories_lost: one(
                to,
                "histories_lost",
                "Times that the database was found not to have what had been answered for",
                Counter::default,
            ),
            certificate_expires: one(
                to,
                "certificate_expires_timestamp_seconds",
                "When the certificate in force expires; 0 without TLS",
                Gauge::default,
            ),
            backed_up: one(
                to,
                "backup_timestamp_seconds",
                "When the newest backup that is known was made; 0 if none is",
                Gauge::default,
            ),
            webhooks: Webhooks::default(),
            commits: commits.took.clone(),
            process: Process::new(),
            registry,
        };
        metrics.registry.register(
            "store_commit_duration_seconds",
            "From a transaction's begin to the end of its commit",
            metrics.commits.clone(),
        );
        metrics.registry.register(
            "store_commit_changes",
            "Changes that shared a commit",
            commits.changes.clone(),
        );
        metrics.webhooks.register(&mut metrics.registry);
        metrics
    }

    /// The present metrics, and those that `now` collects, as text for Prometheus.
    ///
    /// # Errors
    ///
    /// Fails if a metric cannot be encoded.
    pub fn text(&self, now: impl Collector, format: Format) -> Result<String, fmt::Error> {
        let mut looked_up = Registry::with_prefix("rescind");
        looked_up.register_collector(Box::new(now));
        let mut of_process = Registry::default();
        of_process.register_collector(Box::new(self.process));
        let mut text = String::new();
        for registry in [&self.registry, &looked_up, &of_process] {
            encode_registry(&mut text, registry)?;
        }
        encode_eof(&mut text)?;
        Ok(format.of(text))
    }

    /// Notes when the certificate in force expires.
    pub fn certificate_expires(&self, at: UnixSeconds) {
        self.certificate_expires.set(at.cast_signed());
    }

    /// Notes when a backup was made.
    pub fn backed_up(&self, at: UnixSeconds) {
        self.backed_up.set(at.cast_signed());
    }

    /// Counts a request that was answered.
    pub fn answered(&self, route: Route, status: u16, took: Duration) {
        self.requests[route][Answer::of(status)].inc();
        self.durations[route].took(took);
    }

    /// Counts an access token that was refused.
    pub fn denied(&self, reason: Denied) {
        self.denials[reason].inc();
    }

    /// Counts a login.
    pub fn login(&self, outcome: Outcome) {
        self.logins[outcome].inc();
    }

    /// Counts a refresh.
    pub fn refresh(&self, outcome: Outcome) {
        self.refreshes[outcome].inc();
    }

    /// The metrics of a listener's connections.
    pub fn connections(&self, listener: Listener) -> Occupancy {
        self.connections[listener].clone()
    }

    /// The metrics of a listener's requests that are not answered yet.
    pub fn requests_under_way(&self, listener: Listener) -> Occupancy {
        self.requests_under_way[listener].clone()
    }
}

/// Registers the two metrics of every listener's places, by their names and help texts.
fn occupancy(to: &mut Registry, taken: (&str, &str), turned_away: (&str, &str)) -> Each<Listener, Occupancy> {
    let taken = each(to, taken.0, taken.1, Gauge::default);
    let turned_away = each(to, turned_away.0, turned_away.1, Counter::default);
    Each::new(|listener: Listener| Occupancy {
        taken: Gauge::clone(&taken[listener]),
        turned_away: Counter::clone(&turned_away[listener]),
    })
}

/// Registers a metric without labels.
fn one<M>(registry: &mut Registry, name: &str, help: &str, make: fn() -> M) -> M
where
    M: Clone + EncodeMetric + Debug + Send + Sync + 'static,
{
    let metric = make();
    registry.register(name, help, metric.clone());
    metric
}

/// Registers a metric for each value of a label, so that every value is reported from the start.
fn each<L, M>(registry: &mut Registry, name: &str, help: &str, make: fn() -> M) -> Each<L, M>
where
    L: Label + Debug,
    M: EncodeMetric + TypedMetric + Debug + Send + Sync + 'static,
{
    let metrics = Each::new(|_: L| make());
    registry.register(name, help, metrics.clone());
    metrics
}
