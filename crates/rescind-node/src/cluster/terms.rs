//! How long leases are, and how far clocks are trusted.

use std::time::Duration;

/// How often a lease is renewed within its term.
const RENEWALS: u32 = 4;

/// The terms of a node's lease.
///
/// A clock is assumed to run at between 1 − ρ and 1 + ρ of real time. A node that sent its renewal at `t0`,
/// before a change was committed, answers from memory for D − m on its own clock. In real time this is
/// (D − m) / (1 − ρ), at most D if m ≥ ρ D. The node that committed the change waits for W = D (1 + ρ) + m on
/// its clock. In real time this is at least D + m / (1 + ρ), which is more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// D, the lease's term.
    pub lease: Duration,
    /// ρ, by how much a clock may be fast or slow.
    pub clock_drift: f64,
    /// m, the margin.
    pub margin: Duration,
}

impl Terms {
    /// Until when a node that sent its renewal at `asked_at` may answer, on its own clock.
    pub fn deadline(&self, asked_at: Duration) -> Duration {
        asked_at + self.lease.saturating_sub(self.margin)
    }

    /// How long after one renewal of the row the next is due.
    pub fn renewal(&self) -> Duration {
        self.lease / RENEWALS
    }

    /// W: after this time on any clock, every lease requested before has ended.
    pub fn wait(&self) -> Duration {
        self.lease.mul_f64(1.0 + self.clock_drift) + self.margin
    }

    /// How much of a lease that has `left` to run on this clock may be lent to a process with another clock.
    /// The lent lease ends first, whichever clock is slow, and is no longer than D.
    pub fn lend(&self, left: Duration) -> Duration {
        left.min(self.lease).mul_f64((1.0 - self.clock_drift) / (1.0 + self.clock_drift))
    }

    /// The least margin: ρ D.
    pub fn least_margin(&self) -> Duration {
        self.lease.mul_f64(self.clock_drift)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn by_default_a_logout_waits_for_three_point_six_seconds_at_most() {
        let terms = crate::config::Config::default().terms();
        assert_eq!(terms.wait(), Duration::from_millis(3600));
        assert_eq!(terms.deadline(Duration::from_secs(10)), Duration::from_millis(12_700));
    }

    proptest! {
        #[test]
        fn every_lease_asked_for_before_a_commit_runs_out_within_the_wait(
            lease in 1000u64..60_000, clock_drift in 0.0..0.3f64, extra in 0u64..1000,
            fast in -1.0..1.0f64, slow in -1.0..1.0f64,
        ) {
            let lease = Duration::from_millis(lease);
            let terms = Terms { lease, clock_drift, margin: Duration::ZERO };
            let terms = Terms { margin: terms.least_margin() + Duration::from_millis(extra), ..terms };
            // Real time, of clocks that differ as much as they may.
            let answers = terms.deadline(Duration::ZERO).as_secs_f64() / (1.0 + slow * clock_drift);
            let waits = terms.wait().as_secs_f64() / (1.0 + fast * clock_drift);
            prop_assert!(answers <= lease.as_secs_f64() + 1e-6, "{}", answers);
            prop_assert!(answers <= waits + 1e-6, "{} {}", answers, waits);
            let lent = terms.lend(terms.lease).as_secs_f64() / (1.0 + slow * clock_drift);
            prop_assert!(lent <= lease.as_secs_f64() / (1.0 + fast * clock_drift) + 1e-6);
        }
    }
}
