//! Checkpoints of the audit log.

use std::sync::atomic::Ordering;

use rescind_base::model::{AuditKey, Checkpoint, Link, Walk};
use rescind_store::StoreError;
use tracing::{error, info};

use super::App;

/// The newest rows of the chains, signed.
#[derive(Debug, Default)]
pub struct Signed {
    /// Those that the store does not have yet.
    new: Vec<Checkpoint>,
    /// The newest of each chain.
    pub newest: Vec<Checkpoint>,
    /// The chains that do not continue their last checkpoint. What is in them is not signed again.
    pub broken: Vec<String>,
}

impl App {
    /// Returns the key that signs checkpoints and cuts of the audit log.
    pub fn audit_key(&self) -> AuditKey {
        AuditKey::new(&self.memory.peppers.load().audit)
    }

    /// Signs the newest row of each chain, if all rows since its last checkpoint follow from that one. Saves nothing.
    ///
    /// # Errors
    ///
    /// Fails if the store is unavailable.
    pub async fn sign_chains(&self) -> Result<Signed, StoreError> {
        let key = self.audit_key();
        let chains = self.store.chains().await?;
        let mut signed = Signed::default();
        for (chain, last) in chains.newest {
            let known = chains.checkpoints.iter().find(|known| known.chain == chain);
            // Many nodes may have been there once. Nothing new is in their chains.
            if let Some(known) = known.filter(|known| known.link == last && key.has_signed(known)) {
                signed.newest.push(known.clone());
                continue;
            }
            let mut walk = match known {
                Some(known) => Walk::from_checkpoint(known, &key),
                None => Walk::after(Link::default(), &key, &[]),
            };
            loop {
                let stretch = self.store.stretch(&chain, walk.last).await?;
                walk.go(&stretch);
                if !stretch.more || !walk.faults.is_empty() {
                    break;
                }
            }
            let newest = known.map_or(0, |known| known.link.number);
            if !walk.faults.is_empty() {
                signed.broken.push(chain);
            } else if walk.last.number > newest {
                let checkpoint = key.checkpoint(&chain, walk.last, self.clock.now());
                signed.new.push(checkpoint.clone());
                signed.newest.push(checkpoint);
            } else {
                signed.newest.extend(known.cloned());
            }
        }
        Ok(signed)
    }

    /// Signs the chains and saves the checkpoints. Logs once that a chain is broken, or no longer is.
    pub(super) async fn save_checkpoints(&self) -> Result<(), StoreError> {
        let Signed { new, broken, .. } = self.sign_chains().await?;
        for checkpoint in new {
            self.store.save_checkpoint(checkpoint).await?;
        }
        let is_broken = !broken.is_empty();
        match (self.chains_broken.swap(is_broken, Ordering::Relaxed), is_broken) {
            (false, true) => error!(
                chains = broken.join(", "),
                "the audit log does not continue what was signed last, and is not signed again: `rescind audit verify` \
                 says which rows were changed or removed"
            ),
            (true, false) => info!("the audit log continues what was signed last"),
            _ => {}
        }
        Ok(())
    }
}
