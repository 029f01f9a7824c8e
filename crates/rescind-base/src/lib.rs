//! What Rescind's other crates stand on: values and their rules, secrets, files, the clock, and what is counted.

pub mod clock;
pub mod files;
pub mod ksuid;
pub mod model;
pub mod random;
pub mod secret;
pub mod telemetry;
