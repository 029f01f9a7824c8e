//! The process's environment: the only place that reads it.

use std::{collections::HashMap, fs, path::PathBuf};

use zeroize::Zeroizing;

use super::ConfigError;

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
        let Some(path) = self.0.get(&variable).map(|path| PathBuf::from(path.as_str())) else {
            return Ok(None);
        };
        let text = fs::read_to_string(&path).map_err(|e| ConfigError::SecretFile(variable, path, e))?;
        Ok(Some(Zeroizing::new(text.trim_end().to_owned())))
    }

    /// The variables that set a key, in a fixed order: (variable, section, field).
    pub(super) fn settings(&self) -> Vec<(&str, String, String)> {
        let mut settings: Vec<_> = self
            .0
            .keys()
            .filter_map(|name| {
                let (section, field) = name.strip_prefix("RESCIND_")?.split_once("__")?;
                Some((name.as_str(), section.to_lowercase(), field.to_lowercase()))
            })
            .collect();
        settings.sort();
        settings
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        let ours = variables
            .into_iter()
            .filter(|(name, _)| name.starts_with("RESCIND_") || COLLECTOR.contains(&name.as_str()));
        Environment(ours.map(|(name, value)| (name, Zeroizing::new(value))).collect())
    }
}
