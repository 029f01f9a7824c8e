//! TLS: the certificate in force, and its replacement when the files change.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rescind_base::{
    clock::rfc3339,
    files::{
        pem::{self, PemError},
        permissions::{self, PermissionError},
    },
    model::{CertificateName, PeerCertificate},
};
use rescind_node::{
    app::{App, Validity},
    config::{self, ClientCertificates},
};
use rustls::{
    InconsistentKeys, RootCertStore, ServerConfig, ServerConnection,
    crypto::{CryptoProvider, ring},
    pki_types::CertificateDer,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use thiserror::Error;
use tracing::{error, info};
use x509_cert::{
    Certificate,
    der::Decode,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

const HTTP1: &[u8] = b"http/1.1";
const H2: &[u8] = b"h2";

/// Why TLS cannot be set up with these files. Each text begins with the configuration key at fault. The libraries'
/// error texts are left out, because they may contain parts of a private key.
#[derive(Debug, Error)]
pub(super) enum TlsError {
    /// A file is missing or has no PEM of the right kind.
    #[error("{0} = {1:?}: {2}")]
    File(&'static str, PathBuf, PemError),
    /// Other users may write the key's file.
    #[error("tls.key: {0}")]
    Permissions(PermissionError),
    /// The file's content is no certificate.
    #[error("{0} = {1:?}: holds a certificate that is damaged, or is none of X.509")]
    Certificate(&'static str, PathBuf),
    /// The certificate has expired.
    #[error("tls.certificate = {0:?}: expired at {1}")]
    Expired(PathBuf, String),
    /// The key is damaged or of an unsupported kind.
    #[error(
        "tls.key = {0:?}: holds a private key that is damaged, or of a kind that is not supported: RSA of 2048 to 4096 \
         bits, ECDSA on P-256 or P-384, and Ed25519 are"
    )]
    Unsupported(PathBuf),
    /// The key belongs to another certificate.
    #[error("tls.key = {0:?}: belongs to another certificate than tls.certificate = {1:?}")]
    Mismatch(PathBuf, PathBuf),
    /// No certificate can be verified by these authorities.
    #[error("tls.client_ca = {0:?}: holds no authority that certificates can be verified by")]
    ClientCa(PathBuf),
    /// The TLS library refuses the protocol versions.
    #[error("TLS cannot be set up: {0}")]
    Provider(rustls::Error),
}

/// Which listener a configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Public,
    Management,
}

/// The configurations in force.
#[derive(Debug)]
pub(super) struct Tls {
    current: ArcSwap<Configs>,
}

#[derive(Debug)]
struct Configs {
    public: Arc<ServerConfig>,
    management: Arc<ServerConfig>,
    validity: Validity,
}

/// The files that the configurations are read from.
#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    client_certificates: ClientCertificates,
}

/// Puts a new certificate in force.
pub(super) struct Reload {
    tls: Arc<Tls>,
    files: Files,
    seen: Vec<Stamp>,
    app: Arc<App>,
}

/// Why a certificate cannot be read.
pub(super) type Unreadable = Box<dyn std::error::Error + Send + Sync>;

/// A file's number, the time at which anything of it changed, and its length. A different stamp means that the file has
/// changed. The time of its content would not do: tools that copy files set it.
type Stamp = Option<(u64, i64, i64, u64)>;

/// Reads the configured files as [`open`] does.
pub(super) fn check(config: &config::Tls, now: u64) -> Result<(), TlsError> {
    Files::of(config).map_or(Ok(()), |files| files.load(now).map(drop))
}

/// Sets TLS up as configured. `None`: no TLS is configured.
pub(super) fn open(config: &config::Tls, app: &Arc<App>) -> Result<Option<(Arc<Tls>, Reload)>, TlsError> {
    let Some(files) = Files::of(config) else { return Ok(None) };
    let seen = files.stamps();
    let configs = files.load(app.clock.now())?;
    app.certificate_in_force(configs.validity);
    info!(certificate = %files.certificate.display(), until = rfc3339(configs.validity.until), "TLS");
    let tls = Arc::new(Tls { current: ArcSwap::from_pointee(configs) });
    Ok(Some((Arc::clone(&tls), Reload { tls, files, seen, app: Arc::clone(app) })))
}

impl Tls {
    /// Returns the configuration for the next connection.
    pub(super) fn config(&self, side: Side) -> Arc<ServerConfig> {
        let current = self.current.load();
        Arc::clone(match side {
            Side::Public => &current.public,
            Side::Management => &current.management,
        })
    }
}

impl Reload {
    /// Reads the files if they have changed, or if that is asked for. Files that cannot be used change nothing.
    pub(super) fn look(&mut self, asked: bool) {
        let stamps = self.files.stamps();
        if !asked && stamps == self.seen {
            return;
        }
        self.seen = stamps;
        match self.files.load(self.app.clock.now()) {
            Ok(configs) => {
                self.app.certificate_in_force(configs.validity);
                info!(until = rfc3339(configs.validity.until), "a new certificate is in force");
                self.tls.current.store(Arc::new(configs));
            }
            Err(e) => error!(error = %e, "the certificate was not replaced: the one before stays in force"),
        }
    }
}

impl Files {
    /// `None`: no TLS is configured.
    fn of(config: &config::Tls) -> Option<Files> {
        let config::Tls { certificate, key, client_ca, client_certificates, management: _ } = config.clone();
        Some(Files { certificate: certificate?, key: key?, client_ca, client_certificates })
    }

    fn stamps(&self) -> Vec<Stamp> {
        let stamp = |path: &PathBuf| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.ino(), metadata.ctime(), metadata.ctime_nsec(), metadata.len()))
        };
        [&self.certificate, &self.key].into_iter().chain(&self.client_ca).map(stamp).collect()
    }

    fn load(&self, now: u64) -> Result<Configs, TlsError> {
        let Files { certificate, key, client_ca, client_certificates } = self;
        let chain = certificates("tls.certificate", certificate)?;
        let unreadable = || TlsError::Certificate("tls.certificate", certificate.clone());
        let validity = validity(&end_entity(&chain).map_err(|_| unreadable())?);
        if validity.until < now {
            return Err(TlsError::Expired(certificate.clone(), rfc3339(validity.until)));
        }
        let private = pem::private_key(key).map_err(|e| TlsError::File("tls.key", key.clone(), e))?;
        permissions::require_unwritable("tls.key", key).map_err(TlsError::Permissions)?;
        let provider = Arc::new(ring::default_provider());
        let signing = provider.key_provider.load_private_key(private);
        let certified = CertifiedKey::new(chain, signing.map_err(|_| TlsError::Unsupported(key.clone()))?);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(TlsError::Mismatch(key.clone(), certificate.clone()));
            }
            Err(_) => return Err(unreadable()),
        }
        let certified = Arc::new(SingleCertAndKey::from(certified));
        let config = |verifier: Option<Arc<dyn ClientCertVerifier>>, protocols: &[&[u8]]| {
            let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&TLS13, &TLS12])
                .map_err(TlsError::Provider)?;
            let builder = match verifier {
                Some(verifier) => builder.with_client_cert_verifier(verifier),
                None => builder.with_no_client_auth(),
            };
            let mut config = builder.with_cert_resolver(certified.clone());
            config.alpn_protocols = protocols.iter().map(|&protocol| protocol.into()).collect();
            // No early data: a request must not arrive before the handshake has proved the peer's address, and that
            // the request is no replay (CVE-2024-39321).
            config.max_early_data_size = 0;
            Ok(Arc::new(config))
        };
        let verifier = |path| client_verifier(path, *client_certificates, &provider);
        let verifier = client_ca.as_deref().map(verifier).transpose()?;
        Ok(Configs { public: config(verifier, &[H2, HTTP1])?, management: config(None, &[HTTP1])?, validity })
    }
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    pem::certificates(path).map_err(|e| TlsError::File(key, path.to_owned(), e))
}

/// Returns the peer's certificate, from this connection's handshake or from that of the session it resumes.
pub(super) fn peer_certificate(connection: &ServerConnection) -> Option<Result<PeerCertificate, Unreadable>> {
    connection.peer_certificates().map(read_names)
}

fn read_names(chain: &[CertificateDer<'_>]) -> Result<PeerCertificate, Unreadable> {
    let certificate = end_entity(chain)?;
    let names = certificate.tbs_certificate().get_extension::<SubjectAltName>()?;
    let names = names.map(|(_, SubjectAltName(names))| names).unwrap_or_default();
    let name = |name: &GeneralName| match name {
        GeneralName::DnsName(name) => CertificateName::dns(name.as_str()).ok(),
        GeneralName::UniformResourceIdentifier(name) => CertificateName::uri(name.as_str()).ok(),
        _ => None,
    };
    Ok(PeerCertificate {
        names: names.iter().filter_map(name).collect(),
        until: validity(&certificate).until,
    })
}

fn end_entity(chain: &[CertificateDer<'_>]) -> Result<Certificate, Unreadable> {
    let der = chain.first().map(|der| der.as_ref()).unwrap_or_default();
    Ok(Certificate::from_der(der)?)
}

fn validity(certificate: &Certificate) -> Validity {
    let validity = certificate.tbs_certificate().validity();
    let [from, until] = [validity.not_before, validity.not_after].map(|at| at.to_unix_duration().as_secs());
    Validity { from, until }
}

fn client_verifier(
    path: &Path,
    wanted: ClientCertificates,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates("tls.client_ca", path)? {
        roots.add(authority).map_err(|_| TlsError::Certificate("tls.client_ca", path.to_owned()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = match wanted {
        ClientCertificates::Required => builder,
        ClientCertificates::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|_| TlsError::ClientCa(path.to_owned()))
}
