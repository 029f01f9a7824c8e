//! The header of the PROXY protocol: nothing behind it is read, and what is behind it changes nothing.

#![no_main]

use std::{
    io,
    net::IpAddr,
    pin::pin,
    task::{Context, Poll, Waker},
};

use libfuzzer_sys::fuzz_target;
use rescind::server::proxy_protocol::read_header;

/// Returns what is read, and what is left.
fn read(mut bytes: &[u8]) -> (io::Result<Option<IpAddr>>, &[u8]) {
    let read = match pin!(read_header(&mut bytes)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(read) => read,
        Poll::Pending => unreachable!("bytes are there at once"),
    };
    (read, bytes)
}

fuzz_target!(|bytes: &[u8]| {
    let (Ok(named), rest) = read(bytes) else { return };
    let header = &bytes[..bytes.len() - rest.len()];
    let other = [header, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"].concat();
    let (again, left) = read(&other);
    assert_eq!(again.ok(), Some(named));
    assert_eq!(left.len(), other.len() - header.len());
});
