//! A CIDR entry that is read has no host bits, names its address in a form that the standard library
//! reads too, and comes back the same from its own text.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use rescind_verifier::{Allowlist, parse_cidr};

fuzz_target!(|text: &str| {
    let Ok(net) = parse_cidr(text) else { return };
    assert_eq!(net.trunc(), net);
    assert_eq!(parse_cidr(&net.to_string()), Ok(net));

    // Leading zeros would make 010.0.0.0 mean one network here and another elsewhere.
    let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address.parse().expect("the standard library reads the address");
    assert_eq!(address.to_canonical(), net.addr());
    assert!(!prefix.starts_with(['0', '+']) || prefix == "0", "{prefix} is a plain number");

    // Not the last address: that of ::/80 is an IPv4-mapped one, which is IPv4 and no member.
    let list: Allowlist = [net].into_iter().collect();
    assert!(list.permits(Some(net.network())) && !list.permits(None));
});
