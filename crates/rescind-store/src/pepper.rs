//! The peppers, and the hashes of verifiers' tokens under them.

use rescind_base::{
    model::{ChangeOrigin, VerifierRecord},
    secret::{SealedSecrets, SecretHash},
    telemetry::step,
};
use tracing::Instrument;

use super::{Result, Store, ask};

impl Store {
    /// Puts the pepper into a new store. Returns the secrets that were put there first.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn first_pepper(&self, new: SealedSecrets) -> Result<SealedSecrets> {
        ask!(self, first_pepper(new))
    }

    /// Adds a pepper, unless there is one of its name. Returns every secret.
    /// # Errors
    /// Fails if the store is unavailable, or a node that knows one pepper only serves from it.
    pub async fn rotate_pepper(&self, new: SealedSecrets, origin: ChangeOrigin) -> Result<SealedSecrets> {
        ask!(self, rotate_pepper(new, origin))
    }

    /// Deletes the pepper of this name. Returns the remaining secrets.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn retire_pepper(&self, name: String, origin: ChangeOrigin) -> Result<SealedSecrets> {
        ask!(self, retire_pepper(name, origin))
    }

    /// Keeps another hash of a verifier's token, unless it is of an older pepper. Returns every verifier.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn rehash_verifier(
        &self,
        id: u64,
        hash: SecretHash,
        origin: ChangeOrigin,
    ) -> Result<Vec<VerifierRecord>> {
        ask!(self, rehash_verifier(id, hash, origin))
    }
}
