//! What the embedded store remembers of leases, so that the process after this one waits for them.
//!
//! In PostgreSQL that is said by each node's own row, which outlives it.

use std::time::Duration;

use tokio::sync::Mutex;

use super::Cluster;
use crate::store::StoreError;

/// The longest term of a lease that may be out, as the store has it. Never more than that.
#[derive(Debug)]
pub(super) struct Lent(Mutex<Duration>);

impl Lent {
    pub(super) fn new(recorded: Duration) -> Lent {
        Lent(Mutex::new(recorded))
    }
}

impl Cluster {
    /// Sees to it that the store knows of leases of this process's term, before one is lent.
    ///
    /// # Errors
    ///
    /// If the store cannot be written: then no lease may be lent.
    pub async fn before_lending(&self) -> Result<(), StoreError> {
        let Some(store) = self.store.embedded() else { return Ok(()) };
        let term = self.terms.lease;
        let mut recorded = self.lent.0.lock().await;
        if *recorded < term {
            store.set_lent(term).await?;
            *recorded = term;
        }
        Ok(())
    }

    /// Lets the store forget leases that are over, and that none is as long as.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub async fn forget_lent(&self) -> Result<(), StoreError> {
        let Some(store) = self.store.embedded() else { return Ok(()) };
        let mut recorded = self.lent.0.lock().await;
        // Whoever is attached after this look waits for the lock before anything is lent.
        let longest = self.attached.longest();
        if longest < *recorded {
            *recorded = longest;
            store.set_lent(longest).await?;
        }
        Ok(())
    }
}
