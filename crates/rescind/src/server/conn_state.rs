//! The state of one connection, and the deadline of that state.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::Version;
use tokio::{
    sync::Notify,
    time::{Sleep, sleep},
};

use super::conn_limit::Guest;
use crate::clock::Clock;

/// How long the service waits for a peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a handshake, a head, a body, and the peer's reading of an answer's next byte.
    pub(super) request: Duration,
    /// For the next request.
    pub(super) idle: Duration,
}

/// One connection, as its listener's pool knows it.
#[derive(Debug)]
pub(super) struct ConnState {
    network: Option<IpAddr>,
    clock: Clock,
    doing: Mutex<Doing>,
    close: Notify,
}

#[derive(Debug)]
struct Doing {
    phase: Phase,
    since: Duration,
    /// HTTP/2: bytes that are read or written cannot be assigned to one request.
    multiplexed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The service waits for the rest of a handshake or of a request's head.
    Head,
    /// No request is under way.
    Idle,
    /// The numbers of requests that the service works on, and of those whose bodies it waits for.
    Busy { worked_on: u32, awaited: u32 },
}

impl ConnState {
    pub(super) fn new(network: Option<IpAddr>, clock: Clock) -> ConnState {
        let doing = Doing { phase: Phase::Head, since: clock.elapsed(), multiplexed: false };
        ConnState { network, clock, doing: Mutex::new(doing), close: Notify::new() }
    }

    /// Records that bytes were read.
    pub(super) fn read(&self) {
        let mut doing = self.lock();
        if doing.phase == Phase::Idle && !doing.multiplexed {
            doing.phase = Phase::Head;
            doing.since = self.clock.elapsed();
        }
    }

    /// Records that bytes were written, such as the next event of a stream. A stream without an event for the idle
    /// time counts as an idle connection.
    pub(super) fn wrote(&self) {
        let mut doing = self.lock();
        if doing.phase == Phase::Idle && !doing.multiplexed {
            doing.since = self.clock.elapsed();
        }
    }

    /// Records that a request's head has arrived.
    pub(super) fn begin(&self, version: Version) {
        self.lock().multiplexed = version == Version::HTTP_2;
        self.change(1, 0);
    }

    /// Records that a request that was worked on waits for its body.
    pub(super) fn awaits(&self) {
        self.change(-1, 1);
    }

    /// Records that a request that waited for its body is worked on.
    pub(super) fn goes_on(&self) {
        self.change(1, -1);
    }

    /// Records that a request that was worked on has ended.
    pub(super) fn end(&self) {
        self.change(-1, 0);
    }

    /// Adds to the numbers of requests that are worked on, and of bodies that are waited for.
    fn change(&self, worked_on: i32, awaited: i32) {
        let mut doing = self.lock();
        let (before, waited) = match doing.phase {
            Phase::Busy { worked_on, awaited } => (worked_on, awaited),
            Phase::Head | Phase::Idle => (0, 0),
        };
        let after = (before.saturating_add_signed(worked_on), waited.saturating_add_signed(awaited));
        doing.phase = match after {
            (0, 0) => Phase::Idle,
            (worked_on, awaited) => Phase::Busy { worked_on, awaited },
        };
        // The service has just stopped working for this connection.
        if after == (0, 0) || (before > 0 && after.0 == 0) {
            doing.since = self.clock.elapsed();
        }
    }

    /// Waits until the connection has to make room.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }

    /// Returns the deadline of the present state, if it has one.
    fn deadline(&self, patience: &Patience) -> Option<Duration> {
        let doing = self.lock();
        match doing.phase {
            Phase::Head => Some(doing.since + patience.request),
            Phase::Idle => Some(doing.since + patience.idle),
            Phase::Busy { .. } => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest for ConnState {
    fn network(&self) -> Option<IpAddr> {
        self.network
    }

    fn waits_since(&self) -> Option<Duration> {
        let doing = self.lock();
        let is_worked_on = matches!(doing.phase, Phase::Busy { worked_on: 1.., .. });
        (!is_worked_on).then_some(doing.since)
    }

    fn make_room(&self) {
        self.close.notify_one();
    }
}

/// Waits until a connection has passed the deadline of its state.
///
/// Poll it in the connection's own task: every event that brings the deadline nearer wakes that task. So the timer
/// is set again only when it has fired or is too late, and not for each request.
pub(super) struct ConnDeadline {
    slot: Arc<ConnState>,
    patience: Patience,
    /// Fires at this time by the clock, or somewhat later.
    timer: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl ConnDeadline {
    pub(super) fn new(slot: Arc<ConnState>, patience: Patience) -> ConnDeadline {
        ConnDeadline { slot, patience, timer: None }
    }
}

impl Future for ConnDeadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let ConnDeadline { slot, patience, timer } = &mut *self;
        loop {
            // The connection is busy. The end of its last request wakes the task.
            let Some(deadline) = slot.deadline(patience) else { return Poll::Pending };
            match timer {
                Some((fires, sleep)) if *fires <= deadline => {
                    ready!(sleep.as_mut().poll(cx));
                    *timer = None;
                    if slot.clock.elapsed() >= deadline {
                        return Poll::Ready(());
                    }
                }
                _ => {
                    let left = deadline.saturating_sub(slot.clock.elapsed());
                    *timer = Some((deadline, Box::pin(sleep(left))));
                }
            }
        }
    }
}
