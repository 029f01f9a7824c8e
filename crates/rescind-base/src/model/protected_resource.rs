//! Resources whose metadata this service publishes.

use std::str::FromStr;

use rescind_verifier::Resources;
use serde::{Deserialize, Serialize};

/// An API, whose host passes requests for its metadata on to this service (RFC 9728).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProtectedResource {
    uri: String,
    /// Where the URI's host and port begin and end.
    host: (usize, usize),
}

impl ProtectedResource {
    /// The path of the metadata of a resource without a path (RFC 9728 §3).
    pub const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

    /// The URI, as `aud` has it.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The host, and the port if the URI names one.
    pub fn host(&self) -> &str {
        &self.uri[self.host.0..self.host.1]
    }

    /// The path of the metadata, after [`WELL_KNOWN`](Self::WELL_KNOWN).
    pub fn path(&self) -> &str {
        // A slash alone is left out.
        Some(&self.uri[self.host.1..]).filter(|path| *path != "/").unwrap_or_default()
    }

    /// The URL of the metadata.
    pub fn metadata_url(&self) -> String {
        [&self.uri[..self.host.1], Self::WELL_KNOWN, self.path()].concat()
    }
}

impl FromStr for ProtectedResource {
    type Err = String;

    fn from_str(text: &str) -> Result<ProtectedResource, String> {
        let expected =
            || format!("{text:?}: expected a URL such as https://api.example.com/orders, without a query");
        let rest = text.strip_prefix("https://").or(text.strip_prefix("http://")).ok_or_else(expected)?;
        let host = rest.split('/').next().filter(|host| !host.is_empty() && !host.contains('@'));
        let begin = text.len() - rest.len();
        let end = begin + host.ok_or_else(expected)?.len();
        if text.contains('?') || Resources::new([text]).is_err() {
            return Err(expected());
        }
        Ok(ProtectedResource { uri: text.to_owned(), host: (begin, end) })
    }
}

impl TryFrom<String> for ProtectedResource {
    type Error = String;

    fn try_from(text: String) -> Result<ProtectedResource, String> {
        text.parse()
    }
}

impl From<ProtectedResource> for String {
    fn from(resource: ProtectedResource) -> String {
        resource.uri
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 9728 §3.1
    #[test]
    fn the_metadata_is_between_host_and_path() {
        for (uri, host, url) in [
            ("https://a.example", "a.example", "https://a.example/.well-known/oauth-protected-resource"),
            ("https://a.example/", "a.example", "https://a.example/.well-known/oauth-protected-resource"),
            ("http://[::1]:80/x/y/", "[::1]:80", "http://[::1]:80/.well-known/oauth-protected-resource/x/y/"),
        ] {
            let resource: ProtectedResource = uri.parse().unwrap();
            assert_eq!((resource.uri(), resource.host(), &*resource.metadata_url()), (uri, host, url));
        }
        for bad in [
            "",
            "a.example",
            "urn:a",
            "https://",
            "https:///x",
            "https://a?b",
            "https://a#b",
            "https://u@a",
            "https://a b",
        ] {
            assert!(bad.parse::<ProtectedResource>().is_err(), "{bad}");
        }
    }
}
