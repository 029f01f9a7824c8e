//! Connections to a server, over TCP or TLS.

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{
    FeedError, Options, SILENCE,
    session::{failed, within},
    tls::Tls,
};

/// A listener of a server, as [`Options`] name it: `host:port`, `http://host:port` or `https://host:port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listener<'o> {
    /// For the header `Host`.
    pub(super) authority: &'o str,
    is_https: bool,
}

impl<'o> Listener<'o> {
    pub(super) fn new(named: &'o str) -> Listener<'o> {
        let named = named.trim_end_matches('/');
        match named.strip_prefix("https://") {
            Some(authority) => Listener { authority, is_https: true },
            None => Listener { authority: named.strip_prefix("http://").unwrap_or(named), is_https: false },
        }
    }

    /// The host, without the brackets of an IPv6 address, and the port.
    fn host_and_port(self) -> (&'o str, u16) {
        let default = if self.is_https { 443 } else { 80 };
        let (host, port) = match self.authority.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
            Some((host, Ok(port))) => (host, port),
            _ => (self.authority, default),
        };
        (host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host), port)
    }
}

/// Opens the connections of one follower.
#[derive(Debug)]
pub(super) struct Connector {
    /// `None`: no listener is one of HTTPS.
    tls: Option<Tls>,
}

impl Connector {
    pub(super) fn new(options: &Options) -> Connector {
        let listeners = [Some(&options.server), options.introspection.as_ref()];
        let is_needed = listeners.into_iter().flatten().any(|named| Listener::new(named).is_https);
        Connector { tls: is_needed.then(|| Tls::new(options)) }
    }

    pub(super) async fn connect(&self, to: Listener<'_>) -> Result<SendRequest<Full<Bytes>>, FeedError> {
        let (host, port) = to.host_and_port();
        let stream =
            within(SILENCE, async { TcpStream::connect((host, port)).await.map_err(failed) }).await?;
        let _ = stream.set_nodelay(true);
        match self.tls.as_ref().filter(|_| to.is_https) {
            Some(tls) => begin(within(SILENCE, tls.shake(host, stream)).await?).await,
            None => begin(stream).await,
        }
    }
}

async fn begin(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>, FeedError> {
    let (requests, connection) = handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::spawn(connection);
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_a_host_and_a_port_with_or_without_a_scheme() {
        for (named, authority, is_https, host, port) in [
            ("127.0.0.1:8081", "127.0.0.1:8081", false, "127.0.0.1", 8081),
            ("http://id.example:8081/", "id.example:8081", false, "id.example", 8081),
            ("https://id.example:8081", "id.example:8081", true, "id.example", 8081),
            ("https://id.example/", "id.example", true, "id.example", 443),
            ("id.example", "id.example", false, "id.example", 80),
            ("https://[2001:db8::1]:8081", "[2001:db8::1]:8081", true, "2001:db8::1", 8081),
            ("[::1]:8081", "[::1]:8081", false, "::1", 8081),
        ] {
            let listener = Listener::new(named);
            assert_eq!(listener, Listener { authority, is_https }, "{named}");
            assert_eq!(listener.host_and_port(), (host, port), "{named}");
        }
    }
}
