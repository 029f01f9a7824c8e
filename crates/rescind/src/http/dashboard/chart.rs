//! Charts as inline SVG: values in, markup out. Colours and strokes are classes of the style sheet, since the content policy
//! permits no style in the markup.

use maud::{Markup, html};
use rescind_base::{clock::rfc3339, model::UnixSeconds};

use super::scale::{Unit, label, place, ticks};

/// Values over time.
pub(super) struct Chart<'a> {
    /// Unique in the page.
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    pub(super) unit: Unit,
    /// Lines from the same zero, or areas upon each other.
    pub(super) form: Form,
    pub(super) since: UnixSeconds,
    pub(super) until: UnixSeconds,
    /// When each value was taken, the newest last.
    pub(super) times: Vec<UnixSeconds>,
    pub(super) lines: Vec<Line>,
}

/// One value for each time of the chart. `None`: there was nothing to measure.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) values: Vec<Option<f64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Lines,
    Stack,
}

/// How many classes of lines the style sheet has.
pub(super) const STYLES: usize = 5;

// In units of the view box, which is about as wide as a telephone's screen, so that its text is as large as the page's.
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 170.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 392.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 148.0;
/// The most rows of the table beside a chart.
const ROWS: usize = 12;

impl Chart<'_> {
    pub(super) fn draw(&self) -> Markup {
        let Chart { id, title, .. } = self;
        html! {
            figure.chart aria-labelledby={ (id) "-title" } {
                figcaption id={ (id) "-title" } { (title) }
                @if self.times.is_empty() {
                    p.empty { "Nothing was measured yet. The first values come some seconds after the start." }
                } @else {
                    (self.svg())
                    (self.legend())
                    (self.table())
                }
            }
        }
    }

    fn svg(&self) -> Markup {
        let Chart { id, title, .. } = self;
        let drawn = self.heights();
        let greatest = drawn.iter().flatten().flatten().fold(0.0_f64, |most, &(_, value)| most.max(value));
        let ticks = ticks(greatest, self.unit == Unit::Number);
        let top = ticks.last().copied().unwrap_or(1.0);
        let y = |value: f64| BOTTOM - (BOTTOM - TOP) * (value / top);
        html! {
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-labelledby={ (id) "-name " (id) "-says" } {
                title id={ (id) "-name" } { (title) }
                desc id={ (id) "-says" } { (self.in_words()) }
                @for &tick in &ticks {
                    line.grid x1=(LEFT) x2=(RIGHT) y1=(place(y(tick))) y2=(place(y(tick))) {}
                    text.value x=(LEFT - 5.0) y=(place(y(tick) + 3.5)) { (self.unit.show(tick)) }
                }
                @for (at, label) in self.hours() {
                    line.mark x1=(place(self.x(at))) x2=(place(self.x(at))) y1=(BOTTOM) y2=(BOTTOM + 4.0) {}
                    text.time x=(place(self.x(at))) y=(BOTTOM + 16.0) { (label) }
                }
                // The lowest area of a stack covers the others.
                @for (i, line) in drawn.iter().enumerate().rev() {
                    @if self.form == Form::Stack {
                        path class={ "area s" (i % STYLES) } d=(self.area(line, y)) {}
                    }
                    path class={ "line s" (i % STYLES) } d=(self.path(line, y)) {}
                    @for (x, value) in self.alone(line) {
                        circle class={ "point s" (i % STYLES) } cx=(place(x)) cy=(place(y(value))) r="2.5" {}
                    }
                }
            }
        }
    }

    /// The lower and the upper end of each value in the chart.
    fn heights(&self) -> Vec<Vec<Option<(f64, f64)>>> {
        let mut below = vec![0.0; self.times.len()];
        let heights = self.lines.iter().map(|line| {
            let values = line.values.iter().zip(&mut below);
            let height = |(value, below): (&Option<f64>, &mut f64)| {
                let from = *below;
                let to = from + (*value)?;
                if self.form == Form::Stack {
                    *below = to;
                }
                Some((from, to))
            };
            values.map(height).collect()
        });
        heights.collect()
    }

    fn x(&self, at: UnixSeconds) -> f64 {
        let span = self.until.saturating_sub(self.since).max(1) as f64;
        LEFT + (RIGHT - LEFT) * (at.saturating_sub(self.since) as f64 / span).min(1.0)
    }

    /// The stretches of a line without a gap.
    fn stretches(&self, line: &[Option<(f64, f64)>]) -> Vec<Vec<(f64, (f64, f64))>> {
        let points: Vec<_> = self.times.iter().map(|&at| self.x(at)).zip(line.iter().copied()).collect();
        let stretches = points.split(|(_, height)| height.is_none());
        let stretches =
            stretches.map(|points| points.iter().filter_map(|&(x, height)| Some((x, height?))).collect());
        stretches.filter(|points: &Vec<_>| !points.is_empty()).collect()
    }

    fn path(&self, line: &[Option<(f64, f64)>], y: impl Fn(f64) -> f64) -> String {
        let mut path = String::new();
        for points in self.stretches(line) {
            let mut letter = 'M';
            for &(x, (_, to)) in &points {
                path += &format!("{letter}{} {}", place(x), place(y(to)));
                letter = 'L';
            }
        }
        path
    }

    /// The values without a neighbour, of which no line shows anything.
    fn alone(&self, line: &[Option<(f64, f64)>]) -> Vec<(f64, f64)> {
        let stretches = self.stretches(line);
        stretches.iter().filter(|points| points.len() == 1).flatten().map(|&(x, (_, to))| (x, to)).collect()
    }

    fn area(&self, line: &[Option<(f64, f64)>], y: impl Fn(f64) -> f64) -> String {
        let mut path = String::new();
        for points in self.stretches(line) {
            let above = points.iter().map(|&(x, (_, to))| (x, to));
            let below = points.iter().rev().map(|&(x, (from, _))| (x, from));
            let mut letter = 'M';
            for (x, value) in above.chain(below) {
                path += &format!("{letter}{} {}", place(x), place(y(value)));
                letter = 'L';
            }
            path.push('Z');
        }
        path
    }

    /// The round times in the chart, with their labels.
    fn hours(&self) -> Vec<(UnixSeconds, String)> {
        let span = self.until.saturating_sub(self.since);
        let step =
            [60, 300, 900, 3600, 4 * 3600, 86_400, 7 * 86_400].into_iter().find(|step| span / step <= 7);
        let step = step.unwrap_or(30 * 86_400);
        // The text of a label at the very edge would be cut off.
        let margin = span / 30;
        let first = (self.since + margin).next_multiple_of(step);
        let times =
            (first..=self.until.saturating_sub(margin)).step_by(usize::try_from(step).unwrap_or(usize::MAX));
        times.map(|at| (at, label(at, step))).collect()
    }

    fn newest(&self, line: &Line) -> String {
        line.values.last().copied().flatten().map_or_else(|| "–".to_owned(), |value| self.unit.show(value))
    }

    fn greatest(&self, values: &[Option<f64>]) -> String {
        let greatest = values.iter().flatten().copied().reduce(f64::max);
        greatest.map_or_else(|| "–".to_owned(), |value| self.unit.show(value))
    }

    /// What the chart shows, for who does not see it.
    fn in_words(&self) -> String {
        let lines = self.lines.iter().map(|line| {
            format!("{}: {} now, {} at most.", line.name, self.newest(line), self.greatest(&line.values))
        });
        let span = format!("From {} to {}.", rfc3339(self.since), rfc3339(self.until));
        std::iter::once(span).chain(lines).collect::<Vec<_>>().join(" ")
    }

    fn legend(&self) -> Markup {
        html! {
            table.legend {
                thead { tr { th scope="col" { span.visually-hidden { "Line" } } th scope="col" { "now" } th scope="col" { "at most" } } }
                tbody {
                    @for (i, line) in self.lines.iter().enumerate() {
                        tr {
                            th scope="row" {
                                svg.swatch viewBox="0 0 22 8" aria-hidden="true" { path class={ "line s" (i % STYLES) } d="M2 4L20 4" {} }
                                (line.name)
                            }
                            td { (self.newest(line)) }
                            td { (self.greatest(&line.values)) }
                        }
                    }
                }
            }
        }
    }

    /// The values as a table, each row the greatest of a part of the time.
    fn table(&self) -> Markup {
        let rows = self.times.len().div_ceil(ROWS).max(1);
        html! {
            details {
                summary { "As a table" span.visually-hidden { ": " (self.title) } }
                table {
                    thead {
                        tr {
                            th scope="col" { "until (UTC)" }
                            @for line in &self.lines { th scope="col" { (line.name) ", at most" } }
                        }
                    }
                    tbody {
                        @for (i, times) in self.times.chunks(rows).enumerate() {
                            tr {
                                th scope="row" { @if let Some(&at) = times.last() { (rfc3339(at)) } }
                                @for line in &self.lines {
                                    td { (self.greatest(line.values.chunks(rows).nth(i).unwrap_or_default())) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(form: Form, lines: &[(&str, &[Option<f64>])]) -> String {
        let values = lines.first().map_or(0, |(_, values)| values.len());
        let lines =
            lines.iter().map(|(name, values)| Line { name: (*name).to_owned(), values: values.to_vec() });
        let chart = Chart {
            id: "c",
            title: "Logins <here>",
            unit: Unit::PerSecond,
            form,
            since: 1_736_942_400,
            until: 1_736_946_000,
            times: (1..=values as u64).map(|i| 1_736_942_400 + 900 * i).collect(),
            lines: lines.collect(),
        };
        chart.draw().into_string()
    }

    #[test]
    fn a_line_is_drawn_to_scale_and_breaks_where_nothing_was_measured() {
        let text = chart(Form::Lines, &[("granted", &[Some(0.0), Some(4.0), None, Some(2.0)])]);
        // A quarter of an hour is a quarter of the width; the greatest tick is 4.
        assert!(text.contains(r#"<path class="line s0" d="M131 148L218 10M392 79"></path><circle class="point s0" cx="392" cy="79" r="2.5">"#), "{text}");
        for tick in ["0/s", "1/s", "2/s", "3/s", "4/s"] {
            assert!(text.contains(&format!(">{tick}</text>")), "{tick}: {text}");
        }
        for time in ["12:15", "12:30", "12:45"] {
            assert!(text.contains(&format!(">{time}</text>")), "{time}: {text}");
        }
        assert!(!text.contains("area"));
    }

    #[test]
    fn areas_are_stacked() {
        let text = chart(Form::Stack, &[("a", &[Some(1.0), Some(1.0)]), ("b", &[Some(3.0), Some(1.0)])]);
        assert!(
            text.contains(r#"<path class="area s0" d="M131 113.5L218 113.5L218 148L131 148Z">"#),
            "{text}"
        );
        assert!(text.contains(r#"<path class="area s1" d="M131 10L218 79L218 113.5L131 113.5Z">"#), "{text}");
    }

    #[test]
    fn who_does_not_see_it_is_told_the_same() {
        let text = chart(
            Form::Lines,
            &[("granted", &[Some(1.0), Some(4.0), Some(2.5)]), ("<b>", &[None, None, None])],
        );
        assert!(text.contains(r#"role="img" aria-labelledby="c-name c-says""#));
        assert!(text.contains(
            "From 2025-01-15T12:00:00Z to 2025-01-15T13:00:00Z. granted: 2.5/s now, 4/s at most. &lt;b&gt;: – now, – at most."
        ), "{text}");
        assert!(text.contains("Logins &lt;here&gt;") && !text.contains("<b>") && !text.contains("style="));
        assert!(
            text.contains("<th scope=\"row\">2025-01-15T12:45:00Z</th><td>2.5/s</td><td>–</td>"),
            "{text}"
        );
        assert!(chart(Form::Lines, &[("granted", &[])]).contains("Nothing was measured yet"));
    }

    #[test]
    fn a_long_table_has_the_greatest_of_each_part() {
        let values: Vec<_> = (0..360).map(|i| Some(f64::from(i % 30))).collect();
        let text = chart(Form::Lines, &[("a", &values)]);
        assert_eq!(text.matches("<td>29/s</td>").count(), ROWS + 2, "{text}");
    }
}
