//! `rescind db`

use anyhow::bail;
use clap::Subcommand;
use serde_json::json;

use super::{Failure, output::Output, runtime};
use crate::{
    config::{Config, Database},
    data_folder::DataFolder,
    store::Store,
};

/// Between one word of progress and the next.
const SESSIONS: u64 = 100_000;

#[derive(Debug, Subcommand)]
pub(super) enum DbCommand {
    /// Bring the store's tables up to date, as `serve` does by itself
    Migrate,
    /// Copy the store in the data folder into an empty PostgreSQL database
    Copy {
        /// postgres://USER:PASSWORD@HOST:5432/DATABASE [default: database.url]
        #[arg(long, value_name = "URL")]
        to: Option<String>,
    },
}

pub(super) fn run(command: DbCommand, config: Config, output: &Output) -> Result<(), Failure> {
    runtime()?.block_on(async {
        match command {
            DbCommand::Migrate => migrate(&config, output).await,
            DbCommand::Copy { to } => copy(config, to, output).await,
        }
    })
}

async fn migrate(config: &Config, output: &Output) -> Result<(), Failure> {
    let (_folder, store) = match config.postgres() {
        Some(options) => (None, Store::connect(&options).await?),
        None => {
            let folder = existing(config)?;
            let store = Store::open_file(&folder.store())?;
            (Some(folder), store)
        }
    };
    let version = store.version().await?;
    output.data(&json!({ "version": version }), |_| format!("The tables are those of version {version}."))
}

async fn copy(mut config: Config, to: Option<String>, output: &Output) -> Result<(), Failure> {
    if let Some(to) = to {
        let url = to.parse().map_err(|expected| Failure::Usage(format!("--to: {expected}")))?;
        config.database = Database { url: Some(url), ..config.database };
    }
    let Some(to) = config.postgres() else {
        return Err(Failure::Usage("name the database: --to URL, or database.url".into()));
    };
    // As long as it is held, no server changes what is copied.
    let folder = existing(&config)?;
    let mut told = 0;
    let progress = |sessions| {
        if sessions >= told + SESSIONS {
            told = sessions;
            output.prose(&format!("{sessions} sessions"));
        }
    };
    let copied = Store::copy(&folder.store(), &to, progress).await?;
    output.data(&copied, |copied| {
        format!(
            "Copied {} clients, {} credentials, {} sessions and {} events to {}.\n\
             Every node needs this database.url and the master key of {}.",
            copied.clients,
            copied.credentials,
            copied.sessions,
            copied.events,
            to.url,
            config.server.data_dir.display()
        )
    })
}

/// The data folder, if there is a store in it.
fn existing(config: &Config) -> anyhow::Result<DataFolder> {
    let path = &config.server.data_dir;
    if !path.join("rescind.db").exists() {
        bail!("there is no store in {}: name its folder with --data-dir", path.display());
    }
    Ok(DataFolder::take(path)?)
}
