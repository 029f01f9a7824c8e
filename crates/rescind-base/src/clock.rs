//! The only module that reads the machine's clocks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rescind_verifier::UnixSeconds;
use rustix::time::{ClockId, clock_gettime};

/// Wall time for tokens, and boot time for waiting. Nobody can set boot time, and it runs while the machine is
/// suspended.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's clocks.
    System,
    /// Clocks that only a test moves.
    Manual(Arc<Hands>),
}

/// The times of a manual clock.
#[derive(Debug)]
pub struct Hands {
    wall: AtomicU64,
    boot: AtomicU64,
}

impl Clock {
    /// Returns a clock that stays at `now` until advanced.
    pub fn manual(now: UnixSeconds) -> Clock {
        Clock::Manual(Arc::new(Hands { wall: AtomicU64::new(now), boot: AtomicU64::new(now) }))
    }

    /// Moves a manual clock by so many seconds, back if negative. Leaves the system's clock as it is.
    pub fn advance(&self, seconds: i64) {
        if let Clock::Manual(hands) = self {
            hands.boot.fetch_add(seconds.cast_unsigned(), Ordering::SeqCst);
        }
        self.set_ahead(seconds);
    }

    /// Moves a manual clock's wall time by so many seconds, back if negative, and leaves its boot time.
    pub fn set_ahead(&self, seconds: i64) {
        if let Clock::Manual(hands) = self {
            hands.wall.fetch_add(seconds.cast_unsigned(), Ordering::SeqCst);
        }
    }

    /// Returns the wall time.
    pub fn now(&self) -> UnixSeconds {
        match self {
            Clock::System => clock_gettime(ClockId::Realtime).tv_sec.cast_unsigned(),
            Clock::Manual(hands) => hands.wall.load(Ordering::SeqCst),
        }
    }

    /// Returns the boot time, since an arbitrary start.
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

/// 9999-12-31T23:59:59Z.
const LAST: UnixSeconds = 253_402_300_799;

/// Writes a time by RFC 3339: UTC, whole seconds, `Z`. Times after the year 9999 are written as its last second.
pub fn rfc3339(at: UnixSeconds) -> String {
    let at = at.min(LAST);
    let (mut days, second) = (at / 86_400, at % 86_400);
    let mut year = 1970;
    while let Some(rest) = days.checked_sub(365 + leap_day(year)) {
        days = rest;
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + leap_day(year), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        let Some(rest) = days.checked_sub(length) else { break };
        days = rest;
        month += 1;
    }
    let (day, hour, minute, second) = (days + 1, second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn leap_day(year: u64) -> u64 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    is_leap.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_in_utc() {
        assert_eq!(rfc3339(1_736_946_000), "2025-01-15T13:00:00Z");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(951_868_800), "2000-03-01T00:00:00Z");
        assert_eq!(rfc3339(1_704_067_199), "2023-12-31T23:59:59Z");
        assert_eq!(rfc3339(1_735_603_200), "2024-12-31T00:00:00Z");
        assert_eq!(rfc3339(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(rfc3339(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(rfc3339(LAST), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(u64::MAX), rfc3339(LAST));
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
