//! How a connection to PostgreSQL is opened and its session set up.

use std::{fmt, time::Duration};

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use futures_util::FutureExt;
use tokio::time::timeout;
use tokio_postgres::{SimpleQueryMessage, config::TargetSessionAttrs};

use super::{
    PostgresOptions,
    answered::{MESSAGES, SHARED, STANDING, last_row},
    connection::{Connection, ON_THE_WAY, Opened},
    error,
    hosts::{Host, Hosts},
    place::{PLACE, Place, Places},
    settings::{self, suits},
    tls::{self, Tls},
};
use crate::{Result, StoreError};

/// Time limit for statements that take longer the more rows there are.
const LONG: Duration = Duration::from_secs(600);
/// How long a new connection waits until the task that renews the lease has approved the server.
const LOOKING: Duration = Duration::from_millis(500);

/// Opens connections, for the pool and for uses outside of it.
pub(super) struct Connector {
    config: tokio_postgres::Config,
    hosts: Hosts,
    tls: Tls,
    options: PostgresOptions,
    /// Which servers may be used: a former primary may not.
    pub(super) places: Places,
}

impl Connector {
    pub(super) fn new(options: PostgresOptions) -> Result<Connector> {
        let mut config = options.url.config().clone();
        if config.get_application_name().is_none() {
            config.application_name("rescind");
        }
        // Of several hosts the writable one is used. A stand-by is never read.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        // Within these limits the system reports a host that vanished without closing its connections.
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(Duration::from_secs(10));
        }
        if config.get_keepalives_interval().is_none() {
            config.keepalives_idle(Duration::from_secs(10));
            config.keepalives_interval(Duration::from_secs(3)).keepalives_retries(3);
        }
        let tls = tls::connector(config.get_ssl_mode(), options.tls_ca.as_deref())?;
        let hosts = Hosts::of(&config);
        Ok(Connector { config, hosts, tls, options, places: Places::default() })
    }

    /// Opens a connection with the time limit of the pool's. It counts as busy until [`Connection::done`].
    pub(super) async fn connect(&self) -> Result<Connection> {
        self.connect_for(self.options.statement_timeout, None).await
    }

    /// Like `connect`; no host is waited for longer than `patience`.
    pub(super) async fn connect_within(&self, patience: Duration) -> Result<Connection> {
        self.connect_for(self.options.statement_timeout, Some(patience)).await
    }

    /// Opens a connection for work that may take long.
    pub(super) async fn connect_for_long(&self) -> Result<Connection> {
        self.connect_for(LONG, None).await
    }

    /// `limit`: of statements. `patience`: with one host.
    async fn connect_for(&self, limit: Duration, patience: Option<Duration>) -> Result<Connection> {
        let most = self.options.statement_timeout + ON_THE_WAY;
        let of_url = self.config.get_connect_timeout().copied();
        let patience = [patience, of_url].into_iter().flatten().fold(most, Duration::min);
        let open = |host: Host| {
            let opening = async move {
                let opened = timeout(patience, self.open(&host, limit)).await;
                opened.unwrap_or_else(|_| Err(error::silent_at_connect()))
            };
            opening.boxed()
        };
        self.hosts.first(patience, open).await
    }

    /// Opens a connection to this host.
    async fn open(&self, host: &Host, limit: Duration) -> Result<Connection> {
        let connected = host.config.connect(self.tls.clone()).await;
        let (client, connection) = connected.map_err(|e| error::at_connect(e, &self.options.url))?;
        let tls = self.tls.clone();
        let requires_stand_by = self.requires_stand_by();
        let mut connection = Connection::listen(Opened { client, connection, tls, limit, requires_stand_by });
        self.begin_session(&mut connection, limit).await?;
        self.places.admit(&connection.place)?;
        connection.prepared([STANDING]).await?;
        connection.standing().await?;
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

    /// Sets up the session, gives it a unique name, and checks that the server's settings make commits durable.
    ///
    /// All of it is one message, which no pooler divides: a session that is found by the name has the settings.
    async fn begin_session(&self, connection: &mut Connection, limit: Duration) -> Result<()> {
        let set = settings::overridden(MESSAGES, limit);
        let session = format!(
            "{set}
             SELECT current_setting('server_version_num'), current_setting('fsync'),
                    current_setting('full_page_writes'),
                    set_config('synchronous_commit', current_setting('synchronous_commit'), false),
                    current_setting('session_replication_role'),
                    {PLACE}, set_config('rescind.session', gen_random_uuid()::text, false), pg_backend_pid()"
        );
        let answers = connection.simple(&session).await?;
        let last = last_row(&answers);
        let [settings @ .., system, timeline, started, database, name, process] =
            std::array::from_fn::<_, 11, _>(|i| {
                last.and_then(|row| row.try_get(i).ok().flatten()).unwrap_or_default()
            });
        suits(settings, self.options.accept_lost_commits)?;
        connection.place = Place::read([system, timeline, started, database])?;
        // A session that was reset has an empty name.
        if name.is_empty() {
            return Err(StoreError::Unsuitable(SHARED.into()));
        }
        connection.session = name.to_owned();
        connection.process = process.parse().unwrap_or_default();
        Ok(())
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

    async fn create(&self) -> Result<Connection> {
        // The lease's connection comes first: without it this node serves nothing.
        let leased = timeout(LOOKING, self.places.until_leased()).await;
        leased.map_err(|_| StoreError::Unavailable("this node has no connection for its lease".into()))?;
        let connection = self.connect().await?;
        let first = self.places.used().is_none();
        let limit = if first { self.options.statement_timeout } else { LOOKING };
        let looked_at = timeout(limit, self.places.until_used(&connection.place)).await;
        looked_at.map_err(|_| StoreError::Unavailable("this node has not approved of the server".into()))?;
        connection.done();
        Ok(connection)
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<StoreError> {
        if connection.is_usable() && self.places.is_used(&connection.place) {
            Ok(())
        } else {
            Err(RecycleError::message("given up"))
        }
    }
}
