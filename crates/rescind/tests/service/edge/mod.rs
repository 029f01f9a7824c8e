//! Where the service meets the network: HTTP/2, TLS, how many connections there may be, and peers that are slow.

mod http2;
mod limits;
mod slow;
pub(crate) mod tls;
mod waiting;
