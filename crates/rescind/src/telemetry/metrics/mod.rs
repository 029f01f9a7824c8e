//! The metrics. docs/metrics.md lists all of them for operators.
//!
//! Metrics counted as events occur are here, and each event costs one or two atomic additions. The families'
//! maps are behind a lock, so all look-ups in them are done at the start. Metrics that are read on request
//! are in `http/gauges.rs`.

mod histogram;
mod labels;
mod text;

use std::{fmt::Debug, time::Duration};

use prometheus_client::{
    encoding::EncodeMetric,
    metrics::{TypedMetric, counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use rescind_verifier::Denied;

pub use histogram::Histogram;
use labels::{Answer, Each, Label};
pub use labels::{Listener, Outcome, Route};
pub use text::CONTENT_TYPE;

/// The counters of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Each<Route, Each<Answer, Counter>>,
    durations: Each<Route, Histogram>,
    denials: Each<Denied, Counter>,
    logins: Each<Outcome, Counter>,
    refreshes: Each<Outcome, Counter>,
    connections: Each<Listener, Places>,
    requests_under_way: Each<Listener, Places>,
    /// Verifications that needed the store.
    pub lookups: Counter,
    /// Sessions that the last sweep kept.
    pub sessions_live: Gauge,
    /// Clients flagged for not caching their tokens.
    pub tokens_not_cached: Counter,
    /// From a change's commit to the end of its propagation.
    pub settled: Histogram,
    /// How often the database lacked a change that had been answered for.
    pub histories_lost: Counter,
}

/// The use of a listener's bounded number of places.
#[derive(Debug, Clone, Default)]
pub struct Places {
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
        let requests = Family::<[(&str, &str); 2], Counter>::default();
        to.register("requests", "Requests answered", requests.clone());
        let requests = Each::new(|route: Route| {
            Each::new(|answer: Answer| {
                requests.get_or_create_owned(&[("route", route.text()), ("status", answer.text())])
            })
        });
        let durations = each(
            to,
            "request_duration_seconds",
            "From a request's head to its answer's",
            "route",
            Histogram::of_durations,
        );
        let denials = each(to, "denials", "Access tokens refused", "reason", Counter::default);
        let logins = each(to, "logins", "Logins, and why there was none", "outcome", Counter::default);
        let refreshes =
            each(to, "refreshes", "Refreshes, and why there was none", "outcome", Counter::default);
        let taken = each(to, "connections", "Connections open", "listener", Gauge::default);
        let turned_away = each(
            to,
            "connections_turned_away",
            "Connections refused, or closed to make room",
            "listener",
            Counter::default,
        );
        let connections = places(&taken, &turned_away);
        let taken = each(to, "requests_under_way", "Requests not yet answered", "listener", Gauge::default);
        let turned_away = each(
            to,
            "requests_turned_away",
            "Requests refused, or given up to make room, because there were too many",
            "listener",
            Counter::default,
        );
        let requests_under_way = places(&taken, &turned_away);
        let lookups =
            one(to, "verification_lookups", "Verifications that asked the store", Counter::default());
        let sessions_live = one(to, "sessions_live", "Sessions stored that are not over", Gauge::default());
        let tokens_not_cached = one(
            to,
            "tokens_not_cached",
            "Times that a client was found to log in for nearly every request",
            Counter::default(),
        );
        let settled = one(
            to,
            "revocation_settle_seconds",
            "From a change's commit until it is known everywhere",
            Histogram::of_durations(),
        );
        let histories_lost = one(
            to,
            "histories_lost",
            "Times that the database was found not to have what had been answered for",
            Counter::default(),
        );
        to.register(
            "store_commit_duration_seconds",
            "From a transaction's begin to the end of its commit",
            commits.took.clone(),
        );
        to.register("store_commit_changes", "Changes that shared a commit", commits.changes.clone());
        Metrics {
            registry,
            requests,
            durations,
            denials,
            logins,
            refreshes,
            connections,
            requests_under_way,
            lookups,
            sessions_live,
            tokens_not_cached,
            settled,
            histories_lost,
        }
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
    pub fn connections(&self, listener: Listener) -> Places {
        self.connections[listener].clone()
    }

    /// The metrics of a listener's requests that are not answered yet.
    pub fn requests_under_way(&self, listener: Listener) -> Places {
        self.requests_under_way[listener].clone()
    }
}

fn places(taken: &Each<Listener, Gauge>, turned_away: &Each<Listener, Counter>) -> Each<Listener, Places> {
    Each::new(|listener: Listener| Places {
        taken: taken[listener].clone(),
        turned_away: turned_away[listener].clone(),
    })
}

/// Registers a metric without labels.
fn one<M>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M
where
    M: Clone + EncodeMetric + Debug + Send + Sync + 'static,
{
    registry.register(name, help, metric.clone());
    metric
}

/// Registers a metric for each value of a label, so that every value is reported from the start.
fn each<L, M>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    make: fn() -> M,
) -> Each<L, M>
where
    L: Label,
    M: Clone + EncodeMetric + TypedMetric + Debug + Send + Sync + 'static,
{
    let family = Family::<[(&str, &str); 1], M>::new_with_constructor(make);
    registry.register(name, help, family.clone());
    Each::new(|value: L| family.get_or_create_owned(&[(label, value.text())]))
}
