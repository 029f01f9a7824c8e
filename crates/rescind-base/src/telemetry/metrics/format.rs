//! The two text formats for metrics: OpenMetrics 1.0, and Prometheus' own format 0.0.4, which every reader knows.

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    /// The format that the `Accept` header prefers: OpenMetrics only if it is named, and no less wanted than plain text.
    pub fn accepted(accept: &str) -> Format {
        let wanted = |media_type: &str| {
            accept.split(',').filter_map(|range| weight(range, media_type)).fold(0.0, f64::max)
        };
        match wanted("application/openmetrics-text") {
            q if q > 0.0 && q >= wanted("text/plain") => Format::OpenMetrics,
            _ => Format::Prometheus,
        }
    }

    /// The format's media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Writes a text of OpenMetrics in this format.
    pub(super) fn of(self, text: String) -> String {
        match self {
            Format::OpenMetrics => text,
            Format::Prometheus => prometheus(&text),
        }
    }
}

/// How much this range wants the media type. `None`: it does not name it.
fn weight(range: &str, media_type: &str) -> Option<f64> {
    let mut parts = range.split(';').map(str::trim);
    parts.next().filter(|named| named.eq_ignore_ascii_case(media_type))?;
    Some(parts.find_map(|parameter| parameter.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0))
}

/// The samples are the same. In this format a metric has the name of its samples, and there is no type `info`.
fn prometheus(text: &str) -> String {
    let mut lines = text.lines().peekable();
    let mut written = String::with_capacity(text.len());
    while let Some(line) = lines.next() {
        let of_type = lines.peek().copied().unwrap_or_default();
        let (help, kind) = (line.strip_prefix("# HELP "), of_type.rsplit(' ').next().unwrap_or_default());
        match help.and_then(|help| help.split_once(' ')) {
            Some((name, about)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    other => ("", other),
                };
                written += &format!("# HELP {name}{suffix} {about}\n# TYPE {name}{suffix} {kind}\n");
                lines.next();
            }
            None if line == "# EOF" => {}
            None => {
                written += line;
                written.push('\n');
            }
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_answered_only_to_who_names_it() {
        for accept in [
            "application/openmetrics-text",
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "text/plain;q=0.4 , Application/OpenMetrics-Text ; version=1.0.0 ; q=0.5",
        ] {
            assert_eq!(Format::accepted(accept), Format::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/plain",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.5,text/plain",
            "application/json, text/html",
        ] {
            assert_eq!(Format::accepted(accept), Format::Prometheus, "{accept}");
        }
    }

    #[test]
    fn names_and_types_are_those_of_the_samples() {
        let text = "# HELP a_build What.\n# TYPE a_build info\na_build_info{v=\"1\"} 1\n# HELP b Of.\n# TYPE b counter\nb_total 2\n\
                    # HELP c Of.\n# TYPE c histogram\nc_sum 1.0\nc_count 1\nc_bucket{le=\"+Inf\"} 1\n# EOF\n";
        let expected = "# HELP a_build_info What.\n# TYPE a_build_info gauge\na_build_info{v=\"1\"} 1\n# HELP b_total Of.\n\
                        # TYPE b_total counter\nb_total 2\n# HELP c Of.\n# TYPE c histogram\nc_sum 1.0\nc_count 1\n\
                        c_bucket{le=\"+Inf\"} 1\n";
        assert_eq!(Format::Prometheus.of(text.into()), expected);
        assert_eq!(Format::OpenMetrics.of(text.into()), text);
    }
}
