//! Until when this process may answer from memory.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use thiserror::Error;

use crate::{clock::Clock, store::StoreError};

/// A process's own lease.
///
/// It must be checked *before* the state is read that the answer is made of. The state only ever
/// moves forward, so what is read is then at least as new as what the lease was extended upon. The
/// other way round a thread may read old state, sleep while a revocation is applied and the lease
/// extended, and find the lease good.
#[derive(Debug)]
pub struct Lease {
    clock: Clock,
    /// Nanoseconds on the boot clock.
    deadline: AtomicU64,
}

/// Memory may be older than it may be: nothing is answered from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the lease has run out: the store was not heard of for too long")]
pub struct Lapsed;

impl From<Lapsed> for StoreError {
    fn from(lapsed: Lapsed) -> StoreError {
        StoreError::Unavailable(lapsed.into())
    }
}

impl Lease {
    /// One without end, for a process that has the store to itself.
    pub fn unlimited(clock: Clock) -> Lease {
        Lease { clock, deadline: AtomicU64::new(u64::MAX) }
    }

    /// None yet.
    pub fn none(clock: Clock) -> Lease {
        Lease { clock, deadline: AtomicU64::new(0) }
    }

    /// Whether an answer may be made of what is read after this.
    pub fn check(&self) -> Result<(), Lapsed> {
        if self.left().is_zero() { Err(Lapsed) } else { Ok(()) }
    }

    /// How long it still runs.
    pub fn left(&self) -> Duration {
        let deadline = Duration::from_nanos(self.deadline.load(Ordering::Acquire));
        deadline.saturating_sub(self.clock.elapsed())
    }

    /// Extends it. Everything that it stands for must have been applied before.
    pub fn extend(&self, deadline: Duration) {
        let nanos = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
        self.deadline.fetch_max(nanos, Ordering::Release);
    }

    /// Ends it: nothing more is answered.
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
        // An answer that comes late extends nothing.
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
