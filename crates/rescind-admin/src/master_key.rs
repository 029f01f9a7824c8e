//! The master key, which seals the store's own secrets.

use rescind_base::{
    files::data_folder::{DataFolder, FolderError},
    model::ChangeOrigin,
    random::Random,
    secret::{MasterKey, SealError, SealedSecrets},
};
use rescind_node::{config::Config, memory::reseal_key};
use rescind_store::{Store, StoreError};
use thiserror::Error;

use super::sign_in::sealed_as;

/// Why the master key was not rotated.
#[derive(Debug, Error)]
pub enum RotateError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("the store is empty: it has no secrets to be sealed")]
    Empty,
    #[error("the new master key is the present one: make another one with `openssl rand -hex 32`")]
    Same,
}

/// Where a master key is kept.
pub enum KeptKey {
    /// In the data folder. The next one is made there.
    Folder,
    /// Outside, by the operator: the present one and the next one.
    Operator(MasterKey, MasterKey),
}

/// Seals the store's secrets under another master key. This process takes the data folder meanwhile.
///
/// # Errors
///
/// Fails if a server has the folder or the database, or the store or a key cannot be used. The present key is good then.
pub async fn rotate_master_key(
    config: &Config,
    kept: KeptKey,
    origin: ChangeOrigin,
    random: &Random,
) -> Result<(), RotateError> {
    let folder = DataFolder::take(&config.server.data_dir)?;
    let store = match config.postgres() {
        Some(options) => Store::connect(&options).await?,
        None => Store::open_file(&folder.store(), random)?,
    };
    let loaded = store.load().await?;
    if loaded.secrets.is_empty() {
        return Err(RotateError::Empty);
    }
    let (present, next, in_folder) = match kept {
        KeptKey::Folder => (folder.master_key(false, random)?, MasterKey::generate(random), true),
        KeptKey::Operator(present, next) if present.to_text() == next.to_text() => {
            return Err(RotateError::Same);
        }
        KeptKey::Operator(present, next) => (present, next, false),
    };
    let mut secrets = SealedSecrets::new();
    for (name, sealed) in &loaded.secrets {
        secrets.insert(name.clone(), next.seal(name, &*present.open(name, sealed)?, random)?);
    }
    let keys: Result<Vec<_>, _> =
        loaded.keys.iter().map(|key| reseal_key(key, &present, &next, random)).collect();
    let mut authenticators = vec![];
    for of in store.administrators().await? {
        if let Some(proofs) = of.proofs {
            let name = sealed_as(&of.name);
            authenticators.push((of.id, next.seal(&name, &*present.open(&name, &proofs.totp)?, random)?));
        }
    }
    // Before the store: wherever this is cut off, one of the two files has the key that opens it.
    if in_folder {
        folder.keep_next_key(&next)?;
    }
    store.reseal(secrets, keys?, authenticators, origin).await?;
    if in_folder {
        folder.adopt_next_key()?;
    }
    Ok(())
}
