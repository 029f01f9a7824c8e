//! A request under way, and the reading of its body.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use hyper::{
    Version,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
};
use tokio::time::{Sleep, sleep};

use super::{conn_limit::Guest, conn_state::ConnState};
use crate::{clock::Clock, http::BodyError};

/// One request, from its head until it is dropped.
#[derive(Debug)]
pub(super) struct Asked {
    connection: Arc<ConnState>,
    clock: Clock,
    doing: Mutex<Doing>,
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
        Asked { connection: Arc::clone(connection), clock, doing: Mutex::new(Doing::WorkedOn) }
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

    fn lock(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest for Asked {
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
    body: Incoming,
    asked: Arc<Asked>,
    patience: Duration,
    /// Started when the body is waited for the first time.
    time: Option<Pin<Box<Sleep>>>,
}

impl AwaitedBody {
    pub(super) fn new(body: Incoming, asked: Arc<Asked>, patience: Duration) -> AwaitedBody {
        AwaitedBody { body, asked, patience, time: None }
    }
}

impl Body for AwaitedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let AwaitedBody { body, asked, patience, time } = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
            let frame = frame.map(|frame| frame.map_err(BodyError::Connection));
            if frame.is_none() || body.is_end_stream() {
                asked.is_worked_on();
            }
            return Poll::Ready(frame);
        }
        if let Err(e) = asked.awaits(cx.waker()) {
            return Poll::Ready(Some(Err(e)));
        }
        let time = time.get_or_insert_with(|| Box::pin(sleep(*patience)));
        time.as_mut().poll(cx).map(|()| Some(Err(BodyError::TooSlow)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AwaitedBody {
    fn drop(&mut self) {
        self.asked.is_worked_on();
    }
}
