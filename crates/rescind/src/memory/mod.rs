//! What this process holds in memory, in step with the store: clients, credentials, sessions, the signing keys, the
//! verifiers, and the feed that tells those of what changes.

mod credential_table;
mod feed;
mod issuer;
mod registry;
mod signer;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{
    model::{Remembered, SigningKeyRecord, UnixSeconds, VerifierRecord},
    random::Random,
    secret::{MasterKey, Pepper, SealError},
    store::{Loaded, StoreError},
};
pub use feed::{Changed, Feed, new_epoch};
pub use issuer::{Issuer, Keyring, KeyringError, Pair, generate_key, generate_upgrade, publish_ahead};
pub use registry::{KnownCredential, ReadStamp, Registry};
pub use signer::PublicKey;

/// All that a process holds of what the store has.
pub struct Memory {
    pub registry: Registry,
    pub issuer: Issuer,
    /// Who may follow the feed.
    pub verifiers: ArcSwap<Vec<VerifierRecord>>,
    pub pepper: Pepper,
    pub master: MasterKey,
    /// Held while the keys change, so that memory takes the changes over in the store's order.
    changing_keys: Mutex<()>,
    /// The same for the verifiers.
    changing_verifiers: Mutex<()>,
    /// Shared by whoever changes the store and then memory, so that memory, when it is looked at alone, has all
    /// that was committed.
    changing: RwLock<()>,
    /// The highest ids of keys and verifiers ever met.
    highest_key: AtomicU64,
    highest_verifier: AtomicU64,
}

impl Memory {
    /// What was loaded from the store.
    pub fn new(
        loaded: Loaded,
        max_sessions: usize,
        issuer: Issuer,
        pepper: Pepper,
        master: MasterKey,
        random: &Random,
    ) -> Memory {
        let registry = Registry::new(max_sessions, Feed::new(new_epoch(random), loaded.ended));
        for client in &loaded.clients {
            registry.apply(client);
        }
        Memory {
            registry,
            issuer,
            highest_key: AtomicU64::new(highest(loaded.keys.iter().map(|key| key.id))),
            highest_verifier: AtomicU64::new(highest(loaded.verifiers.iter().map(|v| v.id))),
            verifiers: ArcSwap::from_pointee(loaded.verifiers),
            pepper,
            master,
            changing_keys: Mutex::new(()),
            changing_verifiers: Mutex::new(()),
            changing: RwLock::new(()),
        }
    }

    /// Held from before the store is changed, or asked for what memory is to hold, until memory has that.
    pub async fn changing(&self) -> RwLockReadGuard<'_, ()> {
        self.changing.read().await
    }

    /// Held while memory is looked at as a whole, or replaced: nothing is on its way from the store to it.
    pub async fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.changing.write().await
    }

    /// Goes over to the signing keys that the store has once this change, or another node's, is made there.
    ///
    /// # Errors
    ///
    /// If the store does not answer; and, inside, if the keys that it has cannot be used: then memory is as it was.
    pub async fn take_keys(
        &self,
        keys: impl Future<Output = Result<Vec<SigningKeyRecord>, StoreError>>,
    ) -> Result<Result<Vec<SigningKeyRecord>, KeyringError>, StoreError> {
        let _changing = self.changing_keys.lock().await;
        let keys = keys.await?;
        Ok(self.set_keys(&keys).map(|()| keys))
    }

    fn set_keys(&self, keys: &[SigningKeyRecord]) -> Result<(), KeyringError> {
        self.highest_key.fetch_max(highest(keys.iter().map(|key| key.id)), Ordering::Relaxed);
        let taken_over = self.issuer.set_keys(keys, &self.master);
        self.registry.feed().publish(Changed::Keys);
        taken_over
    }

    /// Goes over to the verifiers that the store has once this change, or another node's, is made there.
    ///
    /// # Errors
    ///
    /// If the store does not answer.
    pub async fn take_verifiers(
        &self,
        verifiers: impl Future<Output = Result<Vec<VerifierRecord>, StoreError>>,
    ) -> Result<Vec<VerifierRecord>, StoreError> {
        let _changing = self.changing_verifiers.lock().await;
        let verifiers = verifiers.await?;
        self.set_verifiers(verifiers.clone());
        Ok(verifiers)
    }

    /// The followers of one that is gone cannot acknowledge what is published here, so the end of their leases is
    /// waited for; the others are told the keys once more.
    fn set_verifiers(&self, verifiers: Vec<VerifierRecord>) {
        self.highest_verifier.fetch_max(highest(verifiers.iter().map(|v| v.id)), Ordering::Relaxed);
        let before = self.verifiers.swap(Arc::new(verifiers.clone()));
        if before.iter().any(|before| verifiers.iter().all(|verifier| verifier.id != before.id)) {
            self.registry.feed().publish(Changed::Keys);
        }
    }

    /// Goes over to the one signing key that is left once the store has ended every token, and to no verifiers.
    ///
    /// # Errors
    ///
    /// Those of [`Memory::take_keys`].
    pub async fn take_end(
        &self,
        keys: impl Future<Output = Result<Vec<SigningKeyRecord>, StoreError>>,
    ) -> Result<Result<(), KeyringError>, StoreError> {
        let (_keys, _verifiers) = (self.changing_keys.lock().await, self.changing_verifiers.lock().await);
        let keys = keys.await?;
        self.set_verifiers(vec![]);
        Ok(self.set_keys(&keys))
    }

    /// A key to sign with from now on, as the newest does.
    ///
    /// # Errors
    ///
    /// If it cannot be sealed under the master key.
    pub fn new_key(&self, now: UnixSeconds, random: &Random) -> Result<SigningKeyRecord, SealError> {
        generate_key(self.issuer.algorithm(), &self.master, random, now, now)
    }

    /// All that is held, in case that the database has lost it.
    pub fn remembered(&self) -> Remembered {
        let mut remembered = self.registry.remembered();
        remembered.keys = self.issuer.keyring().ids();
        remembered.verifiers = self.verifiers.load().iter().map(|verifier| verifier.id).collect();
        remembered.highest.key = self.highest_key.load(Ordering::Relaxed);
        remembered.highest.verifier = self.highest_verifier.load(Ordering::Relaxed);
        remembered
    }
}

fn highest(ids: impl Iterator<Item = u64>) -> u64 {
    ids.max().unwrap_or(0)
}
