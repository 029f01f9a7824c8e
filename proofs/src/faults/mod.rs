//! Real faults: three servers, a database with a stand-by, and the links between them fail under load. The
//! answers to the clients are recorded, and checked as a [history](crate::history).

mod caller;
mod clock;
mod cluster;
mod databases;
mod episodes;
mod fail_over;
mod fault;
mod figures;
mod installed;
mod leases;
mod node;
mod pgpool;
mod postgres;
mod process;
mod proxy;
mod recorder;
mod revocation;
mod scenarios;
mod verifier;
mod workload;

pub use cluster::{Cluster, Setup};
pub use fault::Fault;
pub use postgres::Postgres;
pub use proxy::{Link, Proxy};
pub use scenarios::{Plan, Scenario};
