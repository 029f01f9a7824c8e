//! Callers without a token use up the management listener's connections: probes are still answered, and
//! verifiers attach and stay exact.

use std::time::Duration;

use rescind_verifier::{Denied, follow::Follower};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    app::TestApp,
    follow::{PATIENCE, exact::follow_exactly, stands, verdict, verifier_token},
    raw,
};

const MANY: usize = 1000;
const PROBES: [&str; 3] = ["/livez", "/readyz", "/metrics"];
const PROBED: &str = "HTTP/1.1 200 OK\r\n";
const BODY: &str = "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n";

/// Texts that each of a thousand such callers sends before it stops sending.
fn floods() -> Vec<(&'static str, String)> {
    let ack = "POST /feed/v1/ack HTTP/1.1\r\nHost: x\r\n";
    vec![
        ("a body that never comes, no token", format!("{ack}{BODY}")),
        ("a body that never comes, a wrong token", format!("{ack}Authorization: Bearer rv_wrong\r\n{BODY}")),
        ("a probe with a body that never comes", format!("GET /readyz HTTP/1.1\r\nHost: x\r\n{BODY}")),
        ("half a head", ack.into()),
        ("nothing", String::new()),
    ]
}

async fn strangers(app: &TestApp, sent: &str) -> Vec<TcpStream> {
    let mut held = vec![];
    for _ in 0..MANY {
        let mut stream = TcpStream::connect(app.management).await.unwrap();
        // The earlier ones may be closed already.
        let _ = stream.write_all(sent.as_bytes()).await;
        held.push(stream);
    }
    held
}

async fn probes_are_answered(app: &TestApp) {
    for path in PROBES {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let mut stream = TcpStream::connect(app.management).await.unwrap();
        let mut begin = [0; PROBED.len()];
        let answered = async {
            stream.write_all(request.as_bytes()).await?;
            stream.read_exact(&mut begin).await
        };
        timeout(PATIENCE, answered).await.expect("an answer").unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(begin, PROBED.as_bytes(), "{path}");
    }
}

async fn is_exact(app: &TestApp, follower: &Follower) {
    let client = app.client().await;
    for _ in 0..10 {
        let pair = app.grant(&client).await;
        stands(follower, &pair.access).await;
        app.logout(&pair.access).await.is_logged_out();
        let verdict = verdict(follower, &pair.access);
        // A machine too busy to renew a lease refuses too.
        assert!(verdict == Err(Denied::Revoked) || verdict == Err(Denied::Stale), "{verdict:?}");
    }
}

// check 101
#[tokio::test]
async fn a_thousand_strangers_shut_out_no_probe_and_no_verifier() {
    for (what, sent) in floods() {
        let app = TestApp::live(|_| {}).await;
        let token = verifier_token(&app, true).await;
        let early = follow_exactly(app.management, &token);
        timeout(PATIENCE, early.ready()).await.unwrap();
        let mut held = strangers(&app, &sent).await;
        probes_are_answered(&app).await;
        let late = follow_exactly(app.management, &token);
        timeout(PATIENCE, late.ready()).await.unwrap_or_else(|_| panic!("no verifier attaches: {what}"));
        for follower in [&early, &late] {
            is_exact(&app, follower).await;
        }
        // As many again, while they follow.
        held.extend(strangers(&app, &sent).await);
        probes_are_answered(&app).await;
        for follower in [&early, &late] {
            is_exact(&app, follower).await;
        }
    }
}

// check 101
#[tokio::test]
async fn whoever_has_no_token_is_told_before_a_body_is_waited_for_and_has_to_go() {
    let app = TestApp::start().await;
    for (authorization, message) in
        [("", "Authorization header required"), ("Authorization: Bearer rv_wrong\r\n", "Invalid token")]
    {
        let request = format!("POST /feed/v1/ack HTTP/1.1\r\nHost: x\r\n{authorization}{BODY}");
        let reply = raw::answer(app.management, request).await;
        reply.is_error(401, message);
        assert_eq!(reply.header("connection"), Some("close"));
    }
    // With one, the body is waited for.
    let token = verifier_token(&app, true).await;
    let head = format!(
        "POST /feed/v1/ack HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nExpect: 100-continue\r\n{BODY}"
    );
    let mut stream = TcpStream::connect(app.management).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = [0; 12];
    timeout(Duration::from_secs(20), stream.read_exact(&mut said)).await.unwrap().unwrap();
    assert_eq!(&said, b"HTTP/1.1 100");
}
