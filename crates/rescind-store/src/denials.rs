//! Refused requests, with what explains them.

use rescind_base::{
    model::{Denial, DenialFilter, UnixSeconds},
    telemetry::step,
};
use tracing::Instrument;

use super::{Result, Store, ask};

impl Store {
    /// Writes denials. One without a client gets that of its API key, if there is one.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn keep_denials(&self, denials: Vec<Denial>) -> Result<()> {
        ask!(self, keep_denials(denials))
    }

    /// Returns denials, the newest first.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn denials(&self, wanted: DenialFilter) -> Result<Vec<Denial>> {
        ask!(self, denials(wanted))
    }

    /// Deletes a batch of the denials that are older than `before`, and if there are more than `most`, of the oldest of the
    /// clients with the most; those of nobody known count as one client's. Returns whether no more remain to be deleted.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn sweep_denials(&self, before: UnixSeconds, most: u64) -> Result<bool> {
        ask!(self, sweep_denials(before, most))
    }
}
