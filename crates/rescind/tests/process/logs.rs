//! What the service logs, and what it must never log or write.

use std::{fs, io::Read, net::TcpStream};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    api::{Api, Credential, Tokens, ok},
    process::{Server, json},
};

const TURNED_AWAY: &str = "turned away: there were too many";

// check 79
#[tokio::test]
async fn no_secret_and_no_token_reaches_the_log_or_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(
        dir.path(),
        &[("RESCIND_LOG__LEVEL", "trace"), ("RESCIND_TOKENS__ON_REUSE", "end-session")],
    );
    let api = Api::new(&server.url);
    let credential = Credential::from_json(&json(dir.path(), "client create --name canary"));
    let second = Credential::from_json(&json(dir.path(), "credential create 1"));
    let wrong = Credential { api_secret: "rs_canary-wrong".into(), ..credential.clone() };

    let mut tokens = vec![api.login(&credential).await, api.login(&second).await];
    assert!(api.try_login(&wrong).await.unwrap().is_err());
    tokens.push(api.refresh(&tokens[0].refresh).await.unwrap());
    assert_eq!(api.verify(&tokens[1].access).await, ok());
    // Reuse, the wrong kind, a damaged signature, and after logout.
    assert!(api.refresh(&tokens[0].refresh).await.is_err());
    assert!(api.refresh(&tokens[1].access).await.is_err());
    let damaged = format!("{}canary-damaged", tokens[1].access);
    assert_eq!(api.verify(&damaged).await.0, 401);
    assert_eq!(api.get(&format!("/verify?access_token={}", tokens[1].access)).await.0, 403);
    assert_eq!(api.get(&format!("/verify?{}", credential.api_secret)).await.0, 403);
    json(dir.path(), &format!("token inspect {}", tokens[1].access));
    json(dir.path(), &format!("credential rotate {}", second.api_key));
    assert_eq!(api.logout(&tokens[1].access).await, ok());
    assert_eq!(api.verify(&tokens[1].access).await.0, 401);
    let metrics = reqwest::get(format!("{}/metrics", server.management)).await.unwrap().text().await.unwrap();
    let (status, log) = server.stop(Signal::TERM).await;
    assert!(status.success());
    let audit = json(dir.path(), "audit list --after 0 --limit 1000").to_string();
    assert!(
        metrics.contains("rescind_clients") && audit.contains("refresh_token_reused"),
        "{metrics} {audit}"
    );

    let master = fs::read_to_string(dir.path().join("master.key")).unwrap();
    let mut canaries = vec!["canary-wrong", "canary-damaged", master.trim()];
    canaries.extend([&credential, &second].map(|credential| credential.api_secret.as_str()));
    for Tokens { access, refresh } in &tokens {
        // Whole, or the signature alone, without which the rest is harmless.
        canaries.extend([access.as_str(), refresh, signature(access), signature(refresh)]);
    }
    assert!(log.len() > 10, "there is no log to look into: {log:#?}");
    for canary in &canaries {
        assert!(!log.iter().any(|line| line.contains(canary)), "{canary} is in the log");
        assert!(!metrics.contains(canary), "{canary} is in the metrics");
        assert!(!audit.contains(canary), "{canary} is in the audit log");
    }
    for file in fs::read_dir(dir.path()).unwrap() {
        let path = file.unwrap().path();
        if path.ends_with("master.key") || path.ends_with("rescind.sock") {
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        for canary in &canaries {
            let found = bytes.windows(canary.len()).any(|window| window == canary.as_bytes());
            assert!(!found, "{canary} is in {}", path.display());
        }
    }
}

// check 102, 105, 106
#[tokio::test]
async fn what_a_proxy_does_wrong_is_told_once_however_often_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let trusting = [
        ("RESCIND_SERVER__TRUSTED_PROXIES", "127.0.0.1/32"),
        ("RESCIND_SERVER__CLIENT_ADDRESS_HEADER", "X-Forwarded-For"),
    ];
    let server = Server::start_with(dir.path(), &trusting);
    let api = Api::new(&server.url);
    let credential = Credential::from_json(&json(dir.path(), "client create --name c"));
    for _ in 0..50 {
        assert_eq!(api.get("/verify?scopes=orders:read").await.0, 403);
        assert_eq!(api.try_login(&credential).await.unwrap().unwrap_err().0, 403);
    }
    let (_, log) = server.stop(Signal::TERM).await;
    let warnings: Vec<&String> = log.iter().filter(|line| line.contains("WARN")).collect();
    let [parameter, proxy] = warnings[..] else { panic!("{warnings:#?}") };
    assert!(parameter.contains(r#""parameter":"scopes""#) && parameter.contains("127.0.0.1"), "{parameter}");
    assert!(
        proxy.contains("server.client_address_header") && proxy.contains(r#""proxy":"127.0.0.1""#),
        "{proxy}"
    );
}

fn signature(token: &str) -> &str {
    token.rsplit('.').next().unwrap()
}

// check 100
#[tokio::test]
async fn that_somebody_was_turned_away_is_told_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(dir.path(), &[("RESCIND_SERVER__MAX_CONNECTIONS_PER_ADDRESS", "1")]);
    let address = server.url.trim_start_matches("http://").to_owned();
    let _held = TcpStream::connect(&address).unwrap();
    let refused = || {
        let mut stream = TcpStream::connect(&address).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    };
    refused();
    let line = server.wait_for_log(TURNED_AWAY);
    assert_eq!((&line["listener"], &line["level"]), (&"public".into(), &"WARN".into()), "{line}");
    assert_eq!((&line["most_from"], &line["requests"]), (&"127.0.0.1".into(), &0.into()), "{line}");
    assert!(line["connections"].as_u64() >= Some(1), "{line}");
    // Those that come within the minute are told with it.
    for _ in 0..30 {
        refused();
    }
    let (status, log) = server.stop(Signal::TERM).await;
    assert!(status.success());
    assert_eq!(log.iter().filter(|line| line.contains(TURNED_AWAY)).count(), 1, "{log:#?}");
}

#[tokio::test]
async fn every_line_is_json_when_standard_error_is_no_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &[("RESCIND_LOG__LEVEL", "trace")]);
    let api = Api::new(&server.url);
    let credential = Credential::from_json(&json(dir.path(), "client create --name c"));
    assert_eq!(api.logout(&api.login(&credential).await.access).await, ok());
    let (_, log) = server.stop(Signal::TERM).await;
    let events: Vec<Value> =
        log.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
    let messages: Vec<&str> = events.iter().filter_map(|event| event["message"].as_str()).collect();
    for message in ["serving", "client created", "login", "logout", "answered", "draining", "stopped"] {
        assert!(messages.contains(&message), "{message} is not in {messages:?}");
    }
    for event in &events {
        assert!(event["timestamp"].is_string() && event["level"].is_string(), "{event}");
    }
    let login = events.iter().find(|event| event["message"] == "login").unwrap();
    assert_eq!(login["client"], 1);
}

#[tokio::test]
async fn text_and_other_levels_can_be_had() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = crate::process::serve(dir.path());
    command.env("RESCIND_LOG__FORMAT", "text");
    let mut process = crate::process::Process::spawn(&mut command);
    let line = process.wait_for("text", |line| line.contains(" serving ").then(|| line.to_owned()));
    assert!(line.contains(" INFO ") && !line.contains('\u{1b}'), "{line}");
    process.signal(Signal::TERM);
    process.ended().await;
}
