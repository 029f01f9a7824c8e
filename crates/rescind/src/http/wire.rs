//! The contract's envelope on the answers that hyper gives by itself, to requests whose head cannot
//! be read and which therefore never reach a handler.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    REQUEST_ID,
    error::{ApiError, Class},
};
use crate::{clock::Clock, random::Random};

/// A connection whose every answer is the service's own.
///
/// Every answer of the service carries a request id, so a head without one is hyper's: it closes the
/// connection after it, has no body, and is written whole.
#[derive(Debug)]
pub struct Enveloped<IO> {
    io: IO,
    clock: Clock,
    random: Random,
    /// The rest of an answer in place of hyper's.
    pending: Vec<u8>,
}

impl<IO> Enveloped<IO> {
    /// Wraps a connection.
    pub fn new(io: IO, clock: Clock, random: Random) -> Enveloped<IO> {
        Enveloped { io, clock, random, pending: Vec::new() }
    }

    fn replacement(&self, written: &[u8]) -> Option<Vec<u8>> {
        let status = written.strip_prefix(b"HTTP/1.1 ")?.first_chunk::<3>()?;
        let (status, error) = match status {
            b"400" => ("400 Bad Request", ApiError::new(Class::BadRequest, "The request is not valid HTTP")),
            b"414" => {
                ("400 Bad Request", ApiError::new(Class::BadRequest, "The request's target is too long"))
            }
            b"431" => (
                "431 Request Header Fields Too Large",
                ApiError::new(Class::HeadersTooLarge, super::HEADERS_TOO_LARGE),
            ),
            _ => return None,
        };
        let head = written.split(|&b| b == b'\n');
        let names = head.filter_map(|line| line.split(|&b| b == b':').next());
        if names.into_iter().any(|name| name.eq_ignore_ascii_case(REQUEST_ID.as_bytes())) {
            return None;
        }
        let body = error.body();
        let id = super::new_request_id(&self.clock, &self.random);
        let id = id.to_str().unwrap_or_default();
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncache-control: no-store\r\n{REQUEST_ID}: {id}\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        Some(answer.into_bytes())
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Enveloped<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> Enveloped<IO> {
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.pending))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Enveloped<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_pending(cx))?;
        match self.replacement(buf) {
            Some(answer) => {
                self.pending = answer;
                Poll::Ready(Ok(buf.len()))
            }
            None => Pin::new(&mut self.io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
