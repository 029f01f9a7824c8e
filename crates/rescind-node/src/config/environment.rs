//! The process's environment. Only this file reads it.

use std::{collections::HashMap, path::Path};

use rescind_base::{files::permissions, secret};
use zeroize::Zeroizing;

use super::ConfigError;

/// The prefix of Rescind's variables.
const PREFIX: &str = "RESCIND_";

/// OpenTelemetry's variables for the address that traces are sent to (OTLP exporter configuration).
const COLLECTOR: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// A variable by which users of any program say that they want no colours (<https://no-color.org>).
const NO_COLOUR: &str = "NO_COLOR";

/// The variable in which sudo names its caller.
const SUDO_USER: &str = "SUDO_USER";

/// The variable in which systemd names the stream to its journal.
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";

/// The words of this process's command line.
pub fn words() -> Vec<String> {
    std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Rescind's variables, `RESCIND_…`, and those of others that it respects.
#[derive(Default)]
pub struct Environment(pub(super) HashMap<String, Zeroizing<String>>);

impl Environment {
    /// The variables of this process.
    pub fn of_process() -> Environment {
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        std::env::vars_os()
            // A value that is not UTF-8 must not seem absent: it fails where it is read.
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect()
    }

    /// The master key's text, from `RESCIND_MASTER_KEY` or the file that `RESCIND_MASTER_KEY_FILE` names.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or if others may write it.
    pub fn master_key(&self) -> Result<Option<Zeroizing<String>>, ConfigError> {
        self.secret("RESCIND_MASTER_KEY")
    }

    /// Whether a variable asks for traces.
    pub fn wants_traces(&self) -> bool {
        COLLECTOR.iter().any(|name| self.0.contains_key(*name))
    }

    /// Whether the user wants colours on a terminal.
    pub fn wants_colours(&self) -> bool {
        self.0.get(NO_COLOUR).is_none_or(|value| value.is_empty())
    }

    /// The user who has become another one by sudo.
    pub fn sudo_user(&self) -> Option<&str> {
        self.0.get(SUDO_USER).map(|name| name.as_str())
    }

    /// The device and inode of the stream that systemd has opened to its journal.
    pub fn journal_stream(&self) -> Option<&str> {
        self.0.get(JOURNAL_STREAM).map(|stream| stream.as_str())
    }

    pub(super) fn secret(&self, name: &str) -> Result<Option<Zeroizing<String>>, ConfigError> {
        if let Some(value) = self.0.get(name) {
            return Ok(Some(value.clone()));
        }
        let variable = format!("{name}_FILE");
        let Some(path) = self.0.get(&variable) else { return Ok(None) };
        let text = secret::read(Path::new(path.as_str())).map_err(|e| {
            // A text that does not look like a path may be the secret itself.
            let shown = if path.contains(['=', '@', ' ']) { "…".to_owned() } else { secret::shown(path) };
            ConfigError::SecretFile(variable.clone(), shown, e)
        })?;
        permissions::require_unwritable(&variable, Path::new(path.as_str()))
            .map_err(|e| ConfigError::Permissions(variable, e))?;
        Ok(Some(text))
    }

    /// The names of Rescind's variables, sorted.
    pub(super) fn ours(&self) -> Vec<&str> {
        let mut ours: Vec<_> =
            self.0.keys().map(String::as_str).filter(|name| name.starts_with(PREFIX)).collect();
        ours.sort_unstable();
        ours
    }

    /// The variables that set a key, sorted: (variable, section, field).
    pub(super) fn settings(&self) -> Vec<(&str, String, String)> {
        let settings = self.ours().into_iter().filter_map(|name| {
            let (section, field) = name.strip_prefix(PREFIX)?.split_once("__")?;
            Some((name, section.to_lowercase(), field.to_lowercase()))
        });
        settings.collect()
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        let ours = variables.into_iter().filter(|(name, _)| {
            let others = [NO_COLOUR, SUDO_USER, JOURNAL_STREAM];
            name.starts_with(PREFIX) || others.contains(&name.as_str()) || COLLECTOR.contains(&name.as_str())
        });
        let value = |mut value: String| {
            // The program that set the variable may have added a line break, as in a file.
            value.truncate(value.trim_end_matches(['\r', '\n']).len());
            Zeroizing::new(value)
        };
        Environment(ours.map(|(name, text)| (name, value(text))).collect())
    }
}
