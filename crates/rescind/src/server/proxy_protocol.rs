//! The PROXY protocol: a load balancer that passes connections on writes the caller's address before the first byte.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, versions 1 and 2. What follows the header is not read.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use tokio::io::{AsyncRead, AsyncReadExt};

const V1: &[u8] = b"PROXY ";
const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1, with its line break.
const V1_LENGTH: usize = 107;

/// Reads the header. Returns the caller's address, or `None` if the balancer speaks for itself or knows no address.
///
/// # Errors
///
/// If the connection does not begin with a header, or breaks off.
pub async fn read_header(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    // Every header of either version is longer than that.
    let mut start = [0; V2.len()];
    io.read_exact(&mut start).await?;
    if start == *V2 {
        read_v2(io).await
    } else if start.starts_with(V1) {
        read_v1(io, &start).await
    } else {
        Err(malformed("there is no PROXY header"))
    }
}

async fn read_v1(io: &mut (impl AsyncRead + Unpin), start: &[u8]) -> io::Result<Option<IpAddr>> {
    let mut line = start.to_vec();
    // Byte by byte, because the line's length is not known, and what follows is another reader's.
    while !line.ends_with(b"\r\n") {
        if line.len() >= V1_LENGTH {
            return Err(malformed("the PROXY line is too long"));
        }
        line.push(io.read_u8().await?);
    }
    let line = str::from_utf8(&line).ok().and_then(|line| line.strip_suffix("\r\n"));
    parse_line(line.unwrap_or_default()).ok_or_else(|| malformed("the PROXY line cannot be read"))
}

/// `PROXY TCP4 203.0.113.7 198.51.100.1 54321 443`. The inner `None`: `PROXY UNKNOWN …`.
fn parse_line(line: &str) -> Option<Option<IpAddr>> {
    let mut words = line.split(' ').skip(1);
    let is_v4 = match words.next()? {
        "UNKNOWN" => return Some(None),
        "TCP4" => true,
        "TCP6" => false,
        _ => return None,
    };
    let mut address = || words.next()?.parse().ok().filter(|address: &IpAddr| address.is_ipv4() == is_v4);
    let (source, _destination) = (address()?, address()?);
    let is_port = |word: &str| word.bytes().all(|b| b.is_ascii_digit()) && word.parse::<u16>().is_ok();
    let ports: Vec<_> = words.collect();
    (ports.len() == 2 && ports.into_iter().all(is_port)).then_some(Some(source))
}

async fn read_v2(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let (command, family) = (io.read_u8().await?, io.read_u8().await?);
    let mut rest = vec![0; io.read_u16().await?.into()];
    io.read_exact(&mut rest).await?;
    match (command, family) {
        // The balancer's own connection, such as a health check.
        (0x20, _) => Ok(None),
        // No family, or a Unix socket.
        (0x21, 0x00 | 0x31) => Ok(None),
        // Source and destination addresses, their ports, and fields that are not needed here.
        (0x21, 0x11) if rest.len() >= 12 => {
            Ok(rest.first_chunk().map(|&v4: &[u8; 4]| Ipv4Addr::from(v4).into()))
        }
        (0x21, 0x21) if rest.len() >= 36 => {
            Ok(rest.first_chunk().map(|&v6: &[u8; 16]| Ipv6Addr::from(v6).into()))
        }
        _ => Err(malformed("the PROXY header cannot be read")),
    }
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the address, or `-`, and what is left to read; `None` if the header is refused.
    async fn read(mut bytes: &[u8]) -> Option<(String, Vec<u8>)> {
        let address = read_header(&mut bytes).await.ok()?;
        Some((address.map_or("-".into(), |address| address.to_string()), bytes.to_vec()))
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        [V2.as_slice(), &[command, family], &(rest.len() as u16).to_be_bytes(), rest, b"GET /"].concat()
    }

    #[tokio::test]
    async fn a_header_names_the_caller_and_nothing_after_it_is_read() {
        let v4: &[u8] = &[203, 0, 113, 7, 10, 0, 0, 1, 1, 2, 3, 4];
        let v6 = [&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets()[..], &[0; 20]].concat();
        for (bytes, address) in [
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 54321 443\r\nGET /".to_vec(), "203.0.113.7"),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\nGET /".to_vec(), "2001:db8::7"),
            (b"PROXY UNKNOWN\r\nGET /".to_vec(), "-"),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\nGET /".to_vec(), "-"),
            (v2(0x21, 0x11, v4), "203.0.113.7"),
            (v2(0x21, 0x11, &[v4, &[3, 0, 1, 9]].concat()), "203.0.113.7"),
            (v2(0x21, 0x21, &v6), "2001:db8::7"),
            (v2(0x20, 0x11, v4), "-"),
            (v2(0x20, 0x00, &[]), "-"),
            (v2(0x21, 0x00, &[]), "-"),
            (v2(0x21, 0x31, &[0; 216]), "-"),
        ] {
            let found = read(&bytes).await;
            assert_eq!(found, Some((address.into(), b"GET /".to_vec())), "{}", bytes.escape_ascii());
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        for bytes in [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0.0.1 1\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2 3\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0.0.1 1 65536\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0.0.1 1 +2\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7  10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n".to_vec(),
            b"PROXY TCP6 203.0.113.7 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY UDP4 203.0.113.7 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\n\n\r\n".to_vec(),
            b"proxy TCP4 203.0.113.7 10.0.0.1 1 2\r\n".to_vec(),
            [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 100], b"\r\n"].concat(),
            b"PROXY TCP4 203.0.113.7".to_vec(),
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x12, &[0; 12]),
        ] {
            assert_eq!(read(&bytes).await, None, "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_confuse_it(version in 0..3, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let start: &[u8] = [b"".as_slice(), V1, V2][version as usize];
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(read(&[start, &bytes].concat()));
        }
    }
}
