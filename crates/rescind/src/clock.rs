//! The only place that asks the machine for the time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rescind_verifier::UnixSeconds;
use rustix::time::{ClockId, clock_gettime};

/// Wall time for what tokens say; boot time, which no one sets and which runs on in suspend, for
/// what must be waited for.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's clocks.
    System,
    /// Clocks that stand still until a test moves them.
    Manual(Arc<Hands>),
}

/// What a manual clock shows.
#[derive(Debug)]
pub struct Hands {
    wall: AtomicU64,
    boot: AtomicU64,
}

impl Clock {
    /// A clock that stands at `now` until advanced.
    pub fn manual(now: UnixSeconds) -> Clock {
        Clock::Manual(Arc::new(Hands { wall: AtomicU64::new(now), boot: AtomicU64::new(now) }))
    }

    /// Moves a manual clock by so many seconds, back if negative. The system's clock stays as it is.
    pub fn advance(&self, seconds: i64) {
        if let Clock::Manual(hands) = self {
            hands.boot.fetch_add(seconds.cast_unsigned(), Ordering::SeqCst);
        }
        self.set_ahead(seconds);
    }

    /// Sets a manual clock's wall time so many seconds ahead, back if negative, though no time has passed.
    pub fn set_ahead(&self, seconds: i64) {
        if let Clock::Manual(hands) = self {
            hands.wall.fetch_add(seconds.cast_unsigned(), Ordering::SeqCst);
        }
    }

    /// Wall time.
    pub fn now(&self) -> UnixSeconds {
        match self {
            Clock::System => clock_gettime(ClockId::Realtime).tv_sec.cast_unsigned(),
            Clock::Manual(hands) => hands.wall.load(Ordering::SeqCst),
        }
    }

    /// Time since an arbitrary start.
    pub fn elapsed(&self) -> Duration {
        match self {
            Clock::System => {
                let t = clock_gettime(ClockId::Boottime);
                Duration::new(t.tv_sec.cast_unsigned(), u32::try_from(t.tv_nsec).unwrap_or(0))
            }
            Clock::Manual(hands) => Duration::from_secs(hands.boot.load(Ordering::SeqCst)),
        }
    }
}

/// RFC 3339, UTC, whole seconds, `Z`.
pub fn rfc3339(at: UnixSeconds) -> String {
    let seconds = i64::try_from(at).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_in_utc() {
        assert_eq!(rfc3339(1_736_946_000), "2025-01-15T13:00:00Z");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(100);
        clock.advance(-1);
        assert_eq!((clock.now(), clock.elapsed()), (99, Duration::from_secs(99)));
        clock.set_ahead(10);
        assert_eq!((clock.now(), clock.elapsed()), (109, Duration::from_secs(99)));
    }
}
