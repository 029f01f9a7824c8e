//! What one connection is doing, and until when it may.

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

/// For how long a peer is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a handshake, a head, a body, and an answer's next byte.
    pub(super) request: Duration,
    /// Where nothing is asked.
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
    /// Requests come side by side: what is read and written tells nothing of any one of them.
    multiplexed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A handshake or a request's head is on its way.
    Head,
    /// Nothing is asked.
    Idle,
    /// Requests are under way: so many that are worked on, and so many whose bodies are waited for.
    Busy { worked_on: u32, awaited: u32 },
}

impl ConnState {
    pub(super) fn new(network: Option<IpAddr>, clock: Clock) -> ConnState {
        let doing = Doing { phase: Phase::Head, since: clock.elapsed(), multiplexed: false };
        ConnState { network, clock, doing: Mutex::new(doing), close: Notify::new() }
    }

    /// Something was read.
    pub(super) fn read(&self) {
        let mut doing = self.lock();
        if doing.phase == Phase::Idle && !doing.multiplexed {
            doing.phase = Phase::Head;
            doing.since = self.clock.elapsed();
        }
    }

    /// Something was written, such as the next event of a stream. A stream that says nothing for as
    /// long as an idle connection is kept is taken for one.
    pub(super) fn wrote(&self) {
        let mut doing = self.lock();
        if doing.phase == Phase::Idle && !doing.multiplexed {
            doing.since = self.clock.elapsed();
        }
    }

    /// A request's head is there.
    pub(super) fn begin(&self, version: Version) {
        self.lock().multiplexed = version == Version::HTTP_2;
        self.change(1, 0);
    }

    /// A request that was worked on waits for its body.
    pub(super) fn awaits(&self) {
        self.change(-1, 1);
    }

    /// A request that waited for its body is worked on.
    pub(super) fn goes_on(&self) {
        self.change(1, -1);
    }

    /// A request that was worked on is over.
    pub(super) fn end(&self) {
        self.change(-1, 0);
    }

    /// So many more requests are worked on, and so many more bodies waited for.
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
        // From when on nothing is done for it.
        if after == (0, 0) || (before > 0 && after.0 == 0) {
            doing.since = self.clock.elapsed();
        }
    }

    /// Waits for somebody to end the connection.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }

    /// When it will have taken too long.
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

/// Waits until a connection has taken too long over what it is doing.
///
/// It belongs into the connection's own task, which is woken by everything that makes the deadline an
/// earlier one; so a timer is set anew once in a while, and not for each request.
pub(super) struct Overdue {
    slot: Arc<ConnState>,
    patience: Patience,
    /// Fires at this time by the clock, or somewhat later.
    timer: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl Overdue {
    pub(super) fn new(slot: Arc<ConnState>, patience: Patience) -> Overdue {
        Overdue { slot, patience, timer: None }
    }
}

impl Future for Overdue {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Overdue { slot, patience, timer } = &mut *self;
        loop {
            // Whoever is busy now will be woken when it no longer is.
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
