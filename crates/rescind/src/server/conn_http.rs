//! HTTP over one connection: its version, its requests, and its rest between them.
//!
//! hyper keeps 16 kB for a connection over HTTP/1.1 as long as it serves the connection. So hyper gives an idle connection
//! up after a short time, and serves it anew when the next request begins. A connection that rests costs its task alone.

use std::{
    convert::Infallible,
    error::Error as StdError,
    io,
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
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
    service::{HttpService, service_fn},
};
use hyper_util::{rt::TokioIo, server::graceful::GracefulConnection};
use rescind_base::telemetry::metrics::Listener;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};
use tracing::debug;

use super::{
    asked::{Asked, AwaitedBody, discard},
    conn_limit::ConnPermit,
    conn_state::{ConnDeadline, ConnState},
    endpoint::Endpoint,
};
use crate::http::{ErrorRewriter, Exchange, Vouched, client_ip::Peer};

/// How long a graceful shutdown of a connection whose deadline has passed may take.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What a client sends first over HTTP/2 (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Endpoint {
    /// Serves a connection until it ends.
    pub(super) async fn serve<IO>(
        &self,
        io: IO,
        peer: Peer,
        permit: &Arc<ConnPermit<ConnState>>,
        mut deadline: ConnDeadline,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let answer = |mut request: Request<Incoming>| {
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
        };
        let io = ErrorRewriter::new(io, self.app.clock.clone(), self.app.random.clone());
        let mut io = Rewound { io, read: Vec::new() };
        let mut http2 = self.http.http2.as_ref();
        loop {
            let begun = tokio::select! {
                biased;
                begun = io.begins(http2.is_some()) => begun,
                () = self.drained() => Ok(Begun::Ended),
                () = &mut deadline => Ok(Begun::Ended),
            };
            let service = service_fn(&answer);
            // Boxed, so that a connection at rest needs no memory for what hyper keeps.
            let ended = match (begun, http2) {
                // Over TLS the peer is told.
                (Ok(Begun::Ended), _) => {
                    _ = timeout(LAST_WORDS, io.shutdown()).await;
                    return;
                }
                (Ok(Begun::Http2), Some(http2)) => {
                    let mut connection = Box::pin(http2.serve_connection(TokioIo::new(io), service));
                    Box::pin(self.converse(connection.as_mut(), &mut deadline)).await.map(|()| None)
                }
                (Ok(_), _) => Box::pin(self.until_rest(io, service, permit, &mut deadline)).await,
                (Err(error), _) => Err(error.into()),
            };
            match ended {
                Ok(Some(at_rest)) => (io, http2) = (at_rest, None),
                Ok(None) => return,
                Err(error) => return debug!(%error, "a connection ended badly"),
            }
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

    /// Serves requests over HTTP/1.1 until the connection ends, or rests.
    async fn until_rest<IO, S>(
        &self,
        io: Rewound<IO>,
        service: S,
        permit: &ConnPermit<ConnState>,
        deadline: &mut ConnDeadline,
    ) -> Result<Option<Rewound<IO>>, Failed>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: HttpService<Incoming, ResBody = Body, Error = Infallible> + Unpin,
    {
        let mut connection = self.http.http1.serve_connection(TokioIo::new(io), service);
        tokio::select! {
            biased;
            ended = self.converse(Pin::new(&mut connection), deadline) => return ended.map(|()| None),
            // Answers of other listeners may be streams, of which hyper still has a part.
            () = ConnDeadline::of_rest(&permit.holder), if self.listener == Listener::Public => {}
        }
        let parts = connection.into_parts();
        let mut io = parts.io.into_inner();
        if !parts.read_buf.is_empty() {
            // A part of the next request came with the last one.
            permit.holder.read();
            io.read.splice(..0, parts.read_buf);
        }
        Ok(Some(io))
    }

    /// Serves requests until the connection ends, its deadline passes, or the service stops.
    async fn converse<C>(
        &self,
        mut connection: Pin<&mut C>,
        deadline: &mut ConnDeadline,
    ) -> Result<(), Failed>
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
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
            () = &mut *deadline => {
                connection.as_mut().graceful_shutdown();
                timeout(LAST_WORDS, connection).await.unwrap_or(Ok(()))
            }
        };
        Ok(ended?)
    }
}

/// Why a connection has failed, for the log.
type Failed = Box<dyn StdError + Send + Sync>;

/// A connection of which some bytes were read before hyper reads it.
struct Rewound<IO> {
    io: ErrorRewriter<IO>,
    read: Vec<u8>,
}

/// How a connection goes on.
#[derive(Debug, PartialEq, Eq)]
enum Begun {
    Http1,
    Http2,
    Ended,
}

impl<IO: AsyncRead + Unpin> Rewound<IO> {
    /// Waits for the first bytes of a request, and with `may_be_2` until they are the preface of HTTP/2 or differ from it.
    async fn begins(&mut self, may_be_2: bool) -> io::Result<Begun> {
        let mut some = [0; PREFACE.len()];
        while self.read.is_empty() || (may_be_2 && is_begin_of_preface(&self.read)) {
            let most = some.len() - self.read.len();
            let count = self.io.read(&mut some[..most]).await?;
            if count == 0 {
                break;
            }
            self.read.extend_from_slice(&some[..count]);
        }
        Ok(match &*self.read {
            [] => Begun::Ended,
            PREFACE if may_be_2 => Begun::Http2,
            _ => Begun::Http1,
        })
    }
}

/// Whether more bytes decide.
fn is_begin_of_preface(read: &[u8]) -> bool {
    read.len() < PREFACE.len() && PREFACE.starts_with(read)
}

impl<IO: AsyncRead + Unpin> AsyncRead for Rewound<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Rewound { io, read } = &mut *self;
        if read.is_empty() {
            return Pin::new(io).poll_read(cx, buf);
        }
        let count = read.len().min(buf.remaining());
        buf.put_slice(&read[..count]);
        read.drain(..count);
        if read.is_empty() {
            *read = Vec::new();
            // The rest of a head is nearly always there. Read by itself, it would need a second buffer of hyper's.
            if buf.remaining() > 0
                && let Poll::Ready(Err(error)) = Pin::new(io).poll_read(cx, buf)
            {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Rewound<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use rescind_base::{clock::Clock, random::Random};
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    fn pair() -> (Rewound<DuplexStream>, DuplexStream) {
        let (io, peer) = duplex(1024);
        (Rewound { io: ErrorRewriter::new(io, Clock::System, Random::seeded(1)), read: Vec::new() }, peer)
    }

    #[tokio::test]
    async fn the_first_bytes_tell_the_version_and_are_read_again() {
        for (sent, may_be_2, begun) in [
            (&b"GET / HTTP/1.1\r\n"[..], true, Begun::Http1),
            (PREFACE, true, Begun::Http2),
            (PREFACE, false, Begun::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\tand more", true, Begun::Http1),
            (b"PRI * HT", true, Begun::Http1),
            (b"", true, Begun::Ended),
        ] {
            let (mut io, mut peer) = pair();
            let send = async {
                // So that each byte is read by itself.
                for byte in sent {
                    peer.write_all(std::slice::from_ref(byte)).await.unwrap();
                    tokio::task::yield_now().await;
                }
                drop(peer);
            };
            let read = async {
                assert_eq!(io.begins(may_be_2).await.unwrap(), begun, "{sent:?}");
                let mut all = Vec::new();
                io.read_to_end(&mut all).await.unwrap();
                assert_eq!(all, sent);
            };
            tokio::join!(send, read);
        }
    }

    #[tokio::test]
    async fn a_head_that_is_there_is_read_at_once() {
        let (mut io, mut peer) = pair();
        let head = [b'x'; 500];
        peer.write_all(&head).await.unwrap();
        assert_eq!(io.begins(true).await.unwrap(), Begun::Http1);
        assert_eq!(io.read(&mut [0; 1024]).await.unwrap(), head.len());
    }
}
