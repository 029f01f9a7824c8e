//! What the metrics of this process were, for charts.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use rescind_base::telemetry::trends::TrendsRange;
use rescind_base::{clock::rfc3339, telemetry::trends::Interval};
use rescind_node::app::App;

/// A query of the trends.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TrendsQuery {
    #[serde(default)]
    pub range: TrendsRange,
}

/// What this process did since its start, or in the range. The other nodes of a cluster have their own.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TrendsView {
    pub range: TrendsRange,
    pub node: String,
    /// The beginning and the end of the range, which may have begun before this process.
    pub since: String,
    pub until: String,
    /// How long each interval is, but the last.
    pub step_seconds: u64,
    /// The newest last.
    pub intervals: Vec<IntervalView>,
}

/// What this process did in an interval.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct IntervalView {
    /// Its end.
    pub until: String,
    pub lasts_seconds: f64,
    /// Sessions in the store that were not over, at the last sweep.
    pub sessions: u64,
    pub logins: u64,
    pub logins_refused: u64,
    /// Requests to `/verify`. Verifiers decide in their own processes.
    pub verifications: u64,
    /// Access tokens refused, by the reason.
    pub denials: BTreeMap<String, u64>,
    /// How long half of the store's commits took at most, and how long 99 of 100. Absent: there was none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub commit_p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub commit_p99_ms: Option<f64>,
    /// How many nodes and followers there were, and how many changes the last of them had not acknowledged, at most.
    pub nodes: u64,
    pub node_lag: u64,
    pub followers: u64,
    pub follower_lag: u64,
}

/// Returns what this process did in a range.
pub fn trends(app: &App, TrendsQuery { range }: TrendsQuery) -> TrendsView {
    let (now, elapsed) = (app.clock.now(), app.clock.elapsed());
    // By the wall clock as it is now, however it was set meanwhile.
    let at = |boot: Duration| rfc3339(now.saturating_sub(elapsed.saturating_sub(boot).as_secs()));
    let view = |interval: Interval| {
        let Interval { ends, lasts, counted, levels, sessions } = interval;
        let commits = |part| counted.commits.quantile(part).map(|took| 1000.0 * took.as_secs_f64());
        IntervalView {
            until: at(ends),
            lasts_seconds: lasts.as_secs_f64(),
            sessions,
            logins: counted.logins,
            logins_refused: counted.logins_refused,
            verifications: counted.verifications,
            denials: counted.by_reason().map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
            commit_p50_ms: commits(0.5),
            commit_p99_ms: commits(0.99),
            nodes: levels.nodes,
            node_lag: levels.node_lag,
            followers: levels.followers,
            follower_lag: levels.follower_lag,
        }
    };
    TrendsView {
        range,
        node: app.cluster.node_name.clone(),
        since: rfc3339(now.saturating_sub(range.span().as_secs())),
        until: rfc3339(now),
        step_seconds: range.step().as_secs(),
        intervals: app.trends.intervals(range).into_iter().map(view).collect(),
    }
}
