//! What is durable. SQL stands nowhere else.
//!
//! The store knows no rules: it loads values under a lock, lets a rule change them, and saves what
//! changed, all in one transaction. Nothing is answered before it is on the disk.

#[cfg(test)]
mod conformance;
mod rows;
mod sqlite;
mod writer;

use rescind_verifier::{Algorithm, SessionState, State, follow::wire::EndedSession};
use std::sync::Arc;
use thiserror::Error;

use crate::model::{Client, ClientId, KnownVerifier, Session, SessionId, UnixSeconds};
pub use sqlite::Store;

/// Why the store did not do what it was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// It cannot be reached or written. Nothing was done, or it is not known whether it was.
    #[error("the store is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It holds what this version cannot read.
    #[error("the store holds what this version cannot read: {0}")]
    Unreadable(String),
}

/// A signing key as the store keeps it: sealed.
#[derive(Debug, Clone)]
pub struct StoredKey {
    /// The number that sessions name it by.
    pub id: u64,
    /// The name that tokens carry.
    pub kid: String,
    /// How it signs.
    pub algorithm: Algorithm,
    /// Sealed under the master key.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created_at: UnixSeconds,
    /// From when it signs, until the next key does.
    pub signs_from: UnixSeconds,
    /// When its last token has run out. `None`: it is the newest.
    pub retire_at: Option<UnixSeconds>,
}

/// What a process needs in memory before it serves.
#[derive(Debug)]
pub struct Loaded {
    /// Every client that was not deleted.
    pub clients: Vec<Client>,
    /// Every signing key, in the order of creation.
    pub keys: Vec<StoredKey>,
    /// The sealed pepper; `None` in a new store.
    pub pepper: Option<Vec<u8>>,
    /// Every verifier that may follow the feed.
    pub verifiers: Vec<KnownVerifier>,
    /// Sessions that ended before their time.
    pub ended: Vec<EndedSession>,
}

/// One token's client and session as the store has them.
#[derive(Debug)]
pub struct Found {
    /// The client, deleted or not.
    pub client: Option<Client>,
    /// The session and its id.
    pub session: Option<Session>,
}

impl State for Found {
    fn client(&self, id: ClientId) -> Option<Arc<rescind_verifier::ClientPolicy>> {
        self.client.as_ref().filter(|c| c.id == id).map(|c| Arc::new(c.policy()))
    }

    fn session(&self, id: SessionId) -> Option<SessionState> {
        self.session.as_ref().filter(|s| s.id == id).map(Session::state)
    }
}

/// How far a sweep has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Rows deleted by this batch.
    pub deleted: usize,
    /// Where the next batch begins; `None` at the end of the table.
    pub next: Option<SessionId>,
}
