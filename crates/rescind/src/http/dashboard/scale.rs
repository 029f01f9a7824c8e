//! Numbers and times as charts show them: units, round ticks, places.

use rescind_base::{clock::rfc3339, model::UnixSeconds};
use rescind_node::config::Time;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Number,
    PerSecond,
    Milliseconds,
}

impl Unit {
    fn text(self) -> &'static str {
        match self {
            Unit::Number => "",
            Unit::PerSecond => "/s",
            Unit::Milliseconds => " ms",
        }
    }

    /// A value with its unit, in as many digits as are of use.
    pub(super) fn show(self, value: f64) -> String {
        format!("{}{}", number(value), self.text())
    }
}

/// The time of a text of the admin API, in seconds.
pub(super) fn seconds(text: &str) -> UnixSeconds {
    text.parse::<Time>().map(Time::seconds).unwrap_or_default()
}

/// A coordinate.
pub(super) fn place(at: f64) -> f64 {
    (at * 10.0).round() / 10.0
}

/// The time of a mark: of the day, or the day if the marks are days.
pub(super) fn label(at: UnixSeconds, step: UnixSeconds) -> String {
    let text = rfc3339(at);
    let part = if step < 86_400 { text.get(11..16) } else { text.get(5..10) };
    part.unwrap_or_default().to_owned()
}

/// Round values from 0 up to one that is not less than `greatest`: at most five.
pub(super) fn ticks(greatest: f64, whole: bool) -> Vec<f64> {
    let least = if whole { 1.0 } else { 0.001 };
    let rough = (greatest / 4.0).max(least);
    let power = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    let step = steps.into_iter().find(|&step| step >= rough * 0.999_999).unwrap_or(rough);
    let count = (greatest / step - 0.000_001).ceil().max(1.0);
    (0..=4).map(f64::from).take_while(|&i| i <= count).map(|i| i * step).collect()
}

/// A number in three digits: `0.004`, `12.5`, `1.2 k`.
fn number(value: f64) -> String {
    let (value, suffix) = match value {
        1e9.. => (value / 1e9, " G"),
        1e6.. => (value / 1e6, " M"),
        1e4.. => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let digits = match value {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_the_greatest_value() {
        for (greatest, whole, expected) in [
            (0.0, true, &[0.0, 1.0][..]),
            (3.0, true, &[0.0, 1.0, 2.0, 3.0]),
            (4.0, false, &[0.0, 1.0, 2.0, 3.0, 4.0]),
            (4.1, false, &[0.0, 2.0, 4.0, 6.0]),
            (70.0, true, &[0.0, 20.0, 40.0, 60.0, 80.0]),
            (123_456.0, true, &[0.0, 50_000.0, 100_000.0, 150_000.0]),
            (0.3, false, &[0.0, 0.1, 0.2, 0.3]),
        ] {
            let found = ticks(greatest, whole);
            let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9);
            assert!(found.len() == expected.len() && close, "{greatest}: {found:?}");
        }
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.0042, "0.004"),
            (0.5, "0.5"),
            (9.994, "9.99"),
            (12.54, "12.5"),
            (512.3, "512"),
            (9999.0, "9999"),
            (12_345.0, "12.3 k"),
            (150_000.0, "150 k"),
            (2.5e6, "2.5 M"),
            (100.0, "100"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
