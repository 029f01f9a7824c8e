//! Management tokens and idempotency keys, which no process holds in memory: each request of the admin API reads its
//! token from the store.

use rescind_base::{
    model::{ChangeOrigin, Creation, CreationKey, ManagementToken, UnixSeconds},
    secret::Hashes,
    telemetry::step,
};
use tracing::{Instrument, warn};

use super::{Result, Store, ask, values::LAST_USED_EVERY};

impl Store {
    /// Returns every management token.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn management_tokens(&self) -> Result<Vec<ManagementToken>> {
        ask!(self, management_tokens())
    }

    /// Adds a management token, and numbers it.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn create_management_token(
        &self,
        new: ManagementToken,
        origin: ChangeOrigin,
    ) -> Result<ManagementToken> {
        ask!(self, create_management_token(new, origin))
    }

    /// Deletes a management token. `None`: there is no such token.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn delete_management_token(
        &self,
        id: u64,
        origin: ChangeOrigin,
    ) -> Result<Option<ManagementToken>> {
        ask!(self, delete_management_token(id, origin))
    }

    /// Returns the management token with one of these hashes. `None`: there is no such token, or it has expired.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn management_token(
        &self,
        hashes: Hashes,
        now: UnixSeconds,
    ) -> Result<Option<ManagementToken>> {
        let mut found = None;
        for &hash in hashes.iter() {
            found = found.or(ask!(self, management_token(hash))?);
        }
        Ok(found.filter(|token| token.expires_at.is_none_or(|at| now < at)))
    }

    /// Returns the management token with one of these hashes as [`Store::management_token`] does, and notes that it was
    /// used, under the present pepper. That the use cannot be written is logged only: reads work without the disk.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn use_management_token(
        &self,
        hashes: Hashes,
        now: UnixSeconds,
    ) -> Result<Option<ManagementToken>> {
        let Some(token) = self.management_token(hashes, now).await? else { return Ok(None) };
        let is_due = token.last_used_at.is_none_or(|at| at + LAST_USED_EVERY <= now);
        if (is_due || token.token_hash != hashes.present)
            && let Err(error) = ask!(self, management_token_used(token.id, hashes.present, now))
        {
            warn!(%error, "the last use of a management token could not be written");
        }
        Ok(Some(token))
    }

    /// Reserves an idempotency key for a creation, and forgets the keys of the day before. If the key was used before,
    /// returns what is known of that creation.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn reserve_creation(
        &self,
        key: CreationKey,
        request: [u8; 32],
        now: UnixSeconds,
    ) -> Result<Option<Creation>> {
        ask!(self, reserve_creation(key, request, now))
    }

    /// Notes what was created under a reserved idempotency key. `None`: nothing was, and the key may be used again.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn settle_creation(&self, key: CreationKey, created: Option<String>) -> Result<()> {
        ask!(self, settle_creation(key, created))
    }
}
