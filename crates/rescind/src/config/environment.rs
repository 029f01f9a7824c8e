//! The process's environment: the only place that reads it.

use std::{collections::HashMap, path::Path};

use zeroize::Zeroizing;

use super::ConfigError;
use crate::{files::permissions, secret};

/// What the names of our variables begin with.
const PREFIX: &str = "RESCIND_";

/// Where traces are sent, if anywhere (OpenTelemetry's OTLP exporter configuration).
const COLLECTOR: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// The environment's variables that are ours, `RESCIND_…`, and those that say where traces are sent.
#[derive(Default)]
pub struct Environment(pub(super) HashMap<String, Zeroizing<String>>);

impl Environment {
    /// The process's own.
    pub fn of_process() -> Environment {
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        std::env::vars_os()
            // What is not UTF-8 is wrong wherever it is read, and must not seem absent.
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect()
    }

    /// The master key's text, from `RESCIND_MASTER_KEY` or the file that `RESCIND_MASTER_KEY_FILE`
    /// names.
    pub fn master_key(&self) -> Result<Option<Zeroizing<String>>, ConfigError> {
        self.secret("RESCIND_MASTER_KEY")
    }

    /// Whether somebody wants traces.
    pub fn wants_traces(&self) -> bool {
        COLLECTOR.iter().any(|name| self.0.contains_key(*name))
    }

    pub(super) fn secret(&self, name: &str) -> Result<Option<Zeroizing<String>>, ConfigError> {
        if let Some(value) = self.0.get(name) {
            return Ok(Some(value.clone()));
        }
        let variable = format!("{name}_FILE");
        let Some(path) = self.0.get(&variable) else { return Ok(None) };
        let text = secret::read(Path::new(path.as_str())).map_err(|e| {
            // What no path looks like may be the secret itself.
            let shown = if path.contains(['=', '@', ' ']) { "…".to_owned() } else { secret::shown(path) };
            ConfigError::SecretFile(variable.clone(), shown, e)
        })?;
        permissions::require_unwritable(&variable, Path::new(path.as_str()))
            .map_err(|e| ConfigError::Permissions(variable, e))?;
        Ok(Some(text))
    }

    /// The names of the variables that are ours, in a fixed order.
    pub(super) fn ours(&self) -> Vec<&str> {
        let mut ours: Vec<_> =
            self.0.keys().map(String::as_str).filter(|name| name.starts_with(PREFIX)).collect();
        ours.sort_unstable();
        ours
    }

    /// The variables that set a key, in a fixed order: (variable, section, field).
    pub(super) fn settings(&self) -> Vec<(&str, String, String)> {
        let setting = |name: &'_ str| {
            let (section, field) = name.strip_prefix(PREFIX)?.split_once("__")?;
            Some((section.to_lowercase(), field.to_lowercase()))
        };
        self.ours()
            .into_iter()
            .filter_map(|name| setting(name).map(|(section, field)| (name, section, field)))
            .collect()
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        let ours = variables
            .into_iter()
            .filter(|(name, _)| name.starts_with(PREFIX) || COLLECTOR.contains(&name.as_str()));
        let value = |mut value: String| {
            // What wrote the value may have ended it with a line break, as it would a file.
            value.truncate(value.trim_end_matches(['\r', '\n']).len());
            Zeroizing::new(value)
        };
        Environment(ours.map(|(name, text)| (name, value(text))).collect())
    }
}
