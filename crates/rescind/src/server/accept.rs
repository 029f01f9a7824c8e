//! From an accepted socket to requests.

use std::{convert::Infallible, io, net::IpAddr, ops::Sub, pin::pin, sync::Arc, time::Duration};

use axum::{body::Body, extract::Request};
use futures_util::FutureExt;
use hyper::{
    body::{Body as _, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConnection};
use tracing::{debug, warn};

use super::{
    asked::{Asked, AwaitedBody},
    conn_limit::{ConnLimit, ConnPermit, Full},
    conn_state::{ConnDeadline, ConnState, Patience},
    io_timeout::TimeoutIo,
    tls::{Side, Tls, peer_certificate},
};
use crate::{
    app::App,
    http::{
        self, Door, ErrorRewriter, Vouched,
        client_ip::{Peer, TrustedProxies},
    },
    limits::network,
    model::PeerCertificate,
    telemetry::metrics::Listener,
};

/// hyper's limits for a head. The service's own limits are lower. The longest target that hyper reads fits in.
const MAX_HEAD_BYTES: u32 = 68 * 1024;
const MAX_HEADERS: usize = 256;
/// Limits of one HTTP/2 connection: concurrent streams, and buffered bytes.
const STREAMS: u32 = 100;
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
const SEND_BUFFER: usize = 64 * 1024;
/// Limits of one HTTP/2 connection: streams reset by the peer before they were accepted, or by us for its errors.
const RESETS: usize = 20;
const ERROR_RESETS: usize = 100;
const PING_EVERY: Duration = Duration::from_secs(20);
/// The pause after a failed accept. The machine lacks a resource then, and an immediate retry would fail too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a graceful shutdown of an deadline connection may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// One listener's routes, limits, timeouts and TLS.
pub(super) struct Endpoint {
    pub(super) listener: Listener,
    pub(super) app: Arc<App>,
    pub(super) door: Door,
    pub(super) connections: Arc<ConnLimit<ConnState>>,
    pub(super) requests: Arc<ConnLimit<Asked>>,
    pub(super) patience: Patience,
    /// Connections of these proxies have no limit per network, only the limit in all.
    pub(super) proxies: TrustedProxies,
    pub(super) tls: Option<(Arc<Tls>, Side)>,
    pub(super) http: auto::Builder<TokioExecutor>,
    /// Becomes true when the service stops. Its sender waits until every connection has dropped its receiver.
    pub(super) draining: watch::Receiver<bool>,
}

/// How many connections and requests were refused or closed for want of a place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TurnedAway {
    pub(super) connections: u64,
    pub(super) requests: u64,
}

impl Sub for TurnedAway {
    type Output = TurnedAway;

    fn sub(self, before: TurnedAway) -> TurnedAway {
        let (connections, requests) =
            (self.connections - before.connections, self.requests - before.requests);
        TurnedAway { connections, requests }
    }
}

/// Serves HTTP/1.1, and HTTP/2 if the connection begins with the HTTP/2 preface.
pub(super) fn http() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // hyper's time limit for heads would apply to idle connections too. `ConnDeadline` distinguishes the two.
    builder.http1().max_buf_size(MAX_HEAD_BYTES as usize).max_headers(MAX_HEADERS).header_read_timeout(None);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(ERROR_RESETS)
        .keep_alive_interval(PING_EVERY);
    builder
}

/// Accepts for ever.
pub(super) async fn accept_tcp(listener: TcpListener, endpoint: Arc<Endpoint>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let peer = peer.ip().to_canonical();
                match endpoint.admit(endpoint.counted(peer)) {
                    Ok(permit) => {
                        let _ = stream.set_nodelay(true);
                        tokio::spawn(Arc::clone(&endpoint).handle_connection(stream, Some(peer), permit));
                    }
                    Err(Full) => endpoint.refuse(&stream, peer),
                }
            }
            Err(e) => accept_failed(&e).await,
        }
    }
}

/// Accepts for ever.
pub(super) async fn accept_local(listener: UnixListener, endpoint: Arc<Endpoint>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // If the pool is full, the connection is closed without an answer.
                if let Ok(permit) = endpoint.admit(None) {
                    tokio::spawn(Arc::clone(&endpoint).handle_connection(stream, None, permit));
                }
            }
            Err(e) => accept_failed(&e).await,
        }
    }
}

async fn accept_failed(error: &io::Error) {
    warn!(%error, "a connection could not be accepted");
    sleep(ACCEPT_PAUSE).await;
}

impl Endpoint {
    /// Sends the reason if that needs no waiting. The caller then closes the connection.
    fn refuse(&self, stream: &TcpStream, peer: IpAddr) {
        debug!(%peer, "no place for a connection");
        if self.tls.is_none() {
            let _ = stream.try_write(&http::too_many_connections(&self.app));
            // Unread bytes would turn the close into a reset, and the peer could lose the answer.
            let _ = stream.try_read(&mut [0; 4096]);
        }
    }

    /// Returns the peer's certificate. A certificate that cannot be read counts as none, and is logged.
    fn shown(&self, connection: &ServerConnection, peer: IpAddr) -> Option<Arc<PeerCertificate>> {
        let shown = peer_certificate(connection)?.inspect_err(|error| {
            if let Some(times) = self.app.log_limits.unreadable.due(network(peer)) {
                warn!(%peer, %error, times, "a client's certificate cannot be read");
            }
        });
        shown.ok().map(Arc::new)
    }

    pub(super) fn turned_away(&self) -> TurnedAway {
        TurnedAway { connections: self.connections.turned_away(), requests: self.requests.turned_away() }
    }

    /// Returns the network that has most places in the pool that was full.
    pub(super) fn most_from(&self, turned_away: TurnedAway) -> Option<IpAddr> {
        match turned_away.requests {
            0 => self.connections.most_from(),
            _ => self.requests.most_from(),
        }
    }

    /// Returns the network that a connection counts for: none for trusted proxies, and none off the public listener.
    fn counted(&self, peer: IpAddr) -> Option<IpAddr> {
        let is_anybody = self.listener == Listener::Public && !self.proxies.trusts(peer);
        is_anybody.then(|| network(peer))
    }

    fn admit(&self, network: Option<IpAddr>) -> Result<Arc<ConnPermit<ConnState>>, Full> {
        self.connections.admit(ConnState::new(network, self.app.clock.clone())).map(Arc::new)
    }

    async fn drained(&self) {
        // Drop the `watch::Ref` at once: while it lives, senders block.
        drop(self.draining.clone().wait_for(|&draining| draining).await);
    }

    /// Serves a connection until it ends or makes room for another.
    async fn handle_connection<IO>(
        self: Arc<Endpoint>,
        io: IO,
        address: Option<IpAddr>,
        permit: Arc<ConnPermit<ConnState>>,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let slot = Arc::clone(&permit.guest);
        let io = TimeoutIo::new(io, Arc::clone(&slot), self.patience.request);
        tokio::select! {
            biased;
            () = slot.closed() => debug!("a connection was closed to make room"),
            () = self.open(io, address, &permit) => {}
        }
    }

    async fn open<IO>(&self, io: TimeoutIo<IO>, address: Option<IpAddr>, permit: &Arc<ConnPermit<ConnState>>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let deadline = ConnDeadline::new(Arc::clone(&permit.guest), self.patience);
        let peer = address.map(|address| Peer { address, certificate: None });
        match &self.tls {
            None => self.serve(io, peer, permit, deadline).await,
            // Boxed, because this future is twice as large and a plain connection must not reserve memory for it.
            Some((tls, side)) => Box::pin(self.shake(tls.config(*side), io, peer, permit, deadline)).await,
        }
    }

    async fn shake<IO>(
        &self,
        tls: Arc<ServerConfig>,
        io: TimeoutIo<IO>,
        mut peer: Option<Peer>,
        permit: &Arc<ConnPermit<ConnState>>,
        mut deadline: ConnDeadline,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = TlsAcceptor::from(tls).accept(io);
        let shaken = tokio::select! {
            shaken = handshake => shaken,
            () = &mut deadline => Err(io::ErrorKind::TimedOut.into()),
            () = self.drained() => return,
        };
        match shaken {
            Ok(stream) => {
                if let Some(peer) = &mut peer {
                    peer.certificate = self.shown(stream.get_ref().1, peer.address);
                }
                self.serve(stream, peer, permit, deadline).await;
            }
            Err(e) => debug!(error = %e, "a TLS handshake failed"),
        }
    }

    async fn serve<IO>(
        &self,
        io: IO,
        peer: Option<Peer>,
        permit: &Arc<ConnPermit<ConnState>>,
        mut deadline: ConnDeadline,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Endpoint { app, http, .. } = self;
        let service = service_fn(|request: Request<Incoming>| {
            let asked = Asked::new(&permit.guest, request.version(), app.clock.clone());
            let place = self.requests.admit(asked).ok();
            let request = request.map(|body| match &place {
                Some(place) if !body.is_end_stream() => {
                    let asked = Arc::clone(&place.guest);
                    Body::new(AwaitedBody::new(body, asked, self.patience.request))
                }
                _ => Body::empty(),
            });
            let connection = Arc::clone(permit);
            self.door.answer(request, peer.as_ref(), place.is_some()).map(move |answer| {
                if answer.extensions().get::<Vouched>().is_some() {
                    connection.set_aside();
                }
                drop(place);
                Ok::<_, Infallible>(answer)
            })
        });
        let io = TokioIo::new(ErrorRewriter::new(io, app.clock.clone(), app.random.clone()));
        let mut connection = pin!(http.serve_connection(io, service));
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = self.drained() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = deadline => Ok(()),
                }
            }
            () = &mut deadline => {
                connection.as_mut().graceful_shutdown();
                timeout(LAST_WORDS, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(e) = ended {
            debug!(error = %e, "a connection ended badly");
        }
    }
}
