//! The text forms of single values.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use hyper::header::HeaderName;
use ipnet::IpNet;
use rescind_verifier::parse_cidr;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use zeroize::Zeroizing;

use crate::store::DatabaseUrl;

/// A longer span is a mistake, and would overflow times.
const MAX_SECONDS: u64 = 3650 * 86_400;

/// A whole number of seconds, written as `2s`, `10m`, `1h` or `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(u64);

impl Span {
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

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
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

impl Serialize for Brief {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Brief {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Brief, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A span, or `off`.
pub(super) mod span_or_off {
    use super::*;

    pub(in crate::config) fn serialize<S: Serializer>(span: &Option<Span>, s: S) -> Result<S::Ok, S::Error> {
        match span {
            Some(span) => span.serialize(s),
            None => s.serialize_str("off"),
        }
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Span>, D::Error> {
        match String::deserialize(d)?.as_str() {
            "off" => Ok(None),
            text => text.parse().map(Some).map_err(|e| D::Error::custom(format!("{e}, or off"))),
        }
    }
}

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

/// A header's name, or nothing.
pub(super) mod header {
    use super::*;

    pub(in crate::config) fn serialize<S: Serializer>(
        name: &Option<HeaderName>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.serialize_str(name.as_ref().map_or("", HeaderName::as_str))
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<HeaderName>, D::Error> {
        match String::deserialize(d)?.as_str() {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| D::Error::custom("expected a header's name such as X-Forwarded-For")),
        }
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

/// A database's URL, or nothing. The URL is written without its password.
pub(super) mod database_url {
    use super::*;

    pub(in crate::config) fn serialize<S: Serializer>(
        url: &Option<DatabaseUrl>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match url {
            Some(url) => s.collect_str(url),
            None => s.serialize_str(""),
        }
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<DatabaseUrl>, D::Error> {
        match Zeroizing::new(String::deserialize(d)?).as_str() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(D::Error::custom),
        }
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
