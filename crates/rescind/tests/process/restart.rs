//! A process ends, and another one starts on its data folder.

use std::{path::Path, process::Stdio, time::Duration};

use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    api::{Api, Credential, ok, unauthorized},
    process::{Process, Server, cli, json, rescind, run, serve},
};

// check 12, CVE-2026-9802
#[tokio::test]
async fn what_was_revoked_or_used_stays_so_over_a_restart() {
    for signal in [Signal::TERM, Signal::INT, Signal::KILL] {
        over_a_restart(signal).await;
    }
}

async fn over_a_restart(signal: Signal) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let api = Api::new(&server.url);
    let kept = Credential::from_json(&json(dir.path(), "client create --name kept"));
    let gone = Credential::from_json(&json(dir.path(), "client create --name gone"));

    let first = api.login(&kept).await;
    let second = api.refresh(&first.refresh).await.unwrap();
    let untouched = api.login(&kept).await;
    let taken_back = [api.login(&gone).await, api.login(&gone).await];
    assert_eq!(api.logout(&taken_back[0].access).await, ok());
    let anew = api.login(&gone).await;

    let (status, _) = server.stop(signal).await;
    assert_eq!(status.success(), signal != Signal::KILL, "{signal:?}: {status}");
    let server = Server::start(dir.path());
    let api = Api::new(&server.url);

    for token in [&first.access, &second.access, &untouched.access, &anew.access] {
        assert_eq!(api.verify(token).await, ok());
    }
    for tokens in &taken_back {
        assert_eq!(api.verify(&tokens.access).await, unauthorized("Invalid token"));
        assert_eq!(api.refresh(&tokens.refresh).await.unwrap_err(), unauthorized("Invalid token"));
    }
    assert!(api.refresh(&untouched.refresh).await.is_ok());
    // The used one is told apart, and is still a sign of theft: the newest goes with it.
    assert_eq!(api.refresh(&first.refresh).await.unwrap_err(), unauthorized("Invalid token"));
    assert_eq!(api.refresh(&second.refresh).await.unwrap_err(), unauthorized("Invalid token"));
    assert_eq!(api.verify(&anew.access).await, ok());
}

#[tokio::test]
async fn sigterm_lets_a_request_under_way_finish() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let created = Credential::from_json(&json(dir.path(), "client create --name slow"));
    let body =
        format!(r#"{{"username":"{}","password":"{}"}}"#, created.api_key, created.api_secret).into_bytes();
    let mut connection = under_way(&server.url, body.len()).await;

    server.signal(Signal::TERM);
    server.wait_for_log("draining");
    let address = server.url.strip_prefix("http://").unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "new connections are taken while draining");
    connection.write_all(&body).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("access_token"), "{answer}");
    assert_eq!(server.ended().await.0.code(), Some(0));
}

#[tokio::test]
async fn a_request_that_never_finishes_does_not_hold_up_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &[("RESCIND_SERVER__DRAIN_TIMEOUT", "1s")]);
    let _connection = under_way(&server.url, 100).await;
    let (status, log) = server.stop(Signal::TERM).await;
    assert_eq!(status.code(), Some(0));
    assert!(log.iter().any(|line| line.contains("requests under way were cut off")), "{log:#?}");
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &[("RESCIND_SERVER__DRAIN_TIMEOUT", "1h")]);
    let api = Api::new(&server.url);
    assert_eq!(api.get("/verify").await.0, 401);
    let silent = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap();
    // A second caller's answer shows that the silent one has been accepted: they are taken in order.
    assert_eq!(Api::new(&server.url).get("/verify").await.0, 401);
    let stopped = tokio::time::timeout(Duration::from_secs(30), server.stop(Signal::TERM)).await;
    assert_eq!(stopped.unwrap().0.code(), Some(0));
    drop(silent);
}

// check 99
#[tokio::test]
async fn one_server_at_a_time_has_a_data_folder() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let second = run(&mut serve(dir.path()));
    second.refused(1, "is in use by another rescind; stop that one, or name another folder with --data-dir");
    assert!(second.stderr.contains(dir.path().to_str().unwrap()), "{second:?}");
    // Its files are no matter: a folder is used for as long as its process lives.
    std::fs::remove_file(dir.path().join("rescind.lock")).unwrap();
    run(&mut serve(dir.path())).refused(1, "is in use by another rescind");
    // The first is none the worse for it: its socket is there and answers.
    assert_eq!(json(dir.path(), "status")["ready"], true);
    std::fs::rename(dir.path().join("rescind.sock"), dir.path().join("moved")).unwrap();
    cli(dir.path(), ["client", "create", "--name", "second"]).refused(1, "does not answer on its socket");
    cli(dir.path(), ["db", "migrate"]).refused(1, "is in use by another rescind");
    std::fs::rename(dir.path().join("moved"), dir.path().join("rescind.sock")).unwrap();

    let (status, _) = server.stop(Signal::KILL).await;
    assert_eq!(status.code(), None);
    assert!(dir.path().join("rescind.sock").exists(), "nothing is left over, so the test tests nothing");
    cli(dir.path(), ["status"]).refused(2, "not running");
    let _server = Server::start(dir.path());
    assert_eq!(json(dir.path(), "status")["ready"], true);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(one.path());
    for (flag, key, url) in [
        ("--listen", "server.listen", &server.url),
        ("--management-listen", "server.management_listen", &server.management),
    ] {
        let address = url.strip_prefix("http://").unwrap();
        let mut command = rescind();
        command.args(["serve", "--data-dir"]).arg(other.path());
        for listener in ["--listen", "--management-listen"] {
            command.args([listener, if listener == flag { address } else { "127.0.0.1:0" }]);
        }
        let outcome = run(&mut command);
        outcome.refused(1, &format!("cannot listen on {address}"));
        assert!(outcome.stderr.contains(flag) && outcome.stderr.contains(key), "{outcome:?}");
    }
}

/// Kills a first start just after each of its files has appeared.
#[tokio::test]
async fn a_first_start_cut_short_does_not_spoil_the_folder() {
    for file in ["rescind.lock", "rescind.db", "rescind.db-wal", "master.key", "rescind.sock"] {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::spawn(&mut serve(dir.path()));
        appears(&dir.path().join(file)).await;
        process.signal(Signal::KILL);
        process.ended().await;

        let server = Server::start(dir.path());
        let credential = Credential::from_json(&json(dir.path(), "client create --name after"));
        let api = Api::new(&server.url);
        assert_eq!(api.verify(&api.login(&credential).await.access).await, ok(), "{file}");
    }
}

#[tokio::test]
async fn probes_are_answered_on_the_management_listener_alone() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(Api::new(&server.management).get(path).await, ok(), "{path}");
        assert_eq!(Api::new(&server.url).get(path).await.0, 404, "{path}");
    }
    // The admin API is for whoever has a management token.
    assert_eq!(Api::new(&server.management).get("/admin/v1/status").await.0, 401);
}

#[tokio::test]
async fn serve_says_where_it_is_and_prints_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::spawn(serve(dir.path()).stdout(Stdio::piped()));
    let serving = process.wait_for_log("serving");
    assert_eq!(serving["level"], "INFO");
    assert_eq!(serving["data_dir"], dir.path().to_str().unwrap());
    assert!(!serving["listen"].as_str().unwrap().ends_with(":0"));
}

/// A login whose head the server has read. The server waits for the body.
async fn under_way(url: &str, body_length: usize) -> TcpStream {
    let mut connection = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    let head = format!(
        "POST /auth/login HTTP/1.1\r\nHost: rescind\r\nContent-Type: application/json\r\nContent-Length: {body_length}\r\nExpect: 100-continue\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    connection.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    connection
}

async fn appears(path: &Path) {
    for _ in 0..60_000 {
        if path.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{} does not appear", path.display());
}
