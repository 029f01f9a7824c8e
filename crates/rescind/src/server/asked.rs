//! A request under way, and the reading of its body.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use http_body_util::{BodyExt, Limited};
use hyper::{
    Version,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
};
use rescind_base::clock::Clock;
use tokio::time::{Sleep, sleep};

use super::{conn_limit::Holder, conn_state::ConnState};
use crate::http::BodyError;

/// One request, from its head until it is dropped.
#[derive(Debug)]
pub(super) struct Asked {
    connection: Arc<ConnState>,
    clock: Clock,
    doing: Mutex<Doing>,
    is_http1: bool,
    /// Set when nobody reads the body any more, unless it was read to its end.
    rest: Mutex<Option<Rest>>,
}

/// What is left of a body.
#[derive(Debug)]
pub(super) enum Rest {
    Unread(Incoming),
    /// It did not come, or not in time.
    GivenUp,
}

#[derive(Debug)]
enum Doing {
    WorkedOn,
    /// This waker's task waits for the body.
    Awaited {
        since: Duration,
        waker: Waker,
    },
    /// Another request has taken the place.
    MadeRoom,
}

impl Asked {
    pub(super) fn new(connection: &Arc<ConnState>, version: Version, clock: Clock) -> Asked {
        connection.begin(version);
        Asked {
            connection: Arc::clone(connection),
            clock,
            doing: Mutex::new(Doing::WorkedOn),
            is_http1: version <= Version::HTTP_11,
            rest: Mutex::default(),
        }
    }

    /// Records that the request only waits for its body. Fails if another request has taken the place.
    pub(super) fn awaits(&self, waker: &Waker) -> Result<(), BodyError> {
        let mut doing = self.lock();
        match &mut *doing {
            Doing::MadeRoom => return Err(BodyError::MadeRoom),
            Doing::Awaited { waker: known, .. } => known.clone_from(waker),
            Doing::WorkedOn => {
                *doing = Doing::Awaited { since: self.clock.elapsed(), waker: waker.clone() };
                drop(doing);
                self.connection.awaits();
            }
        }
        Ok(())
    }

    /// Records that the body has arrived, or that nobody waits for it any more.
    pub(super) fn is_worked_on(&self) {
        let was = std::mem::replace(&mut *self.lock(), Doing::WorkedOn);
        if !matches!(was, Doing::WorkedOn) {
            self.connection.goes_on();
        }
    }

    /// Takes what is left of the body, over HTTP/1.1. HTTP/2 gives up a body without its connection.
    pub(super) fn take_rest(&self) -> Option<Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn lock(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holder for Asked {
    fn network(&self) -> Option<IpAddr> {
        self.connection.network()
    }

    fn waits_since(&self) -> Option<Duration> {
        match *self.lock() {
            Doing::Awaited { since, .. } => Some(since),
            Doing::WorkedOn | Doing::MadeRoom => None,
        }
    }

    fn make_room(&self) {
        let mut doing = self.lock();
        // The body may have arrived since the pool chose this request. Then it is answered without a place.
        if matches!(*doing, Doing::Awaited { .. })
            && let Doing::Awaited { waker, .. } = std::mem::replace(&mut *doing, Doing::MadeRoom)
        {
            drop(doing);
            waker.wake();
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.is_worked_on();
        self.connection.end();
    }
}

/// A request's body. Reading it fails after the timeout, or when another request takes the place.
#[derive(Debug)]
pub(super) struct AwaitedBody {
    /// Always there, until this is dropped.
    body: Option<Incoming>,
    has_failed: bool,
    asked: Arc<Asked>,
    limit: Duration,
    /// Started when the body is waited for the first time.
    time: Option<Pin<Box<Sleep>>>,
}

impl AwaitedBody {
    pub(super) fn new(body: Incoming, asked: Arc<Asked>, limit: Duration) -> AwaitedBody {
        AwaitedBody { body: Some(body), has_failed: false, asked, limit, time: None }
    }
}

/// In bytes: the longest rest of a body that is read only to be thrown away.
const MOST_DISCARDED: usize = 256 * 1024;

/// Reads the rest of a body, and throws it away. Returns whether that was possible: otherwise the connection must be closed,
/// because nobody knows where its next request begins.
pub(super) async fn discard(rest: Rest, asked: &Arc<Asked>, limit: Duration) -> bool {
    let Rest::Unread(rest) = rest else { return false };
    if rest.size_hint().lower() > MOST_DISCARDED as u64 {
        return false;
    }
    let mut rest = Limited::new(AwaitedBody::new(rest, Arc::clone(asked), limit), MOST_DISCARDED);
    loop {
        match rest.frame().await {
            None => return true,
            Some(Ok(_)) => {}
            Some(Err(_)) => return false,
        }
    }
}

impl Body for AwaitedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let AwaitedBody { body, has_failed, asked, limit, time } = &mut *self;
        let Some(body) = body else { return Poll::Ready(None) };
        let polled = if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
            let frame = frame.map(|frame| frame.map_err(BodyError::Connection));
            if frame.is_none() || body.is_end_stream() {
                asked.is_worked_on();
            }
            Poll::Ready(frame)
        } else if let Err(e) = asked.awaits(cx.waker()) {
            Poll::Ready(Some(Err(e)))
        } else {
            let time = time.get_or_insert_with(|| Box::pin(sleep(*limit)));
            time.as_mut().poll(cx).map(|()| Some(Err(BodyError::TooSlow)))
        };
        *has_failed |= matches!(polled, Poll::Ready(Some(Err(_))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for AwaitedBody {
    fn drop(&mut self) {
        self.asked.is_worked_on();
        let unread = self.body.take().filter(|body| self.asked.is_http1 && !body.is_end_stream());
        let rest = unread.map(|body| if self.has_failed { Rest::GivenUp } else { Rest::Unread(body) });
        *self.asked.rest.lock().unwrap_or_else(PoisonError::into_inner) = rest;
    }
}
