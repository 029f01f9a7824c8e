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
    conn_limit::{Admitted, Full, Pool},
    conn_state::{ConnState, Overdue, Patience},
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

/// Where hyper gives up. The service's own limits are lower; the longest target that hyper reads fits in.
const MAX_HEAD_BYTES: u32 = 68 * 1024;
const MAX_HEADERS: usize = 256;
/// What one HTTP/2 connection may have under way at once, and on its way here, in bytes.
const STREAMS: u32 = 100;
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
const SEND_BUFFER: usize = 64 * 1024;
/// Streams reset by the peer before they were looked at, and those that we reset for its errors.
const RESETS: usize = 20;
const ERROR_RESETS: usize = 100;
const PING_EVERY: Duration = Duration::from_secs(20);
/// A pause after a failed accept: the machine is out of something, and asking on would not help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// For telling a peer whose time is over that it is.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a listener's connections lead to, and under what conditions.
pub(super) struct Gate {
    pub(super) listener: Listener,
    pub(super) app: Arc<App>,
    pub(super) door: Door,
    pub(super) connections: Arc<Pool<ConnState>>,
    pub(super) requests: Arc<Pool<Asked>>,
    pub(super) patience: Patience,
    /// Theirs are counted in all only.
    pub(super) proxies: TrustedProxies,
    pub(super) tls: Option<(Arc<Tls>, Side)>,
    pub(super) http: auto::Builder<TokioExecutor>,
    /// Becomes true when the service stops. Its sender waits for the last connection to let go of it.
    pub(super) draining: watch::Receiver<bool>,
}

/// How many connections and requests there was no place for.
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

/// HTTP/1.1, and HTTP/2 where the connection begins with its preface.
pub(super) fn http() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Its own time limit for heads would hold for idle connections too: `Overdue` tells them apart.
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
pub(super) async fn accept_tcp(listener: TcpListener, gate: Arc<Gate>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let peer = peer.ip().to_canonical();
                match gate.admit(gate.counted(peer)) {
                    Ok(admitted) => {
                        let _ = stream.set_nodelay(true);
                        tokio::spawn(Arc::clone(&gate).lead(stream, Some(peer), admitted));
                    }
                    Err(Full) => gate.refuse(&stream, peer),
                }
            }
            Err(e) => accept_failed(&e).await,
        }
    }
}

/// Accepts for ever.
pub(super) async fn accept_local(listener: UnixListener, gate: Arc<Gate>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // When the pool is full, whoever asks sees the connection closed.
                if let Ok(admitted) = gate.admit(None) {
                    tokio::spawn(Arc::clone(&gate).lead(stream, None, admitted));
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

impl Gate {
    /// Says why, as far as that needs no waiting, and closes.
    fn refuse(&self, stream: &TcpStream, peer: IpAddr) {
        debug!(%peer, "no place for a connection");
        if self.tls.is_none() {
            let _ = stream.try_write(&http::too_many_connections(&self.app));
            // What is left unread would turn the close into a reset.
            let _ = stream.try_read(&mut [0; 4096]);
        }
    }

    /// The certificate of a connection's other end. One that cannot be read is none.
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

    /// The network that has most of what there was no place for.
    pub(super) fn most_from(&self, turned_away: TurnedAway) -> Option<IpAddr> {
        match turned_away.requests {
            0 => self.connections.most_from(),
            _ => self.requests.most_from(),
        }
    }

    /// Whom a connection from there counts for. Aside from the public, any may make room for any.
    fn counted(&self, peer: IpAddr) -> Option<IpAddr> {
        let is_anybody = self.listener == Listener::Public && !self.proxies.trusts(peer);
        is_anybody.then(|| network(peer))
    }

    fn admit(&self, network: Option<IpAddr>) -> Result<Arc<Admitted<ConnState>>, Full> {
        self.connections.admit(ConnState::new(network, self.app.clock.clone())).map(Arc::new)
    }

    async fn drained(&self) {
        // What is waited for is not kept: it is locked while it is held.
        drop(self.draining.clone().wait_for(|&draining| draining).await);
    }

    /// A connection's life.
    async fn lead<IO>(self: Arc<Gate>, io: IO, address: Option<IpAddr>, admitted: Arc<Admitted<ConnState>>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let slot = Arc::clone(&admitted.guest);
        let io = TimeoutIo::new(io, Arc::clone(&slot), self.patience.request);
        tokio::select! {
            biased;
            () = slot.closed() => debug!("a connection was closed to make room"),
            () = self.open(io, address, &admitted) => {}
        }
    }

    async fn open<IO>(&self, io: TimeoutIo<IO>, address: Option<IpAddr>, admitted: &Arc<Admitted<ConnState>>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let overdue = Overdue::new(Arc::clone(&admitted.guest), self.patience);
        let peer = address.map(|address| Peer { address, certificate: None });
        match &self.tls {
            None => self.serve(io, peer, admitted, overdue).await,
            // Twice as large: a plain connection is to have no room for it.
            Some((tls, side)) => Box::pin(self.shake(tls.config(*side), io, peer, admitted, overdue)).await,
        }
    }

    async fn shake<IO>(
        &self,
        tls: Arc<ServerConfig>,
        io: TimeoutIo<IO>,
        mut peer: Option<Peer>,
        admitted: &Arc<Admitted<ConnState>>,
        mut overdue: Overdue,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = TlsAcceptor::from(tls).accept(io);
        let shaken = tokio::select! {
            shaken = handshake => shaken,
            () = &mut overdue => Err(io::ErrorKind::TimedOut.into()),
            () = self.drained() => return,
        };
        match shaken {
            Ok(stream) => {
                if let Some(peer) = &mut peer {
                    peer.certificate = self.shown(stream.get_ref().1, peer.address);
                }
                self.serve(stream, peer, admitted, overdue).await;
            }
            Err(e) => debug!(error = %e, "a TLS handshake failed"),
        }
    }

    async fn serve<IO>(
        &self,
        io: IO,
        peer: Option<Peer>,
        admitted: &Arc<Admitted<ConnState>>,
        mut overdue: Overdue,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Gate { app, http, .. } = self;
        let service = service_fn(|request: Request<Incoming>| {
            let asked = Asked::new(&admitted.guest, request.version(), app.clock.clone());
            let place = self.requests.admit(asked).ok();
            let request = request.map(|body| match &place {
                Some(place) if !body.is_end_stream() => {
                    let asked = Arc::clone(&place.guest);
                    Body::new(AwaitedBody::new(body, asked, self.patience.request))
                }
                _ => Body::empty(),
            });
            let connection = Arc::clone(admitted);
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
                    () = overdue => Ok(()),
                }
            }
            () = &mut overdue => {
                connection.as_mut().graceful_shutdown();
                timeout(LAST_WORDS, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(e) = ended {
            debug!(error = %e, "a connection ended badly");
        }
    }
}
