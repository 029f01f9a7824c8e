//! Listeners, connections, and an orderly end.

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
use axum::{Router, extract::Request};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::oneshot,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tower::util::MapRequestLayer;
use tracing::{debug, info, warn};

use crate::{
    app::App,
    cluster,
    config::Config,
    http::{
        self, Enveloped,
        client_ip::{Peer, TrustedProxies},
    },
};

const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Where hyper gives up. The service's own limits are lower.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 256;
/// A pause after a failed accept: the machine is out of something, and asking on would not help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// A service with its listeners bound, not yet answering.
pub struct Server {
    app: Arc<App>,
    public: TcpListener,
    management: TcpListener,
    local: UnixListener,
    proxies: TrustedProxies,
    drain_timeout: Duration,
}

impl Server {
    /// Binds both listeners and the socket in the data folder.
    pub async fn bind(app: Arc<App>, config: &Config) -> anyhow::Result<Server> {
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
        let Server { app, public, management, local, proxies, drain_timeout } = self;
        let (leave, leaving) = oneshot::channel::<()>();
        let node = tokio::spawn({
            let app = Arc::clone(&app);
            async move {
                if let Some(postgres) = app.store.postgres() {
                    cluster::run(&app, postgres, async { _ = leaving.await }).await;
                }
            }
        });
        let graceful = GracefulShutdown::new();
        let public = accept_tcp(public, http::public(Arc::clone(&app), proxies), &app, &graceful);
        let management = accept_tcp(management, http::management(Arc::clone(&app)), &app, &graceful);
        let local = accept_local(local, http::local(Arc::clone(&app)), &app, &graceful);
        let sweeping = sweep(&app);
        {
            let mut stop = pin!(stop);
            // The accept loops end with this block, and their listeners with them.
            tokio::select! {
                () = &mut stop => {}
                () = async { tokio::join!(public, management, local, sweeping); } => {}
            }
        }
        info!("draining");
        app.begin_drain();
        if timeout(drain_timeout, graceful.shutdown()).await.is_err() {
            warn!(after = ?drain_timeout, "requests under way were cut off");
        }
        // Until here its requests had a lease.
        drop(leave);
        if node.await.is_err() {
            warn!("the others will wait for this node's lease");
        }
        info!("stopped");
    }
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

async fn accept_tcp(listener: TcpListener, router: Router, app: &App, graceful: &GracefulShutdown) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                let peer = Peer(peer.ip().to_canonical());
                let with_peer = MapRequestLayer::new(move |mut request: Request<Incoming>| {
                    request.extensions_mut().insert(peer);
                    request
                });
                let service = tower::Layer::layer(&with_peer, router.clone());
                serve(stream, service, app, graceful.watcher());
            }
            Err(e) => accept_failed(&e).await,
        }
    }
}

async fn accept_local(listener: UnixListener, router: Router, app: &App, graceful: &GracefulShutdown) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => serve(stream, router.clone(), app, graceful.watcher()),
            Err(e) => accept_failed(&e).await,
        }
    }
}

async fn accept_failed(error: &io::Error) {
    warn!(%error, "a connection could not be accepted");
    sleep(ACCEPT_PAUSE).await;
}

fn serve<IO, S>(stream: IO, service: S, app: &App, watcher: Watcher)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: tower::Service<
            Request<Incoming>,
            Response = axum::response::Response,
            Error = std::convert::Infallible,
            Future: Send,
        > + Clone
        + Send
        + Sync
        + 'static,
{
    let io = TokioIo::new(Enveloped::new(stream, app.clock.clone(), app.random.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(io, TowerToHyperService::new(service));
    tokio::spawn(async move {
        if let Err(e) = watcher.watch(connection).await {
            debug!(error = %e, "a connection ended badly");
        }
    });
}

async fn sweep(app: &Arc<App>) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(e) = app.sweep().await {
            warn!(error = %e, "expired sessions could not be swept");
        }
    }
}
