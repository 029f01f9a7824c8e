//! What shows that Rescind keeps its promise. `docs/proofs.md` says how to run it.

pub mod faults;
pub mod history;
pub mod model;
