//! From an accepted socket to requests.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    net::IpAddr,
    ops::{ControlFlow, Sub},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use axum::{body::Body, extract::Request, response::Response};
use futures_util::{
    FutureExt,
    future::{Either, ready},
};
use hyper::{
    body::{Body as _, Incoming},
    header::{CONNECTION, EXPECT, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::unconstrained,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConnection};
use tracing::{debug, warn};

use super::{
    asked::{Asked, AwaitedBody, discard},
    conn_limit::{ConnLimit, ConnPermit, Full},
    conn_state::{ConnDeadline, ConnState, Timeouts},
    io_timeout::TimeoutIo,
    local::LocalSocket,
    proxy_protocol::read_header,
    tls::{Side, Tls, peer_certificate},
};
use crate::{
    app::App,
    http::{
        self, ErrorRewriter, Exchange, Routes, Vouched,
        client_ip::{Peer, TrustedProxies},
    },
    limits::network,
    model::PeerCertificate,
    telemetry::metrics::Listener,
};

/// hyper's limits for a head. The service's own limits are lower. The longest target that hyper reads fits in.
const MAX_HEAD_BYTES: u32 = 68 * 1024;
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
    pub(super) routes: Routes,
    pub(super) connections: Arc<ConnLimit<ConnState>>,
    pub(super) requests: Arc<ConnLimit<Asked>>,
    pub(super) timeouts: Timeouts,
    /// Connections of these proxies have no limit per network, only the limit in all.
    pub(super) proxies: TrustedProxies,
    /// Their connections begin with a header of the PROXY protocol.
    pub(super) proxy_protocol: bool,
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
    builder.http1().max_buf_size(MAX_HEAD_BYTES as usize).header_read_timeout(None);
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
                        tokio::spawn(Arc::clone(&endpoint).handle_connection(
                            stream,
                            Peer::direct(peer),
                            permit,
                        ));
                    }
                    Err(Full) => endpoint.refuse(&stream, peer),
                }
            }
            Err(e) => accept_failed(&e).await,
        }
    }
}

/// Accepts for ever.
pub(super) async fn accept_local(mut socket: LocalSocket, endpoint: Arc<Endpoint>) {
    loop {
        match socket.accept().await {
            Ok(stream) => {
                // If the pool is full, the connection is closed without an answer.
                if let Ok(permit) = endpoint.admit(None) {
                    let peer = Peer { uid: stream.peer_cred().map(|user| user.uid()).ok(), ..Peer::LOCAL };
                    tokio::spawn(Arc::clone(&endpoint).handle_connection(stream, peer, permit));
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

    /// Waits until the service stops.
    ///
    /// A connection's task polls this for every request. Only the first poll takes the lock that all connections share,
    /// to be woken. The others look whether the value has changed.
    async fn drained(&self) {
        let mut draining = self.draining.clone();
        // Drop the `watch::Ref` at once: while it lives, senders block. A task that has used up its budget is not registered
        // by a poll, unless the future is unconstrained.
        let mut waiting =
            pin!(unconstrained(async move { drop(draining.wait_for(|&draining| draining).await) }));
        let mut is_registered = false;
        poll_fn(|cx| match is_registered && matches!(self.draining.has_changed(), Ok(false)) {
            true => Poll::Pending,
            false => {
                is_registered = true;
                waiting.as_mut().poll(cx)
            }
        })
        .await;
    }

    /// Serves a connection until it ends or makes room for another.
    async fn handle_connection<IO>(
        self: Arc<Endpoint>,
        io: IO,
        peer: Peer,
        permit: Arc<ConnPermit<ConnState>>,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let slot = Arc::clone(&permit.holder);
        let io = TimeoutIo::new(io, Arc::clone(&slot), self.timeouts.request);
        tokio::select! {
            biased;
            () = slot.closed() => debug!("a connection was closed to make room"),
            () = self.open(io, peer, &permit) => {}
        }
    }

    async fn open<IO>(&self, mut io: TimeoutIo<IO>, mut peer: Peer, permit: &Arc<ConnPermit<ConnState>>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut deadline = ConnDeadline::new(Arc::clone(&permit.holder), self.timeouts);
        if self.proxy_protocol && self.proxies.trusts(peer.address) {
            let read = tokio::select! {
                read = read_header(&mut io) => read,
                () = &mut deadline => return,
                () = self.drained() => return,
            };
            match read {
                Ok(named) => peer.named = named.map(|address| address.to_canonical()),
                Err(error) => return debug!(peer = %peer.address, %error, "a connection of a trusted proxy"),
            }
        }
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
        mut peer: Peer,
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
                peer.certificate = self.shown(stream.get_ref().1, peer.address);
                self.serve(stream, peer, permit, deadline).await;
            }
            Err(e) => debug!(error = %e, "a TLS handshake failed"),
        }
    }

    /// Answers a request that has to wait: for its body, or for the store.
    fn answer(
        &self,
        exchange: Exchange,
        request: Request<Incoming>,
        permit: &Arc<ConnPermit<ConnState>>,
    ) -> impl Future<Output = Response> + Send + use<> {
        let asked = Asked::new(&permit.holder, request.version(), self.app.clock.clone());
        let place = self.requests.admit(asked).ok();
        let (limit, waits) = (self.timeouts.request, exchange.waits_for_body());
        // Whoever asks before sending a body is told to send it when somebody reads it, which is not to happen now.
        let asks_before = request.headers().contains_key(EXPECT);
        let request = request.map(|body| match &place {
            Some(place) if !body.is_end_stream() => {
                Body::new(AwaitedBody::new(body, Arc::clone(&place.holder), limit))
            }
            _ => Body::empty(),
        });
        let connection = Arc::clone(permit);
        self.routes.answer(exchange, request, place.is_some()).then(move |mut answer| {
            if answer.extensions().get::<Vouched>().is_some() {
                connection.set_aside();
            }
            // hyper closes a connection with an unread body, and does not say so: the next request would fail.
            match place.filter(|_| waits).and_then(|place| Some((place.holder.take_rest()?, place))) {
                None => Either::Left(ready(answer)),
                Some((rest, place)) => Either::Right(Box::pin(async move {
                    if asks_before || !discard(rest, &place.holder, limit).await {
                        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    answer
                })),
            }
        })
    }

    async fn serve<IO>(
        &self,
        io: IO,
        peer: Peer,
        permit: &Arc<ConnPermit<ConnState>>,
        mut deadline: ConnDeadline,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Endpoint { app, http, .. } = self;
        let service = service_fn(|mut request: Request<Incoming>| {
            permit.holder.begin(request.version());
            let answered = self.routes.answer_at_once(&mut request, &peer);
            permit.holder.end();
            match answered {
                ControlFlow::Break(answer) => Either::Left(ready(Ok::<_, Infallible>(answer))),
                // Boxed, so that the connection of a request that is answered at once needs no memory for it.
                ControlFlow::Continue(exchange) => {
                    Either::Right(Box::pin(self.answer(exchange, request, permit).map(Ok)))
                }
            }
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
