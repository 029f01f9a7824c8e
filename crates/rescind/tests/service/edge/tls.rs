//! TLS: versions, protocols, certificates, and peers without TLS.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rescind_node::config::Config;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    version::{TLS12, TLS13},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::app::TestApp;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const ASK: &str = "GET /next HTTP/1.1\r\nHost: x\r\n\r\n";

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const FATAL: u8 = 2;
const PROTOCOL_VERSION: u8 = 70;

/// An authority, and the files of its certificates.
pub(crate) struct Authority {
    pub(crate) issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
    /// The year and the month in which its certificates expire, if not far in the future.
    pub(crate) until: Option<(i32, u8)>,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Authority { issuer, folder: tempfile::tempdir().unwrap(), until: None }
    }

    /// Writes a new certificate to the files that the service reads.
    pub(crate) fn issue(&self) -> CertificateDer<'static> {
        let (certificate, key) = self.certificate();
        fs::write(self.path("key.pem"), key.serialize_pem()).unwrap();
        fs::write(self.path("certificate.pem"), certificate.pem()).unwrap();
        certificate.der().clone()
    }

    /// Writes its own certificate to the files that the service reads.
    pub(crate) fn serve_its_own(&self) {
        fs::write(self.path("key.pem"), self.issuer.key().serialize_pem()).unwrap();
        fs::write(self.path("certificate.pem"), self.issuer.pem()).unwrap();
    }

    fn certificate(&self) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.not_after = self.until.map_or(params.not_after, |(year, month)| date_time_ymd(year, month, 1));
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    pub(crate) fn path(&self, file: &str) -> std::path::PathBuf {
        self.folder.path().join(file)
    }

    pub(crate) fn configure(&self, config: &mut Config) {
        config.tls.certificate = Some(self.path("certificate.pem"));
        config.tls.key = Some(self.path("key.pem"));
    }

    pub(crate) fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
    }

    async fn service(&self) -> TestApp {
        TestApp::in_real_time(|config| self.configure(config)).await
    }
}

pub(crate) async fn connect(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    timeout(PATIENCE, TlsConnector::from(Arc::clone(config)).connect(name, stream))
        .await
        .expect("a handshake")
}

/// Whether a request on this connection is answered.
async fn is_served(stream: &mut TlsStream<TcpStream>) -> bool {
    let mut answer = [0; 4096];
    let asked = async {
        stream.write_all(ASK.as_bytes()).await?;
        stream.read(&mut answer).await
    };
    match timeout(PATIENCE, asked).await.expect("an answer or an end") {
        Ok(read) => answer[..read].starts_with(b"HTTP/1.1 404"),
        Err(_) => false,
    }
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn two_versions_are_spoken() {
    let authority = Authority::new();
    authority.issue();
    let app = authority.service().await;
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let config = Arc::new(authority.client(&[version]).with_no_client_auth());
        let mut stream = connect(app.address, &config).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(expected));
        assert!(is_served(&mut stream).await);
    }
}

#[tokio::test]
async fn older_versions_are_refused() {
    let authority = Authority::new();
    authority.issue();
    let app = authority.service().await;
    for (minor, is_old) in [(1, true), (2, true), (3, false)] {
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        stream.write_all(&hello(minor)).await.unwrap();
        let mut begin = [0; 7];
        timeout(PATIENCE, stream.read_exact(&mut begin)).await.unwrap().unwrap();
        if is_old {
            assert_eq!((begin[0], &begin[5..]), (ALERT, &[FATAL, PROTOCOL_VERSION][..]), "3.{minor}");
        } else {
            assert_eq!(begin[0], HANDSHAKE);
        }
    }
}

/// A ClientHello that offers at most TLS 1.`minor - 1` (RFC 5246 §7.4.1.2).
fn hello(minor: u8) -> Vec<u8> {
    let suites = [0xc0, 0x2b, 0xc0, 0x09, 0x00, 0x2f];
    let groups = [0, 10, 0, 4, 0, 2, 0, 23];
    let points = [0, 11, 0, 2, 1, 0];
    let signatures = [0, 13, 0, 4, 0, 2, 4, 3];
    let mut hello = vec![3, minor];
    hello.extend([7; 32]);
    hello.push(0);
    hello.extend([0, 6]);
    hello.extend(suites);
    hello.extend([1, 0]);
    hello.extend([0, 22]);
    hello.extend(groups.into_iter().chain(points).chain(signatures));
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![HANDSHAKE, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    record
}

// check 71: CVE-2024-39321
#[tokio::test]
async fn a_session_is_resumed_without_early_data() {
    let authority = Authority::new();
    authority.issue();
    let app = authority.service().await;
    let mut config = authority.client(&[&TLS13]).with_no_client_auth();
    config.enable_early_data = true;
    let config = Arc::new(config);
    // The tickets come with the first answer.
    assert!(is_served(&mut connect(app.address, &config).await.unwrap()).await);
    let mut again =
        ClientConnection::new(Arc::clone(&config), ServerName::try_from("localhost").unwrap()).unwrap();
    assert!(again.early_data().is_none(), "early data is offered");
    let mut resumed = connect(app.address, &config).await.unwrap();
    assert_eq!(resumed.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    assert!(is_served(&mut resumed).await);
}

#[tokio::test]
async fn both_protocols_are_chosen_by_name() {
    let authority = Authority::new();
    authority.issue();
    let app = authority.service().await;
    for (offered, chosen) in
        [(&["h2", "http/1.1"][..], Some(&b"h2"[..])), (&["http/1.1"], Some(b"http/1.1")), (&[], None)]
    {
        let mut config = authority.client(&[&TLS13]).with_no_client_auth();
        config.alpn_protocols = offered.iter().map(|&name| name.into()).collect();
        let mut stream = connect(app.address, &Arc::new(config)).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
        if chosen == Some(b"h2") {
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            assert_eq!(head[3], 4, "settings");
        } else {
            assert!(is_served(&mut stream).await);
        }
    }
    let mut config = authority.client(&[&TLS13]).with_no_client_auth();
    config.alpn_protocols = vec![b"imap".to_vec()];
    assert!(connect(app.address, &Arc::new(config)).await.is_err());
}

#[tokio::test]
async fn a_new_certificate_is_taken_up_and_nobody_is_cut_off() {
    let authority = Authority::new();
    let first = authority.issue();
    let app = authority.service().await;
    let config = Arc::new(authority.client(&[&TLS13]).with_no_client_auth());
    let mut old = connect(app.address, &config).await.unwrap();
    assert!(is_served(&mut old).await);
    assert_eq!(shown(&old), first);

    // A key without its certificate is of no use: what was in force stays.
    let (next, key) = authority.certificate();
    fs::write(authority.path("key.pem"), key.serialize_pem()).unwrap();
    let fresh = Arc::new(authority.client(&[&TLS13]).with_no_client_auth());
    let mut between = connect(app.address, &fresh).await.unwrap();
    assert_eq!(shown(&between), first);
    fs::write(authority.path("certificate.pem"), next.pem()).unwrap();
    let taken_up = async {
        loop {
            let fresh = Arc::new(authority.client(&[&TLS13]).with_no_client_auth());
            let mut stream = connect(app.address, &fresh).await.unwrap();
            assert!(is_served(&mut stream).await);
            if shown(&stream) == *next.der() {
                return;
            }
            assert_eq!(shown(&stream), first);
        }
    };
    timeout(PATIENCE, taken_up).await.unwrap();
    assert!(is_served(&mut old).await && is_served(&mut between).await);
}

#[tokio::test]
async fn clients_show_a_certificate_where_one_is_asked_for() {
    let (authority, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    authority.issue();
    fs::write(clients.path("ca.pem"), clients.issuer.pem()).unwrap();
    let app = TestApp::in_real_time(|config| {
        authority.configure(config);
        config.tls.client_ca = Some(clients.path("ca.pem"));
        config.tls.management = true;
    })
    .await;
    let of = |owner: &Authority, version| {
        let (certificate, key) = owner.certificate();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let builder = authority.client(&[version]);
        Arc::new(builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap())
    };
    for version in [&TLS12, &TLS13] {
        let mut known = connect(app.address, &of(&clients, version)).await.unwrap();
        assert!(is_served(&mut known).await);
        let nobody = Arc::new(authority.client(&[version]).with_no_client_auth());
        for refused in [of(&strangers, version), nobody] {
            // In TLS 1.3 the client learns of it when it reads.
            if let Ok(mut stream) = connect(app.address, &refused).await {
                assert!(!is_served(&mut stream).await);
            }
        }
    }
    // Probes show none.
    let nobody = Arc::new(authority.client(&[&TLS13]).with_no_client_auth());
    assert!(is_served(&mut connect(app.management, &nobody).await.unwrap()).await);
}

#[tokio::test]
async fn the_management_listener_speaks_tls_only_if_told() {
    let authority = Authority::new();
    authority.issue();
    let app = authority.service().await;
    let ready = "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(crate::raw::answer(app.management, ready).await.status, 200);
}

#[tokio::test]
async fn a_peer_is_told_that_its_idle_connection_ends() {
    let authority = Authority::new();
    authority.issue();
    let app = TestApp::in_real_time(|config| {
        authority.configure(config);
        config.server.idle_timeout = "1s".parse().unwrap();
    })
    .await;
    let config = Arc::new(authority.client(&[&TLS13]).with_no_client_auth());
    let mut stream = connect(app.address, &config).await.unwrap();
    assert!(is_served(&mut stream).await);
    // Without the word of its end, rustls fails: the connection might have been cut.
    assert_eq!(timeout(PATIENCE, stream.read(&mut [0; 16])).await.expect("an end").unwrap(), 0);
}

// check 55
#[tokio::test]
async fn whoever_does_not_speak_it_is_let_go() {
    let authority = Authority::new();
    authority.issue();
    let app = TestApp::in_real_time(|config| {
        authority.configure(config);
        config.server.request_timeout = "1s".parse().unwrap();
    })
    .await;
    // A request in the clear; nothing; a record that never ends.
    for bytes in [ASK.as_bytes(), b"", &[22, 3, 1, 2, 0, 1, 0, 1]] {
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = vec![];
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end");
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    }
    let config = Arc::new(authority.client(&[&TLS13]).with_no_client_auth());
    assert!(is_served(&mut connect(app.address, &config).await.unwrap()).await);
}
