//! A logout that is exact on several nodes and on every attached verifier: leases, the waiting for
//! acknowledgements, and joining. ARCHITECTURE.md has the protocol (Gray & Cheriton, "Leases", 1989).

mod lease;
mod terms;

pub use lease::{Lapsed, Lease};
pub use terms::Terms;
