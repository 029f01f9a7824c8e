//! What nodes tell each other by way of the database: leases, and the order of changes.

use std::{sync::Arc, time::Duration};

use tokio::try_join;
use tokio_postgres::Row;

use super::{
    Postgres,
    authority::Replication,
    changed::ChangedRow,
    connection::{Connection, Parameters},
    history, keys,
    migrate::NEWEST_KNOWN,
    place::Place,
    rows::{self, Number, get, number},
    statements::decisive,
};
use crate::{
    model::{ClientId, SessionId, SigningKeyRecord, VerifierRecord},
    store::{Found, Known, Position, StoreError},
};

/// The channel of the doorbell.
const LISTEN: &str = "LISTEN rescind";
const RING: &str = "NOTIFY rescind";

pub(super) const HEAD: &str =
    decisive!("head.history, head.seq, change.mark", "FROM head LEFT JOIN change ON change.seq = head.seq");
const NODES: &str = decisive!(
    "head.seq, node.id, node.name, node.wait_ms, node.acked, node.beat, node.schema_version",
    "FROM head LEFT JOIN node ON true",
    "id"
);
const CHANGES: &str = decisive!(
    "head.history, change.seq, change.mark, change.kind, change.id, change.client",
    "FROM head, change WHERE change.seq > $1",
    "seq"
);
// A node that joins after the smallest of these was read has loaded what is newer than all of them.
const TRIM: &str = "
    DELETE FROM change WHERE seq <= (SELECT seq FROM head) - $1
                         AND seq <= ALL (SELECT acked FROM node)";
pub(super) const JOIN: &str =
    "INSERT INTO node (name, wait_ms, schema_version) VALUES ($1, $2, $3) RETURNING id";
const BEAT: &str = "UPDATE node SET beat = beat + 1, acked = $2 WHERE id = $1";
const LEAVE: &str = "DELETE FROM node WHERE id = $1";
const FORGET: &str = "DELETE FROM node WHERE id = $1 AND beat = $2";

/// A change of what nodes hold in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Its place in the order of all of them.
    pub seq: u64,
    /// What it is of. How that is now is to be looked up.
    pub what: ChangedRow,
    /// It as the newest that is known.
    pub known: Known,
}

/// A lease's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Given once to one incarnation of one node.
    pub id: u64,
    /// For people.
    pub name: String,
    /// How long after a commit it may still answer without it.
    pub wait: Duration,
    /// Every change up to this one is applied there.
    pub acked: u64,
    /// How often it was renewed.
    pub beat: u64,
    /// The newest change of the tables that its program knows.
    pub schema_version: i32,
}

impl NodeRow {
    /// Whether it can read and write the refresh tokens of keys that have a refresh key.
    pub fn knows_refresh_keys(&self) -> bool {
        self.schema_version >= 4
    }
}

/// What a renewal brings, as it was when that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// The newest change.
    pub head: u64,
    /// Every node, this one included.
    pub nodes: Vec<NodeRow>,
}

impl Postgres {
    /// From now on nothing is read from, or written to, a server that was not approved of.
    pub fn guard(&self) {
        self.pool.manager().places.guard();
    }

    /// Lets a server be used, and no other.
    pub fn approve(&self, place: &Place) {
        self.pool.manager().places.approve(place);
    }

    /// The server that is used.
    pub fn place(&self) -> Option<Place> {
        self.pool.manager().places.used()
    }

    /// A connection for a lease, which hears the doorbell.
    pub async fn lease_connection(&self) -> Result<LeaseConnection, StoreError> {
        let connection = self.pool.manager().connect().await?;
        connection.batch(LISTEN).await?;
        Ok(LeaseConnection { connection, replication: Arc::clone(&self.replication) })
    }

    /// The newest change.
    pub async fn head(&self) -> Result<u64, StoreError> {
        let mut tx = self.transaction().await?;
        let [head] = tx.prepared([HEAD]).await?;
        let head = tx.one(&head, &[]).await?;
        tx.done();
        number(&head, "seq")
    }

    /// The newest change and every node, as they are at one moment.
    pub async fn nodes(&self) -> Result<(Place, u64, Vec<NodeRow>), StoreError> {
        let mut tx = self.transaction().await?;
        let [nodes] = tx.prepared([NODES]).await?;
        let found = tx.query(&nodes, &[]).await?;
        tx.done();
        Ok((tx.place().clone(), head(&found)?, nodes_of(&found)?))
    }

    /// Rings the doorbell of every node. A hint: whoever misses it hears at its next renewal.
    pub async fn ring(&self) {
        if let Ok(tx) = self.transaction().await
            && tx.batch(RING).await.is_ok()
        {
            tx.done();
        }
    }

    /// Deletes changes that every node has applied, but for the newest `keep`.
    pub async fn trim_changes(&self, keep: u64) -> Result<(), StoreError> {
        let mut tx = self.transaction().await?;
        let [trim] = tx.prepared([TRIM]).await?;
        tx.execute(&trim, &[&Number(keep)]).await?;
        tx.done();
        Ok(())
    }
}

/// The connection that a node renews its lease on, and hears the doorbell.
#[derive(Debug)]
pub struct LeaseConnection {
    pub(super) connection: Connection,
    replication: Arc<Replication>,
}

impl LeaseConnection {
    /// Where it is to.
    pub fn place(&self) -> &Place {
        self.connection.place()
    }

    /// How the database stands to this change.
    pub async fn position(&mut self, known: &Known) -> Result<Position, StoreError> {
        history::position(&mut self.connection, known).await
    }

    /// The sealed pepper, which a database has from its first use on.
    pub async fn pepper(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let [pepper] = self.connection.prepared([rows::PEPPER]).await?;
        rows::pepper(&self.connection.query(&pepper, &[]).await?)
    }

    /// Adds a node, and numbers it.
    pub async fn join(&mut self, name: &str, wait: Duration) -> Result<u64, StoreError> {
        let warnings = self.connection.warnings();
        let [join] = self.connection.prepared([JOIN]).await?;
        let wait = Number(millis(wait));
        let row = self.connection.one(&join, &[&name, &wait, &NEWEST_KNOWN]).await?;
        self.connection.vouch(warnings)?;
        number(&row, "id")
    }

    /// The changes after `after`, in order.
    pub async fn changes(&mut self, after: u64) -> Result<Vec<Change>, StoreError> {
        let [changes] = self.connection.prepared([CHANGES]).await?;
        rows::read(&self.connection.query(&changes, &[&Number(after)]).await?, change)
    }

    /// A client and a session of it, as they are now.
    pub async fn find(&mut self, client: ClientId, session: SessionId) -> Result<Found, StoreError> {
        super::find(&mut self.connection, client, session).await
    }

    /// Every signing key.
    pub async fn keys(&mut self) -> Result<Vec<SigningKeyRecord>, StoreError> {
        keys::keys(&mut self.connection).await
    }

    /// Every verifier.
    pub async fn verifiers(&mut self) -> Result<Vec<VerifierRecord>, StoreError> {
        let [verifiers] = self.connection.prepared([rows::VERIFIERS]).await?;
        rows::read(&self.connection.query(&verifiers, &[]).await?, rows::verifier)
    }

    /// Writes that node `node` lives and what it has applied, and reads the head after that. Every
    /// write of the primary up to then is as durable as a commit when this has answered. `None`: the
    /// node is gone.
    pub async fn renew(&mut self, node: u64, acked: u64) -> Result<Option<Renewed>, StoreError> {
        let warnings = self.connection.warnings();
        let [beat, read] = self.connection.prepared([BEAT, NODES]).await?;
        let beaten: Parameters<'_> = &[&Number(node), &Number(acked)];
        // Should the first fail, the rest does no harm: what it writes is true, and is not heard of.
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
    pub async fn leave(&mut self, node: u64) -> Result<(), StoreError> {
        self.write(LEAVE, &[&Number(node)]).await
    }

    /// Deletes a node unless it has beaten since `beat`.
    pub async fn forget(&mut self, node: u64, beat: u64) -> Result<(), StoreError> {
        self.write(FORGET, &[&Number(node), &Number(beat)]).await
    }

    /// Resolves when the doorbell has been rung since it did so last; fails when the connection is gone.
    pub async fn rung(&mut self) -> Result<(), StoreError> {
        self.connection.rung().await
    }

    pub(super) async fn write(&mut self, sql: &'static str, with: Parameters<'_>) -> Result<(), StoreError> {
        let warnings = self.connection.warnings();
        let [statement] = self.connection.prepared([sql]).await?;
        self.connection.execute(&statement, with).await?;
        self.connection.vouch(warnings)
    }
}

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn head(rows: &[Row]) -> Result<u64, StoreError> {
    let row = rows.first().ok_or_else(|| StoreError::Unreadable("the head has no row".into()))?;
    number(row, "seq")
}

fn nodes_of(rows: &[Row]) -> Result<Vec<NodeRow>, StoreError> {
    // Without any node there is one row, that of the head alone.
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
            })
        })
        .collect()
}

fn change(row: &Row) -> Result<Change, StoreError> {
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
