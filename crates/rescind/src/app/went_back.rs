//! A store that is older than what was last written here, and the end of every token that this is a reason for.

use rescind_verifier::Algorithm;

use crate::{
    memory::generate_key,
    model::{ChangeOrigin, Event, EventKind, LONGEST_LEASE, SigningKeyRecord},
    random::Random,
    secret::{MasterKey, SealError},
    store::{Store, StoreError, WentBack},
};

/// Why not every token has ended.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Sealed(#[from] SealError),
}

/// Sees to it that an embedded store which is not what was last written here gives nothing back: every token ends, and
/// every verifier's token, which may have been revoked. What it may have lent is waited for.
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
    // Whatever ends this before leaves all of it to be done again.
    Ok(embedded.vouch()?)
}

/// Puts a new signing key in the place of all that there are. Returns its name.
///
/// # Errors
///
/// If the store cannot be written, or the key not be sealed.
pub async fn end_every_token(
    store: &Store,
    keys: &[SigningKeyRecord],
    master: &MasterKey,
    origin: ChangeOrigin,
    random: &Random,
) -> Result<String, EndError> {
    let algorithm = keys.last().map_or(Algorithm::Hs256, |key| key.algorithm);
    let now = origin.at;
    let key = generate_key(algorithm, master, random, now, now)?;
    let kid = key.kid.clone();
    store.end_tokens(key, origin).await?;
    Ok(kid)
}
