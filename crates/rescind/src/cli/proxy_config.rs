//! `rescind proxy-config`: configurations of reverse proxies that ask Rescind before they forward a request.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use clap::{Args, ValueEnum};
use hyper::Uri;
use rescind_verifier::Scopes;
use serde::Serialize;

use super::{Failure, output::Output};
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct ProxyConfig {
    /// The proxy that the configuration is for
    proxy: Proxy,
    /// Rescind's address, as the proxy reaches it [default: server.listen]
    #[arg(long, value_name = "URL")]
    rescind: Option<HttpOrigin>,
    /// The address of the protected service, as the proxy reaches it
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3000")]
    upstream: HttpOrigin,
    /// The address on which the proxy listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// A scope that a token must have
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<Scopes>,
    /// The file to print; only haproxy has "lua"
    #[arg(long, value_enum, default_value_t = Part::Config)]
    part: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Proxy {
    Nginx,
    Caddy,
    Haproxy,
    Traefik,
    Envoy,
    Apisix,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Config,
    Lua,
}

#[derive(Serialize)]
struct Printed {
    proxy: Proxy,
    config: String,
}

pub(super) fn run(
    command: ProxyConfig,
    load: impl FnOnce() -> Result<Config, crate::config::ConfigError>,
    output: &Output,
) -> Result<(), Failure> {
    let ProxyConfig { proxy, rescind, upstream, listen, scope, part } = command;
    let template = template(proxy, part).ok_or_else(|| {
        Failure::Usage("--part lua: only haproxy has a script beside its configuration".into())
    })?;
    let rescind = match rescind {
        Some(origin) => origin,
        None => HttpOrigin::of_listener(load()?.server.listen),
    };
    let config = fill(template, &rescind, &upstream, &HttpOrigin::from(listen), &query(&scope)?);
    output.data(&Printed { proxy, config }, |printed| printed.config.clone())
}

fn template(proxy: Proxy, part: Part) -> Option<&'static str> {
    match (proxy, part) {
        (Proxy::Nginx, Part::Config) => Some(include_str!("proxies/nginx.conf")),
        (Proxy::Caddy, Part::Config) => Some(include_str!("proxies/Caddyfile")),
        (Proxy::Haproxy, Part::Config) => Some(include_str!("proxies/haproxy.cfg")),
        (Proxy::Haproxy, Part::Lua) => Some(include_str!("proxies/haproxy.lua")),
        (Proxy::Traefik, Part::Config) => Some(include_str!("proxies/traefik.yaml")),
        (Proxy::Envoy, Part::Config) => Some(include_str!("proxies/envoy.yaml")),
        (Proxy::Apisix, Part::Config) => Some(include_str!("proxies/apisix.yaml")),
        (_, Part::Lua) => None,
    }
}

fn fill(
    template: &str,
    rescind: &HttpOrigin,
    upstream: &HttpOrigin,
    listen: &HttpOrigin,
    query: &str,
) -> String {
    let with_mark = if query.is_empty() { String::new() } else { format!("?{query}") };
    let mut text = template.replace("@QUERY@", &with_mark).replace("@PAIRS@", query);
    for (name, origin) in [("RESCIND", rescind), ("UPSTREAM", upstream), ("LISTEN", listen)] {
        text = text
            .replace(&format!("@{name}@"), &origin.to_string())
            .replace(&format!("@{name}_HOST@"), &origin.host)
            .replace(&format!("@{name}_PORT@"), &origin.port.to_string());
    }
    text
}

/// The query of `/verify`, in characters that have no special meaning in any of the configurations.
fn query(scopes: &[Scopes]) -> Result<String, Failure> {
    if scopes.iter().any(Scopes::is_empty) {
        return Err(Failure::Usage("--scope: expected a scope".into()));
    }
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(scopes.iter().flat_map(Scopes::iter).map(|scope| ("scope", scope)));
    Ok(query.finish())
}

/// A host and port that are reached by plain HTTP.
#[derive(Debug, Clone)]
struct HttpOrigin {
    /// An IPv6 address is stored without its brackets.
    host: String,
    port: u16,
}

impl FromStr for HttpOrigin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<HttpOrigin, Self::Err> {
        const EXPECTED: &str = "expected http://HOST or http://HOST:PORT";
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
        if !is_plain || uri.scheme_str() != Some("http") {
            return Err(EXPECTED);
        }
        Ok(HttpOrigin { host: host.to_owned(), port: authority.port_u16().unwrap_or(80) })
    }
}

impl From<SocketAddr> for HttpOrigin {
    fn from(address: SocketAddr) -> HttpOrigin {
        HttpOrigin { host: address.ip().to_string(), port: address.port() }
    }
}

impl HttpOrigin {
    /// The origin of a listener on this machine. A listener on all addresses is reached at the loopback address.
    fn of_listener(mut address: SocketAddr) -> HttpOrigin {
        match address.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        address.into()
    }
}

impl fmt::Display for HttpOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HttpOrigin { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [(Proxy, Part); 7] = [
        (Proxy::Nginx, Part::Config),
        (Proxy::Caddy, Part::Config),
        (Proxy::Haproxy, Part::Config),
        (Proxy::Haproxy, Part::Lua),
        (Proxy::Traefik, Part::Config),
        (Proxy::Envoy, Part::Config),
        (Proxy::Apisix, Part::Config),
    ];
    const IDENTITY: [&str; 4] =
        ["x-rescind-client", "x-rescind-client-name", "x-rescind-scopes", "x-rescind-session"];

    fn filled(proxy: Proxy, part: Part, scope: &[&str]) -> String {
        let scopes: Vec<Scopes> = scope.iter().map(|s| s.parse().unwrap()).collect();
        fill(
            template(proxy, part).unwrap(),
            &"http://rescind.internal:8443".parse().unwrap(),
            &"http://[2001:db8::1]".parse().unwrap(),
            &HttpOrigin::from("127.0.0.1:8000".parse::<SocketAddr>().unwrap()),
            &query(&scopes).unwrap_or_default(),
        )
    }

    #[test]
    fn every_placeholder_is_filled() {
        for (proxy, part) in FILES {
            for scope in [&[][..], &["orders:read", "a b"][..]] {
                let text = filled(proxy, part, scope);
                let left = text.split('@').skip(1).find(|rest| {
                    let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(rest.len());
                    end > 0 && text.contains(&format!("@{}@", &rest[..end]))
                });
                assert_eq!(left, None, "{proxy:?} {part:?}");
                let asks = part == Part::Lua || proxy != Proxy::Haproxy;
                let asked = "scope=orders%3Aread&scope=a&scope=b";
                assert_eq!(text.contains(asked), asks && !scope.is_empty(), "{proxy:?} {part:?}");
                assert_eq!(text.contains("/verify"), asks, "{proxy:?} {part:?}");
            }
        }
    }

    #[test]
    fn every_configuration_names_both_ends_the_identity_and_the_setting_that_goes_with_it() {
        for (proxy, _) in FILES {
            let mut text = filled(proxy, Part::Config, &[]);
            for end in ["rescind.internal", "8443", "2001:db8::1", "trusted_proxies", "client_address_header"]
            {
                assert!(text.contains(end), "{proxy:?}: {end}");
            }
            if proxy == Proxy::Haproxy {
                text += &filled(proxy, Part::Lua, &[]);
            }
            for name in IDENTITY {
                assert!(text.to_ascii_lowercase().contains(name), "{proxy:?}: {name}");
            }
        }
    }

    #[test]
    fn only_haproxy_has_a_script() {
        for &proxy in Proxy::value_variants() {
            assert_eq!(template(proxy, Part::Lua).is_some(), proxy == Proxy::Haproxy);
        }
    }

    #[test]
    fn origins() {
        for (text, origin) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://rescind", "rescind:80"),
            ("http://rescind.internal:8080/", "rescind.internal:8080"),
            ("http://[::1]:8080", "[::1]:8080"),
        ] {
            assert_eq!(text.parse::<HttpOrigin>().unwrap().to_string(), origin);
        }
        for text in [
            "",
            "rescind:8080",
            "https://rescind",
            "http://",
            "http://a/b",
            "http://a?b",
            "http://u@a",
            "http://a;b",
            "http://a b",
            "http://$a",
            "http://[1]",
        ] {
            assert!(text.parse::<HttpOrigin>().is_err(), "{text}");
        }
        let found = |address: &str| HttpOrigin::of_listener(address.parse().unwrap()).to_string();
        assert_eq!(found("0.0.0.0:1"), "127.0.0.1:1");
        assert_eq!(found("[::]:1"), "[::1]:1");
        assert_eq!(found("192.0.2.1:1"), "192.0.2.1:1");
    }
}
