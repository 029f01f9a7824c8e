//! How clients were used, by the hour: what all nodes have counted, and verifiers in other processes.

use std::collections::HashMap;

use maud::{Markup, html};
use rescind_admin::{CountsView, HoursView};
use rescind_base::model::HOUR;

use super::{
    chart::{Chart, Form, Line},
    scale::{Unit, seconds},
};

/// The hours as a section of a page.
pub(super) fn section(title: &str, hours: &HoursView) -> Markup {
    html! {
        section aria-labelledby="usage" {
            h2 #usage { (title) }
            div.charts { @for chart in charts(hours) { (chart.draw()) } }
            p.hint {
                "Each value is of an hour, and the last hour is not over. All nodes are counted, and verifiers in other processes; what they "
                "have counted may be missing for " (hours.lag_seconds) " seconds."
            }
        }
    }
}

fn charts(hours: &HoursView) -> [Chart<'static>; 2] {
    let (since, until) = (seconds(&hours.since), seconds(&hours.until));
    let counted: HashMap<_, _> =
        hours.hours.iter().map(|hour| (seconds(&hour.hour) + HOUR, hour.counts)).collect();
    let ends: Vec<_> = (since + HOUR..=until).step_by(HOUR as usize).collect();
    let counts: Vec<_> = ends.iter().map(|end| counted.get(end).copied().unwrap_or_default()).collect();
    let line = |name: &str, of: fn(&CountsView) -> u64| Line {
        name: name.to_owned(),
        values: counts.iter().map(|counts| Some(of(counts) as f64)).collect(),
    };
    let chart = |id, title, lines| Chart {
        id,
        title,
        unit: Unit::Number,
        form: Form::Lines,
        since,
        until,
        times: ends.clone(),
        lines,
    };
    [
        chart("used", "Verifications an hour", vec![line("verifications", |counts| counts.verifications)]),
        chart(
            "logins-hourly",
            "Logins, refreshes and denials an hour",
            vec![
                line("logins", |counts| counts.logins),
                line("refreshes", |counts| counts.refreshes),
                line("denials", |counts| counts.denials),
            ],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use rescind_admin::HourView;

    use super::*;

    #[test]
    fn an_hour_without_any_use_is_drawn_as_zero() {
        let hour = |hour: &str, verifications| HourView {
            hour: hour.into(),
            counts: CountsView { verifications, ..CountsView::default() },
        };
        let hours = HoursView {
            since: "2025-01-15T12:00:00Z".into(),
            until: "2025-01-15T16:00:00Z".into(),
            lag_seconds: 15,
            total: CountsView::default(),
            hours: vec![hour("2025-01-15T12:00:00Z", 7), hour("2025-01-15T14:00:00Z", 3)],
        };
        let [verified, others] = charts(&hours);
        assert_eq!(verified.lines[0].values, [Some(7.0), Some(0.0), Some(3.0), Some(0.0)]);
        assert_eq!(verified.times, [1, 2, 3, 4].map(|n| seconds(&hours.since) + n * HOUR));
        assert!(others.lines.iter().all(|line| line.values == [Some(0.0); 4]));
    }
}
