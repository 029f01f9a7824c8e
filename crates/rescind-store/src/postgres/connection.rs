//! A session with PostgreSQL: its statements, the warnings that it has heard, and how it is closed after a fault.

use std::{
    collections::HashMap,
    fmt,
    future::poll_fn,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, sync::watch, task::JoinHandle, time::timeout};
use tokio_postgres::{
    AsyncMessage, CancelToken, Client, Row, SimpleQueryMessage, Socket, Statement, error::DbError,
    error::Severity, types::ToSql,
};
use tracing::{debug, warn};

use super::{
    answered::{STANDING, Standing, found},
    error,
    place::Place,
    rows::one,
    tls::{Stream, Tls},
};
use crate::{Result, StoreError};

/// Time for the network, beyond the server's own limit.
pub(super) const ON_THE_WAY: Duration = Duration::from_secs(1);
/// The function of the server that warns of a commit whose wait for a stand-by was cancelled. Its code is that of every
/// warning.
const WAITS_FOR_STAND_BY: &str = "SyncRepWaitForLSN";

pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A session with the server.
pub(super) struct Connection {
    client: Client,
    /// The server of this connection.
    pub(super) place: Place,
    cancel: CancelToken,
    statements: HashMap<&'static str, Statement>,
    /// How many commits the server has warned of.
    warnings: Arc<AtomicU64>,
    notified: watch::Receiver<()>,
    /// Why the connection has ended.
    broke: Arc<OnceLock<String>>,
    /// No statement is under way, and none has failed.
    clean: AtomicBool,
    answer_limit: Duration,
    tls: Tls,
    task: JoinHandle<()>,
    /// The session's unique name.
    pub(super) session: String,
    /// The server's process that serves this session.
    pub(super) process: i32,
    requires_stand_by: bool,
}

/// What a connection is opened with.
pub(super) struct Opened {
    pub(super) client: Client,
    pub(super) connection: tokio_postgres::Connection<Socket, Stream>,
    pub(super) tls: Tls,
    /// Time limit for statements, as the server is told.
    pub(super) limit: Duration,
    pub(super) requires_stand_by: bool,
}

impl Connection {
    /// Begins to listen to the server. The session is not set up yet, and counts as busy until [`Connection::done`].
    pub(super) fn listen(opened: Opened) -> Connection {
        let Opened { client, mut connection, tls, limit, requires_stand_by } = opened;
        let warnings = Arc::new(AtomicU64::new(0));
        let broke = Arc::new(OnceLock::new());
        let (notifier, notified) = watch::channel(());
        let (heard, ended) = (Arc::clone(&warnings), Arc::clone(&broke));
        let task = tokio::spawn(async move {
            let mut told = None;
            while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
                match message {
                    // A warning is counted before the driver delivers the answer of its statement.
                    Ok(AsyncMessage::Notice(notice))
                        if notice.parsed_severity() == Some(Severity::Warning) =>
                    {
                        if is_of_commit(&notice) {
                            heard.fetch_add(1, Ordering::SeqCst);
                        } else if told.as_deref() == notice.routine() {
                            // A server near its end of transaction ids repeats itself with every transaction.
                            continue;
                        }
                        warn!(code = notice.code().code(), message = notice.message(), "PostgreSQL warns");
                        told = notice.routine().map(str::to_owned);
                    }
                    Ok(AsyncMessage::Notification(_)) => notifier.send_modify(|()| {}),
                    Ok(_) => {}
                    // Callers that wait for an answer get an error when this task ends.
                    Err(e) => {
                        let why = error::in_words(&e);
                        debug!(error = %why, "a connection to PostgreSQL broke");
                        let _ = ended.set(why);
                        break;
                    }
                }
            }
        });
        Connection {
            place: Place::default(),
            cancel: client.cancel_token(),
            client,
            statements: HashMap::new(),
            warnings,
            notified,
            broke,
            clean: AtomicBool::new(false),
            answer_limit: limit + ON_THE_WAY,
            tls,
            task,
            session: String::new(),
            process: 0,
            requires_stand_by,
        }
    }

    /// Returns whether the pool may hand this connection out again.
    pub(super) fn is_usable(&self) -> bool {
        self.clean.load(Ordering::SeqCst) && !self.client.is_closed()
    }

    /// Returns the driver's client, for migrations and copies.
    pub(super) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Prepares the statements that are not prepared yet. All statements of a pipeline must be prepared before the
    /// first is sent: otherwise a later one could overtake it.
    pub(super) async fn prepared<const N: usize>(
        &mut self,
        statements: [&'static str; N],
    ) -> Result<[Statement; N]> {
        for sql in statements {
            if !self.statements.contains_key(sql) {
                let statement = self.bounded(self.client.prepare(sql)).await?;
                self.statements.insert(sql, statement);
            }
        }
        Ok(statements.map(|sql| self.statements[sql].clone()))
    }

    /// Sends the statement at the first poll. Returns the rows of a decisive statement only if the primary answered.
    pub(super) async fn query(&self, statement: &Statement, with: Parameters<'_>) -> Result<Vec<Row>> {
        found(self.bounded(self.client.query(statement, with)).await?, &self.session)
    }

    /// Sends the statement at the first poll. Returns the one row.
    pub(super) async fn one(&self, statement: &Statement, with: Parameters<'_>) -> Result<Row> {
        one(self.query(statement, with).await?)
    }

    /// Prepares and sends one statement, alone. Returns its rows.
    pub(super) async fn fetch(&mut self, sql: &'static str, with: Parameters<'_>) -> Result<Vec<Row>> {
        let [statement] = self.prepared([sql]).await?;
        self.query(&statement, with).await
    }

    /// Like `fetch`, for a statement with one row.
    pub(super) async fn fetch_one(&mut self, sql: &'static str, with: Parameters<'_>) -> Result<Row> {
        one(self.fetch(sql, with).await?)
    }

    /// Like `fetch`. Returns the number of changed rows.
    pub(super) async fn run(&mut self, sql: &'static str, with: Parameters<'_>) -> Result<u64> {
        let [statement] = self.prepared([sql]).await?;
        self.execute(&statement, with).await
    }

    /// Sends the statement at the first poll.
    pub(super) async fn simple(&self, sql: &str) -> Result<Vec<SimpleQueryMessage>> {
        self.bounded(self.client.simple_query(sql)).await
    }

    /// Reads the session's state, if it is still this session. Sends the statement at the first poll.
    pub(super) async fn standing(&self) -> Result<Standing> {
        Standing::of(&self.one(&self.statements[STANDING], &[]).await?)
    }

    pub(super) fn requires_stand_by(&self) -> bool {
        self.requires_stand_by
    }

    /// Sends the statement at the first poll. Returns the number of changed rows.
    pub(super) async fn execute(&self, statement: &Statement, with: Parameters<'_>) -> Result<u64> {
        self.bounded(self.client.execute(statement, with)).await
    }

    /// Sends the statements at the first poll.
    pub(super) async fn batch(&self, sql: &str) -> Result<()> {
        self.bounded(self.client.batch_execute(sql)).await
    }

    /// Returns how often the server has warned of a commit.
    pub(super) fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::SeqCst)
    }

    /// Checks that the server has warned of no commit since `warnings` were counted. When the wait for a stand-by is
    /// cancelled, the server commits all the same, and only sends a warning.
    pub(super) fn ensure_replicated(&self, warnings: u64) -> Result<()> {
        if self.warnings() == warnings {
            Ok(())
        } else {
            Err(StoreError::Unavailable(
                "committed, but not known to be replicated: the server warned".into(),
            ))
        }
    }

    /// Notes that a transaction is under way.
    pub(super) fn begun(&self) {
        self.clean.store(false, Ordering::SeqCst);
    }

    /// Notes that the transaction has ended.
    pub(super) fn done(&self) {
        self.clean.store(true, Ordering::SeqCst);
    }

    /// Cancels a statement that is still under way, and closes the session. Otherwise the session would keep its
    /// locks, and a commit that waits for a stand-by would not end.
    pub(super) fn abandon(&self) {
        if self.clean.load(Ordering::SeqCst) || self.task.is_finished() {
            return;
        }
        let (cancel, tls, answer_limit) = (self.cancel.clone(), self.tls.clone(), self.answer_limit);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { timeout(answer_limit, cancel.cancel_query(tls)).await });
        }
        self.task.abort();
    }

    /// Resolves when a notification has arrived since the last call.
    pub(super) async fn notified(&mut self) -> Result<()> {
        self.notified.changed().await.map_err(|_| self.broken())
    }

    async fn bounded<T>(&self, answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T> {
        let answer = timeout(self.answer_limit, answer).await;
        answer.map_err(|_| error::silent())?.map_err(|e| match e.is_closed() {
            true => self.broken(),
            false => error::during(e),
        })
    }

    /// The error of a connection that has ended.
    fn broken(&self) -> StoreError {
        match self.broke.get() {
            Some(why) => {
                StoreError::Unavailable(format!("the connection to PostgreSQL has ended: {why}").into())
            }
            None => StoreError::Unavailable("the connection to PostgreSQL has ended".into()),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("clean", &self.clean).finish_non_exhaustive()
    }
}

/// Returns whether this is a warning that a commit may be on no stand-by. A warning of unknown origin may be one.
fn is_of_commit(warning: &DbError) -> bool {
    warning.routine().is_none_or(|routine| routine == WAITS_FOR_STAND_BY)
}
