//! TLS to the server, whose certificate and name are always verified.

use std::{error::Error as _, io, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, Error, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use thiserror::Error as ThisError;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{FeedError, Options};

/// Authorities that a follower trusts, in place of the machine's.
#[derive(Debug, Clone)]
pub(super) struct Authorities(RootCertStore);

/// Why a text has no usable authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The text has no certificate in PEM, or one that is cut off.
    #[error(
        "expected certificates in PEM: lines from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----"
    )]
    NotPem,
    /// A certificate is damaged, or is none of X.509.
    #[error("a certificate is damaged, or is none of X.509")]
    Damaged,
}

impl Authorities {
    pub(super) fn read(pem: &[u8]) -> Result<Authorities, AuthorityError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let found = found.ok().filter(|found| !found.is_empty()).ok_or(AuthorityError::NotPem)?;
        let mut roots = RootCertStore::empty();
        for certificate in found {
            roots.add(certificate).map_err(|_| AuthorityError::Damaged)?;
        }
        Ok(Authorities(roots))
    }

    /// Those of the machine. What cannot be read is left out, and not shown, because it may be a part of any file.
    fn of_machine() -> Authorities {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Authorities(roots)
    }
}

/// What a follower trusts.
pub(super) struct Tls(Result<TlsConnector, FeedError>);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls(…)")
    }
}

impl Tls {
    pub(super) fn new(options: &Options) -> Tls {
        let Authorities(roots) = options.authorities.clone().unwrap_or_else(Authorities::of_machine);
        if roots.is_empty() {
            let problem =
                "this machine has no certificate authorities: name one by Options::with_authorities";
            return Tls(Err(FeedError::Tls(problem.into())));
        }
        // The program that follows may have chosen no provider for its process, or another one.
        let provider = rustls::crypto::ring::default_provider();
        let config =
            ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions();
        let config = config.map(|builder| builder.with_root_certificates(roots).with_no_client_auth());
        Tls(config.map(|config| Arc::new(config).into()).map_err(|e| FeedError::Tls(e.to_string())))
    }

    pub(super) async fn shake(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, FeedError> {
        let connector = self.0.as_ref().map_err(Clone::clone)?;
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| FeedError::Tls(format!("{host:?} can be no name in a certificate")))?;
        connector.connect(name, stream).await.map_err(|error| FeedError::Tls(problem(&error, host)))
    }
}

/// What is wrong, and what would be right.
fn problem(error: &io::Error, host: &str) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(Error::InvalidCertificate(of_certificate)) => of_certificate_problem(of_certificate, host),
        Some(Error::InvalidMessage(_)) => {
            "the server does not speak TLS there: name it without https://".into()
        }
        Some(error) => error.to_string(),
        None => error.source().map_or_else(|| error.to_string(), ToString::to_string),
    }
}

fn of_certificate_problem(problem: &CertificateError, host: &str) -> String {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, UnknownIssuer,
    };
    match problem {
        // A bad signature: another authority has the same name.
        UnknownIssuer | BadSignature => {
            "no authority that is trusted here has signed the server's certificate: name its authority by Options::with_authorities"
                .into()
        }
        Expired | ExpiredContext { .. } => "the server's certificate has expired".into(),
        NotValidYet | NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: compare the clocks of this machine and of its authority".into()
        }
        NotValidForNameContext { presented, .. } => {
            format!("the server's certificate is not for {host:?}, but for {}", presented.join(", "))
        }
        NotValidForName => format!("the server's certificate is not for {host:?}"),
        // The library has no name for it.
        other if other.to_string().contains("CaUsedAsEndEntity") => {
            "the server's certificate is an authority's own: let the authority sign another one for the server, or make one with basicConstraints=CA:FALSE"
                .into()
        }
        other => format!("the server's certificate is not valid: {other}"),
    }
}
