//! Backups, and their restoration.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rescind_base::{
    files::{
        data_folder::{DataFolder, FolderError},
        replacement::NEW_STORE,
    },
    model::{ChangeOrigin, EventKind},
    random::Random,
    secret::{MasterKey, Peppers, SealError},
};
use rescind_node::{
    app::{App, EndError, end_every_token},
    cluster::Receipt,
};
use rescind_store::{Sqlite, Store, StoreError};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tracing::info;
use utoipa::ToSchema;

use super::Error;

/// The content of a restored store.
#[derive(Debug, Serialize)]
pub struct Restored {
    /// With deleted clients.
    pub clients: usize,
    /// With revoked credentials.
    pub credentials: usize,
    /// The names of the verifiers that were removed, because they may have been revoked since the backup.
    pub dropped_verifiers: Vec<String>,
    /// The new signing key, which replaces all earlier ones.
    pub kid: String,
    /// The folder with the store that was there before.
    pub replaced: Option<PathBuf>,
}

/// Why a backup was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("it is no database, or is damaged")]
    Damaged,
    #[error("it is no backup that this version can read")]
    Store(#[source] StoreError),
    #[error("it holds no pepper: it is no backup")]
    Empty,
    #[error(
        "it was sealed under another master key: set that one (RESCIND_MASTER_KEY or RESCIND_MASTER_KEY_FILE)"
    )]
    Sealed,
    #[error(transparent)]
    Folder(#[from] FolderError),
}

impl From<StoreError> for RestoreError {
    fn from(error: StoreError) -> RestoreError {
        match error {
            // It names the copy, and advises to restore a backup.
            StoreError::Damaged(_) => RestoreError::Damaged,
            error => RestoreError::Store(error),
        }
    }
}

impl From<SealError> for RestoreError {
    fn from(_: SealError) -> RestoreError {
        RestoreError::Sealed
    }
}

impl From<EndError> for RestoreError {
    fn from(error: EndError) -> RestoreError {
        match error {
            EndError::Store(error) => error.into(),
            EndError::Sealed(error) => error.into(),
        }
    }
}

/// Writes everything but the sessions into a temporary file, which is deleted when it is dropped.
///
/// # Errors
///
/// If the store is PostgreSQL or unavailable, or the file cannot be written.
pub async fn backup(app: &App) -> Result<NamedTempFile, Error> {
    let Some(store) = app.store.embedded() else {
        return Err(Error::Refused(
            "The store is PostgreSQL: back it up with pg_basebackup or pg_dump. docs/backup.md says what to do after \
             it was restored"
                .into(),
        ));
    };
    let origin = app.by_operator();
    let made_at = origin.at;
    let event = origin.event(EventKind::StoreBackedUp);
    app.store.record(vec![event]).await?;
    let folder = app.folder();
    let file = folder.temporary_file().map_err(|e| FolderError::Io(folder.store(), e));
    let file = file.map_err(|e| StoreError::Unavailable(e.into()))?;
    store.backup(file.path()).await?;
    app.metrics.backed_up(made_at);
    Ok(file)
}

/// Replaces the folder's store by a backup. The backup does not have the revocations made after it. So every token ends
/// with its signing key, and every verifier is removed, because it would get the new key.
///
/// # Errors
///
/// If the backup cannot be copied, read or opened with this master key, or the folder's store cannot be replaced.
pub async fn restore(
    folder: &DataFolder,
    mut from: File,
    master: &MasterKey,
    origin: ChangeOrigin,
    random: &Random,
) -> Result<Restored, RestoreError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |e| FolderError::Io(path, e)
    };
    let place = folder.temporary_folder().map_err(at(&folder.store()))?;
    let file = place.path().join(NEW_STORE);
    let mut copy =
        OpenOptions::new().create_new(true).write(true).mode(0o600).open(&file).map_err(at(&file))?;
    io::copy(&mut from, &mut copy).map_err(at(&file))?;
    drop(copy);

    let store = Store::restore(&file, &folder.store(), random).await?;
    let loaded = store.load().await?;
    Peppers::open(&loaded.secrets, master)?.ok_or(RestoreError::Empty)?;
    let kid = end_every_token(&store, &loaded.keys, master, origin, random).await?;
    // Without this, a file that is the copy of a store would count as a store that went back.
    store.embedded().map_or(Ok(()), Sqlite::confirm)?;
    // Closing the store removes its log file, so one file is all of it.
    drop(store);
    let replaced = folder.replace_store(&place)?;

    Ok(Restored {
        replaced,
        clients: loaded.clients.len(),
        credentials: loaded.clients.iter().map(|client| client.credentials.len()).sum(),
        dropped_verifiers: loaded.verifiers.into_iter().map(|verifier| verifier.name).collect(),
        kid,
    })
}

/// The result of ending every token.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct EndedTokens {
    /// The new signing key, which replaces all earlier ones.
    pub kid: String,
    pub receipt: Receipt,
}

/// Ends every token after an operator has restored the database, which lacks the revocations made after the backup.
///
/// # Errors
///
/// If the new key cannot be sealed, or the change or its propagation fails.
pub async fn restored(app: &Arc<App>) -> Result<EndedTokens, Error> {
    let (key, origin) = (app.memory.new_key(app.clock.now(), &app.random)?, app.by_operator());
    let kid = key.kid.clone();
    let receipt = app.end_tokens(key, origin).await??;
    info!(kid, "every token was ended: the database was restored");
    Ok(EndedTokens { kid, receipt })
}
