//! What all connections of a listener share.

use std::{future::poll_fn, net::IpAddr, ops::Sub, pin::pin, sync::Arc, task::Poll, time::Duration};

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rescind_base::telemetry::metrics::Listener;
use rescind_node::{app::App, limits::network};
use tokio::{sync::watch, task::unconstrained};

use super::{
    asked::Asked,
    conn_limit::{ConnLimit, ConnPermit, Full},
    conn_state::{ConnState, Timeouts},
    tls::{Side, Tls},
};
use crate::http::{Routes, client_ip::TrustedProxies};

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
    pub(super) http: Http,
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

/// How a listener's connections are served.
pub(super) struct Http {
    pub(super) http1: http1::Builder,
    /// `None`: HTTP/1.1 alone.
    pub(super) http2: Option<http2::Builder<TokioExecutor>>,
}

impl Http {
    pub(super) fn only_1() -> Http {
        let mut http1 = http1::Builder::new();
        // hyper's time limit for heads would apply to idle connections too. `ConnDeadline` distinguishes the two.
        http1.max_buf_size(MAX_HEAD_BYTES as usize).header_read_timeout(None);
        Http { http1, http2: None }
    }

    /// HTTP/1.1, and HTTP/2 if the connection begins with its preface.
    pub(super) fn of_either_version() -> Http {
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(MAX_HEAD_BYTES)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_pending_accept_reset_streams(RESETS)
            .max_local_error_reset_streams(ERROR_RESETS)
            .keep_alive_interval(PING_EVERY);
        Http { http2: Some(http2), ..Http::only_1() }
    }
}

impl Endpoint {
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
    pub(super) fn counted(&self, peer: IpAddr) -> Option<IpAddr> {
        let is_anybody = self.listener == Listener::Public && !self.proxies.trusts(peer);
        is_anybody.then(|| network(peer))
    }

    pub(super) fn admit(&self, network: Option<IpAddr>) -> Result<Arc<ConnPermit<ConnState>>, Full> {
        self.connections.admit(ConnState::new(network, self.app.clock.clone())).map(Arc::new)
    }

    /// Waits until the service stops.
    ///
    /// A connection's task polls this for every request. Only the first poll takes the lock that all connections share,
    /// to be woken. The others look whether the value has changed.
    pub(super) async fn drained(&self) {
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
}
