//! `rescind client usage`

use clap::Args;
use rescind_admin::{CountsView, HourView, LastView, UsageView};
use rescind_base::model::HOUR;
use rescind_node::config::Time;

use super::{Backend, Failure, Output};
use crate::cli::{
    backend::percent_encoded,
    credential::api_key,
    lookup::{ClientRef, called},
    output::{facts, table},
};

/// The hours in the row of bars, which fits 80 columns.
const BARS: u64 = 72;
/// From the fewest to the most.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const NONE: char = '·';

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rescind client usage billing
  rescind client usage billing --credential rk_…")]
pub(in crate::cli) struct Usage {
    /// Id or name
    client: ClientRef,
    /// Only what this credential was used for
    #[arg(long, value_parser = api_key, value_name = "KEY")]
    credential: Option<String>,
}

pub(super) async fn run(wanted: Usage, backend: &mut Backend, output: &Output) -> Result<(), Failure> {
    let client = wanted.client.find(backend).await?;
    let query =
        wanted.credential.map(|key| format!("?api_key={}", percent_encoded(&key))).unwrap_or_default();
    let path = format!("/clients/{}/usage{query}", client.client_id);
    let usage: UsageView = backend.get(&path).await?;
    let name = called(&client);
    output.data(&usage, |usage| shown(&name, usage))
}

fn shown(client: &str, usage: &UsageView) -> String {
    let last = |last: &Option<LastView>| match last {
        None => "none is known".to_owned(),
        Some(LastView { api_key, at, address }) => {
            let from = address.map(|address| format!(" from {address}")).unwrap_or_default();
            format!("{at}{from}\n{:12}{api_key}", "")
        }
    };
    let about = facts(
        12,
        [
            ("client", client.to_owned()),
            ("last login", last(&usage.last_login)),
            ("verified", last(&usage.last_verification)),
        ],
    );
    let hours = by_age(usage);
    let spans = [("1 hour", 1), ("24 hours", 24), ("7 days", 7 * 24), ("30 days", u64::MAX)];
    let rows = spans.map(|(name, span)| {
        let mut sum = CountsView::default();
        for (_, counts) in hours.iter().filter(|(age, _)| *age < span) {
            sum.logins += counts.logins;
            sum.refreshes += counts.refreshes;
            sum.verifications += counts.verifications;
            sum.denials += counts.denials;
        }
        let numbers = [sum.logins, sum.refreshes, sum.verifications, sum.denials].map(|n| n.to_string());
        let [logins, refreshes, verifications, denials] = numbers;
        [name.to_owned(), logins, refreshes, verifications, denials]
    });
    let table = table(["WITHIN", "LOGINS", "REFRESHES", "VERIFICATIONS", "DENIALS"], rows);
    let verified: Vec<_> = (0..BARS)
        .rev()
        .map(|wanted| {
            hours.iter().find(|(age, _)| *age == wanted).map_or(0, |(_, counts)| counts.verifications)
        })
        .collect();
    let most = verified.iter().copied().max().unwrap_or(0);
    format!(
        "{about}\n{table}\nVerifications by hours until {}, at most {most}:\n{}",
        usage.hours.until,
        bars(&verified, most)
    )
}

/// The counts, each with how many hours it is before the last one.
fn by_age(usage: &UsageView) -> Vec<(u64, CountsView)> {
    let seconds = |text: &str| text.parse().map(Time::seconds).unwrap_or_default();
    let until = seconds(&usage.hours.until);
    let age = |HourView { hour, counts }: &HourView| {
        (until.saturating_sub(seconds(hour)).saturating_sub(HOUR) / HOUR, *counts)
    };
    usage.hours.hours.iter().map(age).collect()
}

fn bars(numbers: &[u64], most: u64) -> String {
    let last = HEIGHTS.len() - 1;
    let bar = |&number: &u64| match number {
        0 => NONE,
        // At most `last`, because no number is more than `most`.
        _ => HEIGHTS[(u128::from(number) * last as u128 / u128::from(most.max(1))) as usize],
    };
    numbers.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use rescind_admin::HoursView;
    use rescind_base::clock::rfc3339;

    use super::*;

    #[test]
    fn the_usage_of_a_client_fits_80_columns() {
        let until = 500_000 * HOUR;
        let hour = |age: u64, verifications| HourView {
            hour: rfc3339(until - (age + 1) * HOUR),
            counts: CountsView { logins: 1, refreshes: 2, verifications, denials: 0 },
        };
        let last = LastView {
            api_key: "rk_".to_owned() + &"x".repeat(33),
            at: rfc3339(until - 5),
            address: Some("2001:db8:1234:5678:9abc:def0:1234:5678".parse().unwrap()),
        };
        let usage = UsageView {
            client_id: 1,
            last_login: None,
            last_verification: Some(last),
            hours: HoursView {
                since: rfc3339(until - 720 * HOUR),
                until: rfc3339(until),
                lag_seconds: 15,
                total: CountsView::default(),
                hours: vec![hour(200, 1), hour(71, 1), hour(1, u64::MAX / 4), hour(0, u64::MAX / 8)],
            },
        };
        let text = shown("client 1 \"a\"", &usage);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1], "last login  none is known");
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(lines[6]), ["1", "hour", "1", "2", &(u64::MAX / 8).to_string(), "0"]);
        assert_eq!(words(lines[9])[..4], ["30", "days", "4", "8"]);
        assert_eq!(lines.last().unwrap().chars().count(), 72);
        assert!(text.ends_with("···█▄"), "{text}");
        assert!(lines.last().unwrap().starts_with("▁···"), "{text}");
        assert_eq!(bars(&[0, 0], 0), "··");
    }
}
