//! `rescind config`

mod check;

use clap::Subcommand;
use rescind_node::config::{Config, ConfigError, DEFAULTS, Environment};
use serde_json::json;

use super::{
    Failure,
    output::{Output, prose},
};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check the configuration, and what `serve` would read with it: TLS files and the master key
    Check {
        /// Ask the database too
        #[arg(long)]
        connect: bool,
    },
    /// Print the configuration in force
    Print {
        /// Print the defaults instead, with a description of each
        #[arg(long)]
        defaults: bool,
    },
}

pub(super) fn run(
    command: ConfigCommand,
    load: impl FnOnce() -> Result<Config, ConfigError>,
    environment: &Environment,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check { connect } => {
            let warnings = check::check(&load()?, environment, connect)?;
            warnings.iter().for_each(|warning| prose(&format!("warning: {warning}")));
            if output.json {
                output.data(&json!({ "warnings": warnings }), |_| String::new())?;
            }
            prose("The configuration is good.");
        }
        ConfigCommand::Print { defaults: true } if !output.json => output.text(DEFAULTS)?,
        ConfigCommand::Print { defaults } => {
            let config = if defaults { Config::default() } else { load()? };
            let text = toml::to_string(&config)?;
            output.data(&config, |_| text)?;
        }
    }
    Ok(())
}
