//! The configuration in force, for people: without secrets, and with the source of each value.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{Config, ValueSource};

/// A value of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// `section.field`
    pub name: String,
    /// As a configuration file has it.
    pub value: String,
    pub source: ValueSource,
}

/// Where each value was set that is no default, by its name. It is no part of the configuration: two that have the same
/// values are equal.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources(pub(super) BTreeMap<String, ValueSource>);

impl PartialEq for Sources {
    fn eq(&self, _: &Sources) -> bool {
        true
    }
}

impl Eq for Sources {}

impl Config {
    /// Every value in force. A password in the database's URL is left out, as everywhere.
    pub fn settings(&self) -> Vec<Setting> {
        // What a configuration was read from can be written again.
        let table = Table::try_from(self).unwrap_or_default();
        let sections = table.into_iter().filter_map(|(section, value)| match value {
            Value::Table(fields) => Some((section, fields)),
            _ => None,
        });
        let settings = sections.flat_map(|(section, fields)| {
            fields.into_iter().map(move |(field, value)| (format!("{section}.{field}"), value))
        });
        let setting = |(name, value): (String, Value)| {
            let source = self.sources.0.get(&name).cloned().unwrap_or(ValueSource::Default);
            Setting { name, value: value.to_string(), source }
        };
        settings.map(setting).collect()
    }
}
