//! The follower's clocks.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::UnixSeconds;

/// The wall time, with which the times in tokens are compared.
pub(super) fn wall() -> UnixSeconds {
    clock_gettime(ClockId::Realtime).tv_sec.cast_unsigned()
}

/// The time since boot. Unlike `Instant` it runs on in suspend, so that a lease ends while the machine sleeps.
pub(super) fn boot() -> Duration {
    let t = clock_gettime(ClockId::Boottime);
    Duration::new(t.tv_sec.cast_unsigned(), u32::try_from(t.tv_nsec).unwrap_or(0))
}
