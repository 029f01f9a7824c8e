//! `rescind config`

use clap::Subcommand;

use super::{Failure, output::Output};
use crate::config::{Config, ConfigError, DEFAULTS};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Read and check the whole configuration
    Check,
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
    output: &Output,
) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check => {
            load()?;
            output.prose("The configuration is good.");
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
