//! The overview: how this process and its cluster do, now and of late.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use axum::{Router, routing::get};
use maud::{Markup, html};
use rescind_admin::{HoursView, IntervalView, StatusView, TrendsRange, TrendsView};

use super::{
    Dashboard,
    chart::{Chart, Form, Line, STYLES},
    scale::{Unit, seconds},
    usage,
    visit::{Answered, Visit},
};

pub(super) const PATH: &str = "/dashboard/overview";

const RANGES: [(TrendsRange, &str, &str); 3] = [
    (TrendsRange::Hour, "1h", "1 hour"),
    (TrendsRange::Day, "24h", "24 hours"),
    (TrendsRange::Week, "7d", "7 days"),
];

pub(super) fn routes() -> Router<Arc<Dashboard>> {
    Router::new().route("/overview", get(show))
}

async fn show(visit: Visit) -> Answered {
    let status: StatusView = visit.api.get("/status").await?;
    let trends: TrendsView = visit.api.get(&format!("/trends?{}", visit.query_with(&[]))).await?;
    let since = if trends.range == TrendsRange::Week { "7d" } else { "24h" };
    let hours: HoursView = visit.api.get(&format!("/usage?since={since}")).await?;
    let body = html! {
        div.title {
            h1 { "Overview" }
            nav.ranges aria-label="Time that is shown" {
                ul {
                    @for (range, name, text) in RANGES {
                        li { a href={ (PATH) "?range=" (name) } aria-current=[(range == trends.range).then_some("true")] { (text) } }
                    }
                }
            }
        }
        (state(&status))
        (tiles(&status, &trends))
        div.charts {
            @for chart in charts(&trends) { (chart.draw()) }
        }
        p.hint {
            "Times are UTC. The charts are what the process " strong { (trends.node) } " has counted since its start, which it keeps in memory"
            @if status.cluster.is_some() { "; each node has its own" }
            ". Verifiers in other processes decide by themselves, and are not counted here."
        }
        (usage::section(if since == "7d" { "All nodes, 7 days" } else { "All nodes, 24 hours" }, &hours))
    };
    Ok(visit.view("Overview", body))
}

/// What is wrong, if anything is.
fn state(status: &StatusView) -> Markup {
    let clock = status
        .clock
        .in_doubt
        .then(|| "The machine's clock is not believed: nothing is deleted by it.".to_owned());
    let problems = [
        (!status.ready).then(|| "This process wants no new work now, or cannot do it safely.".to_owned()),
        status.lease_not_renewed.as_ref().map(|why| format!("This node could not renew its lease: {why}.")),
        status.unwritable.as_ref().map(|why| format!("The last change could not be written: {why}.")),
        clock,
    ];
    html! {
        @for problem in problems.into_iter().flatten() {
            p.warning role="status" { (problem) }
        }
    }
}

fn tiles(status: &StatusView, trends: &TrendsView) -> Markup {
    let last = trends.intervals.last();
    let total = |of: fn(&IntervalView) -> u64| trends.intervals.iter().map(of).sum::<u64>();
    let text = RANGES.iter().find(|(range, ..)| *range == trends.range).map_or("", |(.., text)| *text);
    let number = |value: u64| Unit::Number.show(value as f64);
    let commit =
        last.and_then(|last| last.commit_p99_ms).map_or("–".to_owned(), |ms| Unit::Milliseconds.show(ms));
    let (nodes, node_lag) = match &status.cluster {
        Some(cluster) => {
            (cluster.nodes.len() as u64, cluster.nodes.iter().map(|node| node.lag).max().unwrap_or_default())
        }
        None => (1, 0),
    };
    let follower_lag = status.followers.iter().map(|follower| follower.lag).max().unwrap_or_default();
    let tiles = [
        ("Live sessions", number(last.map_or(0, |last| last.sessions)), "at the last sweep".to_owned()),
        ("Clients", number(status.clients as u64), String::new()),
        ("Logins", number(total(|interval| interval.logins)), format!("in {text}")),
        ("Denials", number(total(|interval| interval.denials.values().sum())), format!("in {text}")),
        ("Commits", commit, "99 of 100 are as fast".to_owned()),
        ("Nodes", number(nodes), lag(node_lag)),
        ("Verifiers attached", number(status.followers.len() as u64), lag(follower_lag)),
    ];
    html! {
        dl.tiles {
            @for (name, value, about) in tiles {
                div { dt { (name) } dd { strong { (value) } @if !about.is_empty() { " " small { (about) } } } }
            }
        }
    }
}

fn lag(changes: u64) -> String {
    match changes {
        0 => "all up to date".to_owned(),
        1 => "1 change behind".to_owned(),
        many => format!("{many} changes behind"),
    }
}

fn charts(trends: &TrendsView) -> [Chart<'static>; 6] {
    // What this process has of the range, so that a start of a minute ago is no dot at the edge of a week.
    let begun = trends
        .intervals
        .first()
        .map(|first| seconds(&first.until).saturating_sub(first.lasts_seconds as u64));
    let since = begun.unwrap_or_default().max(seconds(&trends.since));
    let chart = |id, title, unit, form, lines: Vec<Line>| Chart {
        id,
        title,
        unit,
        form,
        since,
        until: seconds(&trends.until),
        times: trends.intervals.iter().map(|interval| seconds(&interval.until)).collect(),
        lines,
    };
    let line = |name: &str, of: fn(&IntervalView) -> Option<f64>| Line {
        name: name.to_owned(),
        values: trends.intervals.iter().map(of).collect(),
    };
    [
        chart(
            "sessions",
            "Live sessions",
            Unit::Number,
            Form::Stack,
            vec![line("sessions", |i| Some(i.sessions as f64))],
        ),
        chart(
            "logins",
            "Logins",
            Unit::PerSecond,
            Form::Lines,
            vec![
                line("granted", |i| Some(per_second(i, i.logins))),
                line("refused", |i| Some(per_second(i, i.logins_refused))),
            ],
        ),
        chart("denials", "Denials by reason", Unit::PerSecond, Form::Stack, denials(trends)),
        chart(
            "verifications",
            "Verifications",
            Unit::PerSecond,
            Form::Stack,
            vec![line("verifications", |i| Some(per_second(i, i.verifications)))],
        ),
        chart(
            "store",
            "Commits of the store",
            Unit::Milliseconds,
            Form::Lines,
            vec![line("half of them", |i| i.commit_p50_ms), line("99 of 100", |i| i.commit_p99_ms)],
        ),
        chart(
            "lag",
            "Changes not yet acknowledged",
            Unit::Number,
            Form::Lines,
            vec![
                line("nodes", |i| Some(i.node_lag as f64)),
                line("verifiers", |i| Some(i.follower_lag as f64)),
            ],
        ),
    ]
}

fn per_second(interval: &IntervalView, count: u64) -> f64 {
    count as f64 / interval.lasts_seconds.max(1.0)
}

/// The most frequent reasons, and the others together.
fn denials(trends: &TrendsView) -> Vec<Line> {
    let mut totals = BTreeMap::<&str, u64>::new();
    for (reason, count) in trends.intervals.iter().flat_map(|interval| &interval.denials) {
        *totals.entry(reason).or_default() += count;
    }
    let mut reasons: Vec<_> = totals.into_iter().collect();
    reasons.sort_by_key(|&(_, count)| Reverse(count));
    let shown = if reasons.len() > STYLES { STYLES - 1 } else { reasons.len() };
    let (shown, others) = reasons.split_at(shown);
    let line = |name: String, reasons: Vec<&str>| {
        let rate = |interval: &IntervalView| {
            let count = reasons.iter().filter_map(|reason| interval.denials.get(*reason)).sum();
            Some(per_second(interval, count))
        };
        Line { name, values: trends.intervals.iter().map(rate).collect() }
    };
    let mut lines: Vec<_> =
        shown.iter().map(|&(reason, _)| line(reason.replace('_', " "), vec![reason])).collect();
    if !others.is_empty() {
        lines.push(line("others".into(), others.iter().map(|&(reason, _)| reason).collect()));
    }
    if lines.is_empty() {
        lines.push(line("none".into(), vec![]));
    }
    lines
}
