//! The store of several nodes: PostgreSQL.
//!
//! Transactions are READ COMMITTED, and lock in one order: a client's row, then the head's. Login, refresh and every
//! change of a client lock the client's row first. Later statements read its credentials and sessions, and so see
//! commits made during the wait. A change of data that nodes hold in memory raises the head (see the migration), last
//! before the commit.

mod answered;
mod audit;
mod authority;
mod changed;
mod clock;
mod connection;
mod copy;
mod error;
mod history;
mod keys;
mod migrate;
mod node;
mod place;
mod rows;
mod sessions;
mod settings;
mod statements;
#[cfg(test)]
pub(super) mod tests;
mod tls;
mod transaction;
mod url;

use std::{path::PathBuf, sync::Arc, time::Duration};

use deadpool::{
    Runtime,
    managed::{Object, Pool, PoolError, QueueMode, Timeouts},
};
use tokio::{sync::Mutex, time::timeout, try_join};
use tokio_postgres::Statement;

pub use changed::ChangedRow;
pub use node::{Change, LeaseConnection, NodeRow, Renewed};
pub use place::Place;
pub use url::DatabaseUrl;

use super::{
    Found, Loaded, StoreError, guarded,
    values::{allowlist_text, status_text},
};
use crate::{
    model::{ChangeOrigin, Client, ClientId, Credential, SessionId, changes::of_client},
    telemetry::metrics::Commits,
};
use authority::Replication;
use changed::RECORD_CHANGE;
use connection::{Connection, Connector, Parameters};
use history::Newest;
use rows::{Number, number};
use transaction::Transaction;

/// Locks that clients share, by their ids. Far more than connections, so that two clients seldom share one.
const CLIENT_LOCKS: u64 = 256;

/// Begins a transaction whose statements all read one snapshot.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

const INSERT_CLIENT: &str = "
    INSERT INTO client (name, status, generation, revision, allowlist, certificates, scopes,
                        enforces_allowlist, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id";
const UPDATE_CLIENT: &str = "
    UPDATE client SET name = $2, status = $3, generation = $4, revision = $5, allowlist = $6,
                      certificates = $7, scopes = $8, enforces_allowlist = $9
    WHERE id = $1";
const INSERT_CREDENTIAL: &str = "
    INSERT INTO credential (client_id, api_key, secret_hash, created_at, expires_at, revoked_at)
    VALUES ($1, $2, $3, $4, $5, $6) RETURNING id";
const UPDATE_CREDENTIAL: &str = "UPDATE credential SET expires_at = $2, revoked_at = $3 WHERE id = $1";
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
    patience: Duration,
    /// Operations on the same client wait here for each other before they take a connection. Otherwise one busy
    /// client could hold all connections.
    client_locks: Box<[Arc<Mutex<()>>]>,
    commits: Commits,
    newest: Newest,
    replication: Arc<Replication>,
}

impl Postgres {
    pub(super) async fn connect(options: PostgresOptions) -> Result<Postgres, StoreError> {
        let (pool_size, patience) = (options.pool_size, options.statement_timeout);
        let connector = Connector::new(options)?;
        authority::look(&connector).await?;
        migrate::migrate(&connector).await?;
        let waiting = Timeouts { wait: Some(patience), ..Timeouts::default() };
        let pool = Pool::builder(connector)
            .max_size(pool_size)
            .timeouts(waiting)
            .runtime(Runtime::Tokio1)
            // The connection used last is used first: its statements are prepared.
            .queue_mode(QueueMode::Lifo)
            .build()
            .map_err(|e| StoreError::Unavailable(e.into()))?;
        let client_locks = (0..CLIENT_LOCKS).map(|_| Arc::default()).collect();
        Ok(Postgres {
            pool,
            patience,
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

    pub(super) async fn load(&self) -> Result<Loaded, StoreError> {
        let mut db = self.pool.manager().connect_for_long().await?;
        let [head, clients, credentials, keys, pepper, verifiers, ended] = db
            .prepared([
                node::HEAD,
                rows::CLIENTS,
                rows::CREDENTIALS,
                rows::KEYS,
                rows::PEPPER,
                rows::VERIFIERS,
                rows::ENDED,
            ])
            .await?;
        db.batch(SNAPSHOT).await?;
        let loaded = Loaded {
            head: rows::known(&db.one(&head, &[]).await?)?,
            place: Some(db.place().clone()),
            clients: rows::clients(&db.query(&clients, &[]).await?, &db.query(&credentials, &[]).await?)?,
            keys: rows::read(&db.query(&keys, &[]).await?, rows::key)?,
            pepper: rows::pepper(&db.query(&pepper, &[]).await?)?,
            verifiers: rows::read(&db.query(&verifiers, &[]).await?, rows::verifier)?,
            ended: rows::read(&db.query(&ended, &[]).await?, rows::ended)?,
            lent: Duration::ZERO,
        };
        db.done();
        Ok(loaded)
    }

    pub(super) async fn version(&self) -> Result<u32, StoreError> {
        let mut tx = self.transaction().await?;
        let [version] = tx.prepared([migrate::VERSION]).await?;
        let version = tx.one(&version, &[]).await?;
        tx.done();
        Ok(rows::get::<i32>(&version, "version")?.unsigned_abs())
    }

    pub(super) async fn clients(&self) -> Result<Vec<Client>, StoreError> {
        let mut tx = self.transaction().await?;
        let [clients, credentials] = tx.prepared([rows::CLIENTS, rows::CREDENTIALS]).await?;
        let ((), clients, credentials, ()) = try_join!(
            biased;
            tx.batch(SNAPSHOT),
            tx.query(&clients, &[]),
            tx.query(&credentials, &[]),
            tx.batch("COMMIT"),
        )?;
        tx.done();
        rows::clients(&clients, &credentials)
    }

    pub(super) async fn create_client(
        &self,
        mut client: Client,
        origin: ChangeOrigin,
    ) -> Result<Client, StoreError> {
        let mut tx = self.transaction().await?;
        let [insert, credential, tell, record] =
            tx.prepared([INSERT_CLIENT, INSERT_CREDENTIAL, RECORD_CHANGE, audit::INSERT]).await?;
        tx.batch("BEGIN").await?;
        let values: Parameters<'_> = &[
            &client.name,
            &status_text(client.status),
            &Number(client.generation),
            &Number(client.revision),
            &allowlist_text(&client.allowlist),
            &client.certificates.to_string(),
            &client.scopes.as_str(),
            &client.enforces_allowlist,
            &Number(client.created_at),
        ];
        let row = tx.one(&insert, values).await?;
        client.id = number(&row, "id")?;
        for new in &mut client.credentials {
            insert_credential(&tx, &credential, client.id, new).await?;
        }
        let events = of_client(None, &client, &origin);
        tx.commit_with_change([&tell, &record], ChangedRow::Client(client.id), &events).await?;
        Ok(client)
    }

    pub(super) async fn change_client<T: Send + 'static, E: Send + 'static>(
        &self,
        id: ClientId,
        origin: ChangeOrigin,
        rule: impl FnOnce(&mut Client) -> Result<T, E> + Send + 'static,
    ) -> Result<Option<Result<(T, Client), E>>, StoreError> {
        let mut tx = self.transaction_of(id).await?;
        let [update, insert, credential, tell, record] = tx
            .prepared([UPDATE_CLIENT, INSERT_CREDENTIAL, UPDATE_CREDENTIAL, RECORD_CHANGE, audit::INSERT])
            .await?;
        let Some(before) = tx.begin_with_client(id).await? else {
            tx.roll_back().await?;
            return Ok(None);
        };
        let mut after = before.clone();
        let outcome = guarded(|| rule(&mut after))?;
        if outcome.is_err() {
            tx.roll_back().await?;
            return Ok(Some(outcome.map(|outcome| (outcome, after))));
        }
        if after == before {
            // An earlier attempt may have committed this change without a stand-by's confirmation. The row's lock is
            // a write: when this commit is confirmed, so are all commits before it.
            tx.commit().await?;
            return Ok(Some(outcome.map(|outcome| (outcome, after))));
        }
        after.revision += 1;
        for changed in &mut after.credentials {
            if changed.id == 0 {
                insert_credential(&tx, &insert, id, changed).await?;
            } else if !before.credentials.contains(changed) {
                save_credential(&tx, &credential, changed).await?;
            }
        }
        let events = of_client(Some(&before), &after, &origin);
        let told = tx.commit_with_change([&tell, &record], ChangedRow::Client(id), &events);
        try_join!(biased; save_client(&tx, &update, &after), told)?;
        Ok(Some(outcome.map(|outcome| (outcome, after))))
    }

    pub(super) async fn find(&self, client: ClientId, session: SessionId) -> Result<Found, StoreError> {
        let mut tx = self.transaction().await?;
        let found = find(&mut tx, client, session).await?;
        tx.done();
        Ok(found)
    }

    pub(super) async fn find_confirmed(
        &self,
        client: ClientId,
        session: SessionId,
    ) -> Result<Found, StoreError> {
        let mut tx = self.transaction_of(client).await?;
        let client = tx.begin_with_client(client).await?;
        let [find] = tx.prepared([rows::SESSION]).await?;
        let session = tx.query(&find, &[&Number(session)]).await?;
        tx.commit_as_missing().await?;
        Ok(Found { client, session: session.first().map(rows::session).transpose()? })
    }

    async fn transaction(&self) -> Result<Transaction, StoreError> {
        Ok(Transaction::on(self.connection().await?, None, &self.commits, &self.newest))
    }

    /// Returns a transaction that will lock this client's row.
    async fn transaction_of(&self, client: ClientId) -> Result<Transaction, StoreError> {
        let turn = Arc::clone(&self.client_locks[(client % CLIENT_LOCKS) as usize]).lock_owned();
        let turn = timeout(self.patience, turn).await.map_err(|_| error::silent())?;
        Ok(Transaction::on(self.connection().await?, Some(turn), &self.commits, &self.newest))
    }

    async fn connection(&self) -> Result<Object<Connector>, StoreError> {
        match self.pool.get().await {
            Ok(connection) => Ok(connection),
            Err(PoolError::Backend(error)) => Err(error),
            Err(error) => Err(StoreError::Unavailable(format!("no connection is free: {error}").into())),
        }
    }
}

async fn find(db: &mut Connection, client: ClientId, session: SessionId) -> Result<Found, StoreError> {
    let [one, credentials, found] =
        db.prepared([rows::CLIENT, rows::CREDENTIALS_OF_CLIENT, rows::SESSION]).await?;
    let (client, session) = (Number(client), Number(session));
    let (of_client, of_session): (Parameters<'_>, Parameters<'_>) = (&[&client], &[&session]);
    let ((), client, credentials, session, ()) = try_join!(
        biased;
        db.batch(SNAPSHOT),
        db.query(&one, of_client),
        db.query(&credentials, of_client),
        db.query(&found, of_session),
        db.batch("COMMIT"),
    )?;
    Ok(Found {
        client: rows::client(&client, &credentials)?,
        session: session.first().map(rows::session).transpose()?,
    })
}

/// Sends the statement at the first poll.
async fn save_client(db: &Connection, update: &Statement, client: &Client) -> Result<(), StoreError> {
    let values: Parameters<'_> = &[
        &Number(client.id),
        &client.name,
        &status_text(client.status),
        &Number(client.generation),
        &Number(client.revision),
        &allowlist_text(&client.allowlist),
        &client.certificates.to_string(),
        &client.scopes.as_str(),
        &client.enforces_allowlist,
    ];
    db.execute(update, values).await?;
    Ok(())
}

async fn save_credential(
    db: &Connection,
    update: &Statement,
    credential: &Credential,
) -> Result<(), StoreError> {
    let (expires_at, revoked_at) = (credential.expires_at.map(Number), credential.revoked_at.map(Number));
    db.execute(update, &[&Number(credential.id), &expires_at, &revoked_at]).await?;
    Ok(())
}

async fn insert_credential(
    tx: &Transaction,
    insert: &Statement,
    client: ClientId,
    new: &mut Credential,
) -> Result<(), StoreError> {
    let (client, created_at) = (Number(client), Number(new.created_at));
    let (expires_at, revoked_at) = (new.expires_at.map(Number), new.revoked_at.map(Number));
    let hash = new.secret_hash.0.as_slice();
    let row = tx.one(insert, &[&client, &new.api_key, &hash, &created_at, &expires_at, &revoked_at]).await?;
    new.id = number(&row, "id")?;
    Ok(())
}
