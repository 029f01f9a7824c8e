//! How nodes exchange leases and changes through the database.

use std::{sync::Arc, time::Duration};

use rescind_base::{
    model::{Client, ClientId, Session, SessionId, SigningKeyRecord, VerifierRecord},
    secret::SealedSecrets,
};
use tokio::{time::timeout, try_join};
use tokio_postgres::Row;

use super::{
    Postgres, SNAPSHOT,
    authority::Replication,
    changed::ChangedRow,
    connection::{Connection, Parameters},
    error, history, keys,
    migrate::NEWEST_KNOWN,
    place::Place,
    room::Room,
    rows::{self, Number, get, number, one},
    statements::decisive,
    waits,
};
use crate::{Known, Position, Result, StoreError};

/// The channel on which nodes notify each other of changes.
const LISTEN: &str = "LISTEN rescind";
const NOTIFY: &str = "NOTIFY rescind";

pub(super) const HEAD: &str =
    decisive!("head.history, head.seq, change.mark", "FROM head LEFT JOIN change ON change.seq = head.seq");
const NODES: &str = decisive!(
    "head.seq, node.id, node.name, node.wait_ms, node.acked, node.beat, node.schema_version, node.profile",
    "FROM head LEFT JOIN node ON true",
    "id"
);
const CHANGES: &str = decisive!(
    "head.history, change.seq, change.mark, change.kind, change.id, change.client",
    "FROM head, change WHERE change.seq > $1",
    "seq"
);
// Safe while a node joins: the node commits its row before it loads, so it has loaded the changes deleted here.
const TRIM: &str = "
    DELETE FROM change WHERE seq <= (SELECT seq FROM head) - $1
                         AND seq <= ALL (SELECT acked FROM node)";
pub(super) const JOIN: &str =
    "INSERT INTO node (name, wait_ms, schema_version, profile) VALUES ($1, $2, $3, $4) RETURNING id";
/// How many connections the user of this session may have at once.
const SLOTS: &str = "
    SELECT greatest(1, least(
        current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
            - coalesce(current_setting('reserved_connections', true)::bigint, 0),
        (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = session_user),
        (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()))) AS slots";
const BEAT: &str = "UPDATE node SET beat = beat + 1, acked = $2 WHERE id = $1";
const LEAVE: &str = "DELETE FROM node WHERE id = $1";
const FORGET: &str = "DELETE FROM node WHERE id = $1 AND beat = $2";

/// A change of data that nodes hold in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The change's number.
    pub seq: u64,
    /// The changed row. Its present values are in the store.
    pub what: ChangedRow,
    /// The change's number, with its history and mark.
    pub known: Known,
}

/// A node's row, which is its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// The node's number. A node that joins again gets a new one.
    pub id: u64,
    /// The node's name, for people.
    pub name: String,
    /// How long after a commit the node may still answer without it.
    pub wait: Duration,
    /// The node and its attached verifiers have applied every change up to this one.
    pub acked: u64,
    /// How often the row was renewed, with the lease or while the node loaded.
    pub beat: u64,
    /// The newest migration that the node's program knows.
    pub schema_version: i32,
    /// The issuer and audience of the node's tokens. `None`: an older program, which has not told.
    pub profile: Option<String>,
}

impl NodeRow {
    /// Returns whether the node's program knows the migration of this number.
    pub fn knows(&self, migration: i32) -> bool {
        self.schema_version >= migration
    }
}

/// The result of a renewal, read after its write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// The number of the newest change.
    pub head: u64,
    /// Every node, also the one that renewed.
    pub nodes: Vec<NodeRow>,
}

impl Postgres {
    /// From now on the store uses only servers that were approved.
    pub fn guard(&self) {
        self.pool.manager().places.guard();
    }

    /// Approves this server, and no other.
    pub fn approve(&self, place: &Place) {
        self.pool.manager().places.approve(place);
    }

    /// Returns the server in use.
    pub fn place(&self) -> Option<Place> {
        self.pool.manager().places.used()
    }

    /// From now on the pool opens no connection before the lease has one.
    pub fn lease_comes_first(&self) {
        self.pool.manager().places.set_lease_waits(true);
    }

    /// The pool opens connections, whether a lease has one or not.
    pub fn lease_is_over(&self) {
        self.pool.manager().places.set_lease_waits(false);
    }

    /// Opens a connection for a lease, which also receives notifications. No host, and no answer, is waited for longer than
    /// `patience`. If there is no room for it, the pool's idle connections are closed.
    ///
    /// # Errors
    /// Fails if the server is unavailable or may not be used.
    pub async fn lease_connection(&self, patience: Duration) -> Result<LeaseConnection> {
        let connection = self.pool.manager().connect_within(patience).await;
        if connection.as_ref().is_err_and(error::is_full) {
            self.pool.retain(|_, _| false);
        }
        let connection = connection?;
        timeout(patience, connection.batch(LISTEN)).await.map_err(|_| error::silent())??;
        self.lease_is_over();
        Ok(LeaseConnection {
            connection,
            replication: Arc::clone(&self.replication),
            room: Arc::clone(&self.room),
        })
    }

    /// Returns what the server does with a lease's connection, which did not answer.
    pub async fn held_by(&self, lease: &LeaseConnection) -> String {
        waits::held_by(self.pool.manager(), lease.connection.process).await
    }

    /// Returns the number of the newest change.
    ///
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn head(&self) -> Result<u64> {
        number(&one(self.fetch(HEAD, &[]).await?)?, "seq")
    }

    /// Returns the server, the newest change's number and every node, as they are at one moment.
    ///
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn nodes(&self) -> Result<(Place, u64, Vec<NodeRow>)> {
        let mut tx = self.transaction().await?;
        let found = tx.fetch(NODES, &[]).await?;
        tx.done();
        Ok((tx.place.clone(), head(&found)?, nodes_of(&found)?))
    }

    /// Notifies every node of a change. A node that misses the notification learns of the change at its next renewal.
    pub async fn notify(&self) {
        if let Ok(tx) = self.transaction().await
            && tx.batch(NOTIFY).await.is_ok()
        {
            tx.done();
        }
    }

    /// Deletes changes that every node has acknowledged, except the newest `keep`.
    ///
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn trim_changes(&self, keep: u64) -> Result<()> {
        self.fetch(TRIM, &[&Number(keep)]).await.map(drop)
    }
}

/// The connection on which a node renews its lease and receives notifications.
#[derive(Debug)]
pub struct LeaseConnection {
    pub(super) connection: Connection,
    replication: Arc<Replication>,
    room: Arc<Room>,
}

impl LeaseConnection {
    /// Returns the server of this connection.
    pub fn place(&self) -> &Place {
        &self.connection.place
    }

    /// Returns what the database has of this change.
    ///
    /// # Errors
    /// Fails if the connection fails.
    pub async fn position(&mut self, known: &Known) -> Result<Position> {
        history::position(&mut self.connection, known).await
    }

    /// Returns the sealed secrets, which a database has from its first use on.
    ///
    /// # Errors
    /// Fails if the connection fails.
    pub async fn secrets(&mut self) -> Result<SealedSecrets> {
        rows::secrets(&self.connection.fetch(rows::SECRETS, &[]).await?)
    }

    /// Adds a node, with the issuer and audience of its tokens. Returns its number.
    ///
    /// # Errors
    /// Fails if the connection fails, or the tables need a newer program.
    pub async fn join(&mut self, name: &str, wait: Duration, profile: &str) -> Result<u64> {
        let slots = number(&self.connection.fetch_one(SLOTS, &[]).await?, "slots")?;
        self.room.set_slots(usize::try_from(slots).unwrap_or(usize::MAX));
        let warnings = self.connection.warnings();
        let wait = Number(millis(wait));
        let row = self.connection.fetch_one(JOIN, &[&name, &wait, &NEWEST_KNOWN, &profile]).await?;
        self.connection.ensure_replicated(warnings)?;
        number(&row, "id")
    }

    /// Returns the changes after `after`, in order.
    ///
    /// # Errors
    /// Fails if the connection fails.
    pub async fn changes(&mut self, after: u64) -> Result<Vec<Change>> {
        rows::read(&self.connection.fetch(CHANGES, &[&Number(after)]).await?, change)
    }

    /// Returns these clients, as they are now.
    ///
    /// # Errors
    /// Fails if the connection fails.
    pub async fn clients(&mut self, ids: &[ClientId]) -> Result<Vec<Client>> {
        let ids: Vec<_> = ids.iter().copied().map(Number).collect();
        let [clients, credentials] =
            self.connection.prepared([rows::CLIENTS_OF, rows::CREDENTIALS_OF]).await?;
        let of_these: Parameters<'_> = &[&ids];
        let ((), clients, credentials, ()) = try_join!(
            biased;
            self.connection.batch(SNAPSHOT),
            self.connection.query(&clients, of_these),
            self.connection.query(&credentials, of_these),
            self.connection.batch("COMMIT"),
        )?;
        rows::clients(&clients, &credentials)
    }

    /// Returns these sessions, as they are now.
    ///
    /// # Errors
    /// Fails if the connection fails.
    pub async fn sessions(&mut self, ids: &[SessionId]) -> Result<Vec<Session>> {
        let ids: Vec<_> = ids.iter().copied().map(Number).collect();
        rows::read(&self.connection.fetch(rows::SESSIONS_OF, &[&ids]).await?, rows::session)
    }

    /// Returns every signing key.
    ///
    /// # Errors
    /// Fails if the connection fails.
    pub async fn keys(&mut self) -> Result<Vec<SigningKeyRecord>> {
        keys::KEYS.all(&mut self.connection).await
    }

    /// Returns every verifier.
    ///
    /// # Errors
    /// Fails if the connection fails.
    pub async fn verifiers(&mut self) -> Result<Vec<VerifierRecord>> {
        keys::VERIFIERS.all(&mut self.connection).await
    }

    /// Renews the lease of `node`, writes what it acknowledges, and then reads the head. When this commit is
    /// confirmed, all earlier writes of the primary are as durable. `None`: the node's row was deleted.
    ///
    /// # Errors
    /// Fails if the connection fails, or the commit is not known to be durable.
    pub async fn renew(&mut self, node: u64, acked: u64) -> Result<Option<Renewed>> {
        let warnings = self.connection.warnings();
        let [beat, read] = self.connection.prepared([BEAT, NODES]).await?;
        let beaten: Parameters<'_> = &[&Number(node), &Number(acked)];
        // If `BEGIN` fails, the rest does no harm: the values written are right, and the caller gets the error.
        let ((), beaten, found, committed) = try_join!(
            biased;
            self.connection.batch("BEGIN"),
            self.connection.execute(&beat, beaten),
            self.connection.query(&read, &[]),
            self.connection.commit_and_look(warnings),
        )?;
        self.replication.heard(&committed);
        self.connection.accept(&committed)?;
        if beaten == 0 {
            return Ok(None);
        }
        Ok(Some(Renewed { head: head(&found)?, nodes: nodes_of(&found)? }))
    }

    /// Deletes a node that has stopped serving.
    ///
    /// # Errors
    /// Fails if the connection fails.
    pub async fn leave(&mut self, node: u64) -> Result<()> {
        self.write(LEAVE, &[&Number(node)]).await
    }

    /// Deletes a node, unless its beat has moved on from `beat`.
    ///
    /// # Errors
    /// Fails if the connection fails.
    pub async fn forget(&mut self, node: u64, beat: u64) -> Result<()> {
        self.write(FORGET, &[&Number(node), &Number(beat)]).await
    }

    /// Resolves when a notification has arrived since the last call.
    ///
    /// # Errors
    /// Fails if the connection is closed.
    pub async fn notified(&mut self) -> Result<()> {
        self.connection.notified().await
    }

    pub(super) async fn write(&mut self, sql: &'static str, with: Parameters<'_>) -> Result<()> {
        let warnings = self.connection.warnings();
        self.connection.run(sql, with).await?;
        self.connection.ensure_replicated(warnings)
    }
}

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn head(rows: &[Row]) -> Result<u64> {
    let row = rows.first().ok_or_else(|| StoreError::Unreadable("the head has no row".into()))?;
    number(row, "seq")
}

fn nodes_of(rows: &[Row]) -> Result<Vec<NodeRow>> {
    // If there is no node, one row has the head alone.
    let with_node = rows.iter().filter(|row| !matches!(get::<Option<Number>>(row, "id"), Ok(None)));
    with_node
        .map(|row| {
            Ok(NodeRow {
                id: number(row, "id")?,
                name: get(row, "name")?,
                wait: Duration::from_millis(number(row, "wait_ms")?),
                acked: number(row, "acked")?,
                beat: number(row, "beat")?,
                schema_version: get(row, "schema_version")?,
                profile: get(row, "profile")?,
            })
        })
        .collect()
}

fn change(row: &Row) -> Result<Change> {
    let kind: String = get(row, "kind")?;
    let what = match kind.as_str() {
        "client" => ChangedRow::Client(number(row, "id")?),
        "session" => ChangedRow::Session { client: number(row, "client")?, session: number(row, "id")? },
        "keys" => ChangedRow::Keys,
        "verifiers" => ChangedRow::Verifiers,
        other => return Err(StoreError::Unreadable(format!("change of {other:?}"))),
    };
    Ok(Change { seq: number(row, "seq")?, what, known: rows::known(row)? })
}
