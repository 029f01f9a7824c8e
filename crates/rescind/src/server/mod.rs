//! Listeners, connections, and an orderly end.

mod accept;
mod pool;
mod slot;
mod tls;
mod watched;

use std::{
    fs::{self, Permissions},
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{info, warn};

use crate::{
    app::App,
    config::{self, Config},
    http::{self, client_ip::TrustedProxies},
};
use accept::{Gate, accept_local, accept_tcp};
use pool::{Bounds, Pool};
use tls::{Reload, Side, Tls};

const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Operators and followers have places of their own, whatever goes on in public.
const MANAGEMENT_CONNECTIONS: usize = 1000;
const LOCAL_CONNECTIONS: usize = 100;
/// Files that are open for other purposes: the store, listeners, connections to a database.
const OTHER_FILES: usize = 250;

/// A service with its listeners bound, not yet answering.
pub struct Server {
    app: Arc<App>,
    public: TcpListener,
    management: TcpListener,
    local: UnixListener,
    proxies: TrustedProxies,
    tls: Option<(Arc<Tls>, Reload)>,
    tls_management: bool,
    bounds: Bounds,
    drain_timeout: Duration,
}

impl Server {
    /// Binds both listeners and the socket in the data folder.
    pub async fn bind(app: Arc<App>, config: &Config) -> anyhow::Result<Server> {
        let tls = tls::open(&config.tls, app.clock.clone())?;
        let proxies = TrustedProxies {
            networks: config.server.trusted_proxies.clone(),
            header: config.server.client_address_header.clone(),
        };
        Ok(Server {
            public: bind("server.listen", "--listen", config.server.listen).await?,
            management: bind(
                "server.management_listen",
                "--management-listen",
                config.server.management_listen,
            )
            .await?,
            local: bind_local(&app.folder().socket())?,
            proxies,
            tls,
            tls_management: config.tls.management,
            bounds: bounds(&config.server),
            drain_timeout: config.server.drain_timeout.into(),
            app,
        })
    }

    /// Where the public listener is.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.public.local_addr()
    }

    /// Where the management listener is.
    pub fn management_address(&self) -> io::Result<SocketAddr> {
        self.management.local_addr()
    }

    /// Answers until `stop`, then lets requests under way finish.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Server { app, public, management, local, proxies, tls, tls_management, bounds, drain_timeout } =
            self;
        let (tls, reload) = tls.unzip();
        let drain = watch::Sender::new(false);
        let gate = |router, bounds, http| Gate {
            app: Arc::clone(&app),
            router,
            pool: Pool::new(bounds, app.clock.clone(), app.random.clone()),
            proxies: TrustedProxies::default(),
            tls: None,
            http,
            draining: drain.subscribe(),
        };
        let aside = |connections| Bounds { in_all: connections, per_network: connections, ..bounds };
        let public_gate = Gate {
            proxies: proxies.clone(),
            tls: tls.clone().map(|tls| (tls, Side::Public)),
            ..gate(http::public(Arc::clone(&app), proxies), bounds, accept::http())
        };
        let management_gate = Gate {
            tls: tls.filter(|_| tls_management).map(|tls| (tls, Side::Management)),
            ..gate(
                http::management(Arc::clone(&app)),
                aside(MANAGEMENT_CONNECTIONS),
                accept::http().http1_only(),
            )
        };
        let local_gate =
            gate(http::local(Arc::clone(&app)), aside(LOCAL_CONNECTIONS), accept::http().http1_only());
        let pool = Arc::clone(&public_gate.pool);
        let public = accept_tcp(public, public_gate);
        let management = accept_tcp(management, management_gate);
        let local = accept_local(local, local_gate);
        let sweeping = sweep(&app, &pool);
        let reloading = async {
            match reload {
                Some(reload) => reload.run().await,
                None => std::future::pending().await,
            }
        };
        {
            let mut stop = pin!(stop);
            // The accept loops end with this block, and their listeners with them.
            tokio::select! {
                () = &mut stop => {}
                () = async { tokio::join!(public, management, local, sweeping, reloading); } => {}
            }
        }
        info!("draining");
        app.begin_drain();
        drain.send_replace(true);
        if timeout(drain_timeout, drain.closed()).await.is_err() {
            warn!(after = ?drain_timeout, "requests under way were cut off");
        }
        info!("stopped");
    }
}

/// As configured, as far as the process may open files.
fn bounds(config: &config::Server) -> Bounds {
    let files = usize::try_from(raise_file_limit()).unwrap_or(usize::MAX);
    let most = files.saturating_sub(MANAGEMENT_CONNECTIONS + LOCAL_CONNECTIONS + OTHER_FILES).max(100);
    let in_all = config.max_connections.min(most);
    if in_all < config.max_connections {
        warn!(files, in_all, "server.max_connections is more than the process may open: see ulimit -n");
    }
    Bounds {
        in_all,
        per_network: config.max_connections_per_address,
        request: config.request_timeout.into(),
        idle: config.idle_timeout.into(),
    }
}

/// Lets the process open as many files as it may let itself.
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

/// For this user alone, from the moment it exists: it is made in a folder that nobody else may enter.
fn bind_local(path: &Path) -> anyhow::Result<UnixListener> {
    let bound = || {
        let folder = path.parent().unwrap_or(Path::new("."));
        let private = tempfile::Builder::new().prefix(".sock-").rand_bytes(3).tempdir_in(folder)?;
        let inside = private.path().join("s");
        let listener = UnixListener::bind(&inside)?;
        fs::set_permissions(&inside, Permissions::from_mode(0o600))?;
        // The folder's lock is held, so a socket that is there was left by a process that is gone.
        fs::rename(&inside, path)?;
        Ok::<_, io::Error>(listener)
    };
    bound().with_context(|| format!("cannot listen on {}; a shorter --data-dir may help", path.display()))
}

async fn sweep(app: &Arc<App>, public: &Pool) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let turned_away = public.turned_away();
        if turned_away > 0 {
            warn!(turned_away, "connections were refused or closed: there were too many");
        }
        if let Err(e) = app.sweep().await {
            warn!(error = %e, "expired sessions could not be swept");
        }
    }
}
