use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use ipnet::IpNet;
use thiserror::Error;

/// The networks that a client may call from. An empty allowlist permits every address. A copy shares the entries.
#[derive(Debug, Clone, Default)]
pub struct Allowlist(Option<Arc<Networks>>);

#[derive(Debug)]
struct Networks {
    entries: Box<[IpNet]>,
    /// The same addresses as ranges that do not overlap, in order: one search finds the only range that may contain an
    /// address, however many entries there are.
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

/// The ranges follow from the entries.
impl PartialEq for Allowlist {
    fn eq(&self, other: &Allowlist) -> bool {
        self.entries() == other.entries()
    }
}

impl Eq for Allowlist {}

/// Why a text cannot be read as an entry of an allowlist.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CidrError {
    /// The text is neither an address nor a network.
    #[error(
        "{0:?} is not an address or a network: write one such as 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32"
    )]
    Syntax(String),
    /// The address of the network has bits set beyond the prefix.
    #[error("{given} has host bits set: the network is {meant}")]
    HostBits {
        /// The entry as it was written.
        given: IpNet,
        /// The network that has the address.
        meant: IpNet,
    },
}

/// Reads an entry of an allowlist: `10.0.0.0/8`, `2001:db8::/32` or an address without a prefix, which is a
/// /32 or /128. An IPv4 address mapped into IPv6 becomes that IPv4 address.
///
/// # Errors
///
/// [`CidrError::Syntax`] if it is neither an address nor a network, [`CidrError::HostBits`] if the address has
/// bits set beyond the prefix.
pub fn parse_cidr(text: &str) -> Result<IpNet, CidrError> {
    let syntax = || CidrError::Syntax(text.to_owned());
    // The standard library reads the address, because ipnet reads 010.0.0.0 as 10.0.0.0.
    let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
    let address: IpAddr = address.parse().map_err(|_| syntax())?;
    let given: IpNet = match prefix {
        None => address.to_canonical().into(),
        Some(p) if p != "0" && p.starts_with(['0', '+']) => return Err(syntax()),
        Some(p) => IpNet::new(address, p.parse().map_err(|_| syntax())?).map_err(|_| syntax())?,
    };
    let given = match given {
        IpNet::V6(net) if net.addr().to_ipv4_mapped().is_some() => {
            let prefix = net.prefix_len().checked_sub(96).ok_or_else(syntax)?;
            IpNet::new(net.addr().to_canonical(), prefix).map_err(|_| syntax())?
        }
        other => other,
    };
    let meant = given.trunc();
    if meant != given {
        return Err(CidrError::HostBits { given, meant });
    }
    Ok(given)
}

/// The IPv4 address in an address of NAT64 (`64:ff9b::/96`, RFC 6052), which stands for it in a network without IPv4.
pub fn nat64(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V6(v6) if v6.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] => {
            let [.., a, b, c, d] = v6.octets();
            Some(Ipv4Addr::new(a, b, c, d).into())
        }
        _ => None,
    }
}

/// Whether an entry contains an address, or the IPv4 address that NAT64 has translated into it.
pub fn contains(entry: &IpNet, address: IpAddr) -> bool {
    entry.contains(&address) || nat64(address).is_some_and(|v4| entry.contains(&v4))
}

impl Allowlist {
    /// Whether a caller at `address` may use this client's tokens. `None` is an address that is not known,
    /// and is never permitted, not even by an empty allowlist.
    pub fn permits(&self, address: Option<IpAddr>) -> bool {
        let Some(address) = address.map(|a| a.to_canonical()) else { return false };
        self.0.as_ref().is_none_or(|networks| {
            let within = |address: IpAddr| match address {
                IpAddr::V4(address) => is_in(&networks.v4, u32::from(address)),
                IpAddr::V6(address) => is_in(&networks.v6, u128::from(address)),
            };
            within(address) || nat64(address).is_some_and(within)
        })
    }

    /// The entries, sorted and without repetition.
    pub fn entries(&self) -> &[IpNet] {
        self.0.as_ref().map_or(&[], |networks| &networks.entries)
    }

    /// Whether there is no entry, so that every address is permitted.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// Whether one of these ranges, which are in order, contains an address.
fn is_in<A: Ord + Copy>(ranges: &[(A, A)], address: A) -> bool {
    let after = ranges.partition_point(|&(first, _)| first <= address);
    after.checked_sub(1).is_some_and(|at| address <= ranges[at].1)
}

/// Sorts ranges, and joins them where they overlap.
fn joined<A: Ord + Copy>(ranges: impl Iterator<Item = (A, A)>) -> Box<[(A, A)]> {
    let mut ranges: Vec<_> = ranges.collect();
    ranges.sort_unstable();
    let mut joined: Vec<(A, A)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if first <= *end => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined.into()
}

impl FromIterator<IpNet> for Allowlist {
    fn from_iter<I: IntoIterator<Item = IpNet>>(entries: I) -> Self {
        let mut entries: Vec<IpNet> = entries.into_iter().collect();
        if entries.is_empty() {
            return Allowlist(None);
        }
        entries.sort_unstable();
        entries.dedup();
        let v4 = joined(entries.iter().filter_map(|net| match net {
            IpNet::V4(net) => Some((net.network().into(), net.broadcast().into())),
            IpNet::V6(_) => None,
        }));
        let v6 = joined(entries.iter().filter_map(|net| match net {
            IpNet::V4(_) => None,
            IpNet::V6(net) => Some((net.network().into(), net.broadcast().into())),
        }));
        Allowlist(Some(Arc::new(Networks { entries: entries.into(), v4, v6 })))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn list(entries: &[&str]) -> Allowlist {
        entries.iter().map(|e| parse_cidr(e).unwrap()).collect()
    }

    fn permits(list: &Allowlist, address: &str) -> bool {
        list.permits(Some(address.parse().unwrap()))
    }

    #[test]
    fn empty_permits_everybody_but_an_address_that_could_not_be_told() {
        assert!(permits(&list(&[]), "203.0.113.7"));
        assert!(!list(&[]).permits(None));
    }

    // check 66
    #[test]
    fn mapped_addresses_are_ipv4() {
        let v4 = list(&["10.0.0.0/8"]);
        assert!(permits(&v4, "::ffff:10.1.2.3") && permits(&v4, "10.1.2.3"));
        assert!(!permits(&v4, "::ffff:11.1.2.3") && !permits(&v4, "::10.1.2.3"));
        assert_eq!(list(&["::ffff:10.0.0.0/104"]), v4);
        assert_eq!(list(&["::ffff:10.1.2.3"]), list(&["10.1.2.3/32"]));
    }

    // check 66
    #[test]
    fn an_address_of_nat64_is_matched_by_the_ipv4_address_in_it() {
        let v4 = list(&["203.0.113.0/24"]);
        assert!(permits(&v4, "64:ff9b::203.0.113.7") && !permits(&v4, "64:ff9b::203.0.114.7"));
        // Only of the well-known prefix.
        assert!(!permits(&v4, "64:ff9b:1::203.0.113.7") && !permits(&v4, "64:ff9b::1:203.0.113.7"));
        // Whoever allows a network of the translator's addresses means these.
        let v6 = list(&["64:ff9b::/96"]);
        assert!(permits(&v6, "64:ff9b::203.0.113.7") && !permits(&v6, "203.0.113.7"));
    }

    // check 68, 69
    #[test]
    fn only_plain_networks_are_read() {
        for text in [
            "",
            "10",
            "10.1",
            "010.0.0.1",
            "0x0a.0.0.1",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/-1",
            "fe80::1%eth0",
            "[::1]",
            "10.0.0.1:80",
            " 10.0.0.1",
            "10.0.0.0/08x",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "010.0.0.0/8",
            "0x0a.0.0.0/8",
            "::ffff:01.0.0.0/104",
            "10.0.0.0/8/8",
        ] {
            assert!(matches!(parse_cidr(text), Err(CidrError::Syntax(_))), "{text:?}");
        }
        let error = parse_cidr("10.0.0.1/8").unwrap_err();
        assert_eq!(error.to_string(), "10.0.0.1/8 has host bits set: the network is 10.0.0.0/8");
    }

    fn network() -> impl Strategy<Value = IpNet> {
        // Few distinct high bits, so that members and strangers are both common.
        prop_oneof![
            (0u32..4, 0u8..=32)
                .prop_map(|(a, p)| IpNet::new(Ipv4Addr::from(a << 30 | a).into(), p).unwrap().trunc()),
            (0u128..4, 0u8..=128)
                .prop_map(|(a, p)| IpNet::new(Ipv6Addr::from(a << 126 | a).into(), p).unwrap().trunc()),
        ]
    }

    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0u32..4, 0u32..4).prop_map(|(a, b)| Ipv4Addr::from(a << 30 | b).into()),
            (0u32..4, 0u32..4).prop_map(|(a, b)| Ipv4Addr::from(a << 30 | b).to_ipv6_mapped().into()),
            (0u128..4, 0u128..4).prop_map(|(a, b)| Ipv6Addr::from(a << 126 | b).into()),
            any::<u128>().prop_map(|a| Ipv6Addr::from(a).into()),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_ipnet(nets in prop::collection::vec(network(), 0..9), address in address()) {
            let plain = match address {
                IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
                v4 => v4,
            };
            let oracle = nets.is_empty() || nets.iter().any(|n| n.contains(&plain));
            let list: Allowlist = nets.into_iter().collect();
            prop_assert_eq!(list.permits(Some(address)), oracle);
        }

        #[test]
        fn what_is_printed_is_read_again(net in network()) {
            // ::/n for n < 96 with zero bits is an IPv6 network of its own, not a mapped one.
            prop_assert_eq!(parse_cidr(&net.to_string()), Ok(net));
        }

        #[test]
        fn host_bits_are_refused_naming_the_network(address in any::<u32>(), prefix in 0u8..32) {
            let given = IpNet::new(Ipv4Addr::from(address | 1).into(), prefix).unwrap();
            let refused = CidrError::HostBits { given, meant: given.trunc() };
            prop_assert_eq!(parse_cidr(&given.to_string()), Err(refused));
        }
    }
}
