//! The store of several nodes: PostgreSQL.
//!
//! Transactions are READ COMMITTED, and lock in one order: a client's row, then the head's. Login, refresh and every
//! change of a client lock the client's row first. Later statements read its credentials and sessions, and so see
//! commits made during the wait. A change of data that nodes hold in memory raises the head (see the migration), last
//! before the commit.

mod administrators;
mod answered;
mod audit;
mod authority;
mod chain;
mod changed;
mod clients;
mod clock;
mod connection;
mod connector;
mod copy;
mod denials;
mod error;
mod handovers;
mod history;
mod hosts;
mod keys;
mod management;
mod migrate;
mod node;
mod operators;
mod pepper;
mod place;
mod room;
mod rows;
mod sessions;
mod settings;
mod statements;
#[cfg(test)]
pub(super) mod tests;
mod tls;
mod transaction;
mod url;
mod usage;
mod waits;
mod webhooks;

use std::{path::PathBuf, sync::Arc, time::Duration};

use deadpool::{
    Runtime,
    managed::{Object, Pool, PoolError, QueueMode},
};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
    try_join,
};
use tokio_postgres::{Row, Statement};

pub use changed::ChangedRow;
pub use node::{Change, LeaseConnection, NodeRow, Renewed};
pub use place::Place;
pub use url::DatabaseUrl;

use rescind_base::{
    clock::Clock,
    model::{ClientId, SessionId},
    telemetry::metrics::Commits,
};

use super::{Found, Loaded, Result, StoreError};
use authority::Replication;
use clients::all_clients;
use connection::{Connection, Parameters};
use connector::Connector;
use history::Newest;
use room::{Room, Seat};
use rows::Number;
use transaction::Transaction;

/// Locks that clients share, by their ids. Far more than connections, so that two clients seldom share one.
const CLIENT_LOCKS: u64 = 256;

/// How long the pool waits for one more connection before it waits for one that it has.
const GROWTH: Duration = Duration::from_secs(1);
/// The pause before another attempt, where the pool has none at all.
const FULL: Duration = Duration::from_millis(50);
/// A connection that was not used for so long is closed.
const IDLE: Duration = Duration::from_secs(30);

/// Begins a transaction whose statements all read one snapshot.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The database's address, and how the service uses the database.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// The database's address.
    pub url: DatabaseUrl,
    /// The most connections in the pool. The lease has a connection of its own.
    pub pool_size: usize,
    /// A statement that takes longer fails.
    pub statement_timeout: Duration,
    /// A PEM file of the authorities to trust. `None`: those of the machine.
    pub tls_ca: Option<PathBuf>,
    /// Whether a server that may lose commits is used.
    pub accept_lost_commits: bool,
    /// Whether a commit that waited for no stand-by is an error.
    pub require_synchronous: bool,
}

/// The store in a PostgreSQL database.
#[derive(Debug)]
pub struct Postgres {
    pool: Pool<Connector>,
    room: Arc<Room>,
    wait_limit: Duration,
    /// Operations on the same client wait here for each other before they take a connection. Otherwise one busy
    /// client could hold all connections.
    client_locks: Box<[Arc<Mutex<()>>]>,
    commits: Commits,
    newest: Newest,
    replication: Arc<Replication>,
}

impl Postgres {
    pub(super) async fn reach(options: PostgresOptions) -> Result<()> {
        authority::look(&Connector::new(options)?).await
    }

    pub(super) async fn connect(options: PostgresOptions) -> Result<Postgres> {
        let (pool_size, wait_limit) = (options.pool_size, options.statement_timeout);
        let connector = Connector::new(options)?;
        authority::look(&connector).await?;
        migrate::migrate(&connector).await?;
        let pool = Pool::builder(connector)
            .max_size(pool_size)
            .runtime(Runtime::Tokio1)
            // The connection used last is used first: its statements are prepared.
            .queue_mode(QueueMode::Lifo)
            .build()
            .map_err(|e| StoreError::Unavailable(e.into()))?;
        let client_locks = (0..CLIENT_LOCKS).map(|_| Arc::default()).collect();
        Ok(Postgres {
            pool,
            room: Arc::new(Room::new(pool_size)),
            wait_limit,
            client_locks,
            commits: Commits::none(),
            newest: Newest::default(),
            replication: Arc::default(),
        })
    }

    /// Returns `synchronous_standby_names`, as the last renewal of the lease read it; empty if commits wait for no
    /// stand-by. `None`: not read yet.
    pub fn waits_for(&self) -> Option<Arc<String>> {
        self.replication.waits_for()
    }

    /// Returns whether commits must wait for a stand-by, and wait for none.
    pub fn lacks_a_stand_by(&self) -> bool {
        self.pool.manager().requires_stand_by() && self.waits_for().is_some_and(|names| names.is_empty())
    }

    pub(super) fn commits(&self) -> &Commits {
        &self.commits
    }

    pub(super) async fn load(&self) -> Result<Loaded> {
        let mut db = self.pool.manager().connect_for_long().await?;
        db.batch(SNAPSHOT).await?;
        let loaded = Loaded {
            head: rows::known(&db.fetch_one(node::HEAD, &[]).await?)?,
            place: Some(db.place.clone()),
            clients: all_clients(&mut db).await?,
            keys: keys::KEYS.all(&mut db).await?,
            secrets: rows::secrets(&db.fetch(rows::SECRETS, &[]).await?)?,
            verifiers: keys::VERIFIERS.all(&mut db).await?,
            ended: rows::read(&db.fetch(rows::ENDED, &[]).await?, rows::ended)?,
            lent: Duration::ZERO,
        };
        db.done();
        Ok(loaded)
    }

    pub(super) async fn version(&self) -> Result<u32> {
        let version = rows::one(self.fetch(migrate::VERSION, &[]).await?)?;
        Ok(rows::get::<i32>(&version, "version")?.unsigned_abs())
    }

    pub(super) async fn find(&self, client: ClientId, session: SessionId) -> Result<Found> {
        let mut tx = self.transaction().await?;
        let found = find(&mut tx, client, session).await?;
        tx.done();
        Ok(found)
    }

    pub(super) async fn find_confirmed(&self, client: ClientId, session: SessionId) -> Result<Found> {
        let mut tx = self.transaction_of(client).await?;
        let found = tx.begin_with_session(client, session).await?;
        tx.commit_as_missing().await?;
        Ok(found)
    }

    /// Runs one statement, in a transaction of its own. Returns its rows.
    async fn fetch(&self, sql: &'static str, with: Parameters<'_>) -> Result<Vec<Row>> {
        let mut tx = self.transaction().await?;
        let rows = tx.fetch(sql, with).await?;
        tx.done();
        Ok(rows)
    }

    /// Runs one statement, in a transaction that a former primary cannot commit.
    async fn write(&self, sql: &'static str, with: Parameters<'_>) -> Result<()> {
        let mut tx = self.transaction().await?;
        tx.batch("BEGIN").await?;
        tx.run(sql, with).await?;
        tx.commit().await
    }

    async fn transaction(&self) -> Result<Transaction> {
        Ok(Transaction::on(self.connection().await?, None, &self.commits, &self.newest))
    }

    /// Returns a transaction that will lock this client's row.
    async fn transaction_of(&self, client: ClientId) -> Result<Transaction> {
        let turn = Arc::clone(&self.client_locks[(client % CLIENT_LOCKS) as usize]).lock_owned();
        let turn = timeout(self.wait_limit, turn).await.map_err(|_| error::silent())?;
        Ok(Transaction::on(self.connection().await?, Some(turn), &self.commits, &self.newest))
    }

    /// Returns a connection of the pool. A pool that the database has no room to add to waits for one that it has.
    async fn connection(&self) -> Result<(Object<Connector>, Seat)> {
        let until = Clock::System.elapsed() + self.wait_limit;
        loop {
            let left = until.saturating_sub(Clock::System.elapsed());
            let seat = timeout(left, self.room.seat()).await;
            let seat = seat.map_err(|_| StoreError::Unavailable("no connection is free".into()))?;
            let grows = self.pool.status().size > 0;
            let error = match timeout(if grows { GROWTH } else { left }, self.pool.get()).await {
                Ok(Ok(connection)) => return Ok((connection, seat)),
                Ok(Err(PoolError::Backend(error))) => error,
                Ok(Err(error)) => StoreError::Unavailable(error.into()),
                Err(_) => error::silent_at_connect(),
            };
            if !error::is_full(&error) || Clock::System.elapsed() + FULL >= until {
                return Err(error);
            }
            if self.pool.status().size > 0 {
                seat.give_up();
            } else {
                drop(seat);
                sleep(FULL).await;
            }
        }
    }

    /// Divides the database's connections among so many nodes, and closes those of the pool that it does not need.
    pub fn share_connections(&self, nodes: usize) {
        let most = self.room.share(nodes);
        let mut left = self.pool.status().size;
        self.pool.retain(|_, metrics| {
            let goes = left > most || (left > 1 && metrics.last_used() > IDLE);
            left -= usize::from(goes);
            !goes
        });
    }
}

async fn find(db: &mut Connection, client: ClientId, session: SessionId) -> Result<Found> {
    let reads = db.prepared([rows::CLIENT, rows::CREDENTIALS_OF_CLIENT, rows::SESSION]).await?;
    let (found, ()) =
        try_join!(biased; begin_with(db, SNAPSHOT, &reads, client, session), db.batch("COMMIT"))?;
    Ok(found)
}

/// Sends `begin` and the reads of a client, its credentials and a session at the first poll.
async fn begin_with(
    db: &Connection,
    begin: &str,
    [one, credentials, found]: &[Statement; 3],
    client: ClientId,
    session: SessionId,
) -> Result<Found> {
    let (of_client, of_session): (Parameters<'_>, Parameters<'_>) = (&[&Number(client)], &[&Number(session)]);
    let ((), client, credentials, session) = try_join!(
        biased;
        db.batch(begin),
        db.query(one, of_client),
        db.query(credentials, of_client),
        db.query(found, of_session),
    )?;
    Ok(Found {
        client: rows::client(&client, &credentials)?,
        session: session.first().map(rows::session).transpose()?,
    })
}
