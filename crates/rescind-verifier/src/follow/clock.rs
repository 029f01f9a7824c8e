//! The follower's clocks.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::UnixSeconds;

/// Wall time, for what tokens say.
pub(super) fn wall() -> UnixSeconds {
    clock_gettime(ClockId::Realtime).tv_sec.cast_unsigned()
}

/// Time since boot. Unlike `Instant` it runs on in suspend, so that a machine that slept finds its lease over.
pub(super) fn boot() -> Duration {
    let t = clock_gettime(ClockId::Boottime);
    Duration::new(t.tv_sec.cast_unsigned(), u32::try_from(t.tv_nsec).unwrap_or(0))
}
