//! Clients that are bound to certificates (RFC 8705 §2), and the connections on which they are accepted.

use std::{
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use rcgen::{CertificateParams, KeyPair, SanType, date_time_ymd};
use reqwest::header::CONTENT_TYPE;
use rescind::auth::INTROSPECT;
use rescind_admin::{self as admin, CertificateChange, NewClient};
use rescind_base::model::{EventFilter, EventKind};
use rescind_node::config::{ClientCertificates, Config};
use rustls::{
    ClientConfig, HandshakeKind, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer},
    version::{TLS12, TLS13},
};
use serde_json::json;
use tokio::{
    io::{AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    app::{Client, Pair, TestApp},
    edge::tls::{Authority, PATIENCE, connect},
    oauth::{DOORS, TOKEN, parameters},
    raw,
    reply::Reply,
};

const DNS: &str = "dns:api.example.com";
const URI: &str = "uri:spiffe://example.com/api";
const OTHER: &str = "dns:other.example.com";

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A service that requests certificates of one authority.
struct Site {
    app: TestApp,
    server: Authority,
    clients: Authority,
}

/// A chain of certificates, and the first one's key.
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Site {
    async fn start() -> Site {
        Site::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Site {
        let (server, clients) = (Authority::new(), Authority::new());
        server.issue();
        fs::write(clients.path("ca.pem"), clients.issuer.pem()).unwrap();
        let app = TestApp::with(|config| {
            server.configure(config);
            config.tls.client_ca = Some(clients.path("ca.pem"));
            config.tls.client_certificates = ClientCertificates::Optional;
            change(config);
        })
        .await;
        Site { app, server, clients }
    }

    async fn bound(&self, names: &[&str]) -> Client {
        self.app
            .client_of(NewClient {
                name: "bound".into(),
                certificates: owned(names),
                scopes: vec![INTROSPECT.into()],
                ..NewClient::default()
            })
            .await
    }

    async fn rebind(&self, client: &Client, add: &[&str], remove: &[&str]) {
        let change = CertificateChange { add: owned(add), remove: owned(remove), unbind: true };
        admin::change_certificates(&self.app.app, client.id, change).await.unwrap();
    }

    /// A caller with a certificate of these names.
    async fn caller(&self, names: &[&str]) -> Caller {
        self.caller_by(&TLS13, Some(identity(&self.clients, names, |_| {}))).await
    }

    /// A caller without a certificate.
    async fn stranger(&self) -> Caller {
        self.caller_by(&TLS13, None).await
    }

    async fn caller_by(
        &self,
        version: &'static SupportedProtocolVersion,
        identity: Option<Identity>,
    ) -> Caller {
        let builder = self.server.client(&[version]);
        let config = match identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        Caller::start(self.app.address, config).await
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn identity(authority: &Authority, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.subject_alt_names = names
        .iter()
        .map(|name| match name.split_once(':').unwrap() {
            ("dns", name) => SanType::DnsName(name.try_into().unwrap()),
            ("email", name) => SanType::Rfc822Name(name.try_into().unwrap()),
            (_, name) => SanType::URI(name.try_into().unwrap()),
        })
        .collect();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority.issuer).unwrap();
    (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

/// Sends requests over TLS connections of one configuration, through a forwarder that accepts plain HTTP.
struct Caller {
    http: reqwest::Client,
    url: String,
    handshakes: Arc<Mutex<Vec<HandshakeKind>>>,
}

impl Caller {
    async fn start(address: SocketAddr, config: ClientConfig) -> Caller {
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let handshakes = Arc::<Mutex<Vec<_>>>::default();
        let seen = Arc::clone(&handshakes);
        tokio::spawn(async move {
            while let Ok((mut plain, _)) = listener.accept().await {
                let (config, seen) = (Arc::clone(&config), Arc::clone(&seen));
                tokio::spawn(async move {
                    // One that is refused ends with what was to be passed on.
                    let Ok(mut tls) = connect(address, &config).await else { return };
                    seen.lock().unwrap().extend(tls.get_ref().1.handshake_kind());
                    let _ = copy_bidirectional(&mut plain, &mut tls).await;
                });
            }
        });
        // A connection each, so that sessions are resumed.
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        Caller { http, url, handshakes }
    }

    /// The same caller, with all requests on one HTTP/2 connection.
    fn over_http2(mut self) -> Caller {
        self.http = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
        self
    }

    fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.post(format!("{}{path}", self.url))
    }

    async fn is_let_in(&self) -> bool {
        self.http.get(&self.url).send().await.is_ok()
    }

    async fn login(&self, client: &Client) -> Reply {
        let body = json!({"username": client.key, "password": client.secret});
        Reply::read(self.post("/auth/login").json(&body).send().await.unwrap()).await
    }

    async fn refresh(&self, pair: &Pair) -> Reply {
        let body = json!({"refresh_token": pair.refresh});
        Reply::read(self.post("/auth/refresh").json(&body).send().await.unwrap()).await
    }

    async fn logout(&self, pair: &Pair) -> Reply {
        Reply::read(self.post("/auth/logout").bearer_auth(&pair.access).send().await.unwrap()).await
    }

    async fn verify(&self, pair: &Pair) -> Reply {
        Reply::read(self.post("/verify").bearer_auth(&pair.access).send().await.unwrap()).await
    }

    /// A request to an OAuth endpoint, with the certificate, and with the secret if there is one.
    async fn ask(&self, door: &str, client: &Client, secret: Option<&str>) -> Reply {
        let mut who = vec![("client_id", client.key.as_str())];
        who.extend(secret.map(|secret| ("client_secret", secret)));
        Reply::read_oauth(self.form(door, &who).send().await.unwrap()).await
    }

    fn form(&self, door: &str, who: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(parameters(door)).extend_pairs(who);
        self.post(door).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.finish())
    }
}

/// A load balancer that passes connections on, and names 203.0.113.7 as the caller of each.
async fn balancer(service: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut service = TcpStream::connect(service).await.unwrap();
                service.write_all(b"PROXY TCP4 203.0.113.7 10.0.0.1 54321 443\r\n").await.unwrap();
                copy_bidirectional(&mut caller, &mut service).await
            });
        }
    });
    address
}

// check 63
#[tokio::test]
async fn behind_a_balancer_a_client_has_its_certificate_and_its_own_address() {
    let site = Site::with(|config| {
        config.server.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        config.server.proxy_protocol = true;
    })
    .await;
    let (chain, key) = identity(&site.clients, &[DNS], |_| {});
    let config = site.server.client(&[&TLS13]).with_client_auth_cert(chain, key).unwrap();
    let caller = Caller::start(balancer(site.app.address).await, config).await;
    for (allowed, status) in [("203.0.113.7", 200), ("203.0.113.8", 403), ("127.0.0.1", 403)] {
        let client = site
            .app
            .client_of(NewClient {
                name: "bound".into(),
                certificates: owned(&[DNS]),
                allow: owned(&[allowed]),
                ..NewClient::default()
            })
            .await;
        assert_eq!(caller.login(&client).await.status, status, "{allowed}");
    }
}

#[tokio::test]
async fn a_bound_client_is_let_in_with_a_certificate_of_its_names() {
    for (version, wanted) in [(&TLS12, ClientCertificates::Required), (&TLS13, ClientCertificates::Optional)]
    {
        let site = Site::with(|config| config.tls.client_certificates = wanted).await;
        let client = site.bound(&[DNS, URI]).await;
        for names in [&[DNS][..], &[URI], &[OTHER, "email:api@example.com", "dns:API.Example.COM"]] {
            let http1 = site.caller_by(version, Some(identity(&site.clients, names, |_| {}))).await;
            let http2 =
                site.caller_by(version, Some(identity(&site.clients, names, |_| {}))).await.over_http2();
            for caller in [http1, http2] {
                let first = caller.login(&client).await.pair();
                let next = caller.refresh(&first).await.pair();
                assert_eq!(caller.verify(&next).await.status, 200);
                caller.logout(&next).await.is_logged_out();
            }
        }
    }
}

// check 8
#[tokio::test]
async fn without_one_it_is_refused_and_nothing_is_done() {
    let site = Site::with(|config| config.limits.failed_logins_per_minute = 0).await;
    let client = site.bound(&[DNS]).await;
    let own = site.caller(&[DNS]).await;
    let pair = own.login(&client).await.pair();
    let before = site.app.stored(&client).await;
    for caller in [
        site.stranger().await,
        site.caller(&[]).await,
        site.caller(&[OTHER]).await,
        site.caller(&["dns:*.example.com"]).await,
        site.caller(&["dns:example.com", "dns:x.api.example.com", "email:api.example.com"]).await,
        // The same text, as a name of another kind.
        site.caller(&["uri:dns:api.example.com"]).await,
        site.stranger().await.over_http2(),
    ] {
        assert!(caller.is_let_in().await);
        caller.login(&client).await.is_error(401, "Invalid credentials");
        caller.refresh(&pair).await.is_error(401, "Invalid token");
        caller.logout(&pair).await.is_error(401, "Invalid token");
        // Whoever has a token may show it: tokens are not bound.
        assert_eq!(caller.verify(&pair).await.status, 200);
        for door in DOORS {
            let secret = Some(client.secret.as_str());
            caller.ask(door, &client, secret).await.is_oauth_error(401, "invalid_client");
            caller.ask(door, &client, None).await.is_oauth_error(401, "invalid_client");
        }
    }
    assert!(site.app.is_unchanged(&before).await);
    own.refresh(&pair).await.pair();

    // Who shows no certificate and sends no secret is nobody: that is not on record.
    let app = &site.app.app;
    app.audit.write(&app.store).await;
    let kind = Some(EventKind::CertificateDenied);
    let denied = EventFilter { kind, client: Some(client.id), ..EventFilter::newest(1000) };
    let records = app.store.records(denied).await.unwrap().records;
    assert_eq!(records.iter().map(|record| record.count).sum::<u64>(), 7 * 3 + 7 * 3 + 5 * 3);
}

#[tokio::test]
async fn a_used_refresh_token_without_the_certificate_is_no_sign_of_theft() {
    let site = Site::start().await;
    let client = site.bound(&[DNS]).await;
    let own = site.caller(&[DNS]).await;
    let old = own.login(&client).await.pair();
    let newest = own.refresh(&old).await.pair();
    site.stranger().await.refresh(&old).await.is_error(401, "Invalid token");
    let newest = own.refresh(&newest).await.pair();
    own.refresh(&old).await.is_error(401, "Invalid token");
    own.refresh(&newest).await.is_error(401, "Invalid token");
}

#[tokio::test]
async fn a_certificate_of_another_authority_or_another_time_ends_the_handshake() {
    let site = Site::start().await;
    let client = site.bound(&[DNS]).await;
    let strangers = Authority::new();
    let over = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    };
    let yet_to_come = |params: &mut CertificateParams| params.not_before = date_time_ymd(2100, 1, 1);
    for version in VERSIONS {
        for refused in [
            identity(&strangers, &[DNS], |_| {}),
            identity(&site.clients, &[DNS], over),
            identity(&site.clients, &[DNS], yet_to_come),
        ] {
            assert!(!site.caller_by(version, Some(refused)).await.is_let_in().await);
        }
        let good = identity(&site.clients, &[DNS], |_| {});
        assert_eq!(site.caller_by(version, Some(good)).await.login(&client).await.status, 200);
    }
}

// CVE-2023-2422
#[tokio::test]
async fn of_a_chain_the_callers_own_certificate_alone_counts() {
    let site = Site::start().await;
    let client = site.bound(&[DNS]).await;
    let (anothers, _) = identity(&site.clients, &[DNS], |_| {});
    let (forged, _) = identity(&Authority::new(), &[DNS], |_| {});
    let (mut chain, key) = identity(&site.clients, &[OTHER], |_| {});
    chain.extend([anothers, forged].concat());
    let caller = site.caller_by(&TLS13, Some((chain, key))).await;
    caller.login(&client).await.is_error(401, "Invalid credentials");
    caller.ask(TOKEN, &client, None).await.is_oauth_error(401, "invalid_client");
}

#[tokio::test]
async fn no_header_is_read_for_a_certificate() {
    let site = Site::start().await;
    let client = site.bound(&[DNS]).await;
    let (chain, _) = identity(&site.clients, &[DNS], |_| {});
    let encoded = data_encoding::BASE64.encode(&chain[0]);
    let stranger = site.stranger().await;
    for (name, value) in [
        ("client-cert", format!(":{encoded}:")),
        (
            "x-forwarded-client-cert",
            format!("Cert=\"{encoded}\";URI=spiffe://example.com/api;DNS=api.example.com"),
        ),
        ("x-ssl-client-cert", encoded.clone()),
        ("x-ssl-client-verify", "SUCCESS".into()),
        ("x-ssl-client-s-dn", "CN=api.example.com".into()),
    ] {
        let body = json!({"username": client.key, "password": client.secret});
        let request = stranger.post("/auth/login").json(&body).header(name, value);
        let reply = Reply::read(request.send().await.unwrap()).await;
        reply.is_error(401, "Invalid credentials");
    }
}

// check 4
#[tokio::test]
async fn a_certificate_stands_for_the_secret_at_the_oauth_doors() {
    let site = Site::start().await;
    let client = site.bound(&[DNS]).await;
    let (other, unbound) = (site.bound(&[OTHER]).await, site.app.client().await);
    let own = site.caller(&[DNS]).await;
    for door in DOORS {
        assert_eq!(own.ask(door, &client, None).await.status, 200, "{door}");
        assert_eq!(own.ask(door, &client, Some(&client.secret)).await.status, 200, "{door}");
        own.ask(door, &client, Some("rs_wrong")).await.is_oauth_error(401, "invalid_client");
        for another in [&other, &unbound] {
            own.ask(door, another, None).await.is_oauth_error(401, "invalid_client");
        }
        own.ask(door, &other, Some(&other.secret)).await.is_oauth_error(401, "invalid_client");
        let by_basic = own.form(door, &[]).basic_auth(&client.key, Some(""));
        Reply::read_oauth(by_basic.send().await.unwrap()).await.is_oauth_error(401, "invalid_client");
    }
    admin::suspend(&site.app.app, client.id, Default::default()).await.unwrap();
    for door in DOORS {
        own.ask(door, &client, None).await.is_oauth_error(401, "invalid_client");
    }
    admin::resume(&site.app.app, client.id).await.unwrap();
    assert_eq!(own.ask(TOKEN, &client, None).await.status, 200);
    admin::revoke_credential(&site.app.app, &client.key).await.unwrap();
    for door in DOORS {
        own.ask(door, &client, None).await.is_oauth_error(401, "invalid_client");
    }
}

#[tokio::test]
async fn a_certificate_of_another_client_proves_nothing_without_the_secret() {
    let site = Site::start().await;
    let client = site.bound(&[OTHER]).await;
    let own = site.caller(&[DNS]).await;
    for (secret, is_proven) in [(None, false), (Some(client.secret.as_str()), true)] {
        let refused = own.ask(TOKEN, &client, secret).await;
        let path = format!("/admin/v1/denials/{}", refused.header("x-request-id").unwrap());
        let told = raw::local(&site.app.socket(), "GET", &path, "").await.json();
        assert_eq!((&told["reason"], &told["proven"]), (&json!("certificate_missing"), &json!(is_proven)));
        let path = format!("/admin/v1/clients/{}/usage", client.id);
        let used = raw::local(&site.app.socket(), "GET", &path, "").await.json();
        assert_eq!(used["total"]["denials"], json!(u64::from(is_proven)), "{used}");
    }
}

// check 32
#[tokio::test]
async fn the_method_is_advertised_where_certificates_are_asked_for() {
    let site = Site::start().await;
    let metadata = async |url: &str, http: &reqwest::Client| {
        let url = format!("{url}/.well-known/oauth-authorization-server");
        Reply::read(http.get(url).send().await.unwrap()).await.json()
    };
    let caller = site.stranger().await;
    let asking = metadata(&caller.url, &caller.http).await;
    let app = TestApp::start().await;
    let not_asking = metadata(&format!("http://{}", app.address), &caller.http).await;
    for endpoint in ["token", "introspection", "revocation"] {
        let member = format!("{endpoint}_endpoint_auth_methods_supported");
        let has = |metadata: &serde_json::Value| {
            metadata[&member].as_array().unwrap().contains(&json!("tls_client_auth"))
        };
        assert!(has(&asking) && !has(&not_asking), "{member}");
    }
}

#[tokio::test]
async fn a_client_that_is_not_bound_needs_none() {
    let site = Site::start().await;
    let client = site.app.client().await;
    for caller in [site.stranger().await, site.caller(&[DNS]).await] {
        let pair = caller.login(&client).await.pair();
        caller.logout(&caller.refresh(&pair).await.pair()).await.is_logged_out();
    }
}

#[tokio::test]
async fn a_resumed_session_has_its_own_certificate_still() {
    let site = Site::start().await;
    let client = site.bound(&[DNS]).await;
    for version in VERSIONS {
        let own = identity(&site.clients, &[DNS], |_| {});
        let other = identity(&site.clients, &[OTHER], |_| {});
        let callers = [
            (site.caller_by(version, Some(own)).await, 200),
            (site.caller_by(version, Some(other)).await, 401),
            (site.caller_by(version, None).await, 401),
        ];
        for _ in 0..3 {
            for (caller, expected) in &callers {
                assert_eq!(caller.login(&client).await.status, *expected);
            }
        }
        for (caller, _) in &callers {
            use HandshakeKind::{Full, Resumed};
            assert_eq!(*caller.handshakes.lock().unwrap(), [Full, Resumed, Resumed]);
        }
    }
}

#[tokio::test]
async fn an_authority_that_is_taken_out_is_refused_in_resumed_sessions_too() {
    let site = Site::start().await;
    let client = site.bound(&[DNS]).await;
    let caller = site.caller(&[DNS]).await;
    for _ in 0..2 {
        assert_eq!(caller.login(&client).await.status, 200);
    }
    assert_eq!(caller.handshakes.lock().unwrap()[1], HandshakeKind::Resumed);
    fs::write(site.clients.path("ca.pem"), Authority::new().issuer.pem()).unwrap();
    // Its file is looked at every two seconds.
    let refused = async { while caller.is_let_in().await {} };
    timeout(PATIENCE, refused).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_has_run_out_since_the_handshake_is_none() {
    let site = Site::start().await;
    let (client, unbound) = (site.bound(&[DNS]).await, site.app.client().await);
    for version in VERSIONS {
        let until_2100 = |params: &mut CertificateParams| params.not_after = date_time_ymd(2100, 1, 1);
        let caller = site.caller_by(version, Some(identity(&site.clients, &[DNS], until_2100))).await;
        assert_eq!(caller.login(&client).await.status, 200);
        let seconds = 4_102_444_800 - site.app.clock.now().cast_signed();
        site.app.advance(seconds);
        assert_eq!(caller.login(&client).await.status, 200);
        assert_eq!(caller.login(&unbound).await.status, 200);
        site.app.advance(1);
        caller.login(&client).await.is_error(401, "Invalid credentials");
        caller.login(&unbound).await.is_error(401, "Invalid credentials");
        assert_eq!(caller.handshakes.lock().unwrap().last(), Some(&HandshakeKind::Resumed));
        site.app.advance(-seconds - 1);
    }
}

#[tokio::test]
async fn binding_holds_from_the_very_next_request() {
    let site = Site::start().await;
    let client = site.app.client().await;
    let (own, other, stranger) =
        (site.caller(&[DNS]).await, site.caller(&[OTHER]).await, site.stranger().await);
    let pair = stranger.login(&client).await.pair();

    site.rebind(&client, &[DNS, OTHER], &[]).await;
    stranger.login(&client).await.is_error(401, "Invalid credentials");
    stranger.refresh(&pair).await.is_error(401, "Invalid token");
    stranger.logout(&pair).await.is_error(401, "Invalid token");
    assert_eq!(stranger.verify(&pair).await.status, 200);
    let pair = other.refresh(&pair).await.pair();

    site.rebind(&client, &[], &[OTHER]).await;
    other.login(&client).await.is_error(401, "Invalid credentials");
    other.ask(TOKEN, &client, None).await.is_oauth_error(401, "invalid_client");
    other.refresh(&pair).await.is_error(401, "Invalid token");
    let pair = own.refresh(&pair).await.pair();

    site.rebind(&client, &[], &[DNS]).await;
    own.ask(TOKEN, &client, None).await.is_oauth_error(401, "invalid_client");
    stranger.logout(&pair).await.is_logged_out();
}

// check 76
#[tokio::test]
async fn guessing_keys_by_a_certificate_is_bounded() {
    let site = Site::with(|config| config.limits.failed_logins_per_minute = 3).await;
    let (client, other) = (site.bound(&[DNS]).await, site.bound(&[OTHER]).await);
    let own = site.caller(&[DNS]).await;
    for _ in 0..3 {
        own.ask(TOKEN, &other, None).await.is_oauth_error(401, "invalid_client");
    }
    own.ask(TOKEN, &other, None).await.is_oauth_error(429, "temporarily_unavailable");
    assert_eq!(own.ask(TOKEN, &client, None).await.status, 200);
}
