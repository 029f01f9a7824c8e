//! What is measured. docs/metrics.md has every metric, for operators.
//!
//! What is counted where it happens stands here, and costs an atomic add or two: the families' maps are
//! behind a lock, so nothing is looked up in them after the start. What can be looked up when it is
//! asked for is in `http/gauges.rs`.

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

/// What a process counts.
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
    /// Verifications for which memory was not enough.
    pub lookups: Counter,
    /// Sessions that the last sweep left.
    pub sessions_live: Gauge,
    /// Clients flagged for not caching their tokens.
    pub tokens_not_cached: Counter,
    /// From a change's commit until it is known everywhere.
    pub settled: Histogram,
    /// Times that the database did not have what was answered for.
    pub histories_lost: Counter,
}

/// What a listener has a bounded number of places for.
#[derive(Debug, Clone, Default)]
pub struct Places {
    pub taken: Gauge,
    pub turned_away: Counter,
}

/// What a store's commits cost.
#[derive(Debug, Clone)]
pub struct Commits {
    /// From the transaction's begin on.
    pub took: Histogram,
    /// How many changes shared one.
    pub changes: Histogram,
}

impl Commits {
    /// None so far.
    pub fn none() -> Commits {
        Commits { took: Histogram::of_durations(), changes: Histogram::of_numbers() }
    }
}

impl Metrics {
    /// Nothing so far, but what the store has counted.
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

    /// Where a listener counts its connections.
    pub fn connections(&self, listener: Listener) -> Places {
        self.connections[listener].clone()
    }

    /// Where a listener counts its requests under way.
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

/// Registers a metric for each value of a label, so that every one is told from the start.
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
