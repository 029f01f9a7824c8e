//! Tests of the listeners: HTTP/2, TLS, limits of connections, and slow peers.

mod http2;
mod limits;
mod slow;
pub(crate) mod tls;
mod waiting;
