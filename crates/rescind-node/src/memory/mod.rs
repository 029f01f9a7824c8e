//! What this process holds in memory: clients, credentials, sessions, signing keys, verifiers, and the feed
//! that publishes their changes to followers.

mod credential_table;
mod feed;
mod issuer;
mod registry;
mod signer;
mod verification;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use rescind_base::{
    model::{Remembered, SigningKeyRecord, UnixSeconds, VerifierRecord},
    random::Random,
    secret::{MasterKey, Peppers, SealError, SealedSecrets},
};
use rescind_store::{Loaded, StoreError};
use tokio::sync::{Mutex, OwnedRwLockWriteGuard, RwLock, RwLockReadGuard};

pub use feed::{Changed, Feed, new_epoch};
pub use issuer::{
    Issuer, Keyring, KeyringError, Pair, generate_key, generate_upgrade, publish_ahead, reseal_key,
};
pub use registry::{KnownCredential, ReadStamp, Registry};
pub use signer::PublicKey;

/// The process's memory of the store's content.
pub struct Memory {
    pub registry: Registry,
    pub issuer: Issuer,
    /// The verifiers that may follow the feed.
    pub verifiers: ArcSwap<Vec<VerifierRecord>>,
    pub peppers: ArcSwap<Peppers>,
    pub master: MasterKey,
    /// Held while the keys or peppers change, so that memory takes the changes over in the store's order.
    changing_keys: Mutex<()>,
    /// Held while the verifiers change, for the same reason.
    changing_verifiers: Mutex<()>,
    /// Shared by tasks that change the store and then memory. A task that holds it exclusively finds every
    /// committed change in memory.
    changing: Arc<RwLock<()>>,
    /// The highest ids of keys and verifiers that memory has ever had.
    highest_key: AtomicU64,
    highest_verifier: AtomicU64,
}

impl Memory {
    /// Builds memory from what was loaded from the store.
    pub fn new(
        loaded: Loaded,
        max_sessions: usize,
        issuer: Issuer,
        peppers: Peppers,
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
            peppers: ArcSwap::from_pointee(peppers),
            master,
            changing_keys: Mutex::default(),
            changing_verifiers: Mutex::default(),
            changing: Arc::default(),
        }
    }

    /// Held from before a change or read of the store until its result is in memory.
    pub async fn changing(&self) -> RwLockReadGuard<'_, ()> {
        self.changing.read().await
    }

    /// Held while memory is read as a whole or replaced: no result is on its way from the store to memory.
    pub async fn alone(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.changing).write_owned().await
    }

    /// Takes over the signing keys that the store returns after this change, or after another node's.
    ///
    /// # Errors
    ///
    /// Fails if the store is unavailable, or (inside) if the keys are unusable; memory then keeps its keys.
    pub async fn take_keys(
        &self,
        keys: impl Future<Output = Result<Vec<SigningKeyRecord>, StoreError>>,
    ) -> Result<Result<Vec<SigningKeyRecord>, KeyringError>, StoreError> {
        let _changing = self.changing_keys.lock().await;
        let keys = keys.await?;
        Ok(self.set_keys(&keys).map(|()| keys))
    }

    /// Takes over the peppers that the store returns after this change, or after another node's.
    ///
    /// # Errors
    ///
    /// Fails if the store is unavailable, or (inside) if the peppers are unusable; memory then keeps its own.
    pub async fn take_peppers(
        &self,
        secrets: impl Future<Output = Result<SealedSecrets, StoreError>>,
    ) -> Result<Result<(), SealError>, StoreError> {
        self.change_peppers(secrets, |peppers, _| peppers).await
    }

    /// Like [`Memory::take_peppers`], but a pepper that has ended stays: memory may still have hashes under it.
    ///
    /// # Errors
    ///
    /// Fails like [`Memory::take_peppers`].
    pub async fn add_peppers(
        &self,
        secrets: impl Future<Output = Result<SealedSecrets, StoreError>>,
    ) -> Result<Result<(), SealError>, StoreError> {
        self.change_peppers(secrets, Peppers::beside).await
    }

    async fn change_peppers(
        &self,
        secrets: impl Future<Output = Result<SealedSecrets, StoreError>>,
        change: impl FnOnce(Peppers, &Peppers) -> Peppers,
    ) -> Result<Result<(), SealError>, StoreError> {
        let _changing = self.changing_keys.lock().await;
        let opened = Peppers::open(&secrets.await?, &self.master);
        let opened = opened.and_then(|peppers| peppers.ok_or(SealError::CannotOpen));
        Ok(opened.map(|peppers| self.peppers.store(Arc::new(change(peppers, &self.peppers.load())))))
    }

    fn set_keys(&self, keys: &[SigningKeyRecord]) -> Result<(), KeyringError> {
        self.highest_key.fetch_max(highest(keys.iter().map(|key| key.id)), Ordering::Relaxed);
        let taken_over = self.issuer.set_keys(keys, &self.master);
        self.registry.feed().publish(Changed::Keys);
        taken_over
    }

    /// Takes over the verifiers that the store returns after this change, or after another node's.
    ///
    /// # Errors
    ///
    /// Fails if the store is unavailable.
    pub async fn take_verifiers(
        &self,
        verifiers: impl Future<Output = Result<Vec<VerifierRecord>, StoreError>>,
    ) -> Result<Vec<VerifierRecord>, StoreError> {
        let _changing = self.changing_verifiers.lock().await;
        let verifiers = verifiers.await?;
        self.set_verifiers(verifiers.clone());
        Ok(verifiers)
    }

    /// A removed verifier's followers cannot acknowledge the change published here, so the propagation waits until
    /// their leases end. The other followers receive the same keys again.
    fn set_verifiers(&self, verifiers: Vec<VerifierRecord>) {
        self.highest_verifier.fetch_max(highest(verifiers.iter().map(|v| v.id)), Ordering::Relaxed);
        let verifiers = Arc::new(verifiers);
        let before = self.verifiers.swap(Arc::clone(&verifiers));
        if before.iter().any(|before| verifiers.iter().all(|verifier| verifier.id != before.id)) {
            self.registry.feed().publish(Changed::Keys);
        }
    }

    /// Takes over the only signing key after the store has revoked every token, and removes all verifiers.
    ///
    /// # Errors
    ///
    /// Fails like [`Memory::take_keys`].
    pub async fn take_end(
        &self,
        keys: impl Future<Output = Result<Vec<SigningKeyRecord>, StoreError>>,
    ) -> Result<Result<(), KeyringError>, StoreError> {
        let (_keys, _verifiers) = (self.changing_keys.lock().await, self.changing_verifiers.lock().await);
        let keys = keys.await?;
        self.set_verifiers(vec![]);
        Ok(self.set_keys(&keys))
    }

    /// Generates a key as the newest one that signs from `now` on.
    ///
    /// # Errors
    ///
    /// Fails if the key cannot be sealed under the master key.
    pub fn new_key(&self, now: UnixSeconds, random: &Random) -> Result<SigningKeyRecord, SealError> {
        let (algorithm, rfc9068) = self.issuer.newest();
        let key = generate_key(algorithm, &self.master, random, now, now)?;
        Ok(SigningKeyRecord { rfc9068, ..key })
    }

    /// The content of memory, for a database that has lost its own.
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
