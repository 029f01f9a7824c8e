//! One transaction on a connection of the pool.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use deadpool::managed::Object;
use rescind_base::{
    clock::Clock,
    model::{Client, ClientId, Event, SessionId},
    telemetry::metrics::Commits,
};
use tokio::{sync::OwnedMutexGuard, try_join};
use tokio_postgres::Statement;

use super::{
    audit::{LOCK_HEAD, as_json},
    changed::ChangedRow,
    connection::{Connection, Parameters},
    connector::Connector,
    history::Newest,
    room::Seat,
    rows::{self, Number},
};
use crate::{Found, Result};

/// A connection of the pool, for one transaction. If it is dropped before its end, the connection is closed.
///
/// Statements are sent at the first poll, so several that are polled in order share one round trip.
/// `try_join!(biased; …)` polls in order. A statement that must not run if the one before fails, such as a write
/// without its `BEGIN`, is sent only after that one's answer.
pub(super) struct Transaction {
    connection: Object<Connector>,
    warnings: u64,
    /// The lock in this process on the client whose row is locked.
    _turn: Option<OwnedMutexGuard<()>>,
    commits: Commits,
    newest: Newest,
    begun_at: Duration,
    /// Given back after the connection, as the fields are dropped in their order.
    _seat: Seat,
}

impl Transaction {
    pub(super) fn on(
        (connection, seat): (Object<Connector>, Seat),
        turn: Option<OwnedMutexGuard<()>>,
        commits: &Commits,
        newest: &Newest,
    ) -> Transaction {
        connection.begun();
        Transaction {
            warnings: connection.warnings(),
            connection,
            _turn: turn,
            commits: commits.clone(),
            newest: newest.clone(),
            // The database does not follow a test's clock.
            begun_at: Clock::System.elapsed(),
            _seat: seat,
        }
    }

    /// Begins, locks a client's row, and returns the client.
    pub(super) async fn begin_with_client(&mut self, id: ClientId) -> Result<Option<Client>> {
        let [client, credentials] = self.prepared([rows::CLIENT_LOCKED, rows::CREDENTIALS_OF_CLIENT]).await?;
        let id: Parameters<'_> = &[&Number(id)];
        let ((), client, credentials) = try_join!(
            biased;
            self.batch("BEGIN"),
            self.query(&client, id),
            self.query(&credentials, id),
        )?;
        rows::client(&client, &credentials)
    }

    /// Like `begin_with_client`, with a session, of this client or another. The lock covers the client's sessions.
    pub(super) async fn begin_with_session(&mut self, client: ClientId, session: SessionId) -> Result<Found> {
        let reads = self.prepared([rows::CLIENT_LOCKED, rows::CREDENTIALS_OF_CLIENT, rows::SESSION]).await?;
        super::begin_with(self, "BEGIN", &reads, client, session).await
    }

    pub(super) async fn commit(&self) -> Result<()> {
        self.connection.commit(self.warnings).await?;
        self.commits.took.took(Clock::System.elapsed().saturating_sub(self.begun_at));
        self.commits.changes.count(1);
        self.done();
        Ok(())
    }

    /// Commits a read that found nothing. A former primary lacks the newest rows, but cannot commit: the lock is a
    /// write, so the commit waits for a stand-by.
    pub(super) async fn commit_as_missing(&self) -> Result<()> {
        try_join!(biased; self.batch(LOCK_HEAD), self.commit())?;
        Ok(())
    }

    /// Commits with events for the audit log. `record` is [`super::audit::INSERT`].
    pub(super) async fn commit_and_record(&self, record: &Statement, events: &[Event]) -> Result<()> {
        if events.is_empty() {
            return self.commit().await;
        }
        let events: Parameters<'_> = &[&as_json(events)];
        try_join!(biased; self.batch(LOCK_HEAD), self.execute(record, events), self.commit())?;
        Ok(())
    }

    /// Commits a change of data that nodes hold in memory, with its events for the audit log. The statements are
    /// [`RECORD_CHANGE`] and [`super::audit::INSERT`].
    pub(super) async fn commit_with_change(
        &self,
        [tell, record]: [&Statement; 2],
        what: ChangedRow,
        events: &[Event],
    ) -> Result<()> {
        let (kind, id, client) = what.columns();
        let change: Parameters<'_> = &[&kind, &id.map(Number), &client.map(Number)];
        let (told, ()) = try_join!(biased; self.one(tell, change), self.commit_and_record(record, events))?;
        self.newest.note(rows::known(&told)?);
        Ok(())
    }

    pub(super) async fn roll_back(&self) -> Result<()> {
        self.batch("ROLLBACK").await?;
        self.done();
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.connection.abandon();
    }
}

impl Deref for Transaction {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}
