//! Revokes every token if the store is not the one last written here.

use rescind_base::{
    model::{ChangeOrigin, Event, EventKind, LONGEST_LEASE, SigningKeyRecord},
    random::Random,
    secret::{MasterKey, SealError},
};
use rescind_store::{Store, StoreError, WentBack};
use rescind_verifier::Algorithm;

use crate::memory::generate_key;

/// Why tokens could not be revoked.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Sealed(#[from] SealError),
}

/// Makes an embedded store that went back safe to use: revokes every token and every verifier's token, and
/// makes the process wait for all leases that may have been lent.
pub(super) async fn after_going_back(
    store: &Store,
    found: WentBack,
    keys: &[SigningKeyRecord],
    master: &MasterKey,
    origin: ChangeOrigin,
    random: &Random,
) -> Result<(), EndError> {
    let Some(embedded) = store.embedded() else { return Ok(()) };
    let event = origin.event(EventKind::StoreWentBack);
    store.record(vec![Event { detail: Some(found.to_string()), ..event }]).await?;
    embedded.set_lent(LONGEST_LEASE).await?;
    end_every_token(store, keys, master, origin, random).await?;
    // Comes last: if a step before fails, the next start repeats all of them.
    Ok(embedded.confirm()?)
}

/// Replaces all signing keys by a new one. Returns the new key's `kid`.
///
/// # Errors
///
/// Fails if the store is unavailable, or if the key cannot be sealed.
pub async fn end_every_token(
    store: &Store,
    keys: &[SigningKeyRecord],
    master: &MasterKey,
    origin: ChangeOrigin,
    random: &Random,
) -> Result<String, EndError> {
    let newest = keys.last();
    let (algorithm, rfc9068) = newest.map_or((Algorithm::Hs256, true), |key| (key.algorithm, key.rfc9068));
    let now = origin.at;
    let key = SigningKeyRecord { rfc9068, ..generate_key(algorithm, master, random, now, now)? };
    let kid = key.kid.clone();
    store.end_tokens(key, origin).await?;
    Ok(kid)
}
