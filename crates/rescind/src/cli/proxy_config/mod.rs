//! `rescind proxy-config`: configurations of reverse proxies that ask Rescind before they forward a request.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};
use rescind_verifier::Scopes;
use serde::Serialize;

mod origin;
mod template;

use rescind_node::config::Config;

use self::{
    origin::Origin,
    template::{Ends, Locations},
};
use super::{Failure, output::Output};

#[derive(Debug, Args)]
pub(super) struct ProxyConfig {
    /// The proxy that the configuration is for
    proxy: Proxy,
    /// Rescind's address, as the proxy reaches it; https needs a host name [default: server.listen]
    #[arg(long, value_name = "URL")]
    rescind: Option<Origin>,
    /// With https: the file, on the proxy's machine, of the authorities that may sign Rescind's certificate
    #[arg(long, value_name = "FILE", default_value = "/etc/ssl/certs/ca-certificates.crt", value_parser = plain_path)]
    rescind_ca: String,
    /// The address of the protected service, as the proxy reaches it
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3000")]
    upstream: Origin,
    /// The address on which the proxy listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// A scope that a token must have
    #[arg(long, value_name = "SCOPE", value_parser = plain_scopes)]
    scope: Vec<Scopes>,
    /// A scope that a token must have too where the path begins with PATH; the longest PATH that fits counts
    #[arg(long, value_name = "PATH=SCOPE", value_parser = location)]
    location: Vec<(String, Scopes)>,
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
    load: impl FnOnce() -> Result<Config, rescind_node::config::ConfigError>,
    output: &Output,
) -> Result<(), Failure> {
    let ProxyConfig { proxy, rescind, rescind_ca, upstream, listen, scope, location, part } = command;
    let template = template(proxy, part).ok_or_else(|| {
        Failure::Usage("--part lua: only haproxy has a script beside its configuration".into())
    })?;
    if upstream.tls {
        return Err(Failure::Usage("--upstream: expected http://HOST or http://HOST:PORT".into()));
    }
    let rescind = match rescind {
        Some(origin) => origin,
        None => {
            let config = load()?;
            if config.tls.certificate.is_some() {
                return Err(Failure::Usage(
                    "--rescind: needed, since the certificate has a host's name".into(),
                ));
            }
            Origin::of_listener(config.server.listen)
        }
    };
    let ends = Ends { rescind, rescind_ca, upstream, listen: listen.into() };
    let config = ends.fill(template, &Locations::new(&scope, &location));
    output.data(&Printed { proxy, config }, |printed| printed.config.clone())
}

fn template(proxy: Proxy, part: Part) -> Option<&'static str> {
    match (proxy, part) {
        (Proxy::Nginx, Part::Config) => Some(include_str!("../proxies/nginx.conf")),
        (Proxy::Caddy, Part::Config) => Some(include_str!("../proxies/Caddyfile")),
        (Proxy::Haproxy, Part::Config) => Some(include_str!("../proxies/haproxy.cfg")),
        (Proxy::Haproxy, Part::Lua) => Some(include_str!("../proxies/haproxy.lua")),
        (Proxy::Traefik, Part::Config) => Some(include_str!("../proxies/traefik.yaml")),
        (Proxy::Envoy, Part::Config) => Some(include_str!("../proxies/envoy.yaml")),
        (Proxy::Apisix, Part::Config) => Some(include_str!("../proxies/apisix.yaml")),
        (_, Part::Lua) => None,
    }
}

/// `PATH=SCOPE` of `--location`. The path is written into patterns, so only plain characters are accepted.
fn location(text: &str) -> Result<(String, Scopes), &'static str> {
    const EXPECTED: &str = "expected PATH=SCOPE, the path of letters, digits, '/', '-' and '_'";
    let (path, scopes) = text.split_once('=').ok_or(EXPECTED)?;
    let scopes = plain_scopes(scopes)?;
    let is_plain = path.starts_with('/')
        && !path.contains("//")
        && path.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_'));
    if is_plain { Ok((path.to_owned(), scopes)) } else { Err(EXPECTED) }
}

/// Scopes without the characters that make variables in Caddy's configuration.
fn plain_scopes(text: &str) -> Result<Scopes, &'static str> {
    const EXPECTED: &str = "expected a scope without '{', '}', '$', '@' and '`'";
    let scopes: Scopes = text.parse().map_err(|_| EXPECTED)?;
    if scopes.is_empty() || text.contains(['{', '}', '$', '`', '@']) { Err(EXPECTED) } else { Ok(scopes) }
}

fn plain_path(text: &str) -> Result<String, &'static str> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.');
    if text.starts_with('/') && text.bytes().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err("expected an absolute path of letters, digits, '/', '-', '_' and '.'")
    }
}

#[cfg(test)]
mod tests {
    use super::{template::ODD, *};

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

    fn filled(proxy: Proxy, part: Part, rescind: &str, scope: &[&str], location: &[&str]) -> String {
        let scopes: Vec<Scopes> = scope.iter().map(|s| s.parse().unwrap()).collect();
        let some: Vec<_> = location.iter().map(|text| super::location(text).unwrap()).collect();
        let ends = Ends {
            rescind: rescind.parse().unwrap(),
            rescind_ca: "/etc/ca.pem".into(),
            upstream: "http://[2001:db8::1]".parse().unwrap(),
            listen: "127.0.0.1:8000".parse::<SocketAddr>().unwrap().into(),
        };
        ends.fill(template(proxy, part).unwrap(), &Locations::new(&scopes, &some))
    }

    #[test]
    fn every_placeholder_is_filled() {
        for (proxy, part) in FILES {
            for rescind in ["http://rescind.internal:8443", "https://rescind.internal:8443"] {
                for scope in [&[][..], &["orders:read", "a b"][..]] {
                    for location in [&[][..], &["/orders=x", "/orders/new=y"][..]] {
                        let text = filled(proxy, part, rescind, scope, location);
                        let left = text.split('@').skip(1).find(|rest| {
                            let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_');
                            let end = end.unwrap_or(rest.len());
                            end > 0 && text.contains(&format!("@{}@", &rest[..end]))
                        });
                        assert_eq!((left, text.contains("#@")), (None, false), "{proxy:?} {part:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_configuration_asks_for_the_scopes_of_each_location() {
        for (proxy, part) in FILES.into_iter().filter(|(_, part)| *part == Part::Config) {
            let some = ["/orders=x", "/=base", "/orders/new=y z", "/orders=w"];
            let text = filled(proxy, part, "http://rescind", &["orders:read", "a b"], &some);
            let asked = |scopes: &str| match proxy {
                Proxy::Caddy => format!("scope \"{scopes}\""),
                _ => format!("scope={}\"", scopes.replace(':', "%3A").replace(' ', "&scope=")),
            };
            let at =
                |scopes: &str| text.find(&asked(scopes)).unwrap_or_else(|| panic!("{proxy:?}: {scopes}"));
            let longest = at("orders:read a b base y z");
            let orders = at("orders:read a b x base w");
            at("orders:read a b base");
            assert!(longest < orders, "{proxy:?}");
            assert!(text.contains(ODD), "{proxy:?}");
            let alone = filled(proxy, part, "http://rescind", &["orders:read"], &[]);
            assert!(alone.contains(&asked("orders:read")) && !alone.contains(ODD), "{proxy:?}");
        }
    }

    #[test]
    fn tls_is_verified_by_name() {
        for (proxy, part) in FILES.into_iter().filter(|(_, part)| *part == Part::Config) {
            let plain = filled(proxy, part, "http://rescind.internal", &[], &[]);
            let tls = filled(proxy, part, "https://rescind.internal", &[], &[]);
            assert!(!plain.contains("/etc/ca.pem"), "{proxy:?}");
            assert!(tls.contains("/etc/ca.pem") && tls.contains("rescind.internal:443"), "{proxy:?}");
        }
    }

    #[test]
    fn envoy_closes_before_rescind() {
        let text = template(Proxy::Envoy, Part::Config).unwrap();
        assert!(text.contains("idle_timeout: 60s"));
        assert!(Config::default().server.idle_timeout.seconds() > 60);
    }

    // The names that the plugin's schema has; APISIX itself runs in no test.
    #[test]
    fn apisix_gets_what_its_plugin_knows() {
        let text = filled(Proxy::Apisix, Part::Config, "https://rescind", &[], &[]);
        let (_, plugin) = text.split_once("      forward-auth:\n").unwrap();
        let options: Vec<&str> = plugin
            .lines()
            .take_while(|line| line.starts_with("       "))
            .map(str::trim)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split(':').next().unwrap())
            .collect();
        let known = [
            "uri",
            "request_headers",
            "upstream_headers",
            "client_headers",
            "timeout",
            "allow_degradation",
            "status_on_error",
        ];
        assert_eq!(options, known);
    }

    #[test]
    fn every_configuration_names_both_ends_the_identity_and_the_setting_that_goes_with_it() {
        for (proxy, _) in FILES {
            let mut text = filled(proxy, Part::Config, "http://rescind.internal:8443", &[], &[]);
            for end in ["rescind.internal", "8443", "2001:db8::1", "trusted_proxies", "client_address_header"]
            {
                assert!(text.contains(end), "{proxy:?}: {end}");
            }
            if proxy == Proxy::Haproxy {
                text += &filled(proxy, Part::Lua, "http://rescind.internal:8443", &[], &[]);
            }
            for name in IDENTITY {
                assert!(text.to_ascii_lowercase().contains(name), "{proxy:?}: {name}");
            }
        }
    }

    #[test]
    fn locations_and_files_are_plain() {
        for text in ["/orders=orders:read", "/=a b", "/a/b-c_d=a=b"] {
            assert!(location(text).is_ok(), "{text}");
        }
        for text in [
            "", "/orders", "/orders=", "orders=a", "/a b=c", "/a//b=c", "/a\"=b", "/a?b=c", "/a.b=c", "/$a=b",
        ] {
            assert!(location(text).is_err(), "{text}");
        }
        assert!(plain_path("/etc/ssl/certs/ca-certificates.crt").is_ok());
        for text in ["", "ca.pem", "/a b", "/a;", "/a\"", "/$a"] {
            assert!(plain_path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_haproxy_has_a_script() {
        for &proxy in Proxy::value_variants() {
            assert_eq!(template(proxy, Part::Lua).is_some(), proxy == Proxy::Haproxy);
        }
    }
}
