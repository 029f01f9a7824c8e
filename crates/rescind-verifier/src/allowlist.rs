use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

/// The networks that a client may call from. An empty allowlist permits every address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowlist(Box<[IpNet]>);

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

impl Allowlist {
    /// Whether a caller at `address` may use this client's tokens. `None` is an address that is not known,
    /// and is never permitted, not even by an empty allowlist.
    pub fn permits(&self, address: Option<IpAddr>) -> bool {
        let Some(address) = address.map(|a| a.to_canonical()) else { return false };
        self.0.is_empty() || self.0.iter().any(|net| net.contains(&address))
    }

    /// The entries, sorted and without repetition.
    pub fn entries(&self) -> &[IpNet] {
        &self.0
    }

    /// Whether there is no entry, so that every address is permitted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<IpNet> for Allowlist {
    fn from_iter<I: IntoIterator<Item = IpNet>>(entries: I) -> Self {
        let mut entries: Vec<IpNet> = entries.into_iter().collect();
        entries.sort_unstable();
        entries.dedup();
        Allowlist(entries.into())
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
        fn agrees_with_ipnet(nets in prop::collection::vec(network(), 0..5), address in address()) {
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
