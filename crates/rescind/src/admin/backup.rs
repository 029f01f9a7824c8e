//! A backup, and a store made of one.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tracing::info;

use super::Error;
use crate::{
    app::{App, EndError, end_every_token},
    cluster::Receipt,
    files::data_folder::{DataFolder, FolderError},
    model::{Actor, ChangeOrigin, EventKind},
    random::Random,
    secret::{MasterKey, PEPPER, SealError},
    store::{Sqlite, Store, StoreError},
};

/// What a restored store holds.
#[derive(Debug, Serialize)]
pub struct Restored {
    /// Deleted ones included.
    pub clients: usize,
    /// Revoked ones included.
    pub credentials: usize,
    /// The names of those that are not: some may have been revoked since the backup.
    pub dropped_verifiers: Vec<String>,
    /// The signing key in place of those that there were.
    pub kid: String,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("it cannot be copied: {0}")]
    Copy(#[from] io::Error),
    #[error("it is no backup that this version can read: {0}")]
    Store(#[from] StoreError),
    #[error("it holds no pepper: it is no backup")]
    Empty,
    #[error("it was sealed under another master key: {0}")]
    Sealed(#[from] SealError),
    #[error(transparent)]
    Folder(#[from] FolderError),
}

impl From<EndError> for RestoreError {
    fn from(error: EndError) -> RestoreError {
        match error {
            EndError::Store(error) => error.into(),
            EndError::Sealed(error) => error.into(),
        }
    }
}

/// Everything but the sessions, in a file that is there until dropped.
pub async fn backup(app: &App) -> Result<NamedTempFile, Error> {
    let Some(store) = app.store.embedded() else {
        return Err(Error::Refused(
            "The store is PostgreSQL: back it up with pg_basebackup or pg_dump. docs/backup.md says what to do after \
             it was restored"
                .into(),
        ));
    };
    let event = app.audit.origin(Actor::Operator, None).event(EventKind::StoreBackedUp);
    app.store.record(vec![event]).await?;
    let file = app.folder().temporary_file().map_err(|e| StoreError::Unavailable(e.into()))?;
    store.backup(file.path()).await?;
    Ok(file)
}

/// Makes the folder's store of a backup. What was revoked since that was made is not known to it: so every token ends
/// with the keys that signed it, and no verifier is left, which would be handed the new key.
pub async fn restore(
    folder: &DataFolder,
    from: &Path,
    master: &MasterKey,
    origin: ChangeOrigin,
    random: &Random,
) -> Result<Restored, RestoreError> {
    let place = folder.temporary_folder()?;
    let file = place.path().join("rescind.db");
    fs::copy(from, &file)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;

    let store = Store::restore(&file, &folder.store(), random).await?;
    let loaded = store.load().await?;
    master.open(PEPPER, &loaded.pepper.ok_or(RestoreError::Empty)?)?;
    let kid = end_every_token(&store, &loaded.keys, master, origin, random).await?;
    // It may be the copy of a store, which has had a mark.
    store.embedded().map_or(Ok(()), Sqlite::vouch)?;
    // Closed, it has no log beside it.
    drop(store);
    folder.replace_store(&file)?;

    Ok(Restored {
        clients: loaded.clients.len(),
        credentials: loaded.clients.iter().map(|client| client.credentials.len()).sum(),
        dropped_verifiers: loaded.verifiers.into_iter().map(|verifier| verifier.name).collect(),
        kid,
    })
}

/// The end of every token.
#[derive(Debug, Serialize, Deserialize)]
pub struct EndedTokens {
    /// The signing key in place of those that there were.
    pub kid: String,
    pub receipt: Receipt,
}

/// Ends every token, after a database was restored to what it was before: what was revoked since is not known
/// to it.
pub async fn restored(app: &Arc<App>) -> Result<EndedTokens, Error> {
    let (key, origin) =
        (app.memory.new_key(app.clock.now(), &app.random)?, app.audit.origin(Actor::Operator, None));
    let kid = key.kid.clone();
    let receipt = app.end_tokens(key, origin).await??;
    info!(kid, "every token was ended: the database was restored");
    Ok(EndedTokens { kid, receipt })
}
