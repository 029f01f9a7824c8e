//! Until when this process may answer from memory.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rescind_base::clock::Clock;
use rescind_store::StoreError;
use thiserror::Error;

/// A process's own lease.
///
/// A caller must check the lease *before* it reads the state for its answer. The state only moves forward, so
/// the state is then at least as new as the lease requires. In the other order a thread could read old state,
/// be suspended while a revocation is applied and the lease extended, and then find the lease valid.
#[derive(Debug)]
pub struct Lease {
    clock: Clock,
    /// Nanoseconds on the boot clock.
    deadline: AtomicU64,
}

/// The lease has ended: memory may be too old to answer from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the lease has run out: the store was not heard of for too long")]
pub struct Lapsed;

impl From<Lapsed> for StoreError {
    fn from(lapsed: Lapsed) -> StoreError {
        StoreError::Unavailable(lapsed.into())
    }
}

impl Lease {
    /// A lease without end, for a process that has the store to itself.
    pub fn unlimited(clock: Clock) -> Lease {
        Lease { clock, deadline: AtomicU64::new(u64::MAX) }
    }

    /// A lease that has not been granted yet.
    pub fn none(clock: Clock) -> Lease {
        Lease { clock, deadline: AtomicU64::new(0) }
    }

    /// Checks that an answer may be made from state that is read afterwards.
    ///
    /// # Errors
    ///
    /// Fails if the lease has ended.
    pub fn check(&self) -> Result<(), Lapsed> {
        if self.left().is_zero() { Err(Lapsed) } else { Ok(()) }
    }

    /// The time left on the lease.
    pub fn left(&self) -> Duration {
        let deadline = Duration::from_nanos(self.deadline.load(Ordering::Acquire));
        deadline.saturating_sub(self.clock.elapsed())
    }

    /// Extends the lease to `deadline`. Everything that the lease requires must have been applied before.
    pub fn extend(&self, deadline: Duration) {
        let nanos = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
        self.deadline.fetch_max(nanos, Ordering::Release);
    }

    /// Ends the lease: this process answers nothing more.
    pub fn end(&self) {
        self.deadline.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // check 89
    #[test]
    fn it_runs_out_by_the_boot_clock() {
        let clock = Clock::manual(100);
        let lease = Lease::none(clock.clone());
        assert_eq!(lease.check(), Err(Lapsed));
        lease.extend(Duration::from_secs(103));
        // A late answer extends nothing.
        lease.extend(Duration::from_secs(102));
        clock.advance(2);
        assert_eq!((lease.check(), lease.left()), (Ok(()), Duration::from_secs(1)));
        clock.advance(1);
        assert_eq!(lease.check(), Err(Lapsed));
        lease.extend(Duration::from_secs(200));
        lease.end();
        assert_eq!(lease.check(), Err(Lapsed));
        assert_eq!(Lease::unlimited(clock).check(), Ok(()));
    }
}
