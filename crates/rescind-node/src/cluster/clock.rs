//! Compares this node's wall clock with the database's and the other nodes'.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use rescind_base::model::UnixSeconds;
use rescind_store::StoreError;
use rescind_verifier::MAX_CLOCK_DIFFERENCE;
use thiserror::Error;

/// How far this node's wall clock differs from the database's. A process that has the store to itself has no
/// other clock to compare with.
#[derive(Debug, Default)]
pub struct NodeClock {
    /// In seconds ahead of the database's clock; negative if behind.
    ahead: AtomicI64,
    /// Other nodes' clocks differ from this one, and the database's clock agrees with theirs.
    apart: AtomicBool,
}

/// Tokens signed here would be refused elsewhere, or tokens signed elsewhere refused here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this node's clock is {0}s ahead of the database's, and other nodes' are not: set it right")]
pub struct Apart(i64);

impl From<Apart> for StoreError {
    fn from(apart: Apart) -> StoreError {
        StoreError::Unavailable(apart.into())
    }
}

impl NodeClock {
    /// Stores by how many seconds this node and the others are ahead of the database. Returns whether this
    /// node is off by too much, if that has changed.
    pub(super) fn compare(&self, ahead: i64, others: &[i64]) -> Option<bool> {
        let was_off = self.is_off();
        self.ahead.store(ahead, Ordering::Relaxed);
        // If all nodes agree with each other, the database's clock is wrong, and no node uses it.
        let is_apart = is_far(ahead, 0) && others.iter().any(|&other| is_far(ahead, other));
        self.apart.store(is_apart, Ordering::Relaxed);
        Some(self.is_off()).filter(|&is_off| is_off != was_off)
    }

    /// Checks that tokens may be issued by this clock.
    ///
    /// # Errors
    ///
    /// Fails if the database and another node disagree with this clock.
    pub fn check(&self) -> Result<(), Apart> {
        if self.apart.load(Ordering::Relaxed) { Err(Apart(self.ahead())) } else { Ok(()) }
    }

    /// Whether the database's clock differs by more than clocks may.
    pub fn is_off(&self) -> bool {
        is_far(self.ahead(), 0)
    }

    /// By how many seconds this clock is ahead of the database's; negative if behind.
    pub fn ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }
}

/// By how much a wall clock is at least ahead of `other`, which was read between `before` and `after`. The
/// query may have taken some of that time.
pub(super) fn ahead_of(other: UnixSeconds, before: UnixSeconds, after: UnixSeconds) -> i64 {
    let nearest = other.clamp(before.min(after), after.max(before));
    nearest.cast_signed().saturating_sub(other.cast_signed())
}

fn is_far(one: i64, other: i64) -> bool {
    one.abs_diff(other) > MAX_CLOCK_DIFFERENCE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_is_no_difference() {
        assert_eq!(ahead_of(105, 100, 110), 0);
        assert_eq!((ahead_of(100, 100, 100), ahead_of(90, 100, 110), ahead_of(120, 100, 110)), (0, 10, -10));
    }

    // check 103
    #[test]
    fn a_node_is_apart_where_the_database_and_another_node_say_so() {
        let clock = NodeClock::default();
        assert_eq!((clock.compare(60, &[0, -1]), clock.check()), (None, Ok(())));
        assert_eq!((clock.compare(61, &[0]), clock.check()), (Some(true), Err(Apart(61))));
        assert_eq!((clock.compare(-61, &[]), clock.check()), (None, Ok(())));
        assert_eq!((clock.compare(-61, &[-61, 0]), clock.check()), (None, Err(Apart(-61))));
        // Only the database's clock differs.
        assert_eq!((clock.compare(500, &[499, 501]), clock.check()), (None, Ok(())));
        // The other node's clock is wrong.
        assert_eq!((clock.compare(0, &[500]), clock.check()), (Some(false), Ok(())));
    }
}
