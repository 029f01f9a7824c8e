//! Listeners, connections, and the stop of the service.

mod accept;
mod asked;
mod conn_limit;
mod conn_state;
mod io_timeout;
mod tasks;
mod tls;

use std::{
    fs::{self, Permissions},
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{oneshot, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{error, info, warn};

use crate::{
    admin,
    app::App,
    audit, cluster,
    config::{self, Config},
    http::{self, client_ip::TrustedProxies},
    telemetry::metrics::Listener,
};
use accept::{Endpoint, TurnedAway, accept_local, accept_tcp};
use conn_limit::{Bounds, ConnLimit, Newcomers};
use conn_state::Patience;
pub use tasks::TaskEnded;
use tasks::Tasks;
use tls::{Reload, Side};

const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How often the service checks for refused connections and requests, and how often it logs them at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const TELL_EVERY: Duration = Duration::from_secs(60);
/// The management listener has its own places, so load on the public one cannot keep operators and probes out. A
/// verifier that has shown its token moves to one of the 1000 places aside. Other peers make room for newcomers.
const MANAGEMENT: Bounds = Bounds { aside: 1000, ..Bounds::of_anybody(500) };
const LOCAL: Bounds = Bounds::of_anybody(100);
/// Names of tasks.
const NODE: &str = "cluster node";
const AUDIT: &str = "audit writer";
/// File descriptors kept for the store, the listeners and the connections to a database.
const OTHER_FILES: usize = 250;

/// A service whose listeners are bound. It answers no request yet.
pub struct Server {
    app: Arc<App>,
    public: (TcpListener, Arc<Endpoint>),
    management: (TcpListener, Arc<Endpoint>),
    local: (UnixListener, Arc<Endpoint>),
    reload: Option<Reload>,
    drain: watch::Sender<bool>,
    drain_timeout: Duration,
    tasks: Tasks,
}

impl Server {
    /// Binds both listeners and the socket in the data folder.
    ///
    /// # Errors
    ///
    /// If an address or the socket cannot be bound, or TLS cannot be set up with the configured files.
    pub async fn bind(app: Arc<App>, config: &Config) -> anyhow::Result<Server> {
        let config::Server { listen, management_listen, drain_timeout, .. } = config.server;
        let proxies = TrustedProxies {
            networks: config.server.trusted_proxies.clone(),
            header: config.server.client_address_header.clone(),
        };
        let (tls, reload) = tls::open(&config.tls, app.clock.clone())?.unzip();
        let drain = watch::Sender::new(false);
        let endpoint = |listener, door, connections, requests| Endpoint {
            listener,
            app: Arc::clone(&app),
            door,
            connections: ConnLimit::new(connections, app.metrics.connections(listener), app.random.clone()),
            requests: ConnLimit::new(requests, app.metrics.requests_under_way(listener), app.random.clone()),
            patience: Patience {
                request: config.server.request_timeout.into(),
                idle: config.server.idle_timeout.into(),
            },
            proxies: TrustedProxies::default(),
            tls: None,
            http: accept::http().http1_only(),
            draining: drain.subscribe(),
        };
        let public = Endpoint {
            proxies: proxies.clone(),
            tls: tls.clone().map(|tls| (tls, Side::Public)),
            http: accept::http(),
            ..endpoint(
                Listener::Public,
                http::public(Arc::clone(&app), proxies),
                connections(&config.server),
                Bounds {
                    in_all: config.server.max_requests,
                    per_network: config.server.max_requests_per_address,
                    aside: 0,
                    newcomers: Newcomers::OfAnybody,
                },
            )
        };
        let management = Endpoint {
            tls: tls.filter(|_| config.tls.management).map(|tls| (tls, Side::Management)),
            ..endpoint(
                Listener::Management,
                http::management(Arc::clone(&app)),
                MANAGEMENT,
                // A connection of this listener has one request at a time.
                Bounds::of_anybody(MANAGEMENT.in_all + MANAGEMENT.aside),
            )
        };
        let local = endpoint(Listener::Local, http::local(Arc::clone(&app)), LOCAL, LOCAL);
        Ok(Server {
            public: (bind("server.listen", "--listen", listen).await?, Arc::new(public)),
            management: (
                bind("server.management_listen", "--management-listen", management_listen).await?,
                Arc::new(management),
            ),
            local: (bind_local(&app.folder().socket())?, Arc::new(local)),
            reload,
            drain,
            drain_timeout: drain_timeout.into(),
            tasks: Tasks::default(),
            app,
        })
    }

    /// Returns the address of the public listener.
    ///
    /// # Errors
    ///
    /// If the operating system cannot name the socket's address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.public.0.local_addr()
    }

    /// Returns the address of the management listener.
    ///
    /// # Errors
    ///
    /// If the operating system cannot name the socket's address.
    pub fn management_address(&self) -> io::Result<SocketAddr> {
        self.management.0.local_addr()
    }

    /// Answers requests until `stop`, then lets the requests under way finish.
    ///
    /// # Errors
    ///
    /// If a task ends that must run until the stop. The service then stops in the same order.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), TaskEnded> {
        let Server { app, public, management, local, reload, drain, drain_timeout, mut tasks } = self;
        let (leave, leaving) = oneshot::channel::<()>();
        if app.store.postgres().is_some() {
            tasks.run_to_end(NODE, keep_node(Arc::clone(&app), async { _ = leaving.await }));
        }
        let (write_all, writing_all) = oneshot::channel::<()>();
        let (audit, store) = (Arc::clone(&app.audit), Arc::clone(&app.store));
        tasks.run_to_end(AUDIT, audit::run(audit, store, async { _ = writing_all.await }));
        let endpoints = [&public.1, &management.1, &local.1].map(Arc::clone);
        tasks.run("public listener", accept_tcp(public.0, public.1));
        tasks.run("management listener", accept_tcp(management.0, management.1));
        tasks.run("local listener", accept_local(local.0, local.1));
        tasks.run("report of who was turned away", tell_turned_away(endpoints));
        tasks.run("sweep", sweep(Arc::clone(&app)));
        if let Some(reload) = reload {
            tasks.run("reload of the certificate", reload.run());
        }
        let outcome = tokio::select! {
            () = stop => Ok(()),
            ended = tasks.ended() => Err(ended),
        };
        if let Err(TaskEnded { name, panicked }) = outcome {
            error!(task = name, panicked, "a task ended that must run until the stop: the service stops");
        }
        // Ends the accept loops, which closes the listeners.
        tasks.stop().await;
        info!("draining");
        app.begin_drain();
        drain.send_replace(true);
        if timeout(drain_timeout, drain.closed()).await.is_err() {
            warn!(after = ?drain_timeout, "requests under way were cut off");
        }
        drop(write_all);
        // The node gives up its lease only now, because the requests that were just answered needed it.
        drop(leave);
        while let Some(TaskEnded { name, panicked }) = tasks.finished().await {
            match name {
                AUDIT if panicked => warn!("what callers tried of late was not written"),
                NODE if panicked => warn!("the others will wait for this node's lease"),
                _ => {}
            }
        }
        info!("stopped");
        outcome
    }
}

async fn keep_node(app: Arc<App>, stop: impl Future<Output = ()>) {
    if let Some(postgres) = app.store.postgres() {
        cluster::run(&app.cluster, postgres, stop).await;
    }
}

/// The configured bounds, lowered to the number of files that the process may open.
fn connections(config: &config::Server) -> Bounds {
    let files = usize::try_from(raise_file_limit()).unwrap_or(usize::MAX);
    let most =
        files.saturating_sub(MANAGEMENT.in_all + MANAGEMENT.aside + LOCAL.in_all + OTHER_FILES).max(100);
    let in_all = config.max_connections.min(most);
    if in_all < config.max_connections {
        warn!(files, in_all, "server.max_connections is more than the process may open: see ulimit -n");
    }
    Bounds {
        in_all,
        per_network: config.max_connections_per_address,
        aside: 0,
        newcomers: Newcomers::OfOthers,
    }
}

/// Raises the limit of open files to the hard limit, and returns the limit in force.
fn raise_file_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => current,
    }
    .unwrap_or(u64::MAX)
}

async fn bind(key: &str, flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("cannot listen on {address}; choose another address with {flag} or {key}"))
}

/// Binds the local socket in a private folder and moves it, so that no other user can ever connect to it.
fn bind_local(path: &Path) -> anyhow::Result<UnixListener> {
    let bound = || {
        let folder = path.parent().unwrap_or(Path::new("."));
        let private = tempfile::Builder::new().prefix(".sock-").rand_bytes(3).tempdir_in(folder)?;
        let inside = private.path().join("s");
        let listener = UnixListener::bind(&inside)?;
        fs::set_permissions(&inside, Permissions::from_mode(0o600))?;
        // This process holds the folder's lock, so an existing socket was left by a process that has ended.
        fs::rename(&inside, path)?;
        Ok::<_, io::Error>(listener)
    };
    bound().with_context(|| format!("cannot listen on {}; a shorter --data-dir may help", path.display()))
}

/// Logs how many connections and requests were refused for want of a place: at once, then at most once a minute.
async fn tell_turned_away(endpoints: [Arc<Endpoint>; 3]) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = endpoints.each_ref().map(|_| (TurnedAway::default(), Duration::ZERO));
    loop {
        ticks.tick().await;
        for (endpoint, (before, next)) in endpoints.iter().zip(&mut told) {
            let (so_far, now) = (endpoint.turned_away(), endpoint.app.clock.elapsed());
            if so_far == *before || now < *next {
                continue;
            }
            let since = so_far - *before;
            let TurnedAway { connections, requests } = since;
            let most_from = endpoint.most_from(since).map(tracing::field::display);
            let listener = endpoint.listener.name();
            warn!(listener, connections, requests, most_from, "turned away: there were too many");
            (*before, *next) = (so_far, now + TELL_EVERY);
        }
    }
}

async fn sweep(app: Arc<App>) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(e) = admin::upgrade_key(&app).await {
            warn!(error = %e, "the signing key could not be followed by one with a refresh key");
        }
        if let Err(e) = app.sweep().await {
            warn!(error = %e, "expired sessions could not be swept");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::{clock::Clock, random::Random};

    #[tokio::test]
    async fn a_task_that_panics_or_ends_stops_the_service_by_its_name() {
        for panicked in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let mut config = Config::default();
            config.server.data_dir = folder.path().join("data");
            (config.server.listen, config.server.management_listen) =
                ("127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
            let app = App::open(&config, None, Clock::System, Random::System).await.unwrap();
            let mut server = Server::bind(app, &config).await.unwrap();
            server.tasks.run("test", async move { assert!(!panicked, "a task's own words") });
            assert_eq!(server.run(pending()).await, Err(TaskEnded { name: "test", panicked }));
        }
    }
}
