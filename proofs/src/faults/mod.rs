//! Real faults: three servers, a database with a stand-by, and the links between them, broken in every
//! way while clients come and go. What the clients see is recorded, and judged as a [history](crate::history).

mod postgres;
mod process;
mod proxy;

pub use postgres::Postgres;
pub use proxy::{Link, Proxy};
