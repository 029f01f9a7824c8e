//! The caller's address, determined once for every request.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use hyper::{HeaderMap, header::HeaderName};
use ipnet::IpNet;
use rescind_base::model::PeerCertificate;
use rescind_verifier::contains;

use crate::auth::Caller;

/// The proxies that are trusted to name the caller's address, and the header in which they do.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies {
    /// Networks of the proxies.
    pub networks: Vec<IpNet>,
    /// The one header they write.
    pub header: Option<HeaderName>,
}

/// The other end of the connection.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: IpAddr,
    /// The caller's address, which a trusted proxy has named as the connection began (PROXY protocol).
    pub named: Option<IpAddr>,
    /// The certificate that the peer has shown in the TLS handshake. No header can replace it.
    pub certificate: Option<Arc<PeerCertificate>>,
    /// The user's number, if the peer is a program of this machine that uses the data folder.
    pub uid: Option<u32>,
}

impl Peer {
    /// A peer that has shown nothing yet.
    pub const fn direct(address: IpAddr) -> Peer {
        Peer { address, named: None, certificate: None, uid: None }
    }

    /// A program of this machine that uses the data folder.
    pub const LOCAL: Peer = Peer::direct(IpAddr::V4(Ipv4Addr::LOCALHOST));
}

impl TrustedProxies {
    /// Determines the caller of a request.
    pub(super) fn resolve(&self, peer: &Peer, headers: &HeaderMap) -> Caller {
        let Peer { address: peer, named, certificate, uid: _ } = peer.clone();
        let address = named.or_else(|| self.caller(peer, headers));
        // A balancer that names the caller reads no request, and takes no header away.
        let through_proxy = named.is_none() && self.trusts(peer.to_canonical());
        Caller { peer, address, through_proxy, certificate }
    }

    /// Returns the caller's address. Reads the header from its right end, which is the nearest hop, past the trusted
    /// proxies to the first other hop. `None`: a trusted proxy did not write the header, or one of these hops could
    /// not be read.
    pub fn caller(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return Some(peer);
        }
        let mut nearest = None;
        for (_, hop) in self.hops(headers) {
            let hop = hop?;
            if !self.trusts(hop) {
                return Some(hop);
            }
            nearest = Some(hop);
        }
        nearest
    }

    /// The hops that the header names, from its right end, with their texts. `None`: the text is no address.
    pub(super) fn hops<'h>(
        &'h self,
        headers: &'h HeaderMap,
    ) -> impl Iterator<Item = (&'h str, Option<IpAddr>)> {
        let is_forwarded = self.header.as_ref().is_some_and(|header| header == "forwarded");
        let lines = self.header.iter().flat_map(|header| headers.get_all(header).iter().rev());
        let hops = lines.flat_map(move |line| {
            match line.to_str() {
                Ok(line) if is_forwarded => rsplit_unquoted(line, ','),
                Ok(line) => line.rsplit(',').collect(),
                // A line with other characters than visible ASCII is no list of addresses.
                Err(_) => vec![""],
            }
        });
        hops.map(move |hop| {
            let named = if is_forwarded { forwarded_for(hop) } else { Some(hop) };
            (hop.trim(), named.and_then(|named| parse_hop(named.trim())))
        })
    }

    /// Whether this is one of the proxies.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|net| contains(net, address))
    }
}

/// Splits at a separator outside quoted strings, from the right end on, and returns the parts in that order. The left
/// end is the caller's, and a quote that it leaves open there must not take in what a proxy has written after it.
fn rsplit_unquoted(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut end, mut quoted) = (vec![], text.len(), false);
    for (at, c) in text.char_indices().rev() {
        if c == '"' {
            let escapes = text[..at].bytes().rev().take_while(|byte| *byte == b'\\').count();
            quoted = !quoted || escapes % 2 == 1;
        } else if c == separator && !quoted {
            parts.push(&text[at + 1..end]);
            end = at;
        }
    }
    parts.push(&text[..end]);
    parts
}

/// The one `for` of a `Forwarded` element (RFC 7239 §4).
fn forwarded_for(element: &str) -> Option<&str> {
    let mut found = None;
    for pair in rsplit_unquoted(element, ';') {
        let (name, value) = pair.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("for") && found.replace(value.trim()).is_some() {
            return None;
        }
    }
    let value = found?;
    match value.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"'),
        None => Some(value),
    }
}

/// Reads `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`. Refuses zone ids, `unknown`
/// and `_hidden`, because they name no address that an allowlist could contain.
pub(super) fn parse_hop(hop: &str) -> Option<IpAddr> {
    let address: IpAddr = if let Some(bracketed) = hop.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let port_is_good = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        IpAddr::V6(address.parse().ok().filter(|_| port_is_good)?)
    } else {
        match hop.split_once(':') {
            Some((address, port)) if is_port(port) => IpAddr::V4(address.parse().ok()?),
            _ => hop.parse().ok()?,
        }
    };
    Some(address.to_canonical())
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn proxies(header: &str) -> TrustedProxies {
        TrustedProxies {
            networks: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            header: Some(header.parse().unwrap()),
        }
    }

    fn told(header: &str, peer: &str, lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header.parse::<HeaderName>().unwrap(), line.parse().unwrap());
        }
        proxies(header).caller(peer.parse().unwrap(), &headers).map(|a| a.to_string())
    }

    fn xff(peer: &str, lines: &[&str]) -> Option<String> {
        told("x-forwarded-for", peer, lines)
    }

    // check 63
    #[test]
    fn nobody_is_trusted_unless_configured() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "203.0.113.7".parse().unwrap());
        let peer = PROXY.parse().unwrap();
        assert_eq!(TrustedProxies::default().caller(peer, &headers), Some(peer));
        assert_eq!(xff("192.0.2.1", &["203.0.113.7"]), Some("192.0.2.1".into()));
    }

    // check 64
    #[test]
    fn the_walk_goes_from_right_to_left_over_trusted_hops_only() {
        let found = Some("203.0.113.7".to_owned());
        assert_eq!(xff(PROXY, &["203.0.113.7"]), found);
        assert_eq!(xff(PROXY, &["198.51.100.1, 203.0.113.7"]), found);
        assert_eq!(xff(PROXY, &["198.51.100.1, 203.0.113.7, 10.2.3.4"]), found);
        assert_eq!(xff(PROXY, &["198.51.100.1", "203.0.113.7, 10.2.3.4", "10.9.9.9"]), found);
        assert_eq!(xff(PROXY, &["10.2.3.4"]), Some("10.2.3.4".into()));
    }

    // check 106
    #[test]
    fn a_proxy_that_names_no_caller_is_nobody() {
        assert_eq!(xff(PROXY, &[]), None);
        assert_eq!(xff("192.0.2.1", &[]), Some("192.0.2.1".into()));
        // A proxy without a configured header names no caller either.
        let unnamed = TrustedProxies { header: None, ..proxies("x") };
        assert_eq!(unnamed.caller(PROXY.parse().unwrap(), &HeaderMap::new()), None);
    }

    // check 65, 67, 68
    #[test]
    fn a_hop_that_cannot_be_read_is_nobody() {
        for bad in [
            "",
            "unknown",
            "_hidden",
            "203.0.113",
            "0203.0.113.7",
            "0xcb.0.113.7",
            "203.0.113.7:",
            "203.0.113.7:+80",
            "203.0.113.7:99999",
            "fe80::1%eth0",
            "[fe80::1%eth0]",
            "[203.0.113.7]",
            "[::1",
            "[::1]80",
            "::1:80:",
            "203.0.113.7,",
            "\"203.0.113.7\"",
            "203.0.113.7 203.0.113.8",
        ] {
            assert_eq!(xff(PROXY, &[bad]), None, "{bad:?}");
        }
        // The first untrusted hop wrote everything to its left, so that part is not read.
        assert_eq!(xff(PROXY, &["garbage, 203.0.113.7"]), Some("203.0.113.7".into()));
        assert_eq!(xff(PROXY, &["garbage, 10.0.0.2"]), None);
    }

    // check 66, 67
    #[test]
    fn ports_brackets_and_mapped_addresses() {
        for (hop, address) in [
            ("203.0.113.7:8080", "203.0.113.7"),
            ("[2001:db9::1]:8080", "2001:db9::1"),
            ("[2001:db9::1]", "2001:db9::1"),
            ("2001:db9::1", "2001:db9::1"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
        ] {
            assert_eq!(xff(PROXY, &[hop]).as_deref(), Some(address), "{hop:?}");
        }
        assert_eq!(xff("::ffff:10.0.0.1", &["203.0.113.7"]).as_deref(), Some("203.0.113.7"));
    }

    // check 64
    #[test]
    fn an_open_quote_of_the_caller_hides_no_hop() {
        for own in
            ["for=203.0.113.7", "for=\"203.0.113.7:55\"", "for=203.0.113.7;host=\";for=198.51.100.9;y=\""]
        {
            for forged in
                ["for=198.51.100.9;x=\"", "for=198.51.100.9;\"", "for=198.51.100.9;x=\"\\", "\"", "\\"]
            {
                let line = format!("{forged}, {own}");
                assert_eq!(told("forwarded", PROXY, &[&line]).as_deref(), Some("203.0.113.7"), "{line}");
            }
        }
    }

    #[test]
    fn forwarded() {
        let forwarded = |line: &str| told("forwarded", PROXY, &[line]);
        for good in [
            "for=203.0.113.7",
            "For=\"203.0.113.7:80\";proto=https",
            "for=198.51.100.1, for=203.0.113.7;by=\"a,b;c\\\"d\", for=\"[2001:db8::5]:1\"",
        ] {
            assert_eq!(forwarded(good).as_deref(), Some("203.0.113.7"), "{good:?}");
        }
        for bad in [
            "for=unknown",
            "for=_x",
            "proto=https",
            "for=203.0.113.7;for=203.0.113.8",
            "203.0.113.7",
            "for=\"203.0.113.7",
        ] {
            assert_eq!(forwarded(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_confuses_the_walk(text in "[ -~]{0,80}") {
            let _ = xff(PROXY, &[&text]);
            let _ = told("forwarded", PROXY, &[&text]);
        }

        // The proxies write the right end. Text that a client writes to its left changes nothing.
        #[test]
        fn what_a_client_writes_changes_nothing(
            forged in "[ -~]{0,60}",
            // A proxy that names the host quotes what the client has sent.
            forged_host in "[a-z.;,=]{0,20}",
            address in any::<u32>(),
            hops in 0usize..3,
        ) {
            let address = IpAddr::from(Ipv4Addr::from(address));
            prop_assume!(!proxies("x-forwarded-for").trusts(address));
            let line = format!("{forged}, {address}{}", ", 10.1.1.1".repeat(hops));
            prop_assert_eq!(xff(PROXY, &[&line]), Some(address.to_string()));
            for own in [format!("for={address}"), format!("by=\"{forged_host}\";for=\"{address}:80\"")] {
                for open in ["", "for=192.0.2.1;x=\"", "for=192.0.2.1;x=\"\\"] {
                    let line = format!("{forged}{open}, {own}{}", ", for=10.1.1.1".repeat(hops));
                    prop_assert_eq!(told("forwarded", PROXY, &[&line]), Some(address.to_string()), "{}", line);
                }
            }
        }

        #[test]
        fn agrees_with_a_plain_walk(hops in prop::collection::vec((0u8..3, any::<u8>()), 0..6)) {
            let hops: Vec<IpAddr> = hops.iter().map(|(a, b)| IpAddr::from([10 + a % 2, 0, 0, *b])).collect();
            let line = hops.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            let lines: &[&str] = if hops.is_empty() { &[] } else { &[&line] };
            let trusted: IpNet = "10.0.0.0/8".parse().unwrap();
            let expected = hops.iter().rev().find(|hop| !trusted.contains(*hop)).or(hops.first());
            prop_assert_eq!(xff(PROXY, lines), expected.map(ToString::to_string));
        }
    }
}
