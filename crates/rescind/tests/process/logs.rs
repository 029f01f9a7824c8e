//! What the service logs, and what it must never log or write.

use std::{
    fs,
    io::{BufRead, BufReader, PipeReader, Read},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use rescind_base::clock::Clock;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    api::{Api, Credential, Tokens, ok},
    fixture::Server as Postgres,
    process::{PATIENCE, Process, Server, json, serve},
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
    let mut command = serve(dir.path());
    command.env("RESCIND_LOG__FORMAT", "text");
    let mut process = Process::spawn(&mut command);
    let line = process.wait_for("text", |line| line.contains(" serving ").then(|| line.to_owned()));
    assert!(line.contains(" INFO ") && !line.contains('\u{1b}'), "{line}");
    process.signal(Signal::TERM);
    process.ended().await;
}

/// Starts a server that logs much, and reads its log until it serves. Returns that last line, too.
fn serving_unread(data_dir: &Path, settings: &[(&str, &str)]) -> (Process, BufReader<PipeReader>, Value) {
    let mut command = serve(data_dir);
    command.env("RESCIND_LOG__LEVEL", "debug").envs(settings.iter().copied());
    let (process, log) = Process::spawn_unread(command);
    let mut log = BufReader::new(log);
    loop {
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        if line["message"] == "serving" {
            return (process, log, line);
        }
    }
}

/// A path in which no part is so long that it is left out of the log.
fn long_path() -> String {
    format!("/verify/{}", "part/".repeat(2000))
}

#[tokio::test]
async fn whoever_stops_reading_the_log_stops_no_verification_and_no_lease() {
    let dir = tempfile::tempdir().unwrap();
    let url = Postgres::shared().database().await;
    let lease = [("RESCIND_CLUSTER__LEASE", "1s"), ("RESCIND_CLUSTER__MARGIN", "100ms")];
    let (process, log, serving) =
        serving_unread(dir.path(), &[lease[0], lease[1], ("RESCIND_DATABASE__URL", &url)]);
    let api = |listener: &str| Api::new(&format!("http://{}", serving[listener].as_str().unwrap()));
    let (public, management) = (api("listen"), api("management"));
    while management.get("/readyz").await != ok() {}
    let credential = Credential::from_json(&json(dir.path(), "client create --name c"));
    let access = public.login(&credential).await.access;
    let metric = async || {
        let url = format!("http://{}/metrics", serving["management"].as_str().unwrap());
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("rescind_log_lines_dropped_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(metric().await, 0);

    let until = Clock::System.elapsed() + Duration::from_secs(3);
    let verified = async {
        while Clock::System.elapsed() < until || metric().await == 0 {
            assert_eq!(public.try_verify_at(&long_path(), &access).await.unwrap(), ok());
        }
    };
    timeout(PATIENCE, verified).await.expect("the service answers");

    // It is told where the lines are missing, and all others are whole.
    let mut lines = log.lines().map(Result::unwrap);
    let told = lines.find_map(|line| {
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        line["message"].as_str()?.starts_with("lines of this log were dropped").then_some(line)
    });
    let told = told.expect("that lines were dropped");
    assert_eq!((&told["level"], told["lines"].as_u64() >= Some(1)), (&"WARN".into(), true), "{told}");
    process.signal(Signal::TERM);
    let rest: Vec<String> = lines.collect();
    assert!(rest.last().unwrap().contains("stopped"), "{rest:#?}");
    assert!(process.ended().await.0.success());
}

#[tokio::test]
async fn a_log_that_nobody_reads_does_not_keep_the_process_from_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (process, log, serving) = serving_unread(dir.path(), &[]);
    let api = Api::new(&format!("http://{}", serving["listen"].as_str().unwrap()));
    for _ in 0..20 {
        assert_eq!(timeout(PATIENCE, api.get(&long_path())).await.expect("an answer").0, 401);
    }
    process.signal(Signal::TERM);
    let (status, _) = process.ended().await;
    assert!(status.success(), "{status}");
    let lines = log.lines().map(Result::unwrap);
    assert!(lines.count() > 0);
}

/// The lines with this message, as JSON.
fn lines_of(log: &[String], message: &str) -> Vec<Value> {
    let lines = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == message).collect()
}

#[tokio::test]
async fn a_refusal_has_a_line_with_its_reason_and_whose_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let api = Api::new(&server.url);
    let credential = Credential::from_json(&json(dir.path(), "client create --name c"));
    let tokens = api.login(&credential).await;
    let wrong = Credential { api_secret: "rs_wrong".into(), ..credential.clone() };
    assert!(api.try_login(&wrong).await.unwrap().is_err());
    // A secret in the place of the key is not shown.
    let swapped = Credential { api_key: credential.api_secret.clone(), ..credential.clone() };
    assert!(api.try_login(&swapped).await.unwrap().is_err());
    json(dir.path(), "client suspend 1 --yes");
    assert!(api.refresh(&tokens.refresh).await.is_err());
    for _ in 0..20 {
        assert_eq!(api.verify(&tokens.access).await.0, 401);
    }
    let (_, log) = server.stop(Signal::TERM).await;

    let [login] = &lines_of(&log, "login")[..] else { panic!("{log:#?}") };
    assert_eq!((&login["credential"], &login["address"]), (&json!(credential.api_key), &json!("127.0.0.1")));
    let [first, second] = &lines_of(&log, "login refused")[..] else { panic!("{log:#?}") };
    assert_eq!(
        (&first["level"], &first["reason"], &first["credential"], &first["address"], &first["times"]),
        (
            &json!("INFO"),
            &json!("invalid credentials"),
            &json!(credential.api_key),
            &json!("127.0.0.1"),
            &json!(1)
        )
    );
    assert!(first["span"]["id"].is_string(), "{first}");
    assert_eq!(second["credential"], Value::Null);
    let [refresh] = &lines_of(&log, "refresh refused")[..] else { panic!("{log:#?}") };
    assert_eq!(
        (&refresh["reason"], &refresh["client"], &refresh["credential"]),
        (&json!("invalid token: client is not active"), &json!(1), &json!(credential.api_key))
    );
    // Verifications are counted: one line a second, with how many there were since the one before.
    let verifications = lines_of(&log, "verification refused");
    assert!((1..20).contains(&verifications.len()), "{verifications:#?}");
    assert_eq!(
        (&verifications[0]["reason"], &verifications[0]["client"], &verifications[0]["times"]),
        (&json!("client is not active"), &json!(1), &json!(1))
    );
}
