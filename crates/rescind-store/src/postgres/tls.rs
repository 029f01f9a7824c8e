//! TLS to the server. Where TLS is used, the server's certificate is verified.

use std::{
    convert::Infallible,
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rescind_base::files::pem;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::{
    Socket,
    config::SslMode,
    tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream},
};
use tokio_rustls::{TlsConnector, client};
use tracing::warn;
use x509_cert::{
    Certificate,
    der::{Decode, oid::db::rfc5912},
};

use crate::{Result, StoreError};

/// Returns a connector that trusts the authorities of the PEM file `ca`; without one, those of the machine.
pub(super) fn connector(mode: SslMode, ca: Option<&Path>) -> Result<Tls> {
    let mut roots = RootCertStore::empty();
    match ca {
        _ if mode == SslMode::Disable => {}
        Some(path) => {
            let bad = |problem: &dyn std::fmt::Display| {
                StoreError::Unsuitable(format!("database.tls_ca = {path:?}: {problem}"))
            };
            for certificate in pem::certificates(path).map_err(|e| bad(&e))? {
                let added = roots.add(certificate);
                added.map_err(|_| bad(&"holds a certificate that is damaged, or is none of X.509"))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            if !found.errors.is_empty() {
                // The errors are not logged: they may contain a part of a file.
                warn!(files = found.errors.len(), "certificate authorities of this machine cannot be read");
            }
            roots.add_parsable_certificates(found.certs);
        }
    }
    let provider = rustls::crypto::ring::default_provider();
    let mut config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .map_err(|e| StoreError::Unavailable(e.into()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // `sslnegotiation=direct` needs this; other servers ignore it.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(Tls(Arc::new(config).into()))
}

/// Opens TLS connections to the hosts that the driver connects to.
#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

/// Opens a TLS connection to one host.
pub(super) struct ToHost {
    connector: TlsConnector,
    host: String,
}

/// A TLS connection.
pub(super) struct Stream(client::TlsStream<Socket>);

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Stream;
    type TlsConnect = ToHost;
    type Error = Infallible;

    /// The name is parsed later: the driver also passes the folder of a Unix socket, where TLS is never used.
    fn make_tls_connect(&mut self, host: &str) -> Result<ToHost, Infallible> {
        Ok(ToHost { connector: self.0.clone(), host: host.to_owned() })
    }
}

impl TlsConnect<Socket> for ToHost {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let host = ServerName::try_from(self.host);
            let host = host.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
            Ok(Stream(self.connector.connect(host, socket).await?))
        })
    }
}

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        let (_, session) = self.0.get_ref();
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        certificate
            .and_then(|certificate| end_point(certificate))
            .map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// Returns the certificate's hash for the channel binding `tls-server-end-point` (RFC 5929 §4.1), by the hash
/// function of its signature. `None`: no hash function is defined for the kind of the signature, such as Ed25519.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = Certificate::from_der(certificate).ok()?.signature_algorithm().oid;
    match algorithm {
        // RFC 5929 replaces SHA-1 by SHA-256.
        rfc5912::SHA_1_WITH_RSA_ENCRYPTION
        | rfc5912::SHA_256_WITH_RSA_ENCRYPTION
        | rfc5912::ECDSA_WITH_SHA_256 => Some(Sha256::digest(certificate).to_vec()),
        rfc5912::SHA_384_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_384 => {
            Some(Sha384::digest(certificate).to_vec())
        }
        rfc5912::SHA_512_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_512 => {
            Some(Sha512::digest(certificate).to_vec())
        }
        _ => None,
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

    use super::*;

    #[test]
    fn the_certificate_is_bound_by_the_hash_of_its_signature() {
        let bound = |algorithm: &'static SignatureAlgorithm| {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let certificate = CertificateParams::default().self_signed(&key).unwrap();
            (end_point(certificate.der()), certificate)
        };
        let (hash, certificate) = bound(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(hash.unwrap(), *Sha256::digest(certificate.der()));
        let (hash, certificate) = bound(&rcgen::PKCS_ECDSA_P384_SHA384);
        assert_eq!(hash.unwrap(), *Sha384::digest(certificate.der()));
        assert_eq!(bound(&rcgen::PKCS_ED25519).0, None);
        assert_eq!(end_point(b"no certificate"), None);
    }
}
