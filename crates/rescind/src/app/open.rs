//! The start of a process.

use std::sync::Arc;

use rescind_verifier::Algorithm;
use thiserror::Error;
use tokio::sync::watch;
use tracing::{error, info};

use super::{App, ClockWatch, EndError, Quotas, went_back::after_going_back};
use crate::{
    audit::Audit,
    clock::Clock,
    cluster::{self, Cluster, KnownFile},
    config::Config,
    files::data_folder::{DataFolder, FolderError},
    limits::{Limiter, LogLimits, Quota, UncachedLogins},
    memory::{Issuer, KeyringError, Memory, generate_key, generate_upgrade},
    model::{Actor, ChangeOrigin},
    random::Random,
    secret::{MasterKey, PEPPER, Pepper, SealError},
    store::{Sqlite, Store, StoreError},
    telemetry::metrics::Metrics,
};

/// The log line and advice for an operator whose store went back.
pub const WENT_BACK: &str = "every token has been ended, and every verifier revoked: clients log in again. What was done since that store was \
     written is lost: credentials that were revoked are good again, allowlists are what they were then. Look through \
     them before others reach the server";

/// The hash of this text under the pepper identifies the installation.
const INSTALLATION: &str = "installation";

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
    /// Takes the data folder, opens the store and loads what memory holds. A new store gets its pepper and
    /// its first signing key. `master_key` is the one from the environment.
    ///
    /// # Errors
    ///
    /// Fails if the folder, the master key or the store cannot be used.
    pub async fn open(
        config: &Config,
        master_key: Option<&str>,
        clock: Clock,
        random: Random,
    ) -> Result<Arc<App>, OpenError> {
        let profile = config.profile().ok_or(OpenError::Profile)?;
        let folder = DataFolder::take(&config.server.data_dir)?;
        let store = Arc::new(match config.postgres() {
            Some(options) => Store::connect(&options).await?,
            None => Store::open_file(&folder.store(), &random)?,
        });
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
        // Created before this clock's time is written anywhere.
        let clock_watch = ClockWatch::new(store.last_used().await?, clock.clone());
        let went_back = store.embedded().and_then(Sqlite::went_back);
        if let Some(found) = went_back {
            let origin = ChangeOrigin::new(clock.now(), Actor::Service, &config.node_name());
            after_going_back(&store, found, &loaded.keys, &master, origin, &random).await?;
            error!(%found, "{WENT_BACK}");
            loaded = store.load().await?;
        }
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
        let audit = Audit::new(config.retention(), &config.node_name(), clock.clone());
        let now = clock.now();
        match loaded.keys.last() {
            None => {
                let first = generate_key(Algorithm::Hs256, &master, &random, now, now)?;
                loaded.keys = store.first_key(first, audit.origin(Actor::Service, None)).await?;
            }
            // In a cluster the nodes decide when (`admin::upgrade_key`).
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

        let (lent, issuer) = (loaded.lent, Issuer::new(profile, &loaded.keys, &master)?);
        let max_sessions = config.server.sessions_in_memory;
        let memory = Arc::new(Memory::new(loaded, max_sessions, issuer, pepper, master, &random));
        let metrics = Metrics::new(store.commits());
        let options = cluster::Options {
            terms: config.terms(),
            node_name: config.node_name(),
            known,
            lent,
            histories_lost: metrics.histories_lost.clone(),
        };
        let (of_store, of_memory) = (Arc::clone(&store), Arc::clone(&memory));
        let cluster = Cluster::new(options, of_store, of_memory, clock.clone(), random.clone());
        Ok(Arc::new(App {
            rules: config.token_rules(),
            limiter: Limiter::new(config.limits.failed_logins_per_minute),
            clock_watch,
            audit: Arc::new(audit),
            quotas: Quotas {
                logins: Quota::new(config.limits.logins_per_minute, clock.clone()),
                refreshes: Quota::new(config.limits.refreshes_per_minute, clock.clone()),
            },
            uncached: UncachedLogins::default(),
            log_limits: LogLimits::new(&clock),
            metrics,
            cluster: Arc::new(cluster),
            on_unavailable: config.forward_auth.unavailable,
            went_back,
            asks_for_certificates: config.tls.client_ca.is_some(),
            ready: watch::Sender::new(true),
            clock,
            random,
            store,
            memory,
            folder,
        }))
    }
}
