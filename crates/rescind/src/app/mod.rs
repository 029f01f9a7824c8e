//! What one process is made of, put together.

mod change;
mod clock_watch;

use clock_watch::Turn;
pub use clock_watch::{ClockView, ClockWatch};

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use rescind_verifier::Algorithm;
use svix_ksuid::{Ksuid, KsuidLike};
use thiserror::Error;
use tokio::sync::{Mutex, RwLock, watch};
use tracing::{Instrument, error, info, warn};

use crate::{
    admin::{self, EndError},
    audit::Audit,
    clock::Clock,
    cluster::{self, Cluster, KnownFile, Lease, Receipt},
    config::{Config, Undecided},
    files::data_folder::{DataFolder, FolderError},
    limits::{
        Limiter, LogLimits, Quota,
        uncached::{self, Caching},
    },
    memory::{Changed, Feed, Issuer, KeyringError, Registry, generate_key, generate_upgrade},
    model::{Actor, ChangeOrigin, SigningKeyRecord, TokenRules, UnixSeconds, VerifierRecord},
    random::Random,
    secret::{MasterKey, PEPPER, Pepper, SealError},
    store::{Sqlite, Store, StoreError, WentBack},
    telemetry::{metrics::Metrics, traces::step},
};

/// For how long expired sessions are kept: a clock set back within it finds them again.
const SWEEP_MARGIN: u64 = 3600;
/// Changes kept in a database for nodes that were away. Whoever missed more loads everything.
const CHANGES_KEPT: u64 = 10_000;

/// What was done where the store was not what was last written here.
pub const WENT_BACK: &str = "every token has been ended, and every verifier revoked: clients log in again. What was done since that store was \
     written is lost: credentials that were revoked are good again, allowlists are what they were then. Look through \
     them before others reach the server";

/// One process's parts.
pub struct App {
    pub clock: Clock,
    pub random: Random,
    pub rules: TokenRules,
    pub store: Store,
    pub registry: Registry,
    pub issuer: Issuer,
    pub limiter: Limiter,
    /// Whether the wall clock can be believed.
    pub clock_watch: ClockWatch,
    pub audit: Audit,
    pub quotas: Quotas,
    pub caching: Caching,
    pub log_limits: LogLimits,
    pub metrics: Metrics,
    pub cluster: Cluster,
    /// Who may follow the feed.
    pub verifiers: ArcSwap<Vec<VerifierRecord>>,
    pub pepper: Pepper,
    pub master: MasterKey,
    pub undecided: Undecided,
    /// The store was not what was last written here, so every token was ended.
    pub went_back: Option<WentBack>,
    /// Callers may show a certificate.
    pub asks_for_certificates: bool,
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
    ready: watch::Sender<bool>,
    // Last, so that the store is closed before another process may take the folder.
    folder: DataFolder,
}

/// Hashed under the pepper, it names the installation.
const INSTALLATION: &str = "installation";

/// How often a client may succeed.
pub struct Quotas {
    pub logins: Quota,
    pub refreshes: Quota,
}

/// Why a process cannot start.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("RESCIND_MASTER_KEY, or the file that RESCIND_MASTER_KEY_FILE names: {0}")]
    MasterKey(SealError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}: set the master key that it was sealed under")]
    Sealed(#[from] SealError),
    #[error("{0}")]
    Keys(#[from] KeyringError),
    #[error(transparent)]
    WentBack(#[from] EndError),
    #[error("tokens.issuer or tokens.audience cannot be written in a token")]
    Profile,
}

impl App {
    /// Takes the data folder, opens the store and loads what is kept in memory. A new store gets
    /// its pepper and its first signing key. `master_key` is the one given by the environment.
    pub async fn open(
        config: &Config,
        master_key: Option<&str>,
        clock: Clock,
        random: Random,
    ) -> Result<Arc<App>, OpenError> {
        let profile = config.profile().ok_or(OpenError::Profile)?;
        let folder = DataFolder::take(&config.server.data_dir)?;
        let store = match config.postgres() {
            Some(options) => Store::connect(&options).await?,
            None => Store::open_file(&folder.store(), &random)?,
        };
        let mut loaded = store.load().await?;
        let master = match master_key {
            Some(text) => MasterKey::parse(text).map_err(OpenError::MasterKey)?,
            None => folder.master_key(loaded.pepper.is_none(), &random)?,
        };

        let pepper = match &loaded.pepper {
            Some(sealed) => master.open(PEPPER, sealed)?,
            None => {
                let new = master.seal(PEPPER, &random.bytes::<32>(), &random)?;
                master.open(PEPPER, &store.set_pepper(new).await?)?
            }
        };
        // Before anything is written by this clock.
        let clock_watch = ClockWatch::new(store.last_used().await?, clock.clone());
        let went_back = store.embedded().and_then(Sqlite::went_back);
        if let Some(found) = went_back {
            let origin = ChangeOrigin::new(clock.now(), Actor::Service, &config.node_name());
            admin::after_going_back(&store, found, &loaded.keys, &master, origin, &random).await?;
            error!(%found, "{WENT_BACK}");
            loaded = store.load().await?;
        }
        let lease = match store.postgres() {
            None => Lease::unlimited(clock.clone()),
            // Only a node that has joined may answer from memory.
            Some(_) => Lease::none(clock.clone()),
        };
        let pepper = Pepper::new(&pepper);
        let known = match store.postgres() {
            None => None,
            Some(postgres) => {
                let path = folder.known();
                let installation = pepper.hash(INSTALLATION).0;
                let opened = KnownFile::open(&path, installation).map_err(|e| FolderError::Io(path, e))?;
                let (file, known) = opened;
                postgres.set_known(known);
                Some(file)
            }
        };
        let cluster = Cluster::new(config, lease, known, loaded.lent, clock.clone());
        let audit = Audit::new(&config.audit, &cluster.node_name, clock.clone());
        let now = clock.now();
        match loaded.keys.last() {
            None => {
                let first = generate_key(Algorithm::Hs256, &master, &random, now, now)?;
                loaded.keys = store.first_key(first, audit.origin(Actor::Service, None)).await?;
            }
            // Where there are other nodes, they decide when (`admin::upgrade_key`).
            Some(newest) if store.postgres().is_none() => {
                if let Some(next) = generate_upgrade(newest, 0, &master, &random, now)? {
                    let retire_at = next.signs_from + config.token_rules().refresh_ttl;
                    info!(kid = next.kid, "a signing key with a refresh key of its own takes over");
                    let origin = audit.origin(Actor::Service, None);
                    loaded.keys = store.rotate_key(None, next, retire_at, origin).await?;
                }
            }
            Some(_) => {}
        }

        let feed = Feed::new(new_epoch(&random), loaded.ended);
        let registry = Registry::new(config.server.sessions_in_memory, feed);
        for client in &loaded.clients {
            registry.apply(client);
        }
        Ok(Arc::new(App {
            issuer: Issuer::new(profile, &loaded.keys, &master)?,
            rules: config.token_rules(),
            limiter: Limiter::new(config.limits.failed_logins_per_minute),
            clock_watch,
            audit,
            quotas: Quotas {
                logins: Quota::new(config.limits.logins_per_minute, clock.clone()),
                refreshes: Quota::new(config.limits.refreshes_per_minute, clock.clone()),
            },
            caching: Caching::default(),
            log_limits: LogLimits::new(&clock),
            metrics: Metrics::new(store.commits()),
            cluster,
            pepper,
            highest_key: AtomicU64::new(highest(loaded.keys.iter().map(|key| key.id))),
            highest_verifier: AtomicU64::new(highest(loaded.verifiers.iter().map(|v| v.id))),
            verifiers: ArcSwap::from_pointee(loaded.verifiers),
            undecided: config.forward_auth.unavailable,
            went_back,
            asks_for_certificates: config.tls.client_ca.is_some(),
            changing_keys: Mutex::new(()),
            changing_verifiers: Mutex::new(()),
            changing: RwLock::new(()),
            ready: watch::Sender::new(true),
            clock,
            random,
            store,
            registry,
            master,
            folder,
        }))
    }

    /// The data folder.
    pub fn folder(&self) -> &DataFolder {
        &self.folder
    }

    /// Whether new work is welcome, and can be done.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow() && self.cluster.lease.check().is_ok() && self.cluster.clock.check().is_ok()
    }

    /// Tells when it no longer is.
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Tells probes to send new work elsewhere.
    pub fn begin_drain(&self) {
        self.ready.send_replace(false);
    }

    /// Waits until all that was changed is known everywhere. To be called after memory has taken it
    /// over, and before the change is answered for.
    pub async fn settle(&self) -> Result<Receipt, StoreError> {
        let committed_at = self.clock.elapsed();
        let receipt = cluster::settle(self).instrument(step!("settle")).await?;
        self.metrics.settled.took(self.clock.elapsed().saturating_sub(committed_at));
        Ok(receipt)
    }

    /// Changes the signing keys in the store, and goes over to what it answers. Runs to its end even
    /// if whoever asked for it goes away.
    pub async fn change_keys<F>(
        self: &Arc<App>,
        change: impl FnOnce(Arc<App>) -> F + Send + 'static,
    ) -> Result<Result<Vec<SigningKeyRecord>, KeyringError>, StoreError>
    where
        F: Future<Output = Result<Vec<SigningKeyRecord>, StoreError>> + Send,
    {
        let app = Arc::clone(self);
        to_the_end(async move {
            let taken_over = {
                let _all = app.changing().await;
                let _changing = app.changing_keys.lock().await;
                let keys = change(Arc::clone(&app)).await?;
                app.set_keys(&keys).map(|()| keys)
            };
            let Receipt { nodes, acknowledged, milliseconds } = app.settle().await?;
            info!(nodes, acknowledged, milliseconds, "signing keys changed");
            Ok(taken_over)
        })
        .await
    }

    /// Goes over to the signing keys of the store, which another node has changed.
    pub async fn take_keys(
        &self,
        keys: impl Future<Output = Result<Vec<SigningKeyRecord>, StoreError>>,
    ) -> Result<(), StoreError> {
        let _changing = self.changing_keys.lock().await;
        let keys = keys.await?;
        self.set_keys(&keys).map_err(|e| StoreError::Unreadable(e.to_string()))
    }

    fn set_keys(&self, keys: &[SigningKeyRecord]) -> Result<(), KeyringError> {
        self.highest_key.fetch_max(highest(keys.iter().map(|key| key.id)), Ordering::Relaxed);
        let taken_over = self.issuer.set_keys(keys, &self.master);
        self.registry.feed().publish(Changed::Keys);
        taken_over
    }

    /// Changes the verifiers in the store, and goes over to what it answers.
    pub async fn change_verifiers<F>(
        self: &Arc<App>,
        change: impl FnOnce(Arc<App>) -> F + Send + 'static,
    ) -> Result<Vec<VerifierRecord>, StoreError>
    where
        F: Future<Output = Result<Vec<VerifierRecord>, StoreError>> + Send,
    {
        let app = Arc::clone(self);
        to_the_end(async move {
            let verifiers = {
                let _all = app.changing().await;
                let _changing = app.changing_verifiers.lock().await;
                let verifiers = change(Arc::clone(&app)).await?;
                app.set_verifiers(verifiers.clone());
                verifiers
            };
            let Receipt { nodes, acknowledged, milliseconds } = app.settle().await?;
            info!(nodes, acknowledged, milliseconds, "verifiers changed");
            Ok(verifiers)
        })
        .await
    }

    /// Goes over to the verifiers of the store, which another node has changed.
    pub async fn take_verifiers(
        &self,
        verifiers: impl Future<Output = Result<Vec<VerifierRecord>, StoreError>>,
    ) -> Result<(), StoreError> {
        let _changing = self.changing_verifiers.lock().await;
        self.set_verifiers(verifiers.await?);
        Ok(())
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

    /// A name for a new beginning of the feed.
    pub fn new_epoch(&self) -> String {
        new_epoch(&self.random)
    }

    /// Forgets what counts no more, and deletes, batch by batch, sessions that are over, keys whose last
    /// token has run out, and what has been on record for long enough. Returns how many sessions went.
    pub async fn sweep(self: &Arc<App>) -> Result<usize, StoreError> {
        self.quotas.logins.sweep();
        self.quotas.refreshes.sweep();
        uncached::judge(self);
        cluster::forget_lent(self).await?;
        let left_out = self.log_limits.left_out.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            info!(left_out, "lines on logins, refreshes and logouts were left out: a client had too many");
        }
        let now = self.surely().await?;
        let over = move |key: &SigningKeyRecord| key.retire_at.is_some_and(|at| at < now);
        if self.store.keys().await?.iter().any(over) {
            let origin = self.audit.origin(Actor::Service, None);
            let swept = self.change_keys(async move |app| app.store.retire_keys(origin, over).await).await?;
            if let Err(e) = swept {
                warn!(error = %e, "the signing keys were left as they were");
            }
        }
        self.registry.feed().sweep(now.saturating_sub(SWEEP_MARGIN));
        if let Some(postgres) = self.store.postgres() {
            postgres.trim_changes(CHANGES_KEPT).await?;
        }
        while !self.store.sweep_records(self.audit.retention, now).await? {}
        let (mut after, mut deleted, mut kept) = (0, 0, 0);
        loop {
            let swept = self.store.sweep(after, now.saturating_sub(SWEEP_MARGIN)).await?;
            deleted += swept.deleted;
            kept += swept.kept;
            match swept.next {
                Some(next) => after = next,
                None => break,
            }
        }
        self.metrics.sessions_live.set(i64::try_from(kept).unwrap_or(i64::MAX));
        if deleted > 0 {
            info!(deleted, "swept sessions that were over");
        }
        Ok(deleted)
    }
}

fn highest(ids: impl Iterator<Item = u64>) -> u64 {
    ids.max().unwrap_or(0)
}

impl App {
    /// The time by which what is over may be deleted for good.
    async fn surely(&self) -> Result<UnixSeconds, StoreError> {
        let time = self.clock_watch.look(self.cluster.clock.is_off());
        match time.turn {
            Some(Turn::Doubted) => warn!(
                ahead_seconds = time.ahead,
                "the machine's clock is not believed: nothing is deleted by it until it is set right, or has gone on for as \
                 long as it is off. If the service was stopped for so long, nothing need be done"
            ),
            Some(Turn::Believed) => info!("the machine's clock is believed again"),
            None => {}
        }
        if let Some(now) = time.save {
            self.store.used_at(now).await?;
            self.clock_watch.saved(now);
        }
        Ok(time.surely)
    }
}

fn new_epoch(random: &Random) -> String {
    Ksuid::from_bytes(*random.bytes()).to_string()
}

/// Runs a change to its end even if whoever asked for it goes away: what the store has taken, the
/// registry must hear of. It begins at once; what is awaited is its outcome alone.
pub fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> impl Future<Output = Result<T, StoreError>> + Send {
    let running = tokio::spawn(change.in_current_span());
    async move {
        match running.await {
            Ok(outcome) => outcome,
            Err(e) => match e.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(e) => Err(StoreError::Unavailable(e.into())),
            },
        }
    }
}
