//! `rescind db`

use std::{
    fs::File,
    io::stdout,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use clap::Subcommand;
use serde_json::json;
use tempfile::NamedTempFile;

use super::{Failure, backend::Backend, output::Output, runtime};
use crate::{
    admin::{self, EndedTokens},
    app::OpenError,
    clock::Clock,
    config::{Config, Database, Environment},
    files::data_folder::DataFolder,
    model::{Actor, ChangeOrigin},
    random::Random,
    secret::MasterKey,
    store::Store,
};

const BACKUP: &str = "/admin/v1/backup";

/// The number of sessions between two lines of progress.
const SESSIONS: u64 = 100_000;

#[derive(Debug, Subcommand)]
pub(super) enum DbCommand {
    /// Bring the store's tables up to date, as `serve` does by itself
    Migrate,
    /// Write everything but the sessions into a file; the server may run meanwhile
    Backup {
        /// A new file; - for standard output
        file: PathBuf,
    },
    /// Replace the data folder's store by a backup. Every token ends: clients log in again
    Restore {
        /// A file that `backup` wrote
        file: PathBuf,
    },
    /// After the database was restored from a backup: end every token, because the backup lacks later revocations. Servers
    /// may run meanwhile
    Restored,
    /// Copy the store in the data folder into an empty PostgreSQL database
    Copy {
        /// postgres://USER:PASSWORD@HOST:5432/DATABASE [default: database.url]
        #[arg(long, value_name = "URL")]
        to: Option<String>,
    },
}

pub(super) fn run(
    command: DbCommand,
    config: Config,
    environment: &Environment,
    output: &Output,
) -> Result<(), Failure> {
    runtime()?.block_on(async {
        match command {
            DbCommand::Migrate => migrate(&config, output).await,
            DbCommand::Backup { file } => backup(&config, environment, &file, output).await,
            DbCommand::Restore { file } => restore(&config, environment, &file, output).await,
            DbCommand::Restored => restored(&config, environment, output).await,
            DbCommand::Copy { to } => copy(config, to, output).await,
        }
    })
}

async fn migrate(config: &Config, output: &Output) -> Result<(), Failure> {
    let (_folder, store) = match config.postgres() {
        Some(options) => (None, Store::connect(&options).await?),
        None => {
            let folder = existing(config)?;
            let store = Store::open_file(&folder.store(), &Random::System)?;
            (Some(folder), store)
        }
    };
    let version = store.version().await?;
    output.data(&json!({ "version": version }), |_| format!("The tables are those of version {version}."))
}

async fn backup(
    config: &Config,
    environment: &Environment,
    file: &Path,
    output: &Output,
) -> Result<(), Failure> {
    let mut backend = Backend::open(config, environment, false).await?;
    if file == Path::new("-") {
        backend.download(BACKUP, &mut stdout().lock()).await?;
        return Ok(());
    }
    let name = || file.display().to_string();
    if file.exists() {
        return Err(anyhow!("{} is there already: name a new file", name()).into());
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut partial = NamedTempFile::with_prefix_in(".backup-", folder).with_context(name)?;
    let bytes = backend.download(BACKUP, &mut partial).await?;
    partial.as_file().sync_all().with_context(name)?;
    partial.persist_noclobber(file).map_err(|e| e.error).with_context(name)?;
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(name)?;
    output.data(&json!({ "file": file, "bytes": bytes }), |_| {
        format!(
            "Backed up to {}, {bytes} bytes.\n\
             It is of no use without the master key, which is not in it: keep that somewhere else.",
            file.display()
        )
    })
}

async fn restore(
    config: &Config,
    environment: &Environment,
    file: &Path,
    output: &Output,
) -> Result<(), Failure> {
    if config.database.url.is_some() {
        let problem =
            "database.url is set, and PostgreSQL's backups are PostgreSQL's to restore: docs/backup.md";
        return Err(Failure::Usage(problem.into()));
    }
    if !file.is_file() {
        return Err(anyhow!("{} is no file", file.display()).into());
    }
    let folder = DataFolder::take(&config.server.data_dir)?;
    let random = Random::System;
    let master = match environment.master_key()? {
        Some(text) => MasterKey::parse(&text).map_err(OpenError::MasterKey)?,
        None => folder.master_key(false, &random)?,
    };
    if folder.store().exists() {
        let store = folder.store();
        output.confirm(&format!(
            "This replaces {}, and what was done since the backup is lost.",
            store.display()
        ))?;
    }
    let origin = ChangeOrigin::new(Clock::System.now(), Actor::Operator, &config.node_name());
    let restored = admin::restore(&folder, file, &master, origin, &random).await;
    let restored = restored.with_context(|| file.display().to_string())?;
    output.data(&restored, |restored| {
        let verifiers = match restored.dropped_verifiers.as_slice() {
            [] => String::new(),
            dropped => format!(
                "\n{} verifiers were left out, for some may have been revoked since the backup: {}.\n\
                 Make those anew that are still wanted (rescind verifier create), and give each API its new token.",
                dropped.len(),
                dropped.join(", ")
            ),
        };
        format!(
            "Restored {} clients and {} credentials.\n\
             Every token has ended: clients log in again. Credentials that were revoked since the backup are good again, and\n\
             allowlists are what they were then: look through them before the server is reached by others.{verifiers}",
            restored.clients, restored.credentials
        )
    })
}

async fn restored(config: &Config, environment: &Environment, output: &Output) -> Result<(), Failure> {
    output.confirm("Every token ends, and clients log in again. Every verifier is dropped.")?;
    let mut backend = Backend::open_unconfirmed(config, environment).await?;
    let ended: EndedTokens = backend.post("/admin/v1/restored", &json!({})).await?;
    output.data(&ended, |ended| {
        format!(
            "Every token has ended: clients log in again ({}).\n\
             The signing key is {}. Create verifiers again. Credentials that were revoked since the database was as it is\n\
             now are good again, and allowlists are what they were then: look through them.",
            ended.receipt, ended.kid
        )
    })
}

async fn copy(mut config: Config, to: Option<String>, output: &Output) -> Result<(), Failure> {
    if let Some(to) = to {
        let url = to.parse().map_err(|expected| Failure::Usage(format!("--to: {expected}")))?;
        config.database = Database { url: Some(url), ..config.database };
    }
    let Some(to) = config.postgres() else {
        return Err(Failure::Usage("name the database: --to URL, or database.url".into()));
    };
    // While this process has the folder, no server can change the data that is copied.
    let folder = existing(&config)?;
    let mut told = 0;
    let progress = |sessions| {
        if sessions >= told + SESSIONS {
            told = sessions;
            output.prose(&format!("{sessions} sessions"));
        }
    };
    let copied = Store::copy(&folder.store(), &to, &Random::System, progress).await?;
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

/// Locks the data folder, which must contain a store.
fn existing(config: &Config) -> anyhow::Result<DataFolder> {
    let path = &config.server.data_dir;
    if !path.join("rescind.db").exists() {
        bail!("there is no store in {}: name its folder with --data-dir", path.display());
    }
    Ok(DataFolder::take(path)?)
}
