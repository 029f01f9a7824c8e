//! Operations on the chains of the audit log.

use std::collections::BTreeMap;

use rescind_base::{
    model::{AuditKey, Checkpoint, Link, Retention, Stretch, UnixSeconds},
    telemetry::step,
};
use tracing::Instrument;

use super::{Result, Store, ask};

/// The most rows and the most cuts of a chain that are read at once.
pub(super) const STRETCH: u64 = 5000;

/// What there is of chains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chains {
    /// The last row of each chain, by the chain's name. A chain of which there is only a checkpoint has none.
    pub newest: BTreeMap<String, Link>,
    /// The newest checkpoint of each chain that has one.
    pub checkpoints: Vec<Checkpoint>,
}

/// Records without a place in a chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unchained {
    /// How many are older than the chains.
    pub older: u64,
    /// The first of those that are not: their ids and times.
    pub added: Vec<(u64, UnixSeconds)>,
}

impl Store {
    /// Returns which chains there are.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn chains(&self) -> Result<Chains> {
        ask!(self, chains())
    }

    /// Returns which records have no place in a chain.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn unchained(&self) -> Result<Unchained> {
        ask!(self, unchained())
    }

    /// Returns the next rows of a chain after `after`.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn stretch(&self, chain: &str, after: Link) -> Result<Stretch> {
        ask!(self, stretch(chain.to_owned(), after.number))
    }

    /// Saves a checkpoint, unless there is a newer one.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn save_checkpoint(&self, checkpoint: Checkpoint) -> Result<()> {
        ask!(self, save_checkpoint(checkpoint))
    }

    /// Deletes a batch of the records that need not be kept at `now`: old ones, and if callers have too many, the
    /// oldest of the clients with the most. Leaves cuts signed with `key`. Returns whether no more remain to be deleted.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn sweep_records(&self, retention: Retention, now: UnixSeconds, key: AuditKey) -> Result<bool> {
        ask!(self, sweep_records(retention, now, key))
    }
}
