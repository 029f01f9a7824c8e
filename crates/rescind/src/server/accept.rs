//! From an accepted socket to requests.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use rescind_base::model::PeerCertificate;
use rescind_node::limits::network;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConnection};
use tracing::{debug, warn};

use super::{
    conn_limit::{ConnPermit, Full},
    conn_state::{ConnDeadline, ConnState},
    endpoint::Endpoint,
    io_timeout::TimeoutIo,
    local::LocalSocket,
    proxy_protocol::read_header,
    tls::peer_certificate,
};
use crate::http::{self, client_ip::Peer};

/// The pause after a failed accept. The machine lacks a resource then, and an immediate retry would fail too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
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
}
