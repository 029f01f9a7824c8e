//! A follower over TLS.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rescind::auth::{self, Caller, Grant};
use rescind_verifier::{
    Denied,
    follow::{AuthorityError, FeedError, Follower, Mode, Options},
};
use rustls::version::TLS13;
use tokio::{io::AsyncWriteExt, net::TcpListener, time::timeout};

use crate::{
    app::{Client, TestApp},
    edge::tls::{Authority, connect},
    follow::{
        CALLER, PATIENCE,
        proxy::{Proxy, Weather},
        stands, until, verdict, verifier_token,
    },
};

const BOUND: Duration = Duration::from_secs(2);

/// A service whose listeners speak TLS for `localhost`.
async fn service(authority: &Authority) -> TestApp {
    authority.issue();
    TestApp::in_real_time(|config| {
        authority.configure(config);
        config.tls.management = true;
    })
    .await
}

async fn login(app: &TestApp, client: &Client) -> Grant {
    let caller = Caller::direct(CALLER.unwrap());
    auth::login(&app.app, &client.key, &client.secret, &caller).await.unwrap()
}

fn url(address: SocketAddr) -> String {
    format!("https://localhost:{}", address.port())
}

fn trusting(options: Options, authorities: &[&Authority]) -> Options {
    let pem: String = authorities.iter().map(|authority| authority.issuer.pem()).collect();
    options.with_authorities(pem).unwrap()
}

/// Waits until the follower says why it cannot follow.
async fn told(options: Options) -> String {
    let follower = Follower::start(options);
    let mut status = follower.status();
    let is_told = |status: &Option<FeedError>| {
        status.as_ref().is_some_and(|error| *error != FeedError::Connection("not yet".into()))
    };
    let told = timeout(PATIENCE, status.wait_for(is_told)).await.unwrap().unwrap().clone();
    assert_eq!(verdict(&follower, "x"), Err(Denied::Stale));
    told.unwrap().to_string()
}

// check 15
#[tokio::test]
async fn over_tls_a_logout_is_known_when_it_is_answered() {
    let authority = Authority::new();
    let app = service(&authority).await;
    let client = app.client().await;
    let options = Options::exact(url(app.management), verifier_token(&app, true).await);
    let follower = Follower::start(trusting(options, &[&authority]));
    timeout(PATIENCE, follower.ready()).await.unwrap();
    for _ in 0..20 {
        let token = login(&app, &client).await.pair.access_token;
        stands(&follower, &token).await;
        auth::logout(&app.app, &token, &Caller::direct(CALLER.unwrap())).await.unwrap();
        // On a busy machine its lease may have ended.
        let verdict = verdict(&follower, &token);
        assert!(verdict == Err(Denied::Revoked) || verdict == Err(Denied::Stale), "{verdict:?}");
    }
}

#[tokio::test]
async fn single_tokens_are_asked_for_over_tls_too() {
    let authority = Authority::new();
    let app = service(&authority).await;
    let token = login(&app, &app.client().await).await.pair.access_token;
    let proxy = Proxy::before(app.management).await;
    let options = Options::new(url(proxy.address), verifier_token(&app, true).await)
        .with_mode(Mode::Bounded(BOUND))
        .with_introspection(url(app.address));
    let follower = Follower::start(trusting(options, &[&authority]));
    timeout(PATIENCE, follower.ready()).await.unwrap();
    proxy.set(Weather { closed: true, ..Weather::default() });
    until("stale", || verdict(&follower, &token) == Err(Denied::Stale)).await;
    assert!(follower.verify_or_ask(&token, CALLER).await.is_ok());
}

#[tokio::test]
async fn a_follower_goes_on_when_the_servers_certificate_was_replaced_meanwhile() {
    let (first, second) = (Authority::new(), Authority::new());
    let app = service(&first).await;
    let token = login(&app, &app.client().await).await.pair.access_token;
    let proxy = Proxy::before(app.management).await;
    let options = Options::new(url(proxy.address), verifier_token(&app, true).await);
    let options = options.with_mode(Mode::Bounded(BOUND));
    let follower = Follower::start(trusting(options, &[&first, &second]));
    stands(&follower, &token).await;
    proxy.set(Weather { closed: true, ..Weather::default() });
    until("stale", || verdict(&follower, &token) == Err(Denied::Stale)).await;

    second.issue();
    for file in ["key.pem", "certificate.pem"] {
        std::fs::copy(second.path(file), first.path(file)).unwrap();
    }
    let trusting_the_second = Arc::new(second.client(&[&TLS13]).with_no_client_auth());
    let taken_up = async { while connect(app.management, &trusting_the_second).await.is_err() {} };
    timeout(PATIENCE, taken_up).await.unwrap();
    proxy.set(Weather::default());
    stands(&follower, &token).await;
}

// check 69
#[tokio::test]
async fn what_is_wrong_with_a_server_is_told_and_no_token_is_accepted() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let app = service(&authority).await;
    let token = verifier_token(&app, true).await;
    let at = |server: String| Options::new(server, &token);
    let elsewhere = format!("https://127.0.0.1:{}", app.management.port());
    // Its own clock is in January 2025, and this machine's is not.
    let mut expired = Authority::new();
    expired.until = Some((2025, 6));
    expired.issue();
    let in_2025 = TestApp::with(|config| {
        expired.configure(config);
        config.tls.management = true;
    })
    .await;
    let own = Authority::new();
    let of_authority = TestApp::in_real_time(|config| {
        own.serve_its_own();
        own.configure(config);
        config.tls.management = true;
    })
    .await;
    let plain = TestApp::today(|_| {}).await;
    for (options, expected) in [
        (
            trusting(at(url(app.management)), &[&stranger]),
            "no authority that is trusted here has signed the server's certificate: name its authority by Options::with_authorities",
        ),
        (
            trusting(at(elsewhere), &[&authority]),
            "the server's certificate is not for \"127.0.0.1\", but for DnsName(\"localhost\")",
        ),
        (
            trusting(at(url(of_authority.management)), &[&own]),
            "the server's certificate is an authority's own: let the authority sign another one for the server, or make one with basicConstraints=CA:FALSE",
        ),
        (trusting(at(url(in_2025.management)), &[&expired]), "the server's certificate has expired"),
        (
            trusting(at(url(plain.management)), &[&authority]),
            "the server does not speak TLS there: name it without https://",
        ),
        (trusting(at("https://exa mple:1".into()), &[&authority]), ""),
    ] {
        let told = told(options).await;
        match expected {
            "" => assert!(told.starts_with("no connection: "), "{told}"),
            expected => assert_eq!(told, format!("no TLS connection: {expected}")),
        }
    }
}

#[tokio::test]
async fn one_reason_is_told_once_however_often_it_is_met() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = Authority::new();
    let options = Options::new(url(listener.local_addr().unwrap()), "rv_x");
    let follower = Follower::start(trusting(options, &[&authority]));
    let mut status = follower.status();
    let refuse = async |listener: &TcpListener| {
        let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    };
    refuse(&listener).await;
    status.wait_for(|told| matches!(told, Some(FeedError::Tls(_)))).await.unwrap();
    status.mark_unchanged();
    for _ in 0..3 {
        refuse(&listener).await;
    }
    assert!(!status.has_changed().unwrap());
}

#[test]
fn authorities_are_certificates_in_pem() {
    let options = || Options::new("https://localhost:1", "rv_x");
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    for (text, expected) in [
        ("", AuthorityError::NotPem),
        ("MIIB", AuthorityError::NotPem),
        (&*key, AuthorityError::NotPem),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", AuthorityError::NotPem),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", AuthorityError::Damaged),
    ] {
        assert_eq!(options().with_authorities(text).unwrap_err(), expected, "{text}");
    }
}
