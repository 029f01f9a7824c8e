//! How credentials are used, by hours.

use super::UnixSeconds;

pub use rescind_verifier::follow::usage::{Counted, Last, Tally};

pub const HOUR: UnixSeconds = 3600;

/// Hours since 1970, from one to the one before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    pub since: u64,
    pub until: u64,
}
