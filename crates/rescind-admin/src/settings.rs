//! The configuration in force.

use rescind_node::{app::App, config::Setting};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A value of the configuration of this process, as the admin API shows it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SettingView {
    /// `section.field`
    pub name: String,
    /// As a configuration file has it, without a password.
    pub value: String,
    /// Where it was set: `default`, a file, an environment variable, a flag.
    pub source: String,
}

/// Returns the configuration that this process was started with.
pub fn settings(app: &App) -> Vec<SettingView> {
    let view = |setting: &Setting| SettingView {
        name: setting.name.clone(),
        value: setting.value.clone(),
        source: setting.source.to_string(),
    };
    app.settings.iter().map(view).collect()
}
