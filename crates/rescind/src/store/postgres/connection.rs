//! A connection to PostgreSQL: how it is opened, watched for warnings, and closed after a fault.

use std::{
    collections::HashMap,
    fmt,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use tokio::{runtime::Handle, sync::watch, task::JoinHandle, time::timeout};
use tokio_postgres::{
    AsyncMessage, CancelToken, Client, Row, SimpleQueryMessage, Statement,
    config::{LoadBalanceHosts, TargetSessionAttrs},
    error::Severity,
    types::ToSql,
};
use tracing::{debug, warn};

use super::{
    PostgresOptions,
    answered::{SHARED, STANDING, Standing, found, said},
    error,
    place::{PLACE, Place, Places},
    settings::suits,
    tls::{self, Tls},
};
use crate::store::StoreError;

/// Time limit for statements that take longer the more rows there are.
const LONG: Duration = Duration::from_secs(600);
/// Time for the network, beyond the server's own limit.
const ON_THE_WAY: Duration = Duration::from_secs(1);
/// How long a new connection waits until the task that renews the lease has approved the server.
const LOOKING: Duration = Duration::from_millis(500);
/// Gives the session a unique name.
const NAME: &str = "SELECT set_config('rescind.session', gen_random_uuid()::text, false)";

pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Opens connections, for the pool and for uses outside of it.
pub(super) struct Connector {
    config: tokio_postgres::Config,
    tls: Tls,
    options: PostgresOptions,
    /// Which servers may be used: a former primary may not.
    pub(super) places: Places,
}

impl Connector {
    pub(super) fn new(options: PostgresOptions) -> Result<Connector, StoreError> {
        let mut config = options.url.config().clone();
        if config.get_application_name().is_none() {
            config.application_name("rescind");
        }
        // Of several hosts the writable one is used. A stand-by is never read.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(3));
        }
        // Within these limits the system reports a host that vanished without closing its connections.
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(Duration::from_secs(10));
        }
        if config.get_keepalives_interval().is_none() {
            config.keepalives_idle(Duration::from_secs(10));
            config.keepalives_interval(Duration::from_secs(3)).keepalives_retries(3);
        }
        // Hosts are tried in random order: the first may be a former primary that still accepts connections.
        config.load_balance_hosts(LoadBalanceHosts::Random);
        let tls = tls::connector(config.get_ssl_mode(), options.tls_ca.as_deref())?;
        Ok(Connector { config, tls, options, places: Places::new() })
    }

    /// Opens a connection with the time limit of the pool's. It counts as busy until [`Connection::done`].
    pub(super) async fn connect(&self) -> Result<Connection, StoreError> {
        self.connect_for(self.options.statement_timeout).await
    }

    /// Opens a connection for work that may take long.
    pub(super) async fn connect_for_long(&self) -> Result<Connection, StoreError> {
        self.connect_for(LONG).await
    }

    async fn connect_for(&self, limit: Duration) -> Result<Connection, StoreError> {
        let connecting = self.options.statement_timeout + ON_THE_WAY;
        let connected = timeout(connecting, self.config.connect(self.tls.clone())).await;
        let (client, mut connection) = connected
            .map_err(|_| error::silent_at_connect())?
            .map_err(|e| error::at_connect(e, &self.options.url))?;
        let warnings = Arc::new(AtomicU64::new(0));
        let (notifier, notified) = watch::channel(());
        let heard = Arc::clone(&warnings);
        let task = tokio::spawn(async move {
            while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
                match message {
                    // A warning is counted before the driver delivers the answer of its statement.
                    Ok(AsyncMessage::Notice(notice))
                        if notice.parsed_severity() == Some(Severity::Warning) =>
                    {
                        heard.fetch_add(1, Ordering::SeqCst);
                        warn!(code = notice.code().code(), message = notice.message(), "PostgreSQL warns");
                    }
                    Ok(AsyncMessage::Notification(_)) => notifier.send_modify(|()| {}),
                    Ok(_) => {}
                    // Callers that wait for an answer get an error when this task ends.
                    Err(e) => {
                        debug!(error = %error::in_words(&e), "a connection to PostgreSQL broke");
                        break;
                    }
                }
            }
        });
        let mut connection = Connection {
            place: Place::default(),
            cancel: client.cancel_token(),
            client,
            statements: HashMap::new(),
            warnings,
            notified,
            clean: AtomicBool::new(false),
            patience: limit + ON_THE_WAY,
            tls: self.tls.clone(),
            task,
            session: String::new(),
            requires_stand_by: self.requires_stand_by(),
        };
        connection.place = self.begin_session(&connection, limit).await?;
        self.places.admit(&connection.place)?;
        connection.begin().await?;
        Ok(connection)
    }

    /// Returns whether a commit that waited for no stand-by is an error.
    pub(super) fn requires_stand_by(&self) -> bool {
        self.options.require_synchronous
    }

    /// Asks any host that answers, also a read-only one.
    pub(super) async fn ask_any(&self, sql: &str) -> Option<Vec<SimpleQueryMessage>> {
        let mut config = self.config.clone();
        config.target_session_attrs(TargetSessionAttrs::Any);
        let asked = async {
            let (client, connection) = config.connect(self.tls.clone()).await?;
            tokio::spawn(connection);
            client.simple_query(sql).await
        };
        timeout(self.options.statement_timeout + ON_THE_WAY, asked).await.ok()?.ok()
    }

    /// Sets up the session, and checks that the server's settings make commits durable. Returns the server's place.
    async fn begin_session(&self, connection: &Connection, limit: Duration) -> Result<Place, StoreError> {
        // These override settings of the role and the database. Warnings must arrive, and a process that hangs in a
        // transaction must lose its locks. `synchronous_commit` is fixed to its present value.
        let limit = limit.as_millis();
        let session = format!(
            "SET client_min_messages = warning;
             SET default_transaction_isolation = 'read committed';
             SET statement_timeout = {limit};
             SET lock_timeout = {limit};
             SET idle_in_transaction_session_timeout = {limit};
             SELECT current_setting('server_version_num'), current_setting('fsync'),
                    current_setting('full_page_writes'),
                    set_config('synchronous_commit', current_setting('synchronous_commit'), false),
                    {PLACE}"
        );
        let answers = connection.bounded(connection.client.simple_query(&session)).await?;
        let row = answers.iter().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let [settings @ .., system, timeline, started, database] = [0, 1, 2, 3, 4, 5, 6, 7]
            .map(|i| row.and_then(|row| row.try_get(i).ok().flatten()).unwrap_or_default());
        suits(settings, self.options.accept_lost_commits)?;
        Place::read([system, timeline, started, database])
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("options", &self.options).finish_non_exhaustive()
    }
}

impl managed::Manager for Connector {
    type Type = Connection;
    type Error = StoreError;

    async fn create(&self) -> Result<Connection, StoreError> {
        let connection = self.connect().await?;
        let first = self.places.used().is_none();
        let limit = if first { self.options.statement_timeout } else { LOOKING };
        let looked_at = timeout(limit, self.places.until_used(&connection.place)).await;
        looked_at.map_err(|_| StoreError::Unavailable("this node has not approved of the server".into()))?;
        connection.done();
        Ok(connection)
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<StoreError> {
        let good = connection.clean.load(Ordering::SeqCst) && !connection.client.is_closed();
        if good && self.places.is_used(&connection.place) {
            Ok(())
        } else {
            Err(RecycleError::message("given up"))
        }
    }
}

/// A session with the server.
pub(super) struct Connection {
    client: Client,
    place: Place,
    cancel: CancelToken,
    statements: HashMap<&'static str, Statement>,
    warnings: Arc<AtomicU64>,
    notified: watch::Receiver<()>,
    /// No statement is under way, and none has failed.
    clean: AtomicBool,
    patience: Duration,
    tls: Tls,
    task: JoinHandle<()>,
    /// The session's unique name.
    session: String,
    requires_stand_by: bool,
}

impl Connection {
    /// Names the session, and checks that the next statement still finds the name.
    async fn begin(&mut self) -> Result<(), StoreError> {
        let named = self.simple(NAME).await?;
        // A session that was reset has an empty name.
        let name = said(&named).filter(|name| !name.is_empty());
        self.set_name(name.ok_or_else(|| StoreError::Unsuitable(SHARED.into()))?);
        self.prepared([STANDING]).await?;
        self.standing().await?;
        Ok(())
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
    ) -> Result<[Statement; N], StoreError> {
        for sql in statements {
            if !self.statements.contains_key(sql) {
                let statement = self.bounded(self.client.prepare(sql)).await?;
                self.statements.insert(sql, statement);
            }
        }
        Ok(statements.map(|sql| self.statements[sql].clone()))
    }

    /// Sends the statement at the first poll. Returns the rows of a decisive statement only if the primary answered.
    pub(super) async fn query(
        &self,
        statement: &Statement,
        with: Parameters<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        found(self.bounded(self.client.query(statement, with)).await?, &self.session)
    }

    /// Sends the statement at the first poll. Returns the one row.
    pub(super) async fn one(&self, statement: &Statement, with: Parameters<'_>) -> Result<Row, StoreError> {
        let mut rows = self.query(statement, with).await?;
        let row = rows.pop().filter(|_| rows.is_empty());
        row.ok_or_else(|| StoreError::Unreadable("there is not one row where one was asked for".into()))
    }

    /// Sends the statement at the first poll.
    pub(super) async fn simple(&self, sql: &str) -> Result<Vec<SimpleQueryMessage>, StoreError> {
        self.bounded(self.client.simple_query(sql)).await
    }

    pub(super) fn set_name(&mut self, name: &str) {
        self.session = name.to_owned();
    }

    /// Reads the session's state, if it is still this session. Sends the statement at the first poll.
    pub(super) async fn standing(&self) -> Result<Standing, StoreError> {
        Standing::of(&self.one(&self.statements[STANDING], &[]).await?)
    }

    pub(super) fn requires_stand_by(&self) -> bool {
        self.requires_stand_by
    }

    /// Sends the statement at the first poll. Returns the number of changed rows.
    pub(super) async fn execute(
        &self,
        statement: &Statement,
        with: Parameters<'_>,
    ) -> Result<u64, StoreError> {
        self.bounded(self.client.execute(statement, with)).await
    }

    /// Sends the statements at the first poll.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), StoreError> {
        self.bounded(self.client.batch_execute(sql)).await
    }

    /// Returns the server of this connection.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Returns how often the server has sent a warning.
    pub(super) fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::SeqCst)
    }

    /// Checks that the server has sent no warning since `warnings` were counted. When the wait for a stand-by is
    /// cancelled, the server commits all the same, and only sends a warning.
    pub(super) fn ensure_replicated(&self, warnings: u64) -> Result<(), StoreError> {
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
        let (cancel, tls, patience) = (self.cancel.clone(), self.tls.clone(), self.patience);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { timeout(patience, cancel.cancel_query(tls)).await });
        }
        self.task.abort();
    }

    /// Resolves when a notification has arrived since the last call.
    pub(super) async fn notified(&mut self) -> Result<(), StoreError> {
        self.notified.changed().await.map_err(|_| error::silent())
    }

    async fn bounded<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, StoreError> {
        let answer = timeout(self.patience, answer).await;
        answer.map_err(|_| error::silent())?.map_err(error::during)
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
