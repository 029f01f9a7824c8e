//! The state of one connection, and the deadline of that state.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::Version;
use rescind_base::clock::Clock;
use tokio::{
    sync::Notify,
    time::{Sleep, sleep},
};

use super::conn_limit::Holder;

/// After this time without a request a connection rests. So a quick caller finds it awake, and those that were opened and
/// used at about the same time do not all have hyper's buffers at once.
const REST_AFTER: Duration = Duration::from_millis(300);

/// How long the service waits for a peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
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
    /// A `Doing`, as one word. So no request takes a lock, and a pool that looks at a connection delays nobody. Nothing
    /// else depends on the order of its changes.
    doing: AtomicU64,
    /// A write waits for the peer.
    is_stalled: AtomicBool,
    close: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Doing {
    phase: Phase,
    /// In milliseconds of the boot clock.
    since: u64,
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
    Busy { worked_on: u64, awaited: u64 },
}

/// The bits of each number of requests: far more than the streams that a connection may have.
const NUMBER: u32 = 10;
const MOST: u64 = (1 << NUMBER) - 1;

impl Doing {
    /// From the highest bit on: since (139 years), awaited, worked on, idle, multiplexed.
    fn pack(self) -> u64 {
        let Doing { phase, since, multiplexed } = self;
        let (worked_on, awaited) = phase.numbers();
        let numbers = (since << NUMBER | awaited.min(MOST)) << NUMBER | worked_on.min(MOST);
        numbers << 2 | u64::from(phase == Phase::Idle) << 1 | u64::from(multiplexed)
    }

    fn unpack(word: u64) -> Doing {
        let numbers = word >> 2;
        let phase = match (numbers & MOST, numbers >> NUMBER & MOST) {
            (0, 0) if word & 2 == 0 => Phase::Head,
            (0, 0) => Phase::Idle,
            (worked_on, awaited) => Phase::Busy { worked_on, awaited },
        };
        Doing { phase, since: numbers >> (2 * NUMBER), multiplexed: word & 1 == 1 }
    }

    /// Adds to the numbers of requests that are worked on, and of bodies that are waited for.
    fn change(&mut self, worked_on: i64, awaited: i64, now: impl FnOnce() -> u64) {
        let (before, waited) = self.phase.numbers();
        let after = (before.saturating_add_signed(worked_on), waited.saturating_add_signed(awaited));
        self.phase = match after {
            (0, 0) => Phase::Idle,
            (worked_on, awaited) => Phase::Busy { worked_on, awaited },
        };
        // The service has just stopped working for this connection.
        if after == (0, 0) || (before > 0 && after.0 == 0) {
            self.since = now();
        }
    }
}

impl Phase {
    fn numbers(self) -> (u64, u64) {
        match self {
            Phase::Busy { worked_on, awaited } => (worked_on, awaited),
            Phase::Head | Phase::Idle => (0, 0),
        }
    }
}

impl ConnState {
    pub(super) fn new(network: Option<IpAddr>, clock: Clock) -> ConnState {
        let doing = Doing { phase: Phase::Head, since: millis(clock.elapsed()), multiplexed: false };
        ConnState {
            network,
            clock,
            doing: AtomicU64::new(doing.pack()),
            is_stalled: AtomicBool::new(false),
            close: Notify::new(),
        }
    }

    /// Records that bytes were read.
    pub(super) fn read(&self) {
        self.if_idle(Phase::Head);
    }

    /// Records that bytes were written, such as the next event of a stream. A stream without an event for the idle
    /// time counts as an idle connection.
    pub(super) fn wrote(&self) {
        self.if_idle(Phase::Idle);
    }

    /// Begins this phase, if the connection is idle and its bytes can be assigned to a request.
    fn if_idle(&self, phase: Phase) {
        if matches!(self.doing(), Doing { phase: Phase::Idle, multiplexed: false, .. }) {
            self.update(|doing| {
                if doing.phase == Phase::Idle {
                    (doing.phase, doing.since) = (phase, self.now());
                }
            });
        }
    }

    /// Records that a request's head has arrived.
    pub(super) fn begin(&self, version: Version) {
        self.update(|doing| {
            doing.multiplexed = version == Version::HTTP_2;
            doing.change(1, 0, || self.now());
        });
    }

    /// Records that a request that was worked on waits for its body.
    pub(super) fn awaits(&self) {
        self.update(|doing| doing.change(-1, 1, || self.now()));
    }

    /// Records that a request that waited for its body is worked on.
    pub(super) fn goes_on(&self) {
        self.update(|doing| doing.change(1, -1, || self.now()));
    }

    /// Records that a request that was worked on has ended.
    pub(super) fn end(&self) {
        self.update(|doing| doing.change(-1, 0, || self.now()));
    }

    /// Records whether a write waits for the peer.
    pub(super) fn set_stalled(&self, is_stalled: bool) {
        self.is_stalled.store(is_stalled, Ordering::Relaxed);
    }

    /// Waits until the connection has to make room.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }

    /// Returns the deadline of the present state, if it has one.
    fn deadline(&self, timeouts: &Timeouts) -> Option<Duration> {
        let doing = self.doing();
        let limit = match doing.phase {
            Phase::Head => timeouts.request,
            Phase::Idle => timeouts.idle,
            Phase::Busy { .. } => return None,
        };
        Some(Duration::from_millis(doing.since) + limit)
    }

    /// Returns when a connection over HTTP/1.1 rests, if nothing happens until then.
    fn rests_at(&self) -> Option<Duration> {
        let Doing { phase, since, multiplexed } = self.doing();
        let is_quiet = phase == Phase::Idle && !multiplexed && !self.is_stalled.load(Ordering::Relaxed);
        is_quiet.then_some(Duration::from_millis(since) + REST_AFTER)
    }

    fn doing(&self) -> Doing {
        Doing::unpack(self.doing.load(Ordering::Relaxed))
    }

    /// Changes the state in one step. The function may be called again, if another thread changes it meanwhile.
    fn update(&self, change: impl Fn(&mut Doing)) {
        let change = |word| {
            let mut doing = Doing::unpack(word);
            change(&mut doing);
            Some(doing.pack())
        };
        let _ = self.doing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    }

    fn now(&self) -> u64 {
        millis(self.clock.elapsed())
    }
}

/// Whole milliseconds, rounded up so that nothing ends early.
fn millis(span: Duration) -> u64 {
    span.as_secs() * 1000 + u64::from(span.subsec_nanos().div_ceil(1_000_000))
}

impl Holder for ConnState {
    fn network(&self) -> Option<IpAddr> {
        self.network
    }

    fn waits_since(&self) -> Option<Duration> {
        let Doing { phase, since, .. } = self.doing();
        let is_worked_on = phase.numbers().0 > 0;
        (!is_worked_on).then_some(Duration::from_millis(since))
    }

    fn make_room(&self) {
        self.close.notify_one();
    }
}

/// Waits until a connection has passed the deadline of its state, or rests.
///
/// Poll it in the connection's own task: every event that brings the deadline nearer wakes that task. So the timer
/// is set again only when it has fired or is too late, and not for each request.
pub(super) struct ConnDeadline {
    slot: Arc<ConnState>,
    /// `None`: it waits for the rest.
    timeouts: Option<Timeouts>,
    /// Fires at this time by the clock, or somewhat later.
    timer: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl ConnDeadline {
    pub(super) fn new(slot: Arc<ConnState>, timeouts: Timeouts) -> ConnDeadline {
        ConnDeadline { slot, timeouts: Some(timeouts), timer: None }
    }

    /// Waits until the connection has been idle for a short time.
    pub(super) fn of_rest(slot: &Arc<ConnState>) -> ConnDeadline {
        ConnDeadline { slot: Arc::clone(slot), timeouts: None, timer: None }
    }
}

impl Future for ConnDeadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let ConnDeadline { slot, timeouts, timer } = &mut *self;
        loop {
            let deadline = timeouts.map_or_else(|| slot.rests_at(), |timeouts| slot.deadline(&timeouts));
            // The connection is busy. The end of its last request wakes the task.
            let Some(deadline) = deadline else { return Poll::Pending };
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

#[cfg(test)]
mod tests;
