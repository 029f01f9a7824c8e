//! The names of settings, and suggestions for misspelled ones.

use strsim::damerau_levenshtein;
use toml::{Table, Value};

/// Rescind's variables that are no setting of the file.
const OTHER_VARIABLES: [&str; 4] =
    ["RESCIND_CONFIG", "RESCIND_MASTER_KEY", "RESCIND_MASTER_KEY_FILE", "RESCIND_DATABASE__URL_FILE"];
/// The most typing errors in a name for which a suggestion is made.
const SLIPS: usize = 2;

/// Every setting with its default, by section.
pub(super) struct Names<'d>(pub(super) &'d Table);

impl<'d> Names<'d> {
    pub(super) fn default(&self, section: &str, field: &str) -> Option<&'d Value> {
        self.0.get(section)?.get(field)
    }

    /// Describes an unknown key, and suggests the probable one. `write` writes a key as its source would: as
    /// a key of the file or as a variable.
    pub(super) fn no_such(&self, section: &str, field: &str, write: impl Fn(&str, &str) -> String) -> String {
        let meant = |(section, field): (&str, &str)| {
            format!("no such setting: did you mean {}?", write(section, field))
        };
        let Some(fields) = self.0.get(section).and_then(Value::as_table) else {
            let sections: Vec<_> = self.0.keys().map(String::as_str).collect();
            return match nearest(section, sections.iter().copied()) {
                Some(near) if self.default(near, field).is_some() => meant((near, field)),
                Some(near) => format!("no such section: did you mean {near}?"),
                None => format!("no such section: expected one of {}", sections.join(", ")),
            };
        };
        let elsewhere = || self.all().find(|(_, known)| *known == field);
        match nearest(field, fields.keys().map(String::as_str)).map(|near| (section, near)).or_else(elsewhere)
        {
            Some(near) => meant(near),
            None => {
                let fields: Vec<_> = fields.keys().map(String::as_str).collect();
                format!("no such setting: expected one of {}", fields.join(", "))
            }
        }
    }

    /// The setting's variable that differs from this one only in underscores.
    pub(super) fn but_for_underscores(&self, variable: &str) -> Option<String> {
        let settings = self.all().map(|(section, field)| self::variable(section, field));
        let known: Vec<String> = settings.chain(OTHER_VARIABLES.map(str::to_owned)).collect();
        let letters = |name: &str| name.replace('_', "").to_uppercase();
        if known.contains(&variable.to_uppercase()) {
            return None;
        }
        known.into_iter().find(|known| letters(known) == letters(variable))
    }

    fn all(&self) -> impl Iterator<Item = (&'d str, &'d str)> {
        self.0.iter().flat_map(|(section, fields)| {
            fields.as_table().into_iter().flatten().map(move |(field, _)| (section.as_str(), field.as_str()))
        })
    }
}

/// The variable that sets a key.
pub(super) fn variable(section: &str, field: &str) -> String {
    format!("RESCIND_{section}__{field}").to_uppercase()
}

fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let distances = names.map(|known| (damerau_levenshtein(name, known), known));
    // In a short name so many errors make another name.
    distances
        .min()
        .filter(|(slips, known)| *slips <= SLIPS && slips * 2 < known.len())
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        DEFAULTS, Environment,
        source::tests::{with, with_file},
    };

    // check 109
    #[test]
    fn every_setting_is_told_from_its_name_with_an_underscore_too_few_or_too_many() {
        let defaults: Table = DEFAULTS.parse().unwrap();
        let settings = defaults.iter().flat_map(|(section, fields)| {
            fields.as_table().unwrap().keys().map(move |field| variable(section, field))
        });
        let others = ["RESCIND_MASTER_KEY", "RESCIND_MASTER_KEY_FILE", "RESCIND_DATABASE__URL_FILE"]
            .map(str::to_owned);
        let mut tried = 0;
        for right in settings.chain(others) {
            let name = right.strip_prefix("RESCIND_").unwrap();
            let slips = [
                name.replacen("__", "_", 1),
                name.replace('_', ""),
                name.replacen('_', "__", 1),
                format!("{name}_"),
                name.to_lowercase().replacen("__", "_", 1),
            ];
            for slip in slips.into_iter().filter(|slip| *slip != name && *slip != name.to_lowercase()) {
                let wrong = format!("RESCIND_{slip}");
                let told = format!("environment variable {wrong}: no such setting: its name is {right}");
                assert_eq!(with(&[(&wrong, "canary")]).unwrap_err(), told);
                tried += 1;
            }
        }
        assert!(tried > 150, "{tried}");
        // Variables that are valid for other reasons, or that do not resemble any of Rescind's.
        for name in
            ["RESCIND_MASTER_KEY", "RESCIND_MASTER_KEY_FILE", "RESCIND_TEST_POSTGRES", "RESCIND_SERVER_PORT"]
        {
            assert!(with(&[(name, "x")]).is_ok(), "{name}");
        }
    }

    // check 109
    #[test]
    fn what_there_is_not_is_named_with_what_was_meant_and_without_its_value() {
        for (text, expected) in [
            (
                "[server]\nlitsen = 'canary'",
                "server.litsen (/rescind.toml): no such setting: did you mean server.listen?",
            ),
            (
                "[server]\nurl = 'canary'",
                "server.url (/rescind.toml): no such setting: did you mean database.url?",
            ),
            (
                "[servre]\nlisten = 'canary'",
                "servre.listen (/rescind.toml): no such setting: did you mean server.listen?",
            ),
            ("[databse]\nx = 'canary'", "databse.x (/rescind.toml): no such section: did you mean database?"),
            (
                "[log]\npassword = 'canary'",
                "log.password (/rescind.toml): no such setting: expected one of format, level",
            ),
            ("[database]\nurl = 5", "database.url (/rescind.toml): expected a text"),
            ("[database]\nurl = ['canary']", "database.url (/rescind.toml): expected a text"),
            (
                "[server]\nmax_connections = 1.5",
                "server.max_connections = 1.5 (/rescind.toml): expected a whole number such as 10000",
            ),
            ("[tls]\nmanagement = 'yes'", "tls.management = \"yes\" (/rescind.toml): expected true or false"),
            (
                "[server]\ntrusted_proxies = '::1'",
                "server.trusted_proxies = \"::1\" (/rescind.toml): expected a list",
            ),
            (
                "[server]\ntrusted_proxies = [1]",
                "server.trusted_proxies = [1] (/rescind.toml): expected a string",
            ),
            (
                "[cluster]\nclock_drift_percent = 300",
                "cluster.clock_drift_percent = 300 (/rescind.toml): expected a whole number between 0 and 255",
            ),
        ] {
            assert_eq!(with_file(text).unwrap_err(), expected);
        }
        let section = with_file("[secrets]\nkey = 'canary'").unwrap_err();
        assert!(
            section.starts_with("secrets.key (/rescind.toml): no such section: expected one of audit, "),
            "{section}"
        );
        assert_eq!(
            with(&[("RESCIND_DATABASE__PASSWORD", "canary")]).unwrap_err(),
            "database.password (environment variable RESCIND_DATABASE__PASSWORD): no such setting: expected one of accept_lost_commits, pool_size, require_synchronous, start_timeout, statement_timeout, tls_ca, url"
        );
        assert_eq!(
            with(&[("RESCIND_TLS__MANAGEMENT", "yes")]).unwrap_err(),
            "tls.management = \"yes\" (environment variable RESCIND_TLS__MANAGEMENT): expected true or false"
        );
    }

    // check 109
    #[test]
    fn a_line_break_at_the_end_of_a_variable_is_cut_off() {
        let key = "0f".repeat(32);
        for end in ["", "\n", "\r\n", "\n\n"] {
            let config = with(&[
                ("RESCIND_DATABASE__URL", &format!("postgres://u:p@db/x{end}")),
                ("RESCIND_TOKENS__ISSUER", &format!("https://x{end}")),
                ("RESCIND_LIMITS__LOGINS_PER_MINUTE", &format!("7{end}")),
            ])
            .unwrap();
            assert_eq!(config.database.url, Some("postgres://u:p@db/x".parse().unwrap()), "{end:?}");
            assert_eq!(
                (config.tokens.issuer.as_str(), config.limits.logins_per_minute),
                ("https://x", 7),
                "{end:?}"
            );
            let environment =
                Environment::from_iter([("RESCIND_MASTER_KEY".to_owned(), format!("{key}{end}"))]);
            assert_eq!(environment.master_key().unwrap().unwrap().as_str(), key);
        }
    }
}
