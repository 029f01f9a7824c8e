//! The durable database. All SQL of the service is in this crate.
//!
//! The store knows no rules. It loads values under a lock, lets a rule change them, and saves the changes, all in one
//! transaction. An operation returns only when its commit is on the disk.
//!
//! There are two stores: SQLite in the data folder, for one process, and PostgreSQL, for several nodes. Operations
//! that both have are methods of [`Store`].

mod administrators;
mod answers;
mod chain;
#[cfg(test)]
mod conformance;
mod denials;
mod error;
mod eviction;
mod handovers;
mod history;
mod management;
mod migrations;
mod operators;
mod pepper;
mod postgres;
mod sqlite;
mod usage;
mod values;
mod webhooks;

use std::path::Path;

use rescind_base::{
    model::{
        ChangeOrigin, Client, ClientId, Event, EventFilter, Page, Session, SessionId, SigningKeyRecord,
        Status, UnixSeconds, VerifierRecord,
    },
    random::Random,
    telemetry::{metrics::Commits, step},
};
use tracing::Instrument;

pub use answers::{Copied, Found, Loaded, SessionPart, Swept};
pub use chain::{Chains, Unchained};
pub use error::{Result, StoreError};
use error::{ended, guarded};
pub use history::{HistoryStatus, Known, Mark, Position, Repeated};
pub use postgres::{
    Change, ChangedRow, DatabaseUrl, LeaseConnection, NodeRow, Place, Postgres, PostgresOptions, Renewed,
};
pub use sqlite::{Sqlite, WentBack};

/// The durable database, of either kind.
#[derive(Debug)]
pub enum Store {
    /// A file that only this process uses.
    Sqlite(Sqlite),
    /// A database that several processes may share.
    Postgres(Postgres),
}

/// The most records that one batch of a sweep deletes, of old ones and of excess ones each.
const RECORDS_SWEPT: u64 = 1000;

/// Calls the operation of this store. Its future is allocated only now: inline, it would enlarge every request's
/// future.
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
use ask;

impl Store {
    /// Opens the file, creates it if there is none, and brings its tables up to date.
    /// # Errors
    /// Fails if the file is unavailable or damaged, or has unknown tables.
    pub fn open_file(path: &Path, random: &Random) -> Result<Store> {
        Sqlite::open(path, random).map(Store::Sqlite)
    }

    /// Connects to the database, and brings its tables up to date.
    /// # Errors
    /// Fails if the server is unavailable or unsuitable, or has unknown tables.
    pub async fn connect(options: &PostgresOptions) -> Result<Store> {
        Postgres::connect(options.clone()).await.map(Store::Postgres)
    }

    /// Connects to the database, and changes nothing there.
    /// # Errors
    /// Fails if the server is unavailable or unsuitable.
    pub async fn reach(options: &PostgresOptions) -> Result<()> {
        Postgres::reach(options.clone()).await
    }

    /// Copies the store in the file at `from` into an empty database, with all ids. Calls `progress` with the number
    /// of sessions copied so far.
    /// # Errors
    /// Fails if a store is unavailable, `from` went back, or `to` is not empty.
    pub async fn copy(
        from: &Path,
        to: &PostgresOptions,
        random: &Random,
        progress: impl FnMut(u64) + Send,
    ) -> Result<Copied> {
        if let Some(found) = Sqlite::open(from, random)?.went_back() {
            return Err(StoreError::Unsuitable(format!(
                "{found}: start `rescind serve` on it once, which ends every token"
            )));
        }
        Postgres::connect(to.clone()).await?.move_in(from, sqlite::lent(from), progress).await
    }

    /// Opens a copy of a backup, to replace the store in the file at `replaced`. The copy takes over the longest
    /// lease term that `replaced` has granted to verifiers.
    /// # Errors
    /// Fails if the copy is unavailable or damaged.
    pub async fn restore(path: &Path, replaced: &Path, random: &Random) -> Result<Store> {
        let sqlite = Sqlite::open(path, random)?;
        sqlite.check().await?;
        sqlite.set_lent(sqlite::lent(replaced)).await?;
        Ok(Store::Sqlite(sqlite))
    }

    /// Returns the number of the newest migration of the tables.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn version(&self) -> Result<u32> {
        ask!(self, version())
    }

    /// Returns the embedded store, for operations that only it has; `None` on PostgreSQL.
    pub fn embedded(&self) -> Option<&Sqlite> {
        match self {
            Store::Sqlite(sqlite) => Some(sqlite),
            Store::Postgres(_) => None,
        }
    }

    /// Returns the shared store, for operations that only nodes need; `None` on SQLite.
    pub fn postgres(&self) -> Option<&Postgres> {
        match self {
            Store::Sqlite(_) => None,
            Store::Postgres(postgres) => Some(postgres),
        }
    }

    /// Returns the kind of the store, for the log.
    pub fn name(&self) -> &'static str {
        match self {
            Store::Sqlite(_) => "sqlite",
            Store::Postgres(_) => "postgres",
        }
    }

    /// Returns the durations and sizes of its commits.
    pub fn commits(&self) -> &Commits {
        match self {
            Store::Sqlite(sqlite) => sqlite.commits(),
            Store::Postgres(postgres) => postgres.commits(),
        }
    }

    /// Returns all that a process holds in memory from its start.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn load(&self) -> Result<Loaded> {
        ask!(self, load())
    }

    /// Returns every client that was not deleted.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn clients(&self) -> Result<Vec<Client>> {
        let mut clients = ask!(self, clients())?;
        clients.retain(|client| client.status != Status::Deleted);
        Ok(clients)
    }

    /// Returns the saved time of the last use; without one, the newest time in its rows, or 0.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn last_used(&self) -> Result<UnixSeconds> {
        ask!(self, last_used())
    }

    /// Saves the time of the last use. The caller trusts that time.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn used_at(&self, now: UnixSeconds) -> Result<()> {
        ask!(self, used_at(now))
    }

    /// Returns every signing key, in the order of creation.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn keys(&self) -> Result<Vec<SigningKeyRecord>> {
        ask!(self, keys())
    }

    /// Adds a signing key if there is none. Returns every key.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn first_key(
        &self,
        key: SigningKeyRecord,
        origin: ChangeOrigin,
    ) -> Result<Vec<SigningKeyRecord>> {
        ask!(self, first_key(key, origin))
    }

    /// Adds a signing key, unless the newest key is another one than `newest`. The key before verifies until
    /// `retire_at`. Returns every key.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn rotate_key(
        &self,
        newest: Option<u64>,
        key: SigningKeyRecord,
        retire_at: UnixSeconds,
        origin: ChangeOrigin,
    ) -> Result<Vec<SigningKeyRecord>> {
        ask!(self, rotate_key(newest, key, retire_at, origin))
    }

    /// Deletes the keys that `retired` picks. Returns the remaining keys.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn retire_keys(
        &self,
        origin: ChangeOrigin,
        retired: impl Fn(&SigningKeyRecord) -> bool + Send + 'static,
    ) -> Result<Vec<SigningKeyRecord>> {
        ask!(self, retire_keys(origin, retired))
    }

    /// Revokes every token, for a store that may have lost revocations. Replaces all signing keys by `key`, and
    /// deletes every verifier: one that was revoked would receive the new key. Returns the new key.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn end_tokens(
        &self,
        key: SigningKeyRecord,
        origin: ChangeOrigin,
    ) -> Result<Vec<SigningKeyRecord>> {
        ask!(self, end_tokens(key, origin))
    }

    /// Adds a verifier, and numbers it. Returns every verifier.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn create_verifier(
        &self,
        new: VerifierRecord,
        origin: ChangeOrigin,
    ) -> Result<Vec<VerifierRecord>> {
        ask!(self, create_verifier(new, origin))
    }

    /// Deletes a verifier. Returns the remaining verifiers.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn delete_verifier(&self, id: u64, origin: ChangeOrigin) -> Result<Vec<VerifierRecord>> {
        ask!(self, delete_verifier(id, origin))
    }

    /// Adds a client with its credentials, and numbers them. With `if_absent`, nothing is added if there is a client of
    /// this name: then its id is the inner error.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn create_client(
        &self,
        client: Client,
        if_absent: bool,
        origin: ChangeOrigin,
    ) -> Result<Result<Client, ClientId>> {
        ask!(self, create_client(client, if_absent, origin))
    }

    /// Lets `rule` change a client, and saves the changes with the next revision. If `rule` fails, nothing is saved.
    /// Returns `None` if there is no such client.
    /// # Errors
    /// Fails if the store is unavailable, or `rule` panics.
    pub async fn change_client<T: Send + 'static, E: Send + 'static>(
        &self,
        id: ClientId,
        origin: ChangeOrigin,
        rule: impl FnOnce(&mut Client) -> Result<T, E> + Send + 'static,
    ) -> Result<Option<Result<(T, Client), E>>> {
        ask!(self, change_client(id, origin, rule))
    }

    /// Saves and numbers the session that `rule` opens for a client, as the store has the client now. Returns `None`
    /// if there is no such client.
    /// # Errors
    /// Fails if the store is unavailable, or `rule` panics.
    pub async fn open_session<E: Send + 'static>(
        &self,
        client: ClientId,
        rule: impl FnOnce(&Client) -> Result<Session, E> + Send + 'static,
    ) -> Result<Option<Result<Session, E>>> {
        ask!(self, open_session(client, rule))
    }

    /// Lets `rule` change a session of a client, both as the store has them now. Saves the changes and the event that
    /// `rule` returns. Returns `None` if the client has no such session.
    /// # Errors
    /// Fails if the store is unavailable, or `rule` panics.
    pub async fn change_session<T: Send + 'static>(
        &self,
        client: ClientId,
        session: SessionId,
        rule: impl FnOnce(&Client, &mut Session) -> (T, Option<Event>) + Send + 'static,
    ) -> Result<Option<(T, Session)>> {
        ask!(self, change_session(client, session, rule))
    }

    /// Saves the ended session that `rule` makes of a client's session, both as the store has them now, and its event.
    /// If the session's row was deleted, a new row gets its id. `None`: `rule` returned `None`, or the client has no
    /// such session.
    /// # Errors
    /// Fails if the store is unavailable, or `rule` panics.
    pub async fn end_session(
        &self,
        client: ClientId,
        session: SessionId,
        rule: impl FnOnce(&Client, Option<Session>) -> Option<(Session, Option<Event>)> + Send + 'static,
    ) -> Result<Option<Session>> {
        ask!(self, end_session(client, session, rule))
    }

    /// Returns a token's client and session, at least as new as every answer sent before.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn find(&self, client: ClientId, session: SessionId) -> Result<Found> {
        ask!(self, find(client, session))
    }

    /// Like `find`, but its "not found" can be trusted. After a fail-over the former primary still serves reads
    /// without the newest rows. This read locks and commits, which a former primary cannot do.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn find_confirmed(&self, client: ClientId, session: SessionId) -> Result<Found> {
        match self {
            Store::Sqlite(sqlite) => Box::pin(sqlite.find(client, session)).await,
            Store::Postgres(postgres) => Box::pin(postgres.find_confirmed(client, session)).await,
        }
    }

    /// Returns the lowest and the highest session. `None`: there is none.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn session_ids(&self) -> Result<Option<(SessionId, SessionId)>> {
        ask!(self, session_ids())
    }

    /// Deletes, among the next rows after `after`, the sessions that expired before `expired` or are of an older
    /// generation than their client.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn sweep(&self, after: SessionId, expired: UnixSeconds) -> Result<Swept> {
        ask!(self, sweep(after, expired))
    }

    /// Writes events to the audit log.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn record(&self, events: Vec<Event>) -> Result<()> {
        ask!(self, record(events))
    }

    /// Returns a page of the audit log.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn records(&self, wanted: EventFilter) -> Result<Page> {
        ask!(self, records(wanted))
    }
}
