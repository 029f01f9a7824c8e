//! What the embedded store records of leases, so that the next process waits for them.
//!
//! In PostgreSQL each node's row does that, and outlives the node.

use rescind_store::StoreError;

use super::Cluster;

impl Cluster {
    /// Records this process's lease term in the store before the first lease is lent.
    ///
    /// # Errors
    ///
    /// Fails if the store cannot be written. Then no lease may be lent.
    pub async fn before_lending(&self) -> Result<(), StoreError> {
        let Some(store) = self.store.embedded() else { return Ok(()) };
        let term = self.terms.lease;
        let mut recorded = self.lent.lock().await;
        if *recorded < term {
            store.set_lent(term).await?;
            *recorded = term;
        }
        Ok(())
    }

    /// Lowers the store's record to the longest lease that is still lent.
    ///
    /// # Errors
    ///
    /// Fails if the store cannot be written.
    pub async fn forget_lent(&self) -> Result<(), StoreError> {
        let Some(store) = self.store.embedded() else { return Ok(()) };
        let mut recorded = self.lent.lock().await;
        // A follower that attaches after this read waits for the lock before it is lent a lease.
        let longest = self.followers.longest();
        if longest < *recorded {
            *recorded = longest;
            store.set_lent(longest).await?;
        }
        Ok(())
    }
}
