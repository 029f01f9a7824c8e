//! Where a PostgreSQL database is, and how this process shows itself there.

use std::{fmt, str::FromStr};

use tokio_postgres::{Config, config::Host};

/// A `postgres://` URL. Shown without its password.
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

impl FromStr for DatabaseUrl {
    type Err = &'static str;

    // The parser's own words are not passed on: they may hold a piece of the password.
    fn from_str(text: &str) -> Result<DatabaseUrl, Self::Err> {
        const EXPECTED: &str = "expected postgres://user:password@host:5432/database, special characters of the password percent-encoded; sslmode may be disable, prefer or require (which verifies)";
        let (scheme, rest) = text.split_once("://").ok_or(EXPECTED)?;
        if !matches!(scheme, "postgres" | "postgresql") {
            return Err(EXPECTED);
        }
        let config: Config = text.parse().map_err(|_| EXPECTED)?;
        let is_host = |host: &Host| match host {
            Host::Tcp(name) => !name.contains(['@', ' ']) && !name.is_empty(),
            Host::Unix(_) => true,
        };
        let somewhere = !config.get_hosts().is_empty() || !config.get_hostaddrs().is_empty();
        if !somewhere || !config.get_hosts().iter().all(is_host) {
            return Err(EXPECTED);
        }
        Ok(DatabaseUrl { shown: without_password(scheme, rest), config })
    }
}

fn without_password(scheme: &str, rest: &str) -> String {
    let (credentials, place) = rest.split_once('@').unwrap_or(("", rest));
    let (place, parameters) = place.split_once('?').unwrap_or((place, ""));
    let credentials = match credentials.split_once(':') {
        Some((user, _)) => format!("{user}:***@"),
        None if credentials.is_empty() => String::new(),
        None => format!("{credentials}@"),
    };
    let parameters = parameters.split('&').map(|parameter| match parameter.split_once('=') {
        // A name may be percent-encoded as well.
        Some((name, _)) if name == "password" || name.contains('%') => format!("{name}=***"),
        _ => parameter.to_owned(),
    });
    let parameters = parameters.collect::<Vec<_>>().join("&");
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
            ("postgres://u:canary@db/x", "postgres://u:***@db/x"),
            (
                "postgresql://u:can%40ary@a:1,b:2/x?sslmode=require",
                "postgresql://u:***@a:1,b:2/x?sslmode=require",
            ),
            ("postgres://db?user=u&password=canary", "postgres://db?user=u&password=***"),
            ("postgres://db/x?user=u&pass%77ord=canary", "postgres://db/x?user=u&pass%77ord=***"),
            ("postgres:///x?host=/run/postgresql", "postgres:///x?host=/run/postgresql"),
            ("postgres://u@%2Frun%2Fpostgresql/x", "postgres://u@%2Frun%2Fpostgresql/x"),
        ] {
            let url: DatabaseUrl = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), format!("{url:?}").contains("canary")), (shown, false));
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
            "postgres://u:p@db/x?canary=1",
        ] {
            let error = text.parse::<DatabaseUrl>().unwrap_err();
            assert!(
                error.starts_with("expected postgres://") && !error.contains("canary"),
                "{text}: {error}"
            );
        }
    }
}
