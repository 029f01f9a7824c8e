//! The start of a process.

use std::sync::{
    Arc, Mutex, OnceLock,
    atomic::{AtomicBool, AtomicU64},
};

use rescind_base::{
    clock::Clock,
    files::data_folder::{DataFolder, FolderError},
    model::{Actor, ChangeOrigin, EventFilter, EventKind},
    random::Random,
    secret::{MasterKey, Peppers, SealError, SealedSecrets},
    telemetry::{metrics::Metrics, trends::Trends},
};
use rescind_store::{Sqlite, Store, StoreError};
use rescind_verifier::Algorithm;
use thiserror::Error;
use tokio::sync::watch;
use tracing::{error, info};

use super::{App, ClockWatch, EndError, FirstLink, Quotas, Rehashes, Stage, went_back::after_going_back};
use crate::{
    audit::Audit,
    cluster::{self, Cluster, KnownFile},
    config::Config,
    limits::{Limiter, LogLimits, Quota, UncachedLogins},
    memory::{Issuer, KeyringError, Memory, generate_key, generate_upgrade},
    usage::Usage,
};

/// The log line and advice for an operator whose store went back.
pub const WENT_BACK: &str = "every token has been ended, and every verifier revoked: clients log in again. What was done since that store was \
     written is lost: credentials that were revoked are good again, allowlists are what they were then. Look through \
     them before others reach the server";

/// What an operator does first.
const NEW_STORE: &str = "the store is new. Keep a copy of the master key (master.key in the folder, or your own) apart from the backups: \
     they cannot be read without it. Next: rescind client create --name NAME";

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
    Sealed(SealError),
    #[error(transparent)]
    Keys(#[from] KeyringError),
    #[error(transparent)]
    WentBack(#[from] EndError),
    #[error("tokens.issuer or tokens.audience cannot be written in a token")]
    Profile,
}

impl From<SealError> for OpenError {
    fn from(error: SealError) -> OpenError {
        OpenError::Sealed(error)
    }
}

/// Returns the folder's master key. A rotation that was cut off after the store was sealed under the next key is
/// completed.
fn present_key(
    folder: &DataFolder,
    secrets: &SealedSecrets,
    random: &Random,
) -> Result<MasterKey, FolderError> {
    let present = folder.master_key(secrets.is_empty(), random)?;
    match folder.next_key()? {
        Some(next) if Peppers::open(secrets, &present).is_err() && Peppers::open(secrets, &next).is_ok() => {
            folder.adopt_next_key()?;
            Ok(next)
        }
        _ => Ok(present),
    }
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
            None => present_key(&folder, &loaded.secrets, &random)?,
        };

        let peppers = match Peppers::open(&loaded.secrets, &master)? {
            Some(peppers) => peppers,
            None => {
                let secrets = store.first_pepper(Peppers::first(&master, &random)?).await?;
                let folder = config.server.data_dir.display();
                info!(%folder, "{NEW_STORE}");
                Peppers::open(&secrets, &master)?.ok_or(SealError::CannotOpen)?
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
        let known = match store.postgres() {
            None => None,
            Some(postgres) => {
                let path = folder.known();
                let opened =
                    KnownFile::open(&path, peppers.installation).map_err(|e| FolderError::Io(path, e))?;
                let (file, known) = opened;
                postgres.set_known(known);
                Some(file)
            }
        };
        let audit = Audit::new(
            config.audit.retention(),
            config.denials.retention(),
            &config.node_name(),
            clock.clone(),
        );
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

        if let Some(newest) = loaded.keys.last().filter(|newest| !newest.rfc9068) {
            info!(
                kid = newest.kid,
                "access tokens have no client_id and jti, since the signing key is of an earlier version: see \"After an upgrade\" in docs/oauth.md"
            );
        }

        let (lent, issuer) = (loaded.lent, Issuer::new(profile, &loaded.keys, &master)?);
        let max_sessions = config.server.sessions_in_memory;
        let memory = Arc::new(Memory::new(loaded, max_sessions, issuer, peppers, master, &random));
        let metrics = Metrics::new(store.commits());
        config.webhook.iter().for_each(|webhook| metrics.webhooks.add(&webhook.name));
        if store.embedded().is_some() {
            let newest = EventFilter { kind: Some(EventKind::StoreBackedUp), ..EventFilter::newest(1) };
            store.records(newest).await?.records.iter().for_each(|backup| metrics.backed_up(backup.at));
        }
        let options = cluster::Options {
            terms: config.terms(),
            node_name: config.node_name(),
            profile: config.profile_in_words(),
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
            usage: Arc::new(Usage::new(clock.clone())),
            quotas: Quotas {
                logins: Quota::new(config.limits.logins_per_minute, clock.clone()),
                refreshes: Quota::new(config.limits.refreshes_per_minute, clock.clone()),
            },
            uncached: UncachedLogins::default(),
            rehashes: Rehashes::default(),
            log_limits: LogLimits::new(&clock),
            metrics,
            trends: Trends::default(),
            cluster: Arc::new(cluster),
            on_unavailable: config.forward_auth.unavailable,
            went_back,
            protected_resources: config.tokens.resources.clone(),
            asks_for_certificates: config.tls.client_ca.is_some(),
            webhooks: config.webhook.clone(),
            settings: config.settings(),
            scopes_supported: config.tokens.scopes_supported.clone(),
            stage: watch::Sender::new(Stage::Serving),
            urls: OnceLock::new(),
            first_link: FirstLink::default(),
            walk: Mutex::default(),
            certificate: Mutex::default(),
            told: Mutex::default(),
            uses_swept: AtomicU64::new(0),
            chains_broken: AtomicBool::new(false),
            clock,
            random,
            store,
            memory,
            folder,
        }))
    }
}
