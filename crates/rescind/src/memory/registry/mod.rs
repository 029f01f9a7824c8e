//! The registry: every client and credential, and the sessions used lately.

mod remembered;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use papaya::HashMap as ConcurrentMap;
use rescind_verifier::{ClientPolicy, SessionState, State, follow::wire::EndedSession};

use crate::{
    memory::{Changed, Feed, credential_table::CredentialTable},
    model::{
        CertificateNames, Client, ClientId, Credential, CredentialId, Session, SessionId, Status, UnixSeconds,
    },
    secret::{ApiKey, SecretHash},
};

/// The number of locks that the sessions are spread over.
const SHARDS: usize = 64;

/// Always as new as the last change that this process has answered for.
#[derive(Debug)]
pub struct Registry {
    clients: ConcurrentMap<ClientId, KnownClient>,
    credentials: ConcurrentMap<ApiKey, Arc<KnownCredential>>,
    api_keys: ConcurrentMap<CredentialId, ApiKey>,
    /// Held while the maps above change, so that they change together.
    applying: Mutex<()>,
    shards: Box<[RwLock<Shard>]>,
    shard_capacity: usize,
    /// Counts the session endings; a [`ReadStamp`] is a value of this count.
    endings: AtomicU64,
    /// The count when everything was last replaced.
    replaced: AtomicU64,
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
    status: Status,
    certificates: CertificateNames,
    /// How often a token of the client was verified here.
    verifications: AtomicU64,
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
            clients: ConcurrentMap::new(),
            credentials: ConcurrentMap::new(),
            api_keys: ConcurrentMap::new(),
            applying: Mutex::new(()),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            shard_capacity: max_sessions.div_ceil(SHARDS * 2).max(1),
            endings: AtomicU64::new(0),
            replaced: AtomicU64::new(0),
            feed,
            credential_table: CredentialTable::new(),
            highest_client: AtomicU64::new(0),
            highest_credential: AtomicU64::new(0),
            highest_session: AtomicU64::new(0),
        }
    }

    /// Takes over a client from the store, unless memory's is as new. A deleted client remains as a
    /// tombstone, so that an older change cannot restore it.
    pub fn apply(&self, client: &Client) {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        self.put_if_newer(client);
    }

    /// Takes over a client that was only read, unless memory was replaced since the stamp: the new store may
    /// never have had what was read.
    pub fn fill_client(&self, client: &Client, stamp: ReadStamp) {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        if self.replaced.load(Ordering::Relaxed) <= stamp.endings {
            self.put_if_newer(client);
        }
    }

    /// The caller holds `applying`.
    fn put_if_newer(&self, client: &Client) {
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
        let good: HashSet<_> = store
            .iter()
            .flat_map(|client| &client.credentials)
            .map(|credential| &credential.api_key)
            .collect();
        for api_key in self.credentials.pin().keys().filter(|api_key| !good.contains(api_key)) {
            self.credential_table.remove(api_key);
        }
        self.credentials.pin().retain(|api_key, _| good.contains(api_key));
        self.api_keys.pin().retain(|_, api_key| good.contains(api_key));
        for client in store {
            self.put(client);
        }
        let last_ending = self.count_ending();
        self.replaced.store(last_ending, Ordering::Relaxed);
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            *shard = Shard { last_ending, ..Shard::default() };
        }
        self.feed.restart(epoch, ended);
    }

    /// The caller holds `applying`, so that the maps change together.
    fn put(&self, client: &Client) {
        let (credentials, api_keys) = (self.credentials.pin(), self.api_keys.pin());
        self.highest_client.fetch_max(client.id, Ordering::Relaxed);
        for credential in &client.credentials {
            self.highest_credential.fetch_max(credential.id, Ordering::Relaxed);
            if client.status == Status::Deleted || credential.revoked_at.is_some() {
                self.credential_table.remove(&credential.api_key);
                credentials.remove(&credential.api_key);
                api_keys.remove(&credential.id);
            } else {
                let until = credential.expires_at.unwrap_or(UnixSeconds::MAX);
                let until = if client.status == Status::Active { until } else { 0 };
                self.credential_table.put(&credential.api_key, credential.secret_hash, until);
                let known = KnownCredential {
                    client: client.id,
                    certificates: client.certificates.clone(),
                    credential: credential.clone(),
                };
                credentials.insert(credential.api_key.clone(), Arc::new(known));
                api_keys.insert(credential.id, credential.api_key.clone());
            }
        }
        let verifications = AtomicU64::new(self.verifications(client.id));
        let known = KnownClient {
            policy: Arc::new(client.policy()),
            enforces_allowlist: client.enforces_allowlist,
            status: client.status,
            certificates: client.certificates.clone(),
            verifications,
        };
        self.clients.pin().insert(client.id, known);
    }

    /// A client's policy. Unlike [`State::client`], this does not count a verification.
    pub fn policy(&self, id: ClientId) -> Option<Arc<ClientPolicy>> {
        self.clients.pin().get(&id).map(|known| Arc::clone(&known.policy))
    }

    /// Whether the client wants callers checked against the allowlists of their own clients.
    pub fn enforces_allowlist(&self, id: ClientId) -> bool {
        self.clients.pin().get(&id).is_some_and(|known| known.enforces_allowlist)
    }

    /// How many of the client's tokens were verified here. A change of the client may lose a few.
    pub fn verifications(&self, id: ClientId) -> u64 {
        self.clients.pin().get(&id).map_or(0, |known| known.verifications.load(Ordering::Relaxed))
    }

    /// The credential with this API key, unless it was revoked.
    pub fn credential(&self, api_key: &str) -> Option<Arc<KnownCredential>> {
        self.credentials.pin().get(api_key).cloned()
    }

    /// Whether this API key and secret belong together, and the credential may log in now.
    pub fn matches(&self, api_key: &str, presented: &SecretHash, now: UnixSeconds) -> bool {
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
        self.shards
            .iter()
            .map(|shard| {
                let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
                shard.young.len() + shard.old.len()
            })
            .sum()
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
        known.verifications.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(&known.policy))
    }

    fn session(&self, id: SessionId) -> Option<SessionState> {
        let shard = self.shard(id).read().unwrap_or_else(PoisonError::into_inner);
        shard.find(id)
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
