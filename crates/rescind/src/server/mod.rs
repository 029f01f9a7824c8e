//! Listeners, connections, and the stop of the service.

mod accept;
mod asked;
mod conn_http;
mod conn_limit;
mod conn_state;
mod endpoint;
mod io_timeout;
mod local;
mod periodic;
pub mod proxy_protocol;
mod reload;
mod systemd;
mod tasks;
mod tls;

use std::{future::pending, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use futures_util::{FutureExt, future::BoxFuture};
use rescind_base::{files::circumstances::circumstances, model::UnixSeconds, telemetry::metrics::Listener};
use rescind_node::{
    app::{App, Stage, Urls, rehash_in_passing},
    audit, cluster,
    config::{self, Config},
    usage,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    time::timeout,
};
use tracing::{error, info, warn};

use crate::{
    http::{self, Door, client_ip::TrustedProxies},
    webhooks::{self, Hook},
};
use accept::{accept_local, accept_tcp};
use conn_limit::{Bounds, ConnLimit, Newcomers};
use conn_state::Timeouts;
use endpoint::{Endpoint, Http};
use local::LocalSocket;
use periodic::{note_trends, sweep, tell_turned_away, write_every};
use reload::Reload;
pub use tasks::TaskEnded;
use tasks::Tasks;
use tls::Side;

/// The management listener has its own places, so load on the public one cannot keep operators and probes out. A
/// verifier that has shown its token moves to one of the 1000 places aside. Other peers make room for newcomers.
const MANAGEMENT: Bounds = Bounds { aside: 1000, ..Bounds::of_anybody(500) };
const LOCAL: Bounds = Bounds::of_anybody(100);
/// Names of tasks.
const NODE: &str = "cluster node";
const AUDIT: &str = "audit writer";
const USAGE: &str = "usage writer";
/// File descriptors kept for the store, the listeners and the connections to a database.
const OTHER_FILES: usize = 250;

/// Checks that TLS can be set up with the configured files.
///
/// # Errors
///
/// If a file cannot be read, or they do not belong together.
pub fn check_tls(config: &config::Tls, now: UnixSeconds) -> anyhow::Result<()> {
    Ok(tls::check(config, now)?)
}

/// A service whose listeners are bound. It answers no request yet.
pub struct Server {
    app: Arc<App>,
    public: (TcpListener, Arc<Endpoint>),
    management: (TcpListener, Arc<Endpoint>),
    local: (LocalSocket, Arc<Endpoint>),
    reload: Reload,
    drain: watch::Sender<bool>,
    shutdown_delay: Duration,
    /// Ends that delay.
    at_once: BoxFuture<'static, ()>,
    drain_timeout: Duration,
    tasks: Tasks,
    hooks: Vec<Hook>,
}

impl Server {
    /// Binds both listeners and the socket in the data folder.
    ///
    /// # Errors
    ///
    /// If an address or the socket cannot be bound, or TLS cannot be set up with the configured files.
    pub async fn bind(app: Arc<App>, config: &Config) -> anyhow::Result<Server> {
        let config::Server { listen, management_listen, shutdown_delay, drain_timeout, .. } = config.server;
        let proxies = TrustedProxies {
            networks: config.server.trusted_proxies.clone(),
            header: config.server.client_address_header.clone(),
        };
        let hooks = webhooks::open(&app)?;
        let (tls, certificate) = tls::open(&config.tls, &app)?.unzip();
        let reload = Reload::new(certificate).context("SIGHUP cannot be listened for")?;
        let drain = watch::Sender::new(false);
        let endpoint = |listener, routes, connections, requests| Endpoint {
            listener,
            app: Arc::clone(&app),
            routes,
            connections: ConnLimit::new(connections, app.metrics.connections(listener), app.random.clone()),
            requests: ConnLimit::new(requests, app.metrics.requests_under_way(listener), app.random.clone()),
            timeouts: Timeouts {
                request: config.server.request_timeout.into(),
                idle: config.server.idle_timeout.into(),
            },
            proxies: TrustedProxies::default(),
            proxy_protocol: false,
            tls: None,
            http: Http::only_1(),
            draining: drain.subscribe(),
        };
        let public = Endpoint {
            proxies: proxies.clone(),
            proxy_protocol: config.server.proxy_protocol,
            tls: tls.clone().map(|tls| (tls, Side::Public)),
            http: Http::of_either_version(),
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
                http::management(Arc::clone(&app), door(config)),
                MANAGEMENT,
                // A connection of this listener has one request at a time.
                Bounds::of_anybody(MANAGEMENT.in_all + MANAGEMENT.aside),
            )
        };
        let local = endpoint(Listener::Local, http::local(Arc::clone(&app)), LOCAL, LOCAL);
        let public_listener = bind("server.listen", "--listen", listen).await?;
        let management_listener =
            bind("server.management_listen", "--management-listen", management_listen).await?;
        let urls = Urls {
            public: config.public_url(public_listener.local_addr()?),
            management: config.management_url(management_listener.local_addr()?),
        };
        // Another server of this app, in a test, leaves them as they are.
        let _ = app.urls.set(urls);
        Ok(Server {
            public: (public_listener, Arc::new(public)),
            management: (management_listener, Arc::new(management)),
            local: (bind_local(app.folder().socket())?, Arc::new(local)),
            reload,
            drain,
            shutdown_delay: shutdown_delay.into(),
            at_once: pending().boxed(),
            drain_timeout: drain_timeout.into(),
            tasks: Tasks::default(),
            hooks,
            app,
        })
    }

    /// Lets `at_once` end `server.shutdown_delay`.
    pub fn end_delay_by(&mut self, at_once: impl Future<Output = ()> + Send + 'static) {
        self.at_once = at_once.boxed();
    }

    /// Whether the dashboard is open: not without TLS on an address that others reach.
    pub fn opens_dashboard(config: &Config) -> bool {
        door(config) != Door::Closed
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

    /// Calls `settings` at each SIGHUP.
    pub fn reload_settings(&mut self, settings: impl FnMut() + Send + 'static) {
        self.reload.settings = Box::new(settings);
    }

    /// Answers requests until `stop` and for the configured delay after it, and then lets the requests under way finish.
    ///
    /// # Errors
    ///
    /// If a task ends that must run until the stop. The service then stops in the same order.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), TaskEnded> {
        let Server {
            app,
            public,
            management,
            local,
            reload,
            drain,
            shutdown_delay,
            at_once,
            drain_timeout,
            mut tasks,
            hooks,
        } = self;
        let (give_up, giving_up) = oneshot::channel::<()>();
        if app.store.postgres().is_some() {
            tasks.run_to_end(NODE, keep_node(Arc::clone(&app), async { _ = giving_up.await }));
        }
        let (write_all, writing_all) = oneshot::channel::<()>();
        let writing_all = writing_all.map(drop).shared();
        let audited = Arc::clone(&app);
        let write = async move || audited.audit.write(&audited.store).await;
        tasks.run_to_end(AUDIT, write_every(audit::WRITE_EVERY, write, writing_all.clone()));
        let counted = Arc::clone(&app);
        let write = async move || counted.usage.write(&counted.store).await;
        tasks.run_to_end(USAGE, write_every(usage::WRITE_EVERY, write, writing_all));
        let endpoints = [&public.1, &management.1, &local.1].map(Arc::clone);
        tasks.run("public listener", accept_tcp(public.0, public.1));
        tasks.run("management listener", accept_tcp(management.0, management.1));
        tasks.run("local listener", accept_local(local.0, local.1));
        tasks.run("report of who was turned away", tell_turned_away(endpoints));
        tasks.run("sweep", sweep(Arc::clone(&app)));
        tasks.run("rehash", rehash_in_passing(Arc::clone(&app)));
        let sent = Arc::clone(&app);
        tasks.run("webhooks", async move { match webhooks::run(sent, hooks).await {} });
        tasks.run("trends", note_trends(Arc::clone(&app)));
        tasks.run("reload", reload.run());
        // It tells that the process lives until its very end.
        tokio::spawn(systemd::keep_watchdog_quiet());
        systemd::ready();
        let leave = async {
            stop.await;
            systemd::stopping();
            app.enter(Stage::Leaving);
            if !shutdown_delay.is_zero() {
                info!(delay = ?shutdown_delay, "stopping soon: /readyz is 503, and requests are still answered");
                if timeout(shutdown_delay, at_once).await.is_ok() {
                    info!("a second signal: the delay ends now");
                }
            }
        };
        let outcome = tokio::select! {
            () = leave => Ok(()),
            ended = tasks.ended() => Err(ended),
        };
        if let Err(TaskEnded { name, panicked }) = outcome {
            error!(task = name, panicked, "a task ended that must run until the stop: the service stops");
        }
        // Ends the accept loops, which closes the listeners.
        tasks.stop().await;
        info!("draining");
        app.enter(Stage::Closing);
        drain.send_replace(true);
        if timeout(drain_timeout, drain.closed()).await.is_err() {
            warn!(after = ?drain_timeout, "requests under way were cut off");
        }
        webhooks::release(&app).await;
        drop(write_all);
        // The node gives up its lease only now, because the requests that were just answered needed it.
        drop(give_up);
        while let Some(TaskEnded { name, panicked }) = tasks.finished().await {
            match name {
                AUDIT if panicked => warn!("what callers tried of late was not written"),
                USAGE if panicked => warn!("how clients were used of late was not written"),
                NODE if panicked => warn!("the others will wait for this node's lease"),
                _ => {}
            }
        }
        info!("stopped");
        outcome
    }
}

fn door(config: &Config) -> Door {
    match config.tls.management {
        true => Door::Tls,
        false if config.server.management_listen.ip().is_loopback() => Door::Loopback,
        false => Door::Closed,
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

fn bind_local(path: PathBuf) -> anyhow::Result<LocalSocket> {
    LocalSocket::bind(path.clone()).map_err(|e| {
        let hint = match e.kind() {
            io::ErrorKind::InvalidInput => "; a shorter --data-dir helps".to_owned(),
            _ => circumstances(&path, &e),
        };
        anyhow!("cannot listen on {}: {e}{hint}", path.display())
    })
}

async fn bind(key: &str, flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("cannot listen on {address}; choose another address with {flag} or {key}"))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use rescind_base::{clock::Clock, random::Random};

    use super::*;

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
