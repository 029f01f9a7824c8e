//! The lives of signing keys as inline SVG: published, then signing, then verifying until the key is retired.

use maud::{Markup, html};
use rescind_base::{clock::rfc3339, model::UnixSeconds};

use super::scale::{label, place};

const DAY: UnixSeconds = 86_400;

/// A key's life, as far as it is known.
pub(super) struct KeyLife {
    pub(super) kid: String,
    pub(super) created: UnixSeconds,
    pub(super) signs_from: UnixSeconds,
    /// When the next key signs. `None`: there is no next one.
    pub(super) signs_until: Option<UnixSeconds>,
    pub(super) retires: Option<UnixSeconds>,
}

const LEFT: f64 = 8.0;
const RIGHT: f64 = 392.0;
const ROW: f64 = 34.0;

/// Draws the keys, one row each.
pub(super) fn draw(keys: &[KeyLife], now: UnixSeconds) -> Markup {
    let span = Span::of(keys, now);
    let bottom = ROW * keys.len() as f64 + 6.0;
    html! {
        svg.lives viewBox={ "0 0 400 " (bottom + 22.0) } role="img" aria-labelledby="lives-name lives-says" {
            title id="lives-name" { "The life of each key" }
            desc id="lives-says" { @for key in keys { (in_words(key)) " " } }
            @for (at, text) in span.days() {
                line.grid x1=(span.x(at)) x2=(span.x(at)) y1="4" y2=(bottom) {}
                text.time x=(span.x(at)) y=(bottom + 14.0) { (text) }
            }
            @for (i, key) in keys.iter().enumerate() {
                @let top = ROW * i as f64;
                text.name x=(LEFT) y=(top + 14.0) { (key.kid) }
                @for (class, from, to) in stages(key, span.to) {
                    @let (from, to) = (span.x(from), span.x(to));
                    rect class={ "stage " (class) } x=(from) y=(top + 19.0) width=(place((to - from).max(1.0))) height="11" {}
                    @if to - from > 52.0 {
                        text.stage x=(place(f64::midpoint(from, to))) y=(top + 27.5) { (class) }
                    }
                }
            }
            line.now x1=(span.x(now)) x2=(span.x(now)) y1="4" y2=(bottom) {}
        }
    }
}

/// The stages of a life, each with its beginning and its end. What has no end yet goes on to `end`.
fn stages(key: &KeyLife, end: UnixSeconds) -> impl Iterator<Item = (&'static str, UnixSeconds, UnixSeconds)> {
    let KeyLife { created, signs_from, signs_until, retires, .. } = *key;
    let signs_until = signs_until.unwrap_or(end);
    let stages = [
        ("published", created, signs_from),
        ("signs", signs_from, signs_until),
        ("verifies", signs_until, retires.unwrap_or(end)),
    ];
    stages.into_iter().filter(|(_, from, to)| from < to)
}

fn in_words(key: &KeyLife) -> String {
    let KeyLife { kid, created, signs_from, signs_until, retires } = key;
    let mut words = format!("{kid}: published {}", rfc3339(*created));
    match signs_until {
        Some(until) if until == signs_from => words += ", never signs",
        Some(until) => words += &format!(", signs from {} to {}", rfc3339(*signs_from), rfc3339(*until)),
        None => words += &format!(", signs from {}", rfc3339(*signs_from)),
    }
    if let Some(retires) = retires {
        words += &format!(", verifies until {}", rfc3339(*retires));
    }
    words + "."
}

/// The time that is drawn.
struct Span {
    from: UnixSeconds,
    to: UnixSeconds,
}

impl Span {
    /// From the first beginning to the last end, but no more of the past than twice what is to come.
    fn of(keys: &[KeyLife], now: UnixSeconds) -> Span {
        let ends = keys.iter().flat_map(|key| [Some(key.signs_from), key.signs_until, key.retires]).flatten();
        let last = ends.max().unwrap_or(now).max(now);
        let first = keys.iter().map(|key| key.created).min().unwrap_or(now).min(now);
        let ahead = (last - now).max(2 * DAY);
        Span { from: first.max(now.saturating_sub(2 * ahead)), to: now + ahead + ahead / 10 }
    }

    fn x(&self, at: UnixSeconds) -> f64 {
        let part = at.saturating_sub(self.from) as f64 / (self.to - self.from).max(1) as f64;
        place(LEFT + (RIGHT - LEFT) * part.min(1.0))
    }

    /// The days in it, or every second, fifth and so on if there are many, with their labels.
    fn days(&self) -> Vec<(UnixSeconds, String)> {
        let days = (self.to - self.from) / DAY;
        let step = [1, 2, 5, 10, 30].into_iter().find(|step| days / step <= 7).unwrap_or(90) * DAY;
        let margin = (self.to - self.from) / 25;
        let first = (self.from + margin).next_multiple_of(step);
        let times = (first..self.to - margin).step_by(usize::try_from(step).unwrap_or(usize::MAX));
        times.map(|at| (at, label(at, step))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2025-01-15T12:00:00Z
    const NOW: UnixSeconds = 1_736_942_400;

    #[test]
    fn each_stage_of_a_life_is_drawn_where_it_is() {
        let keys = [
            KeyLife {
                kid: "old".into(),
                created: NOW - 14 * DAY,
                signs_from: NOW - 14 * DAY,
                signs_until: Some(NOW + DAY),
                retires: Some(NOW + 8 * DAY),
            },
            KeyLife {
                kid: "<new>".into(),
                created: NOW - DAY,
                signs_from: NOW + DAY,
                signs_until: None,
                retires: None,
            },
        ];
        let text = draw(&keys, NOW).into_string();
        for stage in ["published", "signs", "verifies"] {
            assert!(text.contains(&format!("class=\"stage {stage}\"")), "{stage}: {text}");
        }
        // The old key was never published without signing, and the new one verifies for nobody yet.
        assert_eq!(text.matches("class=\"stage signs\"").count(), 2, "{text}");
        assert_eq!(text.matches("class=\"stage published\"").count(), 1, "{text}");
        assert!(text.contains("old: published 2025-01-01T12:00:00Z, signs from 2025-01-01T12:00:00Z to 2025-01-16T12:00:00Z, \
                               verifies until 2025-01-23T12:00:00Z."), "{text}");
        assert!(text.contains("&lt;new&gt;") && !text.contains("<new>") && !text.contains("style="));
    }

    #[test]
    fn a_key_that_has_signed_for_years_leaves_room_for_what_is_to_come() {
        let key = |created| KeyLife {
            kid: "k".into(),
            created,
            signs_from: created,
            signs_until: None,
            retires: None,
        };
        let span = Span::of(&[key(NOW - 900 * DAY)], NOW);
        assert_eq!(span.from, NOW - 4 * DAY);
        assert!(span.to > NOW && !span.days().is_empty());
        assert_eq!(span.x(NOW - 900 * DAY), LEFT);
    }
}
