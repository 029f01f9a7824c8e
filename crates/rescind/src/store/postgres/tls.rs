//! TLS to the server: where it is spoken, the server's certificate is verified.

use std::path::Path;

use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::warn;

use crate::{files::pem, store::StoreError};

/// Trusts the authorities of the PEM file `ca`; without one, those of the machine.
pub(super) fn connector(mode: SslMode, ca: Option<&Path>) -> Result<MakeRustlsConnect, StoreError> {
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
                // Why is not told: it may hold a piece of a file.
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
    // For sslnegotiation=direct; others do not mind.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(MakeRustlsConnect::new(config))
}
