//! Where values come from, and who is to blame for a bad one.

use std::{collections::HashMap, fmt, io, path::PathBuf};

use serde::Deserialize;
use thiserror::Error;
use toml::{Table, Value};

use super::{
    Config, DEFAULTS, Environment,
    names::{Names, variable},
};
use crate::{files::permissions::PermissionError, secret};

/// What holds a secret, and is never shown.
const SECRET: &str = "database.url";

/// What stops a start: the key, its value, where it stands, and what would be right.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {0}: {1}")]
    File(String, io::Error),
    /// The file is no TOML: in which line, and why. The line itself may hold a password.
    #[error("configuration file {0}: line {1}: {2}")]
    Syntax(PathBuf, usize, String),
    /// A secret's file cannot be read. What should be its name may be the secret itself.
    #[error("{0} names {1}, which cannot be read: {2}")]
    SecretFile(String, String, io::Error),
    /// Others may write a secret's file.
    #[error("{0}: {1}")]
    Permissions(String, PermissionError),
    /// A variable that is none, but for an underscore.
    #[error("environment variable {0}: no such setting: its name is {1}")]
    Variable(String, String),
    /// A key or its value.
    #[error("{key}{shown} ({origin}): {problem}")]
    Key {
        /// `section.field`
        key: String,
        /// ` = value`, or nothing.
        shown: String,
        /// Where it was set.
        origin: Origin,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(PathBuf),
    Variable(String),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Variable(name) => write!(f, "environment variable {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// What the command line sets.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    pub config: Option<PathBuf>,
    pub data_dir: Option<PathBuf>,
    pub listen: Option<String>,
    pub management_listen: Option<String>,
    pub database_url: Option<String>,
}

pub(super) fn load(environment: &Environment, flags: &Flags) -> Result<Config, ConfigError> {
    let mut layers = Layers::default()?;
    let file =
        flags.config.clone().or_else(|| environment.0.get("RESCIND_CONFIG").map(|path| path.as_str().into()));
    if let Some(path) = file {
        layers.add_file(path)?;
    }
    let names = Names(&layers.defaults);
    for name in environment.ours() {
        if let Some(right) = names.but_for_underscores(name) {
            return Err(ConfigError::Variable(name.to_owned(), right));
        }
    }
    for (variable, section, field) in environment.settings() {
        layers.add_variable(environment, variable, section, field)?;
    }
    let data_dir = flags.data_dir.as_ref().map(|path| path.to_string_lossy().into_owned());
    for (flag, field, value) in [
        ("--listen", "server.listen", &flags.listen),
        ("--management-listen", "server.management_listen", &flags.management_listen),
        ("--data-dir", "server.data_dir", &data_dir),
        ("--database-url", "database.url", &flags.database_url),
    ] {
        if let Some(value) = value {
            layers.set(field, Value::String(value.clone()), Origin::Flag(flag))?;
        }
    }
    layers.read()
}

/// The values so far, and where those that are not defaults were set.
struct Layers {
    defaults: Table,
    values: Table,
    origins: HashMap<String, Origin>,
}

impl Layers {
    fn default() -> Result<Layers, ConfigError> {
        let defaults = table("defaults.toml".into(), DEFAULTS)?;
        Ok(Layers { values: defaults.clone(), defaults, origins: HashMap::new() })
    }

    fn add_file(&mut self, path: PathBuf) -> Result<(), ConfigError> {
        let text = secret::read(&path)
            .map_err(|e| ConfigError::File(secret::shown(&path.display().to_string()), e))?;
        for (section, fields) in table(path.clone(), &text)? {
            let origin = Origin::File(path.clone());
            let Value::Table(fields) = fields else {
                let problem = "expected a key within a section such as [server]".into();
                return Err(ConfigError::Key {
                    key: secret::shown(&section),
                    shown: String::new(),
                    origin,
                    problem,
                });
            };
            for (field, value) in fields {
                self.set(&format!("{section}.{field}"), value, origin.clone())?;
            }
        }
        Ok(())
    }

    fn add_variable(
        &mut self,
        environment: &Environment,
        variable: &str,
        section: String,
        field: String,
    ) -> Result<(), ConfigError> {
        // The one key that may hold a secret can be read from a file.
        let (variable, field) = match variable.strip_suffix("_FILE") {
            Some(name) if name == "RESCIND_DATABASE__URL" => (name, "url".to_owned()),
            _ => (variable, field),
        };
        let text = environment.secret(variable)?.unwrap_or_default();
        let key = format!("{section}.{field}");
        // A variable is text; what it stands for is told by the key's default.
        let value = match Names(&self.defaults).default(&section, &field) {
            Some(Value::Integer(_)) => text.parse().map_or(Value::String(text.to_string()), Value::Integer),
            Some(Value::Boolean(_)) => text.parse().map_or(Value::String(text.to_string()), Value::Boolean),
            Some(Value::Array(_)) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
            }
            _ => Value::String(text.to_string()),
        };
        self.set(&key, value, Origin::Variable(variable.to_owned()))
    }

    fn set(&mut self, key: &str, value: Value, origin: Origin) -> Result<(), ConfigError> {
        let (section, field) = key.split_once('.').unwrap_or((key, ""));
        let names = Names(&self.defaults);
        let problem = match names.default(section, field) {
            None => Some(names.no_such(section, field, |section, field| match origin {
                Origin::Variable(_) => variable(section, field),
                _ => format!("{section}.{field}"),
            })),
            Some(default) if !default.same_type(&value) => Some(form_of(default)),
            Some(_) => None,
        };
        if let Some(problem) = problem {
            // The value of a key that there is not may be a secret.
            let shown =
                if names.default(section, field).is_some() { shown(key, &value) } else { String::new() };
            return Err(ConfigError::Key { key: secret::shown(key), shown, origin, problem });
        }
        if let Some(Value::Table(section)) = self.values.get_mut(section) {
            section.insert(field.to_owned(), value);
        }
        self.origins.insert(key.to_owned(), origin);
        Ok(())
    }

    fn read(self) -> Result<Config, ConfigError> {
        let config: Config = match serde_path_to_error::deserialize(Value::Table(self.values.clone())) {
            Ok(config) => config,
            Err(e) => return Err(self.blame(&e.path().to_string(), e.inner().message())),
        };
        config.check().map_err(|(key, problem)| self.blame(key, &problem))?;
        Ok(config)
    }

    fn blame(&self, path: &str, problem: &str) -> ConfigError {
        let problem = match problem.trim() {
            "invalid socket address syntax" => {
                "expected an IP address and a port such as 127.0.0.1:8080 or [::1]:8080".into()
            }
            problem => secret::without_value(problem),
        };
        // The path of a bad list item ends at the item.
        let key = path.split('[').next().unwrap_or(path).to_owned();
        let value = key.split_once('.').and_then(|(section, field)| self.values.get(section)?.get(field));
        let shown = value.map(|value| shown(&key, value)).unwrap_or_default();
        let origin = self.origins.get(&key).cloned().unwrap_or(Origin::Default);
        ConfigError::Key { key, shown, origin, problem }
    }
}

/// ` = value`, as far as it may be shown.
fn shown(key: &str, value: &Value) -> String {
    if key == SECRET { String::new() } else { format!(" = {}", secret::shown(&value.to_string())) }
}

/// What a value of another type should have been.
fn form_of(default: &Value) -> String {
    match default {
        Value::Boolean(_) => "expected true or false".into(),
        Value::Array(_) => "expected a list".into(),
        Value::Integer(_) => format!("expected a whole number such as {default}"),
        default if default.as_str().is_some_and(|text| !text.is_empty()) => {
            format!("expected a text such as {default}")
        }
        _ => "expected a text".into(),
    }
}

fn table(path: PathBuf, text: &str) -> Result<Table, ConfigError> {
    text.parse().map_err(|e: toml::de::Error| {
        let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        ConfigError::Syntax(path, before.matches('\n').count() + 1, secret::shown(e.message()))
    })
}

impl Default for Config {
    /// The defaults of `defaults.toml`, which a test reads.
    fn default() -> Config {
        #[expect(clippy::expect_used, reason = "the text is part of the program")]
        Table::deserialize(toml::Deserializer::parse(DEFAULTS).expect("TOML"))
            .and_then(Config::deserialize)
            .expect("the defaults")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use super::*;

    pub(in crate::config) fn with(variables: &[(&str, &str)]) -> Result<Config, String> {
        let environment = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Config::load(&environment, &Flags::default()).map_err(|e| e.to_string())
    }

    pub(in crate::config) fn with_file(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rescind.toml");
        fs::write(&path, text).unwrap();
        let flags = Flags { config: Some(path), ..Flags::default() };
        Config::load(&Environment::default(), &flags)
            .map_err(|e| e.to_string().replace(dir.path().to_str().unwrap(), ""))
    }

    #[test]
    fn nothing_set_is_the_defaults() {
        let config = with(&[]).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.tokens.access_ttl.seconds(), 3600);
        assert_eq!(config.profile().unwrap().audience(), "http://127.0.0.1:8080");
    }

    #[test]
    fn what_is_printed_is_read_again() {
        let config = with(&[
            ("RESCIND_SERVER__TRUSTED_PROXIES", "10.0.0.0/8, ::1"),
            ("RESCIND_SERVER__CLIENT_ADDRESS_HEADER", "X-Forwarded-For"),
            ("RESCIND_TOKENS__REFRESH_GRACE", "10s"),
            ("RESCIND_TOKENS__ON_REUSE", "end-session"),
            ("RESCIND_LIMITS__LOGINS_PER_MINUTE", "10"),
            ("RESCIND_TLS__CERTIFICATE", "/etc/c.pem"),
            ("RESCIND_TLS__KEY", "/etc/k.pem"),
            ("RESCIND_TLS__MANAGEMENT", "true"),
        ])
        .unwrap();
        assert_eq!(with_file(&toml::to_string(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn flags_go_before_variables_before_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        fs::write(
            &path,
            "[server]\nlisten='127.0.0.1:1'\nmanagement_listen='127.0.0.1:1'\ndrain_timeout='1s'",
        )
        .unwrap();
        let environment =
            [("RESCIND_SERVER__LISTEN", "127.0.0.1:2"), ("RESCIND_SERVER__MANAGEMENT_LISTEN", "127.0.0.1:2")];
        let environment = environment.map(|(n, v)| (n.to_owned(), v.to_owned())).into_iter().collect();
        let flags = Flags { config: Some(path), listen: Some("127.0.0.1:3".into()), ..Flags::default() };
        let server = Config::load(&environment, &flags).unwrap().server;
        assert_eq!((server.listen.port(), server.management_listen.port()), (3, 2));
        assert_eq!(server.drain_timeout.seconds(), 1);
    }

    // check 106
    #[test]
    fn a_bad_key_or_value_is_named_with_what_would_be_right() {
        for (text, expected) in [
            (
                "[tokens]\naccess_ttl = 'soon'",
                "tokens.access_ttl = \"soon\" (/rescind.toml): expected a duration such as 30s, 10m, 1h or 7d, up to 3650d",
            ),
            (
                "[tokens]\naccess_ttl = 60",
                "tokens.access_ttl = 60 (/rescind.toml): expected a text such as \"1h\"",
            ),
            (
                "[tokens]\naccess_ttl = '8d'",
                "tokens.access_ttl = \"8d\" (/rescind.toml): expected no more than tokens.refresh_ttl (7d)",
            ),
            (
                "[tokens]\nrefresh_grace = '0s'",
                "tokens.refresh_grace = \"0s\" (/rescind.toml): expected at least 1s",
            ),
            (
                "[tokens]\non_reuse = 'explode'",
                "tokens.on_reuse = \"explode\" (/rescind.toml): expected `end-refresh` or `end-session`",
            ),
            (
                "[server]\nlisten = 'localhost'",
                "server.listen = \"localhost\" (/rescind.toml): expected an IP address and a port such as 127.0.0.1:8080 or [::1]:8080",
            ),
            (
                "[server]\ntrusted_proxies = ['10.0.0.1/8']",
                "server.trusted_proxies = [\"10.0.0.1/8\"] (/rescind.toml): 10.0.0.1/8 has host bits set: the network is 10.0.0.0/8",
            ),
            (
                "[server]\nclient_address_header = 'X-Real-IP'",
                "server.client_address_header = \"X-Real-IP\" (/rescind.toml): expected server.trusted_proxies to name the proxies that write it",
            ),
            (
                "[server]\ntrusted_proxies = ['10.0.0.1']",
                "server.client_address_header = \"\" (default): expected the one header in which the proxies of server.trusted_proxies write the caller's address, such as \"X-Forwarded-For\"",
            ),
            (
                "[server]\nclient_address_header = 'X-Real-IP'\ntrusted_proxies = ['10.0.0.1', '::/0']",
                "server.trusted_proxies = [\"10.0.0.1\", \"::/0\"] (/rescind.toml): ::/0 lets every address of its kind say who the caller is: say so with server.trust_any_proxy = true",
            ),
            (
                "[server]\nclient_address_header = 'X-Real-IP'\ntrusted_proxies = ['::ffff:0:0/96']",
                "server.trusted_proxies = [\"::ffff:0:0/96\"] (/rescind.toml): 0.0.0.0/0 lets every address of its kind say who the caller is: say so with server.trust_any_proxy = true",
            ),
            (
                "[database]\naccept_lost_commits = true\nrequire_synchronous = true",
                "database.require_synchronous = true (/rescind.toml): expected false beside database.accept_lost_commits = true",
            ),
            (
                "[server]\nrequest_timeout = '0s'",
                "server.request_timeout = \"0s\" (/rescind.toml): expected at least 1s",
            ),
            (
                "[server]\nmax_connections = 0",
                "server.max_connections = 0 (/rescind.toml): expected between 1 and 1000000",
            ),
            (
                "[tls]\ncertificate = 'c.pem'",
                "tls.key = \"\" (default): expected the file of the certificate's key",
            ),
            (
                "[tls]\nclient_ca = 'ca.pem'",
                "tls.certificate = \"\" (default): expected the file of a certificate: TLS needs one",
            ),
            (
                "[tls]\nclient_certificates = 'optional'",
                "tls.client_ca = \"\" (default): expected the file of the authorities that sign what tls.client_certificates asks for",
            ),
            (
                "[tls]\nclient_certificates = 'maybe'",
                "tls.client_certificates = \"maybe\" (/rescind.toml): expected `required` or `optional`",
            ),
            (
                "[limits]\nfailed_logins = 3",
                "limits.failed_logins (/rescind.toml): no such setting: expected one of failed_logins_per_minute, logins_per_minute, refreshes_per_minute",
            ),
            (
                "[limits]\nlogins_per_minute = 10001",
                "limits.logins_per_minute = 10001 (/rescind.toml): expected between 1 and 10000, or 0 for no quota",
            ),
            (
                "[limits]\nrefreshes_per_minute = -1",
                "limits.refreshes_per_minute = -1 (/rescind.toml): expected a whole number, 0 or more",
            ),
            (
                "listen = '127.0.0.1:1'",
                "listen (/rescind.toml): expected a key within a section such as [server]",
            ),
        ] {
            assert_eq!(with_file(text).unwrap_err(), expected);
        }
        assert!(with_file("[server").unwrap_err().contains("line 1: "));
        let any = "[server]\nclient_address_header = 'X-Real-IP'\ntrusted_proxies = ['0.0.0.0/0']";
        assert!(with_file(&format!("{any}\ntrust_any_proxy = true")).is_ok());
    }

    #[test]
    fn a_bad_variable_is_named() {
        assert_eq!(
            with(&[("RESCIND_LIMITS__FAILED_LOGINS_PER_MINUTE", "many")]).unwrap_err(),
            "limits.failed_logins_per_minute = \"many\" (environment variable RESCIND_LIMITS__FAILED_LOGINS_PER_MINUTE): expected a whole number such as 30"
        );
        // What a container platform sets of its own accord for a service named "rescind".
        assert!(with(&[("RESCIND_SERVICE_HOST", "10.0.0.1"), ("RESCIND_PORT", "tcp://10.0.0.1:80")]).is_ok());
    }

    #[test]
    fn secrets_may_stand_in_files_and_are_not_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "abc\n").unwrap();
        let environment =
            |name: &str, value: &str| Environment::from_iter([(name.to_owned(), value.to_owned())]);
        let from_file = environment("RESCIND_MASTER_KEY_FILE", file.path().to_str().unwrap());
        assert_eq!(from_file.master_key().unwrap().unwrap().as_str(), "abc");
        assert!(environment("RESCIND_MASTER_KEY_FILE", "/nowhere").master_key().is_err());

        let error = with(&[("RESCIND_DATABASE__URL", "mysql://u:canary@db/x")]).unwrap_err();
        assert!(
            error.starts_with(
                "database.url (environment variable RESCIND_DATABASE__URL): expected postgres://"
            ),
            "{error}"
        );
        assert!(!error.contains("canary"), "{error}");
        fs::write(&file, "postgres://u:canary@db/x\n").unwrap();
        let config = with(&[("RESCIND_DATABASE__URL_FILE", file.path().to_str().unwrap())]).unwrap();
        assert_eq!(
            config.database.url.as_ref().unwrap().to_string(),
            "postgres://u:***@db/x?sslmode=require"
        );
        let shown = format!("{config:?} {}", toml::to_string(&config).unwrap());
        assert!(!shown.contains("canary"), "{shown}");
        // Not even where the file is no TOML right there.
        for url in ["\"postgres://u:canary@db/x", "postgres://u:canary@db/x", "'postgres://u:'canary@db/x'"] {
            let error = with_file(&format!("[database]\nurl = {url}")).unwrap_err();
            assert!(error.contains("line 2") && !error.contains("canary"), "{error}");
        }
    }
}
