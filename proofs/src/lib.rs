//! The evidence that Rescind keeps its promise. `docs/proofs.md` describes how to run it.

pub mod faults;
pub mod history;
pub mod model;
