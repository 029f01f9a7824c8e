//! Secrets that are handed to somebody by a link.

use rescind_base::{
    model::{ChangeOrigin, Handover, UnixSeconds},
    secret::TicketHash,
    telemetry::step,
};
use tracing::Instrument;

use super::{Result, Store, ask};

/// In seconds: how long it is known of a link that it was used.
const KEPT: u64 = 30 * 86_400;

impl Store {
    /// Adds a secret that is handed over.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn hand_over(&self, new: Handover, origin: ChangeOrigin) -> Result<()> {
        ask!(self, hand_over(new, origin))
    }

    /// Returns what is known of a link.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn handover(&self, hash: TicketHash) -> Result<Option<Handover>> {
        ask!(self, handover(hash))
    }

    /// Returns the secret of a link as it is, and deletes it from the store. `None`: there is no such link, or its secret
    /// was read, or it has ended.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn read_handover(&self, hash: TicketHash, origin: ChangeOrigin) -> Result<Option<Handover>> {
        ask!(self, read_handover(hash, origin))
    }

    /// Deletes the secrets of the links that have ended, and what is known of links that ended long ago.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn sweep_handovers(&self, now: UnixSeconds) -> Result<()> {
        ask!(self, sweep_handovers(now, now.saturating_sub(KEPT)))
    }
}
