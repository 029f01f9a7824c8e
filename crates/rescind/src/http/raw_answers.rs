//! Puts the contract's envelope on the answers that hyper makes itself. hyper does so for requests whose head it cannot
//! read; they never reach a handler.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::response::IntoResponse;
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue};
use rescind_base::{clock::Clock, random::Random};
use rescind_node::app::App;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    REQUEST_ID,
    error::{ApiError, Class},
};

/// A connection on which hyper's own answers are replaced.
///
/// In HTTP/1.1 every answer of the service carries a request id, so an answer without one is hyper's. hyper writes it
/// whole, without a body, and closes the connection after it. HTTP/2 reports errors in frames, which need no
/// replacement; no frame begins like an answer of HTTP/1.1.
#[derive(Debug)]
pub struct ErrorRewriter<IO> {
    io: IO,
    clock: Clock,
    random: Random,
    /// The bytes of a replacement that are not written yet.
    pending: Vec<u8>,
}

impl<IO> ErrorRewriter<IO> {
    /// Wraps a connection.
    pub fn new(io: IO, clock: Clock, random: Random) -> ErrorRewriter<IO> {
        ErrorRewriter { io, clock, random, pending: Vec::new() }
    }

    fn replacement(&self, written: &[u8]) -> Option<Vec<u8>> {
        let status = written.strip_prefix(b"HTTP/1.1 ")?.first_chunk::<3>()?;
        let error = match status {
            b"400" => ApiError::new(Class::BadRequest, "The request is not valid HTTP"),
            b"414" => ApiError::new(Class::BadRequest, "The request's target is too long"),
            b"431" => ApiError::new(Class::HeadersTooLarge, super::HEADERS_TOO_LARGE),
            _ => return None,
        };
        let head = written.split(|&b| b == b'\n');
        let names = head.filter_map(|line| line.split(|&b| b == b':').next());
        if names.into_iter().any(|name| name.eq_ignore_ascii_case(REQUEST_ID.as_bytes())) {
            return None;
        }
        Some(last_answer(error, &self.clock, &self.random))
    }
}

/// The answer to a connection that gets no place.
pub fn too_many_connections(app: &App) -> Vec<u8> {
    last_answer(ApiError::too_many("connections"), &app.clock, &app.random)
}

/// The bytes of an answer that is the last one of its connection.
fn last_answer(error: ApiError, clock: &Clock, random: &Random) -> Vec<u8> {
    let body = error.body();
    let response = error.into_response();
    let mut answer = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    let id = super::new_request_id(clock, random);
    let framing = [
        (HeaderName::from_static(REQUEST_ID), id),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (CONTENT_LENGTH, HeaderValue::from(body.len())),
        (CONNECTION, HeaderValue::from_static("close")),
    ];
    for (name, value) in response.headers().iter().chain(framing.iter().map(|(name, value)| (name, value))) {
        answer.extend_from_slice(name.as_str().as_bytes());
        answer.extend_from_slice(b": ");
        answer.extend_from_slice(value.as_bytes());
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"\r\n");
    answer.extend_from_slice(body.as_bytes());
    answer
}

impl<IO: AsyncRead + Unpin> AsyncRead for ErrorRewriter<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> ErrorRewriter<IO> {
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

impl<IO: AsyncWrite + Unpin> AsyncWrite for ErrorRewriter<IO> {
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
