//! The caller's address: never a trusted proxy's unless every hop is one, and never changed by what
//! stands to the left of an untrusted hop.

#![no_main]

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use rescind::http::client_ip::TrustedProxies;

fuzz_target!(|input: (bool, Vec<Vec<u8>>)| {
    let (forwarded, lines) = input;
    let header = HeaderName::from_static(if forwarded { "forwarded" } else { "x-forwarded-for" });
    let proxies = TrustedProxies {
        networks: vec!["10.0.0.0/8".parse().expect("a network")],
        header: Some(header.clone()),
    };
    let mut headers = HeaderMap::new();
    for line in &lines {
        let Ok(line) = HeaderValue::from_bytes(line) else { return };
        headers.append(header.clone(), line);
    }
    let peer: IpAddr = "10.0.0.1".parse().expect("an address");
    let told = proxies.caller(peer, &headers);
    assert_eq!(told, told.map(|address| address.to_canonical()));

    let stranger: IpAddr = "203.0.113.7".parse().expect("an address");
    let last = if forwarded { "for=203.0.113.7" } else { "203.0.113.7" };
    headers.append(header, HeaderValue::from_static(last));
    assert_eq!(proxies.caller(peer, &headers), Some(stranger));
    assert_eq!(proxies.caller(stranger, &headers), Some(stranger));
});
