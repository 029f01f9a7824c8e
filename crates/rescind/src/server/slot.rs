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

use super::pool::Bounds;
use crate::clock::Clock;

/// One connection, as its listener's pool knows it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) network: Option<IpAddr>,
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
    /// So many requests are under way.
    Busy(u32),
}

impl Slot {
    pub(super) fn new(network: Option<IpAddr>, clock: Clock) -> Slot {
        let doing = Doing { phase: Phase::Head, since: clock.elapsed(), multiplexed: false };
        Slot { network, clock, doing: Mutex::new(doing), close: Notify::new() }
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
    pub(super) fn begin(self: &Arc<Slot>, version: Version) -> UnderWay {
        let mut doing = self.lock();
        doing.multiplexed = version == Version::HTTP_2;
        doing.phase = match doing.phase {
            Phase::Busy(n) => Phase::Busy(n + 1),
            Phase::Head | Phase::Idle => Phase::Busy(1),
        };
        UnderWay(Arc::clone(self))
    }

    fn end(&self) {
        let mut doing = self.lock();
        doing.phase = match doing.phase {
            Phase::Busy(n) if n > 1 => Phase::Busy(n - 1),
            _ => Phase::Idle,
        };
        doing.since = self.clock.elapsed();
    }

    /// Since when no request is under way, if none is.
    pub(super) fn idle_since(&self) -> Option<Duration> {
        let doing = self.lock();
        (!matches!(doing.phase, Phase::Busy(_))).then_some(doing.since)
    }

    /// Ends the connection.
    pub(super) fn close(&self) {
        self.close.notify_one();
    }

    /// Waits for somebody to end the connection.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }

    /// When it will have taken too long.
    fn deadline(&self, bounds: &Bounds) -> Option<Duration> {
        let doing = self.lock();
        match doing.phase {
            Phase::Head => Some(doing.since + bounds.request),
            Phase::Idle => Some(doing.since + bounds.idle),
            Phase::Busy(_) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being answered, until it is dropped.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Slot>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Waits until a connection has taken too long over what it is doing.
///
/// It belongs into the connection's own task, which is woken by everything that makes the deadline an
/// earlier one; so a timer is set anew once in a while, and not for each request.
pub(super) struct Overdue {
    slot: Arc<Slot>,
    bounds: Bounds,
    /// Fires at this time by the clock, or somewhat later.
    timer: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl Overdue {
    pub(super) fn new(slot: Arc<Slot>, bounds: Bounds) -> Overdue {
        Overdue { slot, bounds, timer: None }
    }
}

impl Future for Overdue {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Overdue { slot, bounds, timer } = &mut *self;
        loop {
            // Whoever is busy now will be woken when it no longer is.
            let Some(deadline) = slot.deadline(bounds) else { return Poll::Pending };
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
