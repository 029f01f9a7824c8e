//! Limits on events and log lines, in a bounded amount of memory.

mod failures;
mod log_lines;
mod quota;
mod uncached;

pub use failures::{Limiter, Throttled, network};
pub use log_lines::{LogLimit, LogLimits};
pub use quota::{OverQuota, Permit, Quota};
pub use uncached::{Flagged, UncachedLogins};
