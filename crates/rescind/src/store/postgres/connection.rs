//! A connection to PostgreSQL: made, watched, and given up after a fault.

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
    fault,
    place::{PLACE, Place, Places},
    settings::suits,
    tls::{self, Tls},
};
use crate::store::StoreError;

/// For what takes as long as there is much of it.
const LONG: Duration = Duration::from_secs(600);
/// Beyond the server's own limit, for the way there and back.
const ON_THE_WAY: Duration = Duration::from_secs(1);
/// Until whoever holds the lease has looked at a server that has just begun to answer.
const LOOKING: Duration = Duration::from_millis(500);
/// Gives the session a name that no other has.
const NAME: &str = "SELECT set_config('rescind.session', gen_random_uuid()::text, false)";

pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Makes connections, for the pool and for whoever needs one for itself.
pub(super) struct Connector {
    config: tokio_postgres::Config,
    tls: Tls,
    options: PostgresOptions,
    /// A server that was taken over from is not believed.
    pub(super) places: Places,
}

impl Connector {
    pub(super) fn new(options: PostgresOptions) -> Result<Connector, StoreError> {
        let mut config = options.url.config().clone();
        if config.get_application_name().is_none() {
            config.application_name("rescind");
        }
        // With several hosts, the one that can be written; a stand-by is never read.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(3));
        }
        // A host that is gone without a word is told by the machine within these.
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(Duration::from_secs(10));
        }
        if config.get_keepalives_interval().is_none() {
            config.keepalives_idle(Duration::from_secs(10));
            config.keepalives_interval(Duration::from_secs(3)).keepalives_retries(3);
        }
        // In any order: the first may be one that was taken over from, and does not know it.
        config.load_balance_hosts(LoadBalanceHosts::Random);
        let tls = tls::connector(config.get_ssl_mode(), options.tls_ca.as_deref())?;
        Ok(Connector { config, tls, options, places: Places::new() })
    }

    /// A connection of the pool's kind. Until told otherwise, something is under way on it.
    pub(super) async fn connect(&self) -> Result<Connection, StoreError> {
        self.connect_for(self.options.statement_timeout).await
    }

    /// A connection for work that may take long.
    pub(super) async fn connect_for_long(&self) -> Result<Connection, StoreError> {
        self.connect_for(LONG).await
    }

    async fn connect_for(&self, limit: Duration) -> Result<Connection, StoreError> {
        let connecting = self.options.statement_timeout + ON_THE_WAY;
        let connected = timeout(connecting, self.config.connect(self.tls.clone())).await;
        let (client, mut connection) = connected
            .map_err(|_| fault::silent_at_connect())?
            .map_err(|e| fault::at_connect(e, &self.options.url))?;
        let warnings = Arc::new(AtomicU64::new(0));
        let (bell, rung) = watch::channel(());
        let heard = Arc::clone(&warnings);
        let task = tokio::spawn(async move {
            while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
                match message {
                    // Counted before the answer that it belongs to is handed on.
                    Ok(AsyncMessage::Notice(notice))
                        if notice.parsed_severity() == Some(Severity::Warning) =>
                    {
                        heard.fetch_add(1, Ordering::SeqCst);
                        warn!(code = notice.code().code(), message = notice.message(), "PostgreSQL warns");
                    }
                    Ok(AsyncMessage::Notification(_)) => bell.send_modify(|()| {}),
                    Ok(_) => {}
                    // What waits for answers on it is told by its end.
                    Err(e) => {
                        debug!(error = %fault::in_words(&e), "a connection to PostgreSQL broke");
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
            rung,
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

    /// A commit counts only if a stand-by has it.
    pub(super) fn requires_stand_by(&self) -> bool {
        self.options.require_synchronous
    }

    /// What whichever host says that answers, one that cannot be written included.
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

    /// Sets what the session needs, and looks whether the server keeps what it says it has kept.
    /// Returns its place.
    async fn begin_session(&self, connection: &Connection, limit: Duration) -> Result<Place, StoreError> {
        // Whatever the role or the database has set: warnings must come, a process that stands still
        // in a transaction must not hold its locks, and what a commit waits for stays as it is found.
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

/// One session with the server.
pub(super) struct Connection {
    client: Client,
    place: Place,
    cancel: CancelToken,
    statements: HashMap<&'static str, Statement>,
    warnings: Arc<AtomicU64>,
    rung: watch::Receiver<()>,
    /// Nothing is under way, and nothing has failed.
    clean: AtomicBool,
    patience: Duration,
    tls: Tls,
    task: JoinHandle<()>,
    /// Its name, which no other session has.
    session: String,
    requires_stand_by: bool,
}

impl Connection {
    /// Names the session, and looks whether the name is there in the next statement.
    async fn begin(&mut self) -> Result<(), StoreError> {
        let named = self.simple(NAME).await?;
        // What a session has been reset to is an empty name.
        let name = said(&named).filter(|name| !name.is_empty());
        self.set_name(name.ok_or_else(|| StoreError::Unsuitable(SHARED.into()))?);
        self.prepared([STANDING]).await?;
        self.standing().await?;
        Ok(())
    }

    /// The driver's own, for the migrations.
    pub(super) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Prepares what is not yet. Statements that are to follow each other without waiting must all
    /// be prepared before the first is sent: otherwise they could overtake each other.
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

    /// Is sent when first polled. What is decisive is returned only if it is the primary's own word.
    pub(super) async fn query(
        &self,
        statement: &Statement,
        with: Parameters<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        found(self.bounded(self.client.query(statement, with)).await?, &self.session)
    }

    /// Is sent when first polled. Returns the one row.
    pub(super) async fn one(&self, statement: &Statement, with: Parameters<'_>) -> Result<Row, StoreError> {
        let mut rows = self.query(statement, with).await?;
        let row = rows.pop().filter(|_| rows.is_empty());
        row.ok_or_else(|| StoreError::Unreadable("there is not one row where one was asked for".into()))
    }

    /// Is sent when first polled.
    pub(super) async fn simple(&self, sql: &str) -> Result<Vec<SimpleQueryMessage>, StoreError> {
        self.bounded(self.client.simple_query(sql)).await
    }

    pub(super) fn set_name(&mut self, name: &str) {
        self.session = name.to_owned();
    }

    /// How the session stands, if it is still this one. Is sent when first polled.
    pub(super) async fn standing(&self) -> Result<Standing, StoreError> {
        Standing::of(&self.one(&self.statements[STANDING], &[]).await?)
    }

    pub(super) fn requires_stand_by(&self) -> bool {
        self.requires_stand_by
    }

    /// Is sent when first polled. Returns how many rows it was that changed.
    pub(super) async fn execute(
        &self,
        statement: &Statement,
        with: Parameters<'_>,
    ) -> Result<u64, StoreError> {
        self.bounded(self.client.execute(statement, with)).await
    }

    /// Is sent when first polled.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), StoreError> {
        self.bounded(self.client.batch_execute(sql)).await
    }

    /// Where it is to.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// How often the server has warned.
    pub(super) fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::SeqCst)
    }

    /// Whether what was committed since `warnings` were counted is known to be as durable as the
    /// server is set to make it. A wait for a stand-by that is broken off commits all the same, with
    /// no more than a warning.
    pub(super) fn vouch(&self, warnings: u64) -> Result<(), StoreError> {
        if self.warnings() == warnings {
            Ok(())
        } else {
            Err(StoreError::Unavailable(
                "committed, but not known to be replicated: the server warned".into(),
            ))
        }
    }

    /// Something is under way.
    pub(super) fn begun(&self) {
        self.clean.store(false, Ordering::SeqCst);
    }

    /// It has come to its end.
    pub(super) fn done(&self) {
        self.clean.store(true, Ordering::SeqCst);
    }

    /// Ends what is still under way, and with it the session: it would hold its locks, and nothing
    /// else ends a commit that waits for a stand-by.
    pub(super) fn give_up(&self) {
        if self.clean.load(Ordering::SeqCst) || self.task.is_finished() {
            return;
        }
        let (cancel, tls, patience) = (self.cancel.clone(), self.tls.clone(), self.patience);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { timeout(patience, cancel.cancel_query(tls)).await });
        }
        self.task.abort();
    }

    /// Resolves when a bell has been rung since it did so last.
    pub(super) async fn rung(&mut self) -> Result<(), StoreError> {
        self.rung.changed().await.map_err(|_| fault::silent())
    }

    async fn bounded<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, StoreError> {
        let answer = timeout(self.patience, answer).await;
        answer.map_err(|_| fault::silent())?.map_err(fault::during)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("clean", &self.clean).finish_non_exhaustive()
    }
}
