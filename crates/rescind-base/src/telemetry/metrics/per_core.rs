//! Counts that every request raises, without a cache line that the cores take from each other.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::{Atomic, Counter};
use rescind_verifier::follow::usage::PerCore;

/// A counter that every request raises.
pub(super) type HotCounter = Counter<u64, Sum>;

/// A number in parts. What is counted is the sum over the parts.
#[derive(Debug)]
pub(super) struct Sum(PerCore<AtomicU64>);

impl Default for Sum {
    fn default() -> Sum {
        Sum(PerCore::new(AtomicU64::default))
    }
}

impl Atomic<u64> for Sum {
    fn inc(&self) -> u64 {
        self.inc_by(1)
    }

    /// Returns the earlier value of the part, as nobody needs the sum's.
    fn inc_by(&self, number: u64) -> u64 {
        self.0.own().fetch_add(number, Ordering::Relaxed)
    }

    fn get(&self) -> u64 {
        self.0.parts().map(|part| part.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_the_sum_over_all_threads() {
        let counter = HotCounter::default();
        let parts = counter.inner().0.parts().count();
        std::thread::scope(|scope| {
            for _ in 0..3 * parts {
                scope.spawn(|| (0..1000).for_each(|_| _ = counter.inc()));
            }
        });
        assert_eq!(counter.get(), 3000 * parts as u64);
        let used = counter.inner().0.parts().filter(|part| part.load(Ordering::Relaxed) > 0);
        assert_eq!(used.count(), parts);
    }

    #[test]
    fn no_two_parts_share_cache_lines() {
        let counts = Sum::default();
        let places: Vec<usize> = counts.0.parts().map(|part| std::ptr::from_ref(part).addr()).collect();
        assert!(places.iter().all(|place| place % 128 == 0));
        assert!(places.is_sorted_by(|a, b| a + 128 <= *b));
    }
}
