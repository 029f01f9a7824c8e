//! While two peppers are valid: whoever presents a secret that is known by its hash under the former one proves it, and the
//! hash under the present one is kept instead. That is written some seconds later, so that no login waits for it.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rescind_base::{
    model::{Actor, Client, ClientId, CredentialId},
    secret::{Hashes, SecretHash},
};
use rescind_store::StoreError;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::warn;

use super::{App, run_to_completion};

/// How often new hashes are written, and how many at most: nodes load everything anew that miss more than 256 changes.
const WRITE_EVERY: Duration = Duration::from_secs(5);
pub const AT_ONCE: usize = 100;
/// Longer than any node waits until it writes.
const WRITTEN_AFTER: Duration = Duration::from_secs(7);

/// Whose secret it is. Those of management tokens are written by the store when they are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holder {
    Credential(ClientId, CredentialId),
    /// A verifier, by its id.
    Verifier(u64),
}

/// The hashes that are to be written.
#[derive(Debug, Default)]
pub struct Rehashes {
    pending: Mutex<HashMap<Holder, SecretHash>>,
    /// Held by who writes, so that nobody counts what is left meanwhile.
    writing: tokio::sync::Mutex<()>,
}

impl Rehashes {
    fn pending(&self) -> MutexGuard<'_, HashMap<Holder, SecretHash>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes some of the hashes out. Drops those that are not under the present pepper: its rotation was lost.
    fn take(&self, present: u32) -> Vec<(Holder, SecretHash)> {
        let mut pending = self.pending();
        pending.retain(|_, hash| hash.pepper == present);
        let some: Vec<_> = pending.keys().copied().take(AT_ONCE).collect();
        some.into_iter().filter_map(|holder| pending.remove_entry(&holder)).collect()
    }

    /// Notes again what could not be written, unless there is something newer.
    fn keep(&self, failed: Vec<(Holder, SecretHash)>) {
        let mut pending = self.pending();
        for (holder, hash) in failed {
            pending.entry(holder).or_insert(hash);
        }
    }
}

impl App {
    /// Notes that a secret with these hashes was presented, of which `known` is kept.
    pub fn proved(&self, holder: Holder, known: &SecretHash, presented: &Hashes) {
        if known.pepper < presented.present.pepper {
            self.rehashes.pending().insert(holder, presented.present);
        }
    }

    /// Writes some of the noted hashes. Those that cannot be written stay noted. Returns whether all are written.
    ///
    /// # Errors
    ///
    /// Fails if the store is unavailable.
    pub async fn write_rehashes(self: &Arc<App>) -> Result<bool, StoreError> {
        let app = Arc::clone(self);
        run_to_completion(async move {
            let _writing = app.rehashes.writing.lock().await;
            let (mut outcome, mut failed) = (Ok(()), vec![]);
            for (holder, hash) in app.rehashes.take(app.memory.peppers.load().present()) {
                // Without the store, each of the others would fail too, and take its time.
                if !matches!(outcome, Err(StoreError::Unavailable(_))) {
                    let Err(error) = app.rehash(holder, hash).await else { continue };
                    outcome = Err(error);
                }
                failed.push((holder, hash));
            }
            app.rehashes.keep(failed);
            outcome.map(|()| app.rehashes.pending().is_empty())
        })
        .await
    }

    async fn rehash(&self, holder: Holder, hash: SecretHash) -> Result<(), StoreError> {
        let origin = self.audit.origin(Actor::Service, None);
        match holder {
            Holder::Credential(client, id) => {
                let rule = move |client: &mut Client| {
                    let older = |known: &SecretHash| known.pepper < hash.pepper;
                    let mut known = client.credentials.iter_mut().filter(|known| known.id == id);
                    if let Some(known) = known.find(|known| older(&known.secret_hash)) {
                        known.secret_hash = hash;
                    }
                    Ok::<_, Infallible>(())
                };
                self.change_client(client, origin, rule).await?;
            }
            Holder::Verifier(id) => {
                let _changing = self.memory.changing().await;
                self.memory.take_verifiers(self.store.rehash_verifier(id, hash, origin)).await?;
            }
        }
        Ok(())
    }

    /// Waits until each other node has written, or begun to write, what it has noted so far. Returns whether there are any.
    pub async fn others_rehash(&self) -> bool {
        let are_there = self.cluster.membership().is_some_and(|roll| roll.nodes.len() > 1);
        if are_there {
            sleep(WRITTEN_AFTER).await;
        }
        are_there
    }
}

/// Writes the noted hashes every few seconds.
pub async fn rehash_in_passing(app: Arc<App>) {
    let mut ticks = interval(WRITE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = app.write_rehashes().await {
            warn!(%error, "hashes under the present pepper could not be written; it is tried again in some seconds");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_taken_at_a_time_and_none_of_a_rotation_that_was_lost() {
        let rehashes = Rehashes::default();
        let hash = |byte, pepper| SecretHash { bytes: [byte; 32], pepper };
        rehashes.keep((0..150).map(|id| (Holder::Verifier(id), hash(1, 2))).collect());
        rehashes.keep((150..200).map(|id| (Holder::Verifier(id), hash(1, 3))).collect());
        let first = rehashes.take(2);
        assert_eq!((first.len(), rehashes.pending().len()), (100, 50));
        // What failed is noted again, but not in the place of what was noted since.
        let (failed, _) = first[0];
        rehashes.pending().insert(failed, hash(2, 2));
        rehashes.keep(first);
        assert_eq!(rehashes.pending().len(), 150);
        assert_eq!(rehashes.pending()[&failed], hash(2, 2));
        assert_eq!((rehashes.take(2).len(), rehashes.take(2).len(), rehashes.take(2).len()), (100, 50, 0));
    }
}
