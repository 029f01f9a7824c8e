//! `[[webhook]]`

use std::{fmt, net::IpAddr, path::PathBuf};

use hyper::Uri;
use rescind_base::model::EventKind;
use serde::{Deserialize, Serialize};

use super::urls::port_of;

/// A receiver of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    pub name: String,
    pub url: WebhookUrl,
    /// Empty: every kind.
    #[serde(default)]
    pub events: Vec<EventKind>,
    pub secret_file: PathBuf,
    /// The authorities that are trusted instead of those of the machine, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Whether events may be sent to another machine without TLS.
    #[serde(default)]
    pub allow_http: bool,
}

/// Where a receiver is. Its path and its query may be secrets, so they are never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WebhookUrl {
    pub is_https: bool,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
    /// The host, and the port if the URL names one.
    pub authority: String,
    /// The path and the query.
    pub target: String,
}

impl WebhookUrl {
    /// Whether the receiver is on this machine.
    fn is_local(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl TryFrom<String> for WebhookUrl {
    type Error = &'static str;

    fn try_from(text: String) -> Result<WebhookUrl, &'static str> {
        let expected =
            "expected a URL such as https://hooks.example.com/rescind, without a user or a fragment";
        let uri: Uri = text.parse().map_err(|_| expected)?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(expected),
        };
        let authority =
            uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(expected)?;
        if text.contains('#') || authority.host().is_empty() {
            return Err(expected);
        }
        Ok(WebhookUrl {
            is_https,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: port_of(authority, if is_https { 443 } else { 80 })
                .ok_or("expected a port between 0 and 65535 after the host")?,
            authority: authority.as_str().to_owned(),
            target: uri.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
        })
    }
}

impl From<WebhookUrl> for String {
    fn from(url: WebhookUrl) -> String {
        url.to_string()
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        let target = if self.target == "/" { "/" } else { "/…" };
        write!(f, "{scheme}://{}{target}", self.authority)
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Checks the webhooks. Returns the key and what is expected of it.
pub(super) fn check(webhooks: &[Webhook]) -> Result<(), (&'static str, String)> {
    for (i, Webhook { name, url, allow_http, .. }) in webhooks.iter().enumerate() {
        let is_name = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
        if !(1..=64).contains(&name.len()) || !name.bytes().all(is_name) {
            let problem = "expected 1 to 64 letters, digits, and - _ .".to_owned();
            return Err(("webhook.name", problem));
        }
        if webhooks[..i].iter().any(|other| other.name == *name) {
            return Err(("webhook.name", format!("{name}: expected another name for each webhook")));
        }
        if !url.is_https && !url.is_local() && !allow_http {
            let problem = "others could read the events on the way: expected https, or allow_http = true";
            return Err(("webhook.url", format!("{name}: {problem}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_shown_without_its_path_and_query() {
        let read = |text: &str| WebhookUrl::try_from(text.to_owned());
        let url = read("https://[::1]:8443/a/b?token=canary").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.target.as_str()), ("::1", 8443, "/a/b?token=canary"));
        assert_eq!((format!("{url}"), format!("{url:?}")), (url.to_string(), "https://[::1]:8443/…".into()));
        assert_eq!(read("http://example.com").unwrap().port, 80);
        for bad in [
            "",
            "example.com",
            "ftp://example.com/",
            "https://u:p@example.com/",
            "https://",
            "https://a/#b",
            "/a",
            "http://127.0.0.1:99999/",
            "https://[::1]:65536/",
            "https://example.com:/",
            "https://example.com:x/",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_webhook_has_a_name_of_its_own_and_tls_off_this_machine() {
        let hook = |name: &str, url: &str, allow_http| Webhook {
            name: name.into(),
            url: url.to_owned().try_into().unwrap(),
            events: vec![],
            secret_file: "s".into(),
            ca: None,
            allow_http,
        };
        let (local, remote) = ("http://127.0.0.1:1/", "http://example.com/");
        assert_eq!(check(&[hook("a", local, false), hook("b", remote, true)]), Ok(()));
        assert_eq!(check(&[hook("a", local, false), hook("a", local, false)]).unwrap_err().0, "webhook.name");
        assert_eq!(check(&[hook("a b", local, false)]).unwrap_err().0, "webhook.name");
        assert_eq!(check(&[hook("a", remote, false)]).unwrap_err().0, "webhook.url");
    }
}
