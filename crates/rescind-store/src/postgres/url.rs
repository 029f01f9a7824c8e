//! The URL of a PostgreSQL database, and how it is shown.

use std::{fmt, net::IpAddr, str::FromStr};

use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};

/// A `postgres://` URL. `Display` leaves out the password, and shows the `sslmode` in force.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    shown: String,
    config: Config,
}

impl DatabaseUrl {
    pub(super) fn config(&self) -> &Config {
        &self.config
    }
}

/// What libpq reads in a URL and this program does not, and what to do instead.
const NOT_READ: &[(&str, &str)] = &[
    ("sslrootcert", "name that file in database.tls_ca"),
    ("sslcert", "no client certificate is sent to the database: let it ask for a password"),
    ("sslkey", "no client certificate is sent to the database: let it ask for a password"),
    ("passfile", "write the password in the URL, or the URL in a file that RESCIND_DATABASE__URL_FILE names"),
    ("service", "write what it stands for in the URL"),
    ("servicefile", "write what it stands for in the URL"),
    ("krbsrvname", "GSSAPI is not supported"),
    ("gsslib", "GSSAPI is not supported"),
    ("requirepeer", "leave it out"),
    ("sslcrl", "leave it out: revocation lists are not read"),
    ("fallback_application_name", "use application_name"),
    ("replication", "leave it out"),
    ("client_encoding", "leave it out: it is always UTF8"),
];

/// Rewrites a URL's parameters of libpq for the driver, which lacks some and ignores others.
fn for_driver(text: &str) -> Result<String, String> {
    let Some((place, parameters)) = text.split_once('?') else { return Ok(text.into()) };
    let mut kept = vec![];
    for parameter in parameters.split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if let Some((name, advice)) = NOT_READ.iter().find(|(known, _)| *known == name) {
            return Err(format!("{name} is not read: {advice}"));
        }
        match (name, value) {
            // Whatever the mode, a certificate is verified with its host's name.
            ("sslmode", "verify-full") => kept.push("sslmode=require"),
            ("sslmode", "verify-ca" | "allow") => {
                return Err(
                    "sslmode may be disable, prefer, require or verify-full; the last two verify the \
                            certificate and the host's name"
                        .into(),
                );
            }
            // Both mean the host that accepts writes, which is the only one that is used.
            ("target_session_attrs", "read-write" | "primary") => {}
            ("target_session_attrs", _) => {
                return Err("target_session_attrs may be read-write or primary: only the host that accepts writes is \
                            used"
                    .into());
            }
            // The order of the hosts decides nothing: the one that accepts writes is used.
            ("load_balance_hosts", "disable" | "random") | ("gssencmode", "disable" | "prefer") => {}
            ("gssencmode", _) => {
                return Err("gssencmode may be disable or prefer: GSSAPI is not supported".into());
            }
            _ => kept.push(parameter),
        }
    }
    let separator = if kept.is_empty() { "" } else { "?" };
    Ok(format!("{place}{separator}{}", kept.join("&")))
}

impl FromStr for DatabaseUrl {
    type Err = String;

    // The parser's message is not passed on: it may contain a part of the password.
    fn from_str(text: &str) -> Result<DatabaseUrl, Self::Err> {
        const EXPECTED: &str = "expected postgres://user:password@host:5432/database, special characters of the password percent-encoded; sslmode may be disable, require (which verifies, and is the default off loopback) or prefer; variables such as PGHOST and files such as .pgpass are not read";
        let (scheme, rest) = text.split_once("://").ok_or(EXPECTED)?;
        if !matches!(scheme, "postgres" | "postgresql") {
            return Err(EXPECTED.into());
        }
        // The driver ends the user and password at the first `@` of the whole text, and libpq at that of the host's part: one
        // that only a parameter has would be another host, and a password that is shown.
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if rest.contains('@') && !authority.contains('@') {
            return Err(EXPECTED.into());
        }
        let mut config: Config = for_driver(text)?.parse().map_err(|_| EXPECTED)?;
        let is_host = |host: &Host| match host {
            Host::Tcp(name) => !name.contains(['@', ' ']) && !name.is_empty(),
            Host::Unix(_) => true,
        };
        let somewhere = !config.get_hosts().is_empty() || !config.get_hostaddrs().is_empty();
        if !somewhere || !config.get_hosts().iter().all(is_host) {
            return Err(EXPECTED.into());
        }
        // With `prefer`, a server that refuses TLS may ask for the password in clear text.
        if config.get_ssl_mode() == SslMode::Prefer && !is_local(&config) {
            config.ssl_mode(SslMode::Require);
        }
        Ok(DatabaseUrl { shown: shown(scheme, rest, config.get_ssl_mode()), config })
    }
}

/// Returns whether every host is on this machine.
fn is_local(config: &Config) -> bool {
    let loopback = |address: &IpAddr| address.to_canonical().is_loopback();
    let local = |host: &Host| match host {
        Host::Tcp(name) => {
            name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|address| loopback(&address))
        }
        Host::Unix(_) => true,
    };
    // If there are addresses, names only serve to verify certificates.
    match config.get_hostaddrs() {
        [] => config.get_hosts().iter().all(local),
        addresses => addresses.iter().all(loopback),
    }
}

fn shown(scheme: &str, rest: &str, mode: SslMode) -> String {
    let (credentials, place) = rest.split_once('@').unwrap_or(("", rest));
    let (place, parameters) = place.split_once('?').unwrap_or((place, ""));
    let credentials = match credentials.split_once(':') {
        Some((user, _)) => format!("{user}:***@"),
        None if credentials.is_empty() => String::new(),
        None => format!("{credentials}@"),
    };
    let parameters = parameters.split('&').filter(|parameter| !parameter.is_empty());
    let mut parameters: Vec<_> = parameters
        .map(|parameter| match parameter.split_once('=') {
            Some(("sslmode", _)) if mode == SslMode::Require => "sslmode=require".into(),
            // A parameter's name may be percent-encoded too.
            Some((name, _)) if name == "password" || name.contains('%') => format!("{name}=***"),
            _ => parameter.to_owned(),
        })
        .collect();
    if mode == SslMode::Require && !parameters.iter().any(|parameter| parameter == "sslmode=require") {
        parameters.push("sslmode=require".into());
    }
    let parameters = parameters.join("&");
    let separator = if parameters.is_empty() { "" } else { "?" };
    format!("{scheme}://{credentials}{place}{separator}{parameters}")
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({})", self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_their_password() {
        for (text, shown) in [
            ("postgres://u:canary@localhost/x", "postgres://u:***@localhost/x"),
            ("postgres://u:canary@db/x", "postgres://u:***@db/x?sslmode=require"),
            ("postgres://u:canary@db/x?sslmode=prefer", "postgres://u:***@db/x?sslmode=require"),
            ("postgres://u:canary@db/x?sslmode=disable", "postgres://u:***@db/x?sslmode=disable"),
            (
                "postgresql://u:can%40ary@a:1,b:2/x?sslmode=require",
                "postgresql://u:***@a:1,b:2/x?sslmode=require",
            ),
            ("postgres://[::1]?user=u&password=canary", "postgres://[::1]?user=u&password=***"),
            (
                "postgres://db/x?user=u&pass%77ord=canary",
                "postgres://db/x?user=u&pass%77ord=***&sslmode=require",
            ),
            ("postgres:///x?host=/run/postgresql", "postgres:///x?host=/run/postgresql"),
            ("postgres://u@%2Frun%2Fpostgresql/x", "postgres://u@%2Frun%2Fpostgresql/x"),
        ] {
            let url: DatabaseUrl = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), format!("{url:?}").contains("canary")), (shown, false));
        }
    }

    // check 110
    #[test]
    fn tls_is_required_wherever_the_way_leaves_this_machine() {
        let mode = |place: &str, sslmode: &str| {
            let parameter = match sslmode {
                "" => String::new(),
                mode => format!("{}sslmode={mode}", if place.contains('?') { '&' } else { '?' }),
            };
            let url = format!("postgres://u:p@{place}{parameter}").parse::<DatabaseUrl>();
            url.unwrap().config.get_ssl_mode()
        };
        for place in [
            "127.0.0.1:5/x",
            "127.9.9.9/x",
            "[::1]/x",
            "[::ffff:127.0.0.1]/x",
            "localhost/x",
            "LocalHost:5/x",
            "localhost,[::1]/x",
            "%2Frun%2Fpostgresql/x",
            "/x?host=/run/postgresql",
            "db/x?hostaddr=127.0.0.1",
        ] {
            assert_eq!([mode(place, ""), mode(place, "prefer")], [SslMode::Prefer; 2], "{place}");
            assert_eq!(
                [mode(place, "require"), mode(place, "disable")],
                [SslMode::Require, SslMode::Disable]
            );
        }
        for place in [
            "db/x",
            "db:5/x",
            "10.0.0.1/x",
            "[2001:db8::1]/x",
            "[::ffff:10.0.0.1]/x",
            "0.0.0.0/x",
            "localhost.example/x",
            "localhost,db/x",
            "/x?host=db",
            "localhost/x?hostaddr=10.0.0.1",
            "localhost,db/x?hostaddr=127.0.0.1,10.0.0.1",
        ] {
            let modes = ["", "prefer", "require"].map(|sslmode| mode(place, sslmode));
            assert_eq!(modes, [SslMode::Require; 3], "{place}");
            assert_eq!(mode(place, "disable"), SslMode::Disable);
        }
    }

    #[test]
    fn what_is_no_url_is_refused_and_not_repeated() {
        for text in [
            "canary",
            "mysql://u:canary@db/x",
            "host=db password=canary",
            "postgres://",
            "postgres:///x",
            "postgres://u:can@ary@db/x",
            "postgres://u:canary",
            "postgres://u:p@db/x?sslmode=canary",
            "postgres://db/x?user=u&password=can@ary",
            "postgres://db?password=can@ary",
            "postgres:///x@canary?host=/run/postgresql",
            "postgres://u:p@db/x?canary=1",
        ] {
            let error = text.parse::<DatabaseUrl>().unwrap_err();
            assert!(
                error.starts_with("expected postgres://") && !error.contains("canary"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn forms_of_libpq_work_or_are_refused_by_name() {
        for parameters in [
            "sslmode=verify-full",
            "target_session_attrs=primary",
            "target_session_attrs=read-write&sslmode=require",
            "load_balance_hosts=disable",
            "gssencmode=disable&connect_timeout=2",
        ] {
            let url = format!("postgres://u:p@a,b/x?{parameters}").parse::<DatabaseUrl>().unwrap();
            assert_eq!(url.config.get_ssl_mode(), SslMode::Require, "{parameters}");
            assert!(url.to_string().contains("sslmode=require"), "{url}");
        }
        for (parameter, told) in [
            ("sslrootcert=/canary.pem", "sslrootcert is not read: name that file in database.tls_ca"),
            ("sslmode=verify-ca", "sslmode may be disable, prefer, require or verify-full"),
            ("target_session_attrs=any", "target_session_attrs may be read-write or primary"),
            ("passfile=/canary", "passfile is not read: write the password in the URL"),
            ("gssencmode=require", "gssencmode may be disable or prefer"),
            ("service=canary", "service is not read"),
        ] {
            let error = format!("postgres://u:canary@a/x?{parameter}").parse::<DatabaseUrl>().unwrap_err();
            assert!(error.starts_with(told) && !error.contains("canary"), "{error}");
        }
    }
}
