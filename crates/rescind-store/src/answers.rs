//! Results of the store's operations.

use std::{sync::Arc, time::Duration};

use rescind_base::{
    model::{Client, ClientId, Session, SessionId, SigningKeyRecord, VerifierRecord},
    secret::SealedSecrets,
};
use rescind_verifier::{ClientPolicy, SessionState, State, follow::wire::EndedSession};
use serde::Serialize;

use super::{Known, Place};

/// The data that a process needs in memory before it serves.
#[derive(Debug)]
pub struct Loaded {
    /// Every client, deleted ones included.
    pub clients: Vec<Client>,
    /// Every signing key, in the order of creation.
    pub keys: Vec<SigningKeyRecord>,
    /// The sealed secrets; none in a new store.
    pub secrets: SealedSecrets,
    /// Every verifier that may follow the feed.
    pub verifiers: Vec<VerifierRecord>,
    /// Sessions that ended before they expired.
    pub ended: Vec<EndedSession>,
    /// The longest lease term that former processes may have granted to verifiers. Zero in a shared store.
    pub lent: Duration,
    /// The newest change that this data includes. Zero in a store of one process.
    pub head: Known,
    /// The server that the data was read from. `None` for SQLite.
    pub place: Option<Place>,
}

/// A token's client and session, as the store has them.
#[derive(Debug)]
pub struct Found {
    /// The client, deleted or not.
    pub client: Option<Client>,
    /// The session.
    pub session: Option<Session>,
}

impl State for Found {
    fn client(&self, id: ClientId) -> Option<Arc<ClientPolicy>> {
        self.client.as_ref().filter(|c| c.id == id).map(|c| Arc::new(c.policy()))
    }

    fn session(&self, id: SessionId) -> Option<SessionState> {
        self.session.as_ref().filter(|s| s.id == id).map(Session::state)
    }
}

/// The sessions of a client in a part of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPart {
    /// The newest first.
    pub sessions: Vec<Session>,
    /// Before which session the next part begins; `None` at the end of the table.
    pub next: Option<SessionId>,
}

/// The result of one batch of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Rows that the batch deleted.
    pub deleted: usize,
    /// Rows that the batch kept.
    pub kept: usize,
    /// Where the next batch begins; `None` at the end of the table.
    pub next: Option<SessionId>,
}

/// How many rows were copied from one store to another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Clients, deleted ones included.
    pub clients: u64,
    /// Credentials, revoked ones included.
    pub credentials: u64,
    /// Sessions, ended ones included.
    pub sessions: u64,
    /// Records of the audit log.
    pub events: u64,
}
