//! `rescind db`

use std::{
    fs::File,
    io::{self, Write, stdout},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use rescind_admin::{self as admin, EndedTokens};
use rescind_base::{
    clock::Clock,
    files::{PART, circumstances::circumstances, data_folder::DataFolder, folder_of, gently, permissions},
    model::{Actor, ChangeOrigin},
    random::Random,
    secret::MasterKey,
};
use rescind_node::{
    app::OpenError,
    config::{Config, Database},
};
use rescind_store::Store;
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::{select, signal::unix::SignalKind};

use super::{
    Context, Failure,
    backend::{Backend, require_data},
    output::prose,
    runtime, signals,
};

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

pub(super) fn run(command: DbCommand, context: Context<'_>) -> Result<(), Failure> {
    match command {
        DbCommand::Migrate => runtime()?.block_on(migrate(&context)),
        DbCommand::Backup { file } => {
            let runtime = runtime()?;
            let done = runtime.block_on(backup(&context, &file));
            // A copy that is made in this process is not waited for once the command was stopped.
            runtime.shutdown_background();
            done
        }
        DbCommand::Restore { file } => {
            let prepared = prepare(&context, &file)?;
            runtime()?.block_on(restore(&context, prepared))
        }
        DbCommand::Restored => runtime()?.block_on(restored(&context)),
        DbCommand::Copy { to } => runtime()?.block_on(copy(context, to)),
    }
}

async fn migrate(Context { config, output, .. }: &Context<'_>) -> Result<(), Failure> {
    let (_folder, store) = match config.postgres() {
        Some(options) => (None, Store::connect(&options).await?),
        None => {
            let folder = existing(config)?;
            let store = Store::open_file(&folder.store(), &Random::System)?;
            (Some(folder), store)
        }
    };
    let version = store.version().await?;
    output.done("the tables are up to date", &json!({ "version": version }), |_| {
        format!("The tables are those of version {version}.")
    })
}

/// Writes a long copy in parts.
struct Gently<'a> {
    file: &'a mut File,
    /// In bytes.
    unflushed: usize,
}

impl Write for Gently<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unflushed += written;
        if self.unflushed >= PART {
            self.unflushed = 0;
            gently(|| self.file.sync_data())?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

async fn backup(context: &Context<'_>, file: &Path) -> Result<(), Failure> {
    let Context { config, environment, output } = context;
    let mut backend = Backend::open(config, environment, false).await?;
    if file == Path::new("-") {
        backend.download("/backup", &mut stdout().lock()).await?;
        return Ok(());
    }
    // A partial file is deleted when this function ends.
    let stopped =
        signals::first_of(&[SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()])?;
    if file.exists() {
        return Err(anyhow!("{} is there already: name a new file", file.display()).into());
    }
    let at = |e| anyhow!("{}: {e}{}", file.display(), circumstances(file, &e));
    let mut partial = NamedTempFile::with_prefix_in(".backup-", folder_of(file)).map_err(at)?;
    let mut gently = Gently { file: partial.as_file_mut(), unflushed: 0 };
    let bytes = select! {
        bytes = backend.download("/backup", &mut gently) => bytes?,
        () = stopped => return Err(anyhow!("stopped: {} was not written", file.display()).into()),
    };
    partial.as_file().sync_all().map_err(at)?;
    partial.persist_noclobber(file).map_err(|e| at(e.error))?;
    File::open(folder_of(file)).and_then(|folder| folder.sync_all()).map_err(at)?;
    let done = format!("the backup is in {}", file.display());
    output.done(&done, &json!({ "file": file, "bytes": bytes }), |_| {
        format!(
            "Backed up to {}, {bytes} bytes.\n\
             It is of no use without the master key, which is not in it: keep that somewhere else.",
            file.display()
        )
    })
}

/// What a restore needs, opened with the operator's own rights.
struct Restoration {
    file: File,
    name: PathBuf,
    /// The master key of the environment.
    master: Option<MasterKey>,
}

/// Opens the backup, and becomes the data folder's owner: so a restore by root leaves no file of root's there, which the
/// service could not write. No thread has started yet.
fn prepare(Context { config, environment, .. }: &Context<'_>, name: &Path) -> Result<Restoration, Failure> {
    if config.database.url.is_some() {
        let problem =
            "database.url is set, and PostgreSQL's backups are PostgreSQL's to restore: docs/backup.md";
        return Err(Failure::Usage(problem.into()));
    }
    let at = |e| anyhow!("{}: {e}{}", name.display(), circumstances(name, &e));
    let file = File::open(name).map_err(at)?;
    if !file.metadata().map_err(at)?.is_file() {
        return Err(anyhow!("{} is no file", name.display()).into());
    }
    let master = environment.master_key()?;
    let master = master.map(|text| MasterKey::parse(&text).map_err(OpenError::MasterKey)).transpose()?;
    permissions::become_owner(&config.server.data_dir)?;
    Ok(Restoration { file, name: name.to_owned(), master })
}

async fn restore(Context { config, output, .. }: &Context<'_>, from: Restoration) -> Result<(), Failure> {
    let folder = DataFolder::take(&config.server.data_dir)?;
    let random = Random::System;
    let master = match from.master {
        Some(master) => master,
        None => folder.master_key(false, &random)?,
    };
    let store = folder.store();
    if store.exists() {
        let store = store.display();
        output.confirm(&format!("This replaces {store}, and what was done since the backup is lost."))?;
    }
    let origin = ChangeOrigin::new(Clock::System.now(), Actor::Operator, &config.node_name());
    let restored = admin::restore(&folder, from.file, &master, origin, &random).await;
    let restored = restored.with_context(|| from.name.display().to_string())?;
    output.done("the backup was restored", &restored, |restored| {
        let verifiers = match restored.dropped_verifiers.as_slice() {
            [] => String::new(),
            dropped => format!(
                "\n{} verifiers were left out, for some may have been revoked since the backup: {}.\n\
                 Make those anew that are still wanted (rescind verifier create), and give each API its new token.",
                dropped.len(),
                dropped.join(", ")
            ),
        };
        let replaced = restored.replaced.as_ref().map_or_else(String::new, |replaced| {
            format!("\nThe store that was there before is in {}.", replaced.display())
        });
        format!(
            "Restored {} clients and {} credentials.\n\
             Every token has ended: clients log in again. Credentials that were revoked since the backup are good again, and\n\
             allowlists are what they were then: look through them before the server is reached by others.{verifiers}{replaced}",
            restored.clients, restored.credentials
        )
    })
}

async fn restored(Context { config, environment, output }: &Context<'_>) -> Result<(), Failure> {
    output.confirm("Every token ends, and clients log in again. Every verifier is dropped.")?;
    let mut backend = Backend::open_unconfirmed(config, environment).await?;
    let ended: EndedTokens = backend.post("/restored", &json!({})).await?;
    output.done("every token has ended", &ended, |ended| {
        format!(
            "Every token has ended: clients log in again ({}).\n\
             The signing key is {}. Create verifiers again. Credentials that were revoked since the database was as it is\n\
             now are good again, and allowlists are what they were then: look through them.",
            ended.receipt, ended.kid
        )
    })
}

async fn copy(Context { mut config, output, .. }: Context<'_>, to: Option<String>) -> Result<(), Failure> {
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
            prose(&format!("{sessions} sessions"));
        }
    };
    let copied = Store::copy(&folder.store(), &to, &Random::System, progress).await?;
    output.done("the store was copied", &copied, |copied| {
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
    require_data(&config.server.data_dir)?;
    Ok(DataFolder::take(&config.server.data_dir)?)
}
