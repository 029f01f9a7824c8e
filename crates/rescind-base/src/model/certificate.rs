//! The certificates of clients, and the names in them to which a client may be bound (RFC 8705 §2.1).

use std::{collections::BTreeSet, fmt, ops::Deref, str::FromStr};

use rustls::pki_types::DnsName;
use thiserror::Error;

use crate::{clock::rfc3339, model::UnixSeconds};

/// The length of the longest SPIFFE id.
const MAX_URI_LENGTH: usize = 2048;

/// A subject alternative name. Names are compared exactly; no character is a wildcard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CertificateName {
    /// `dns:api.example.com`, in lower case.
    Dns(String),
    /// `uri:spiffe://example.com/api`.
    Uri(String),
}

/// Why a text is not the name of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CertificateNameError {
    /// The text is of neither kind.
    #[error("{0:?} is not a name such as dns:api.example.com or uri:spiffe://example.com/api")]
    Kind(String),
    /// The text is not a host's name, or has a wildcard.
    #[error("dns:{0} is not a DNS name such as dns:api.example.com, without wildcards")]
    Dns(String),
    /// The URI has no scheme, is too long, or has characters that are not visible ASCII.
    #[error(
        "uri:{0} is not a URI such as uri:spiffe://example.com/api, of at most {MAX_URI_LENGTH} visible ASCII \
         characters"
    )]
    Uri(String),
}

impl CertificateName {
    /// Reads a `dNSName`.
    ///
    /// # Errors
    /// Fails if the text is not a DNS name, or has a wildcard or a final dot.
    pub fn dns(text: &str) -> Result<CertificateName, CertificateNameError> {
        match DnsName::try_from(text) {
            Ok(name) if !text.ends_with('.') => {
                Ok(CertificateName::Dns(name.to_lowercase_owned().as_ref().to_owned()))
            }
            _ => Err(CertificateNameError::Dns(text.to_owned())),
        }
    }

    /// Reads a `uniformResourceIdentifier`.
    ///
    /// # Errors
    /// Fails if the text has no scheme, is too long, or has characters that are not visible ASCII.
    pub fn uri(text: &str) -> Result<CertificateName, CertificateNameError> {
        let is_scheme = |scheme: &str| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        };
        let parts = text.split_once(':').filter(|(scheme, rest)| is_scheme(scheme) && !rest.is_empty());
        if parts.is_some() && text.len() <= MAX_URI_LENGTH && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(CertificateName::Uri(text.to_owned()))
        } else {
            Err(CertificateNameError::Uri(text.to_owned()))
        }
    }
}

impl FromStr for CertificateName {
    type Err = CertificateNameError;

    fn from_str(text: &str) -> Result<Self, CertificateNameError> {
        match text.split_once(':') {
            Some(("dns", name)) => CertificateName::dns(name),
            Some(("uri", name)) => CertificateName::uri(name),
            _ => Err(CertificateNameError::Kind(text.to_owned())),
        }
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertificateName::Dns(name) => write!(f, "dns:{name}"),
            CertificateName::Uri(name) => write!(f, "uri:{name}"),
        }
    }
}

/// The names of which a client's certificate must have one. If there are none, the client needs no certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateNames(BTreeSet<CertificateName>);

impl Deref for CertificateNames {
    type Target = BTreeSet<CertificateName>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl CertificateNames {
    /// Returns whether this certificate is sufficient now, or none is shown and none is needed. One that has expired since the
    /// handshake is sufficient for nobody: a new handshake with it would fail.
    pub fn admit(&self, shown: Option<&PeerCertificate>, now: UnixSeconds) -> bool {
        let has_one = |shown: &PeerCertificate| shown.names.iter().any(|name| self.contains(name));
        match shown {
            Some(shown) => now <= shown.until && (self.is_empty() || has_one(shown)),
            None => self.is_empty(),
        }
    }
}

impl FromIterator<CertificateName> for CertificateNames {
    fn from_iter<I: IntoIterator<Item = CertificateName>>(names: I) -> Self {
        CertificateNames(names.into_iter().collect())
    }
}

/// Reads names joined by single spaces.
impl FromStr for CertificateNames {
    type Err = CertificateNameError;

    fn from_str(text: &str) -> Result<Self, CertificateNameError> {
        text.split_terminator(' ').map(str::parse).collect()
    }
}

/// Writes the names joined by single spaces.
impl fmt::Display for CertificateNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.iter().map(ToString::to_string).collect();
        f.write_str(&names.join(" "))
    }
}

/// The content of the verified certificate of a connection's other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The names, in the certificate's order.
    pub names: Vec<CertificateName>,
    /// The last second at which the certificate is valid. A connection, or a resumed TLS session, may last longer.
    pub until: UnixSeconds,
}

impl fmt::Display for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.names.iter().try_for_each(|name| write!(f, "{name} "))?;
        write!(f, "until {}", rfc3339(self.until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (text, written) in [
            ("dns:api.example.com", "dns:api.example.com"),
            ("dns:API.Example.com", "dns:api.example.com"),
            ("dns:localhost", "dns:localhost"),
            ("uri:spiffe://example.com/ns/A", "uri:spiffe://example.com/ns/A"),
            (
                "uri:urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
                "uri:urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
            ),
        ] {
            assert_eq!(text.parse::<CertificateName>().unwrap().to_string(), written);
        }
        let long = format!("uri:x:{}", "a".repeat(MAX_URI_LENGTH));
        for bad in [
            "",
            "api.example.com",
            "DNS:api.example.com",
            "email:a@example.com",
            "dns:",
            "dns:*.example.com",
            "dns:api.example.com.",
            "dns:a b",
            "dns:a\0b",
            "dns:bücher.example",
            "dns:10.0.0.1",
            "uri:",
            "uri:/path",
            "uri:spiffe:",
            "uri:1x:y",
            "uri:x:a b",
            "uri:x:\u{e9}",
            "uri:x:a\n",
            &long,
        ] {
            assert!(bad.parse::<CertificateName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_set_is_its_names_in_one_order() {
        let names: CertificateNames = "uri:x:1 dns:b dns:a dns:A".parse().unwrap();
        assert_eq!((names.len(), names.to_string().as_str()), (3, "dns:a dns:b uri:x:1"));
        assert_eq!("".parse::<CertificateNames>().unwrap(), CertificateNames::default());
        assert!("dns:a  dns:b".parse::<CertificateNames>().is_err());
    }

    #[test]
    fn one_name_to_the_letter_will_do_while_the_certificate_lasts() {
        let shown = |names: &str| PeerCertificate {
            names: names.split_terminator(' ').map(|name| name.parse().unwrap()).collect(),
            until: 100,
        };
        let names: CertificateNames = "dns:a.example uri:x:1".parse().unwrap();
        for (certificate, expected) in [
            ("dns:a.example", true),
            ("dns:A.EXAMPLE", true),
            ("dns:z dns:y uri:x:1", true),
            ("", false),
            ("dns:b.a.example", false),
            ("dns:example", false),
            ("uri:X:1", false),
            ("uri:x:1/", false),
            ("uri:dns:a.example", false),
        ] {
            assert_eq!(names.admit(Some(&shown(certificate)), 100), expected, "{certificate}");
            assert!(!names.admit(Some(&shown(certificate)), 101), "{certificate}");
            assert!(CertificateNames::default().admit(Some(&shown(certificate)), 100));
            assert!(!CertificateNames::default().admit(Some(&shown(certificate)), 101));
        }
        assert!(!names.admit(None, 0));
        assert!(CertificateNames::default().admit(None, 0));
    }
}
