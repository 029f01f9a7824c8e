//! The URLs of this process's listeners, and the ports of others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hyper::http::uri::Authority;

use super::Config;

impl Config {
    /// The URL at which clients of this machine find the public listener at this address.
    pub fn public_url(&self, address: SocketAddr) -> String {
        url(self.tls.certificate.is_some(), address)
    }

    /// The same of the management listener.
    pub fn management_url(&self, address: SocketAddr) -> String {
        url(self.tls.management, address)
    }
}

/// Returns the port that a URL's authority names, or else the other one. `None`: it names what is no port.
pub fn port_of(authority: &Authority, otherwise: u16) -> Option<u16> {
    match &authority.as_str()[authority.host().len()..] {
        "" => Some(otherwise),
        _ => authority.port_u16(),
    }
}

/// Names an address that stands for all of this machine's as one of them.
fn url(is_tls: bool, mut address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    format!("{}://{address}", if is_tls { "https" } else { "http" })
}
