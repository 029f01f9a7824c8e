//! Merges the sources of values, and names the source of a wrong one.

use std::{collections::BTreeMap, path::PathBuf};

use rescind_base::secret;
use serde::Deserialize;
use toml::{Table, Value};

use super::{
    Config, ConfigError, DEFAULTS, Environment, ValueSource,
    names::{Names, variable},
    settings::Sources,
    webhook,
};

/// The key that holds a secret, and is never shown.
const SECRET: &str = "database.url";

/// The list of tables that only a file can have.
const WEBHOOK: &str = "webhook";

/// The settings that the command line can change.
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
            layers.set(field, Value::String(value.clone()), ValueSource::Flag(flag))?;
        }
    }
    layers.read()
}

/// The values so far, and the sources of those that are not defaults.
struct Layers {
    defaults: Table,
    values: Table,
    origins: BTreeMap<String, ValueSource>,
}

impl Layers {
    fn default() -> Result<Layers, ConfigError> {
        let defaults = table("defaults.toml".into(), DEFAULTS)?;
        Ok(Layers { values: defaults.clone(), defaults, origins: BTreeMap::new() })
    }

    fn add_file(&mut self, path: PathBuf) -> Result<(), ConfigError> {
        let text = secret::read(&path)
            .map_err(|e| ConfigError::File(secret::shown(&path.display().to_string()), e))?;
        for (section, fields) in table(path.clone(), &text)? {
            let origin = ValueSource::File(path.clone());
            if section == WEBHOOK {
                self.origins.insert(section.clone(), origin);
                self.values.insert(section, fields);
                continue;
            }
            let Value::Table(fields) = fields else {
                let (key, shown) = (secret::shown(&section), String::new());
                let problem = "expected a key within a section such as [server]".into();
                return Err(ConfigError::Key { key, shown, origin, problem });
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
        // The only key that may hold a secret can be read from a file.
        let (variable, field) = match variable.strip_suffix("_FILE") {
            Some(name) if name == "RESCIND_DATABASE__URL" => (name, "url".to_owned()),
            _ => (variable, field),
        };
        let text = environment.secret(variable)?.unwrap_or_default();
        let key = format!("{section}.{field}");
        // A variable is text; the default's type decides how it is parsed.
        let value = match Names(&self.defaults).default(&section, &field) {
            Some(Value::Integer(_)) => text.parse().map_or(Value::String(text.to_string()), Value::Integer),
            Some(Value::Boolean(_)) => text.parse().map_or(Value::String(text.to_string()), Value::Boolean),
            Some(Value::Array(_)) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
            }
            _ => Value::String(text.to_string()),
        };
        self.set(&key, value, ValueSource::Variable(variable.to_owned()))
    }

    fn set(&mut self, key: &str, value: Value, origin: ValueSource) -> Result<(), ConfigError> {
        let (section, field) = key.split_once('.').unwrap_or((key, ""));
        let names = Names(&self.defaults);
        let default = names.default(section, field);
        let problem = match default {
            None => Some(names.no_such(section, field, |section, field| match origin {
                ValueSource::Variable(_) => variable(section, field),
                _ => format!("{section}.{field}"),
            })),
            Some(default) if !default.same_type(&value) => Some(form_of(default)),
            Some(_) => None,
        };
        if let Some(problem) = problem {
            // The value of an unknown key may be a secret.
            let shown = default.map_or(String::new(), |_| shown(key, &value));
            return Err(ConfigError::Key { key: secret::shown(key), shown, origin, problem });
        }
        if let Some(Value::Table(section)) = self.values.get_mut(section) {
            section.insert(field.to_owned(), value);
        }
        self.origins.insert(key.to_owned(), origin);
        Ok(())
    }

    fn read(self) -> Result<Config, ConfigError> {
        let mut config: Config = match serde_path_to_error::deserialize(Value::Table(self.values.clone())) {
            Ok(config) => config,
            Err(e) => return Err(self.blame(&e.path().to_string(), e.inner().message())),
        };
        let checked = config.check().and_then(|()| webhook::check(&config.webhook));
        checked.map_err(|(key, problem)| self.blame(key, &problem))?;
        config.sources = Sources(self.origins);
        Ok(config)
    }

    fn blame(&self, path: &str, problem: &str) -> ConfigError {
        let problem = match problem.trim() {
            "invalid socket address syntax" => {
                "expected an IP address and a port such as 127.0.0.1:8080 or [::1]:8080".into()
            }
            problem => secret::without_value(problem),
        };
        // The value of a webhook may be a secret that is in the wrong place.
        if path.starts_with(WEBHOOK) {
            let origin = self.origins.get(WEBHOOK).cloned().unwrap_or(ValueSource::Default);
            return ConfigError::Key { key: path.to_owned(), shown: String::new(), origin, problem };
        }
        // The path of a wrong list item ends at the item.
        let key = path.split('[').next().unwrap_or(path).to_owned();
        let value = key.split_once('.').and_then(|(section, field)| self.values.get(section)?.get(field));
        let shown = value.map(|value| shown(&key, value)).unwrap_or_default();
        let origin = self.origins.get(&key).cloned().unwrap_or(ValueSource::Default);
        ConfigError::Key { key, shown, origin, problem }
    }
}

/// ` = value`, as far as it may be shown.
fn shown(key: &str, value: &Value) -> String {
    if key == SECRET { String::new() } else { format!(" = {}", secret::shown(&value.to_string())) }
}

/// The form that a value of another type should have had.
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
    let syntax = |e: &toml::de::Error| {
        let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        ConfigError::Syntax(path.clone(), before.matches('\n').count() + 1, secret::shown(e.message()))
    };
    let parsed = toml::Deserializer::parse(text).map_err(|e| syntax(&e))?;
    serde_path_to_error::deserialize(parsed).map_err(|e| match e.inner().message() {
        // Of all that the form permits, only a larger number cannot be taken over.
        problem if problem.starts_with("invalid type: integer") => ConfigError::Key {
            key: secret::shown(&e.path().to_string()),
            shown: String::new(),
            origin: ValueSource::File(path.clone()),
            problem: "expected a whole number of 64 bits".into(),
        },
        _ => syntax(e.inner()),
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
pub(super) mod tests;
