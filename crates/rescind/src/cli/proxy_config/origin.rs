//! Where a proxy reaches Rescind, and its upstream.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use hyper::Uri;
use rescind_node::config::port_of;

/// A scheme, host and port.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) tls: bool,
    /// An IPv6 address is stored without its brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Origin, Self::Err> {
        const EXPECTED: &str =
            "expected http://HOST or http://HOST:PORT, or https with a host's name that is no address";
        let uri: Uri = text.parse().map_err(|_| EXPECTED)?;
        let authority = uri.authority().ok_or(EXPECTED)?;
        let host = authority.host();
        // The host is written into configurations unquoted, so only plain characters are accepted.
        let (host, is_plain) = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(address) => (address, address.parse::<Ipv6Addr>().is_ok()),
            None => {
                (host, host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')))
            }
        };
        let is_plain = is_plain
            && !host.is_empty()
            && !authority.as_str().contains('@')
            && matches!(uri.path_and_query().map(|p| p.as_str()), None | Some("/"));
        // nginx and HAProxy compare a certificate with names only.
        let is_address = host.parse::<IpAddr>().is_ok();
        let (tls, port) = match uri.scheme_str() {
            Some("http") if is_plain => (false, 80),
            Some("https") if is_plain && !is_address => (true, 443),
            _ => return Err(EXPECTED),
        };
        Ok(Origin { tls, host: host.to_owned(), port: port_of(authority, port).ok_or(EXPECTED)? })
    }
}

impl From<SocketAddr> for Origin {
    fn from(address: SocketAddr) -> Origin {
        Origin { tls: false, host: address.ip().to_string(), port: address.port() }
    }
}

impl Origin {
    /// The origin of a listener on this machine. A listener on all addresses is reached at the loopback address.
    pub(super) fn of_listener(mut address: SocketAddr) -> Origin {
        match address.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        address.into()
    }

    /// `trusted_proxies` for a proxy that reaches this origin; an example if that is not on the proxy's machine.
    pub(super) fn trusted_proxies(&self) -> &'static str {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) if address.is_loopback() => r#""127.0.0.1/32""#,
            Ok(IpAddr::V6(address)) if address.is_loopback() => r#""::1/128""#,
            Err(_) if self.host == "localhost" => r#""127.0.0.1/32", "::1/128""#,
            _ => r#""192.0.2.7/32""#,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { host, port, .. } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        for (text, origin) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://rescind", "rescind:80"),
            ("http://rescind.internal:8080/", "rescind.internal:8080"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("https://rescind.internal", "rescind.internal:443"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), origin);
        }
        for text in [
            "",
            "rescind:8080",
            "https://127.0.0.1",
            "https://[::1]",
            "ftp://rescind",
            "http://",
            "http://a/b",
            "http://a?b",
            "http://u@a",
            "http://a:99999",
            "https://a:",
            "http://a;b",
            "http://a b",
            "http://$a",
            "http://[1]",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
        let found = |address: &str| Origin::of_listener(address.parse().unwrap()).to_string();
        assert_eq!(found("0.0.0.0:1"), "127.0.0.1:1");
        assert_eq!(found("[::]:1"), "[::1]:1");
        assert_eq!(found("192.0.2.1:1"), "192.0.2.1:1");
        for (text, trusted) in [
            ("http://127.0.0.1", r#""127.0.0.1/32""#),
            ("http://[::1]", r#""::1/128""#),
            ("http://localhost", r#""127.0.0.1/32", "::1/128""#),
            ("https://rescind.internal", r#""192.0.2.7/32""#),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().trusted_proxies(), trusted);
        }
    }
}
