//! What a store answers.

use std::{sync::Arc, time::Duration};

use rescind_verifier::{ClientPolicy, SessionState, State, follow::wire::EndedSession};
use serde::Serialize;

use super::{Known, Place};
use crate::model::{Client, ClientId, Session, SessionId, SigningKeyRecord, VerifierRecord};

/// What a process needs in memory before it serves.
#[derive(Debug)]
pub struct Loaded {
    /// Every client, deleted ones included.
    pub clients: Vec<Client>,
    /// Every signing key, in the order of creation.
    pub keys: Vec<SigningKeyRecord>,
    /// The sealed pepper; `None` in a new store.
    pub pepper: Option<Vec<u8>>,
    /// Every verifier that may follow the feed.
    pub verifiers: Vec<VerifierRecord>,
    /// Sessions that ended before their time.
    pub ended: Vec<EndedSession>,
    /// The longest lease that verifiers may have of those that had the store before. None in one that is shared.
    pub lent: Duration,
    /// The newest change that this is as new as. None in a store that one process has for itself.
    pub head: Known,
    /// Where it is from, if that is a server's.
    pub place: Option<Place>,
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
    fn client(&self, id: ClientId) -> Option<Arc<ClientPolicy>> {
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
    /// Rows that it looked at and left.
    pub kept: usize,
    /// Where the next batch begins; `None` at the end of the table.
    pub next: Option<SessionId>,
}

/// What has been copied from one store to another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Deleted ones included.
    pub clients: u64,
    /// Revoked ones included.
    pub credentials: u64,
    /// Live or not.
    pub sessions: u64,
    /// What is on record.
    pub events: u64,
}
