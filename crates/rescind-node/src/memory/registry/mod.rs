//! The registry: every client and credential, and the sessions used lately.

mod credential_times;
mod remembered;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use papaya::HashMap as ConcurrentMap;
use rescind_base::{
    model::{
        CertificateNames, Client, ClientId, Credential, CredentialId, Session, SessionId, Status, UnixSeconds,
    },
    secret::{ApiKey, Hashes},
};
use rescind_verifier::{ClientPolicy, Resources, SessionState, State, follow::wire::EndedSession};

use crate::memory::{Changed, Feed, credential_table::CredentialTable};

/// The number of locks that the sessions are spread over.
const SHARDS: usize = 64;

/// How many verifications are counted after each login. They tell whether a client caches its tokens; of a client that
/// does, nothing is counted nearly always, so that the cores do not share a counter.
const COUNTED_PER_LOGIN: u64 = 16;

/// Always as new as the last change that this process has answered for.
#[derive(Debug, Default)]
pub struct Registry {
    clients: ConcurrentMap<ClientId, KnownClient>,
    credentials: ConcurrentMap<ApiKey, Arc<KnownCredential>>,
    api_keys: ConcurrentMap<CredentialId, ApiKey>,
    /// The same credentials by the hashes of their secrets.
    by_secret: ConcurrentMap<[u8; 32], Arc<KnownCredential>>,
    /// Held while the maps above change, so that they change together.
    applying: Mutex<()>,
    shards: Box<[RwLock<Shard>]>,
    shard_capacity: usize,
    /// Counts the session endings; a [`ReadStamp`] is a value of this count.
    endings: AtomicU64,
    feed: Feed,
    credential_table: CredentialTable,
    highest_client: AtomicU64,
    highest_credential: AtomicU64,
    highest_session: AtomicU64,
}

#[derive(Debug)]
struct KnownClient {
    policy: Arc<ClientPolicy>,
    enforces_allowlist: bool,
    introspect_lifetime: Option<u64>,
    status: Status,
    suspended_until: Option<UnixSeconds>,
    certificates: CertificateNames,
    resources: Resources,
    verifications: Verifications,
}

/// How often a token of the client was verified here, at most [`COUNTED_PER_LOGIN`] for each login.
#[derive(Debug, Default)]
struct Verifications {
    counted: AtomicU64,
    most: AtomicU64,
}

/// A credential and its client.
#[derive(Debug)]
pub struct KnownCredential {
    /// The client that the credential belongs to.
    pub client: ClientId,
    /// The names of the client's certificates.
    pub certificates: CertificateNames,
    /// The credential.
    pub credential: Credential,
}

/// Sessions in the order of arrival, in two halves: when the younger is full, the older is dropped.
#[derive(Debug, Default)]
struct Shard {
    young: HashMap<SessionId, SessionState>,
    old: HashMap<SessionId, SessionState>,
    /// The count at the last ending of one of its sessions.
    last_ending: u64,
}

/// Version stamp, taken before a store read or change of a session. [`Registry::fill`] drops a result that
/// may be older than a session's ending since, because caching it would undo the ending.
#[derive(Debug, Clone, Copy)]
pub struct ReadStamp {
    endings: u64,
}

impl Registry {
    /// An empty registry that holds at most about `max_sessions`, and publishes changes to the feed.
    pub fn new(max_sessions: usize, feed: Feed) -> Registry {
        Registry {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            shard_capacity: max_sessions.div_ceil(SHARDS * 2).max(1),
            feed,
            ..Registry::default()
        }
    }

    /// Takes over a client from the store, unless memory's is as new. A deleted client remains as a
    /// tombstone, so that an older change cannot restore it.
    pub fn apply(&self, client: &Client) {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        if self.clients.pin().get(&client.id).is_none_or(|known| known.policy.revision < client.revision) {
            self.put(client);
            self.feed.publish(Changed::Client(client.id));
        }
    }

    /// Replaces everything by the store's content, even if that is older: the store may have taken over
    /// without the last changes of the one before.
    pub fn replace(&self, store: &[Client], ended: Vec<EndedSession>, epoch: String) {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let ids: HashSet<_> = store.iter().map(|client| client.id).collect();
        self.clients.pin().retain(|id, _| ids.contains(id));
        let credentials = store.iter().flat_map(|client| &client.credentials);
        let good: HashSet<_> = credentials.map(|credential| &credential.api_key).collect();
        for api_key in self.credentials.pin().keys().filter(|api_key| !good.contains(api_key)) {
            self.credential_table.remove(api_key);
        }
        self.credentials.pin().retain(|api_key, _| good.contains(api_key));
        self.api_keys.pin().retain(|_, api_key| good.contains(api_key));
        self.by_secret.pin().retain(|_, known| good.contains(&known.credential.api_key));
        for client in store {
            self.put(client);
        }
        let last_ending = self.count_ending();
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            *shard = Shard { last_ending, ..Shard::default() };
        }
        self.feed.restart(epoch, ended);
    }

    /// The caller holds `applying`, so that the maps change together.
    fn put(&self, client: &Client) {
        let (credentials, api_keys, by_secret) =
            (self.credentials.pin(), self.api_keys.pin(), self.by_secret.pin());
        self.highest_client.fetch_max(client.id, Ordering::Relaxed);
        for credential in &client.credentials {
            self.highest_credential.fetch_max(credential.id, Ordering::Relaxed);
            if client.status == Status::Deleted || credential.revoked_at.is_some() {
                self.credential_table.remove(&credential.api_key);
                if let Some(known) = credentials.remove(&credential.api_key) {
                    by_secret.remove(&known.credential.secret_hash.bytes);
                }
                api_keys.remove(&credential.id);
            } else {
                let until = credential.expires_at.unwrap_or(UnixSeconds::MAX);
                let until = if client.status == Status::Active { until } else { 0 };
                self.credential_table.put(&credential.api_key, credential.secret_hash, until);
                let known = Arc::new(KnownCredential {
                    client: client.id,
                    certificates: client.certificates.clone(),
                    credential: credential.clone(),
                });
                by_secret.insert(credential.secret_hash.bytes, Arc::clone(&known));
                let before = credentials.insert(credential.api_key.clone(), known);
                // The hash is another one after a rotation of the pepper.
                if let Some(before) = before.map(|before| before.credential.secret_hash)
                    && before != credential.secret_hash
                {
                    by_secret.remove(&before.bytes);
                }
                api_keys.insert(credential.id, credential.api_key.clone());
            }
        }
        let clients = self.clients.pin();
        // Credentials that were deleted.
        for gone in clients.get(&client.id).iter().flat_map(|known| &known.policy.credentials) {
            if client.credentials.iter().all(|credential| credential.id != *gone)
                && let Some(api_key) = api_keys.remove(gone)
            {
                self.credential_table.remove(api_key);
                if let Some(known) = credentials.remove(api_key) {
                    by_secret.remove(&known.credential.secret_hash.bytes);
                }
            }
        }
        let known = KnownClient {
            policy: Arc::new(client.policy()),
            enforces_allowlist: client.enforces_allowlist,
            introspect_lifetime: client.introspect_lifetime,
            status: client.status,
            suspended_until: client.suspension.until,
            certificates: client.certificates.clone(),
            resources: client.resources.clone(),
            verifications: clients
                .get(&client.id)
                .map_or_else(Verifications::default, |known| known.verifications.copy()),
        };
        clients.insert(client.id, known);
    }

    /// A client's policy. Unlike [`State::client`], this does not count a verification.
    pub fn policy(&self, id: ClientId) -> Option<Arc<ClientPolicy>> {
        self.clients.pin().get(&id).map(|known| Arc::clone(&known.policy))
    }

    /// Whether the client wants callers checked against the allowlists of their own clients.
    pub fn enforces_allowlist(&self, id: ClientId) -> bool {
        self.clients.pin().get(&id).is_some_and(|known| known.enforces_allowlist)
    }

    /// For how many seconds the client may keep introspection's answers.
    pub fn introspect_lifetime(&self, id: ClientId) -> Option<u64> {
        self.clients.pin().get(&id)?.introspect_lifetime
    }

    /// How often the client's tokens were verified here, as far as it was counted. A change of the client may lose a
    /// few.
    pub fn verifications(&self, id: ClientId) -> u64 {
        self.clients.pin().get(&id).map_or(0, |known| known.verifications.counted.load(Ordering::Relaxed))
    }

    /// Lets the next verifications of the client be counted. Returns how many were counted before.
    pub fn count_after_login(&self, id: ClientId) -> u64 {
        if let Some(known) = self.clients.pin().get(&id) {
            known.verifications.most.fetch_add(COUNTED_PER_LOGIN, Ordering::Relaxed);
        }
        self.verifications(id)
    }

    /// The credential with this API key, unless it was revoked.
    pub fn credential(&self, api_key: &str) -> Option<Arc<KnownCredential>> {
        self.credentials.pin().get(api_key).cloned()
    }

    /// The credential with one of these hashes of its secret, unless it was revoked. The time of the look-up shows nothing that the
    /// hash of a text chosen by a caller could be guessed from: the pepper is secret.
    pub fn credential_of_secret(&self, presented: &Hashes) -> Option<Arc<KnownCredential>> {
        let by_secret = self.by_secret.pin();
        presented.iter().find_map(|hash| by_secret.get(&hash.bytes)).cloned()
    }

    /// Whether this API key and secret belong together, and the credential may log in now.
    pub fn matches(&self, api_key: &str, presented: &Hashes, now: UnixSeconds) -> bool {
        self.credential_table.matches(api_key, presented, now)
    }

    /// The API key of a credential, unless it was revoked.
    pub fn api_key(&self, id: CredentialId) -> Option<ApiKey> {
        self.api_keys.pin().get(&id).cloned()
    }

    /// Takes the stamp. Call before the store is asked to read or change a session.
    pub fn stamp(&self) -> ReadStamp {
        ReadStamp { endings: self.endings.load(Ordering::Acquire) }
    }

    /// Takes over a session that was read or changed. An ended session is always taken over and published.
    /// Any other is dropped if a session of the shard ended since the stamp.
    pub fn fill(&self, session: &Session, stamp: ReadStamp) {
        let (id, state) = (session.id, session.state());
        self.highest_session.fetch_max(id, Ordering::Relaxed);
        let mut shard = self.shard(id).write().unwrap_or_else(PoisonError::into_inner);
        if state.ended {
            let ended = EndedSession { session: id, until: session.refresh_expires_at };
            if self.feed.publish(Changed::Session(ended)) {
                shard.last_ending = self.count_ending();
            }
        } else if shard.last_ending > stamp.endings {
            return;
        }
        shard.put(id, state, self.shard_capacity);
    }

    fn count_ending(&self) -> u64 {
        self.endings.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The feed of changes.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Every client, with its policy.
    pub fn policies(&self) -> Vec<(ClientId, Arc<ClientPolicy>)> {
        self.clients.pin().iter().map(|(id, known)| (*id, Arc::clone(&known.policy))).collect()
    }

    /// How many sessions are in memory.
    pub fn sessions(&self) -> usize {
        let shards = self.shards.iter().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner));
        shards.map(|shard| shard.young.len() + shard.old.len()).sum()
    }

    /// How many clients are in memory, suspended and deleted ones included.
    pub fn clients(&self) -> usize {
        self.clients.pin().len()
    }

    /// How many credentials are in memory, expired ones included.
    pub fn credentials(&self) -> usize {
        self.credentials.pin().len()
    }

    fn shard(&self, id: SessionId) -> &RwLock<Shard> {
        &self.shards[(id % SHARDS as u64) as usize]
    }
}

impl State for Registry {
    fn client(&self, id: ClientId) -> Option<Arc<ClientPolicy>> {
        let clients = self.clients.pin();
        let known = clients.get(&id)?;
        known.verifications.count();
        Some(Arc::clone(&known.policy))
    }

    fn session(&self, id: SessionId) -> Option<SessionState> {
        let shard = self.shard(id).read().unwrap_or_else(PoisonError::into_inner);
        shard.find(id)
    }
}

impl Verifications {
    fn count(&self) {
        if self.counted.load(Ordering::Relaxed) < self.most.load(Ordering::Relaxed) {
            self.counted.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn copy(&self) -> Verifications {
        let copy = |count: &AtomicU64| AtomicU64::new(count.load(Ordering::Relaxed));
        Verifications { counted: copy(&self.counted), most: copy(&self.most) }
    }
}

impl Shard {
    fn find(&self, id: SessionId) -> Option<SessionState> {
        self.young.get(&id).or_else(|| self.old.get(&id)).copied()
    }

    /// Two changes of one session may arrive in either order, so the state only moves forward.
    fn put(&mut self, id: SessionId, new: SessionState, capacity: usize) {
        let merged = match self.find(id) {
            Some(known) => SessionState::new(new.client, known.pair.max(new.pair), known.ended || new.ended),
            None => new,
        };
        if let Some(known) = self.old.get_mut(&id) {
            *known = merged;
            return;
        }
        if self.young.len() >= capacity && !self.young.contains_key(&id) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, merged);
    }
}

#[cfg(test)]
mod tests;
