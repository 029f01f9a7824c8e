//! A connection that reports its reads and writes, and ends if the peer does not read.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::conn_state::ConnState;

/// Reports reads and writes to the slot. A write fails if the peer accepts no byte for the time of `limit`.
#[derive(Debug)]
pub(super) struct TimeoutIo<IO> {
    io: IO,
    slot: Arc<ConnState>,
    limit: Duration,
    /// Runs while a write waits for the peer.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<IO> TimeoutIo<IO> {
    pub(super) fn new(io: IO, slot: Arc<ConnState>, limit: Duration) -> TimeoutIo<IO> {
        TimeoutIo { io, slot, limit, stalled: None }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for TimeoutIo<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.slot.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for TimeoutIo<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let TimeoutIo { io, slot, limit, stalled } = &mut *self;
        if let Poll::Ready(written) = Pin::new(io).poll_write(cx, buf) {
            if stalled.take().is_some() {
                slot.set_stalled(false);
            }
            slot.wrote();
            return Poll::Ready(written);
        }
        slot.set_stalled(true);
        let stalled = stalled.get_or_insert_with(|| Box::pin(sleep(*limit)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
