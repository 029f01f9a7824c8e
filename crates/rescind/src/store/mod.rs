//! What is durable. SQL stands nowhere else.
//!
//! The store knows no rules: it loads values under a lock, lets a rule change them, and saves what
//! changed, all in one transaction. Nothing is answered before it is on the disk.
//!
//! There are two: SQLite in the data folder, for one process, and PostgreSQL, for as many as serve
//! together. What both do is asked of [`Store`].

mod answers;
#[cfg(test)]
mod conformance;
mod crowd;
mod history;
mod migrations;
mod postgres;
mod sqlite;
mod values;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use thiserror::Error;
use tracing::Instrument;

use crate::{
    model::{
        ChangeOrigin, Client, ClientId, Event, Page, Retention, Session, SessionId, SigningKeyRecord, Status,
        UnixSeconds, VerifierRecord, Wanted,
    },
    random::Random,
    telemetry::{metrics::Commits, traces::step},
};
pub use answers::{Copied, Found, Loaded, Swept};
use crowd::Crowd;
pub use history::{Known, Mark, Position, Repeated, Standing};
#[cfg(test)]
pub(crate) use postgres::tests::Server as PostgresServer;
pub use postgres::{
    Change, ChangedRow, DatabaseUrl, LeaseConnection, NodeRow, Place, Postgres, PostgresOptions, Renewed,
};
pub use sqlite::{Sqlite, WentBack};

/// What is durable, wherever it is.
#[derive(Debug)]
pub enum Store {
    /// In a file that this process has for itself.
    Sqlite(Sqlite),
    /// In a database that several processes may share.
    Postgres(Postgres),
}

/// Why the store did not do what it was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// It cannot be reached or written. Nothing was done, or it is not known whether it was.
    #[error("the store is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It holds what this version cannot read.
    #[error("the store holds what this version cannot read: {0}")]
    Unreadable(String),
    /// It is not what it must be, and only whoever runs it can change that.
    #[error("the database cannot be used: {0}")]
    Unsuitable(String),
}

/// A task that panicked. What it said is not told: it may be a value.
fn ended(_: tokio::task::JoinError) -> StoreError {
    StoreError::Unavailable("a task of the store panicked".into())
}

/// Records that one batch of a sweep deletes, at most, of each kind of what goes.
const RECORDS_SWEPT: u64 = 1000;

/// Asks whichever store it is. What that takes is allocated when it is asked, for requests hold on to
/// their futures from their heads on.
macro_rules! ask {
    ($self:ident, $question:ident($($with:expr),*)) => {
        async {
            match $self {
                Store::Sqlite(store) => Box::pin(store.$question($($with),*)).await,
                Store::Postgres(store) => Box::pin(store.$question($($with),*)).await,
            }
        }
        .instrument(step!("store", question = stringify!($question)))
        .await
    };
}

impl Store {
    /// Opens the file, making it if there is none, and brings its tables up to date.
    pub fn open_file(path: &Path, random: &Random) -> Result<Store, StoreError> {
        Sqlite::open(path, random).map(Store::Sqlite)
    }

    /// Connects to the database, and brings its tables up to date.
    pub async fn connect(options: &PostgresOptions) -> Result<Store, StoreError> {
        Postgres::connect(options.clone()).await.map(Store::Postgres)
    }

    /// Copies the store in the file at `from` into an empty database, ids and all. `progress` is told
    /// how many sessions have been copied so far.
    pub async fn copy(
        from: &Path,
        to: &PostgresOptions,
        random: &Random,
        progress: impl FnMut(u64) + Send,
    ) -> Result<Copied, StoreError> {
        // Brings its tables up to date, too.
        if let Some(found) = Sqlite::open(from, random)?.went_back() {
            return Err(StoreError::Unsuitable(format!(
                "{found}: start `rescind serve` on it once, which ends every token"
            )));
        }
        Postgres::connect(to.clone()).await?.move_in(from, sqlite::lent(from), progress).await
    }

    /// Opens a copy of a backup, if it is whole, to stand in for the store in the file at `replaced`: what that has
    /// lent is waited for.
    pub async fn restore(path: &Path, replaced: &Path, random: &Random) -> Result<Store, StoreError> {
        let sqlite = Sqlite::open(path, random)?;
        sqlite.check().await?;
        sqlite.set_lent(sqlite::lent(replaced)).await?;
        Ok(Store::Sqlite(sqlite))
    }

    /// The number of the newest change of its tables.
    pub async fn version(&self) -> Result<u32, StoreError> {
        ask!(self, version())
    }

    /// What only the embedded store does; `None` if it is not the one.
    pub fn embedded(&self) -> Option<&Sqlite> {
        match self {
            Store::Sqlite(sqlite) => Some(sqlite),
            Store::Postgres(_) => None,
        }
    }

    /// What nodes that share a database need beyond the rest; `None` where it is not shared.
    pub fn postgres(&self) -> Option<&Postgres> {
        match self {
            Store::Sqlite(_) => None,
            Store::Postgres(postgres) => Some(postgres),
        }
    }

    /// What it is.
    pub fn name(&self) -> &'static str {
        match self {
            Store::Sqlite(_) => "sqlite",
            Store::Postgres(_) => "postgres",
        }
    }

    /// What its commits cost.
    pub fn commits(&self) -> &Commits {
        match self {
            Store::Sqlite(sqlite) => sqlite.commits(),
            Store::Postgres(postgres) => postgres.commits(),
        }
    }

    /// Everything that a process holds in memory from its start.
    pub async fn load(&self) -> Result<Loaded, StoreError> {
        ask!(self, load())
    }

    /// Every client that was not deleted.
    pub async fn clients(&self) -> Result<Vec<Client>, StoreError> {
        let mut clients = ask!(self, clients())?;
        clients.retain(|client| client.status != Status::Deleted);
        Ok(clients)
    }

    /// The time by which the store was used last, by a clock that was believed. Where none was saved yet, the
    /// newest of what it holds; 0 if that is nothing.
    pub async fn last_used(&self) -> Result<UnixSeconds, StoreError> {
        ask!(self, last_used())
    }

    /// Saves a time that is believed.
    pub async fn used_at(&self, now: UnixSeconds) -> Result<(), StoreError> {
        ask!(self, used_at(now))
    }

    /// Every signing key, in the order of creation.
    pub async fn keys(&self) -> Result<Vec<SigningKeyRecord>, StoreError> {
        ask!(self, keys())
    }

    /// Puts the pepper into a new store. Returns the one that stands: the first that was put there.
    pub async fn set_pepper(&self, sealed: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        ask!(self, set_pepper(sealed))
    }

    /// Adds a signing key if there is none. Returns every key.
    pub async fn first_key(
        &self,
        key: SigningKeyRecord,
        origin: ChangeOrigin,
    ) -> Result<Vec<SigningKeyRecord>, StoreError> {
        ask!(self, first_key(key, origin))
    }

    /// Adds a signing key, unless the newest so far is another one than `newest`. That one verifies until
    /// `retire_at`. Returns every key.
    pub async fn rotate_key(
        &self,
        newest: Option<u64>,
        key: SigningKeyRecord,
        retire_at: UnixSeconds,
        origin: ChangeOrigin,
    ) -> Result<Vec<SigningKeyRecord>, StoreError> {
        ask!(self, rotate_key(newest, key, retire_at, origin))
    }

    /// Forgets the keys that `retired` picks. Returns those that stay.
    pub async fn retire_keys(
        &self,
        origin: ChangeOrigin,
        retired: impl Fn(&SigningKeyRecord) -> bool + Send + 'static,
    ) -> Result<Vec<SigningKeyRecord>, StoreError> {
        ask!(self, retire_keys(origin, retired))
    }

    /// Ends every token, where it is not known what was taken back: a new signing key comes in the place of
    /// all, and no verifier is left, which could have been revoked and would be given that key. Returns the key.
    pub async fn end_tokens(
        &self,
        key: SigningKeyRecord,
        origin: ChangeOrigin,
    ) -> Result<Vec<SigningKeyRecord>, StoreError> {
        ask!(self, end_tokens(key, origin))
    }

    /// Adds a verifier, and numbers it. Returns every one.
    pub async fn create_verifier(
        &self,
        new: VerifierRecord,
        origin: ChangeOrigin,
    ) -> Result<Vec<VerifierRecord>, StoreError> {
        ask!(self, create_verifier(new, origin))
    }

    /// Forgets a verifier. Returns those that stay.
    pub async fn delete_verifier(
        &self,
        id: u64,
        origin: ChangeOrigin,
    ) -> Result<Vec<VerifierRecord>, StoreError> {
        ask!(self, delete_verifier(id, origin))
    }

    /// Adds a client with its credentials, and numbers them.
    pub async fn create_client(&self, client: Client, origin: ChangeOrigin) -> Result<Client, StoreError> {
        ask!(self, create_client(client, origin))
    }

    /// Lets `rule` change a client and saves what it changed, one revision further; on an error
    /// nothing. `None`: no such client.
    pub async fn change_client<T: Send + 'static, E: Send + 'static>(
        &self,
        id: ClientId,
        origin: ChangeOrigin,
        rule: impl FnOnce(&mut Client) -> Result<T, E> + Send + 'static,
    ) -> Result<Option<Result<(T, Client), E>>, StoreError> {
        ask!(self, change_client(id, origin, rule))
    }

    /// Saves the session that `rule` opens for a client as it is at this moment, and numbers it.
    /// `None`: no such client.
    pub async fn open_session<E: Send + 'static>(
        &self,
        client: ClientId,
        rule: impl FnOnce(&Client) -> Result<Session, E> + Send + 'static,
    ) -> Result<Option<Result<Session, E>>, StoreError> {
        ask!(self, open_session(client, rule))
    }

    /// Lets `rule` change a session of a client, both as they are at this moment, and saves what it
    /// changed, whatever it answers, with the event that it says that was. `None`: no such session of
    /// that client.
    pub async fn change_session<T: Send + 'static>(
        &self,
        client: ClientId,
        session: SessionId,
        rule: impl FnOnce(&Client, &mut Session) -> (T, Option<Event>) + Send + 'static,
    ) -> Result<Option<(T, Session)>, StoreError> {
        ask!(self, change_session(client, session, rule))
    }

    /// Saves what `rule` makes of a session of a client, both as they are at this moment, ended; where its row is
    /// gone, in a row of that id. `None`: nothing, or no such client, or the id is another client's session's.
    pub async fn end_session(
        &self,
        client: ClientId,
        session: SessionId,
        rule: impl FnOnce(&Client, Option<Session>) -> Option<Session> + Send + 'static,
    ) -> Result<Option<Session>, StoreError> {
        ask!(self, end_session(client, session, rule))
    }

    /// What the store has of a token's client and session, after everything answered so far.
    pub async fn find(&self, client: ClientId, session: SessionId) -> Result<Found, StoreError> {
        ask!(self, find(client, session))
    }

    /// The same, for a no that must be right. A database that was taken over from may still be read, and
    /// does not have what was written since: it is asked to commit, which it cannot.
    pub async fn find_surely(&self, client: ClientId, session: SessionId) -> Result<Found, StoreError> {
        match self {
            Store::Sqlite(sqlite) => Box::pin(sqlite.find(client, session)).await,
            Store::Postgres(postgres) => Box::pin(postgres.find_surely(client, session)).await,
        }
    }

    /// Deletes, among the next rows after `after`, the sessions that expired before `expired` or
    /// whose client's generation has moved on.
    pub async fn sweep(&self, after: SessionId, expired: UnixSeconds) -> Result<Swept, StoreError> {
        ask!(self, sweep(after, expired))
    }

    /// Puts on record what happened.
    pub async fn record(&self, events: Vec<Event>) -> Result<(), StoreError> {
        ask!(self, record(events))
    }

    /// What is on record.
    pub async fn records(&self, wanted: Wanted) -> Result<Page, StoreError> {
        ask!(self, records(wanted))
    }

    /// Deletes a batch of what is on record and need not be kept at `now`: what is old, and where callers
    /// have too many records, the oldest of whoever has most. Returns whether that was all.
    pub async fn sweep_records(&self, retention: Retention, now: UnixSeconds) -> Result<bool, StoreError> {
        ask!(self, sweep_records(retention, now))
    }
}

/// Runs a rule. One that panics costs its caller the answer, and nobody else anything.
fn guarded<T>(rule: impl FnOnce() -> T) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(rule))
        .map_err(|_| StoreError::Unavailable("the change was given up: a rule panicked".into()))
}
