//! The text forms of single values.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use hyper::header::HeaderName;
use ipnet::IpNet;
use rescind_base::{clock::rfc3339, model::Retention};
use rescind_store::DatabaseUrl;
use rescind_verifier::{UnixSeconds, parse_cidr};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use utoipa::ToSchema;
use x509_cert::der::DateTime;
use zeroize::Zeroizing;

/// A longer span is a mistake, and would overflow times.
const MAX_SECONDS: u64 = 3650 * 86_400;

/// A whole number of seconds, written as `2s`, `10m`, `1h` or `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, pattern = "^[0-9]{1,9}[smhd]$", example = "90d")]
pub struct Span(u64);

impl Span {
    /// A span of so many seconds.
    pub fn of_seconds(seconds: u64) -> Span {
        Span(seconds)
    }

    /// The length in seconds.
    pub fn seconds(self) -> u64 {
        self.0
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Duration {
        Duration::from_secs(span.0)
    }
}

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Span, Self::Err> {
        const EXPECTED: &str = "expected a duration such as 30s, 10m, 1h or 7d, up to 3650d";
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(EXPECTED)?;
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(EXPECTED),
        };
        if !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(EXPECTED);
        }
        let seconds = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
        seconds.filter(|&s| s <= MAX_SECONDS).map(Span).ok_or(EXPECTED)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            s if s > 0 && s % 86_400 == 0 => write!(f, "{}d", s / 86_400),
            s if s > 0 && s % 3600 == 0 => write!(f, "{}h", s / 3600),
            s if s > 0 && s % 60 == 0 => write!(f, "{}m", s / 60),
            s => write!(f, "{s}s"),
        }
    }
}

/// How long, and how many, records of one kind are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    pub keep: Span,
    pub max_rows: u64,
}

impl Kept {
    /// The same for the store's sweeps.
    pub fn retention(&self) -> Retention {
        Retention { keep: self.keep.seconds(), max_rows: self.max_rows }
    }
}

/// A time, written as `2025-01-15T13:00:00Z`, or as `2025-01-15` for its first second. UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub struct Time(UnixSeconds);

impl Time {
    /// The time in seconds.
    pub fn seconds(self) -> UnixSeconds {
        self.0
    }
}

impl FromStr for Time {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Time, Self::Err> {
        let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
        let time = whole
            .parse::<DateTime>()
            .map_err(|_| "expected a time such as 2025-01-15 or 2025-01-15T13:00:00Z")?;
        Ok(Time(time.unix_duration().as_secs()))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&rfc3339(self.0))
    }
}

/// A time in the past: a [`Time`], or a [`Span`] ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// The time.
    At(Time),
    /// So long ago.
    Ago(Span),
}

impl Past {
    /// The time in seconds.
    pub fn seconds(self, now: UnixSeconds) -> UnixSeconds {
        match self {
            Past::At(time) => time.seconds(),
            Past::Ago(span) => now.saturating_sub(span.seconds()),
        }
    }
}

impl FromStr for Past {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Past, Self::Err> {
        let at = text.parse().map(Past::At);
        at.or_else(|_| text.parse().map(Past::Ago)).map_err(
            |_| "expected a duration such as 1h or 7d, or a time such as 2025-01-15 or 2025-01-15T13:00:00Z",
        )
    }
}

impl fmt::Display for Past {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Past::At(time) => time.fmt(f),
            Past::Ago(span) => span.fmt(f),
        }
    }
}

/// A whole number of milliseconds, written as `300ms` or like a [`Span`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Brief(u64);

impl Brief {
    /// The length in milliseconds.
    pub fn millis(self) -> u64 {
        self.0
    }
}

impl From<Brief> for Duration {
    fn from(brief: Brief) -> Duration {
        Duration::from_millis(brief.0)
    }
}

impl FromStr for Brief {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Brief, Self::Err> {
        const EXPECTED: &str = "expected a duration such as 300ms, 3s or 1m";
        let millis = match text.strip_suffix("ms") {
            Some(number) if number.bytes().all(|b| b.is_ascii_digit()) => number.parse().ok(),
            Some(_) => None,
            None => text.parse().ok().map(|span: Span| span.seconds() * 1000),
        };
        millis.map(Brief).ok_or(EXPECTED)
    }
}

impl fmt::Display for Brief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms if ms % 1000 == 0 => Span(ms / 1000).fmt(f),
            ms => write!(f, "{ms}ms"),
        }
    }
}

/// Values that are written and read as a text.
macro_rules! as_text {
    ($($value:ty),+) => {$(
        impl Serialize for $value {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $value {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )+};
}

as_text!(Span, Brief, Time, Past);

/// A module that writes and reads an optional value: as a text, or as `$none`.
macro_rules! text_or {
    ($none:literal, $module:ident: $value:ty, $read:expr) => {
        pub(super) mod $module {
            use super::*;

            pub(in crate::config) fn serialize<S: Serializer>(
                value: &Option<$value>,
                s: S,
            ) -> Result<S::Ok, S::Error> {
                match value {
                    Some(value) => s.collect_str(value),
                    None => s.serialize_str($none),
                }
            }

            pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
                d: D,
            ) -> Result<Option<$value>, D::Error> {
                match Zeroizing::new(String::deserialize(d)?).as_str() {
                    $none => Ok(None),
                    text => $read(text).map(Some).map_err(D::Error::custom),
                }
            }
        }
    };
}

// A span, or `off`.
text_or!("off", span_or_off: Span, |text: &str| text.parse().map_err(|e| format!("{e}, or off")));

// A header's name, or nothing.
text_or!("", header: HeaderName, |text: &str| {
    text.parse().map_err(|_| "expected a header's name such as X-Forwarded-For")
});

// A database's URL, or nothing. The URL is written without its password.
text_or!("", database_url: DatabaseUrl, str::parse);

/// A list of networks.
pub(super) mod networks {
    use super::*;

    pub(in crate::config) fn serialize<S: Serializer>(networks: &[IpNet], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(networks.iter().map(ToString::to_string))
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<IpNet>, D::Error> {
        let texts = Vec::<String>::deserialize(d)?;
        texts.iter().map(|text| parse_cidr(text).map_err(D::Error::custom)).collect()
    }
}

/// A file's path, or nothing.
pub(super) mod path_or_none {
    use super::*;

    pub(in crate::config) fn serialize<S: Serializer>(
        path: &Option<PathBuf>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        path.as_deref().unwrap_or(Path::new("")).serialize(s)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        let text = Zeroizing::new(String::deserialize(d)?);
        if text.contains("-----BEGIN ") {
            return Err(D::Error::custom("expected the path of a file, not what is in it"));
        }
        Ok(Some(PathBuf::from(text.as_str())).filter(|path| !path.as_os_str().is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (text, seconds) in
            [("0s", 0), ("90s", 90), ("10m", 600), ("1h", 3600), ("7d", 604_800), ("3650d", MAX_SECONDS)]
        {
            assert_eq!(text.parse::<Span>().map(Span::seconds), Ok(seconds));
        }
        for text in ["", "s", "1", "-1s", "+1s", "1.5h", "1w", "1 h", "3651d", "99999999999999999999d", "1µ"]
        {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        assert_eq!(Span(90).to_string(), "90s");
        assert_eq!(Span(86_400).to_string(), "1d");
        assert_eq!(Span(0).to_string(), "0s");
    }

    #[test]
    fn times_are_those_that_are_printed() {
        for (text, seconds) in
            [("1970-01-01", 0), ("2000-02-29", 951_782_400), ("2025-01-15T13:00:00Z", 1_736_946_000)]
        {
            assert_eq!(text.parse().map(Time::seconds), Ok(seconds), "{text}");
            assert_eq!(rfc3339(seconds).parse().map(Time::seconds), Ok(seconds), "{text}");
        }
        for text in [
            "",
            "2025",
            "2025-02-29",
            "2025-1-15",
            "2025-01-15T13:00:00",
            "2025-01-15T13:00:00+01:00",
            "tomorrow",
        ] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
        assert_eq!("1h".parse().map(|past: Past| past.seconds(5000)), Ok(1400));
        assert_eq!("1970-01-02".parse().map(|past: Past| past.seconds(5000)), Ok(86_400));
    }

    #[test]
    fn brief_spans() {
        for (text, millis) in [("0ms", 0), ("300ms", 300), ("3s", 3000), ("1m", 60_000)] {
            assert_eq!(text.parse::<Brief>().map(Brief::millis), Ok(millis));
            assert_eq!(text.parse::<Brief>().unwrap().to_string().parse(), Ok(Brief(millis)));
        }
        for text in ["", "ms", "-1ms", "+1ms", "0.5s", "1", "99999999999999999999ms"] {
            assert!(text.parse::<Brief>().is_err(), "{text}");
        }
    }
}
