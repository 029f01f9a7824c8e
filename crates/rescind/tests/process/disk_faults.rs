//! The disk fails, and comes back.
