//! Secrets in wrong places must not appear in any output of the program.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::net::UnixListener,
    path::Path,
};

use rustix::process::Signal;
use serde_json::json;

use crate::{
    api::{Api, Credential},
    canary::Canary,
    process::{Outcome, Process, Server, cli, json, rescind, run, serve},
};

const KEY: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const PASSWORD: &str = "canary-of-the-database";

#[track_caller]
fn refused(outcome: &Outcome, canary: &Canary, code: i32, because: &str) {
    canary.assert_absent(&format!("{} {}", outcome.stdout, outcome.stderr));
    outcome.refused(code, because);
}

/// Runs `rescind serve` with these variables, with which it must not start.
#[track_caller]
fn start(variables: &[(&str, &str)]) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let mut serve = serve(&dir.path().join("data"));
    serve.env("RESCIND_LOG__LEVEL", "trace").env("RESCIND_DATABASE__START_TIMEOUT", "0s");
    run(serve.envs(variables.iter().copied()))
}

// check 108
#[test]
fn a_master_key_of_no_use_is_told_without_it() {
    let canary = Canary::new(KEY);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    for bad in [
        &KEY[1..],
        &format!("{KEY}00"),
        &format!("{KEY} {KEY}"),
        &KEY.replace("9f", "9g"),
        &format!("key={KEY}"),
    ] {
        refused(&start(&[("RESCIND_MASTER_KEY", bad)]), &canary, 1, "a master key is 64 hexadecimal digits");
        fs::write(&file, bad).unwrap();
        let named = [("RESCIND_MASTER_KEY_FILE", file.to_str().unwrap())];
        refused(&start(&named), &canary, 1, "a master key is 64 hexadecimal digits");
        // Nor where it is taken for a configuration.
        refused(&start(&[("RESCIND_CONFIG", file.to_str().unwrap())]), &canary, 1, "line 1: ");
    }
    for variable in ["RESCIND_MASTER_KEY_FILE", "RESCIND_CONFIG", "RESCIND_DATABASE__URL_FILE"] {
        refused(&start(&[(variable, KEY)]), &canary, 1, "…");
    }
    // What the store has sealed is not told either, nor where the folder's own key is damaged.
    let data = dir.path().join("data");
    json(&data, "client create --name c");
    let sealed_under = Canary::new(fs::read_to_string(data.join("master.key")).unwrap().trim());
    let other = run(serve(&data).env("RESCIND_MASTER_KEY", KEY));
    refused(&other, &sealed_under, 1, "sealed under another master key");
    refused(&other, &canary, 1, "sealed under another master key");
    let damaged =
        fs::read_to_string(data.join("master.key")).unwrap().replacen(|c: char| c.is_ascii_digit(), "x", 1);
    fs::write(data.join("master.key"), damaged).unwrap();
    refused(&run(&mut serve(&data)), &sealed_under, 1, "64 hexadecimal digits");
}

// check 108
#[test]
fn a_database_of_no_use_is_told_without_its_password() {
    let canary = Canary::new(PASSWORD);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (url, problem) in [
        (format!("mysql://u:{PASSWORD}@db/x"), "expected postgres://user:password@host"),
        (format!("postgres://u:{PASSWORD}@[db/x"), "expected postgres://user:password@host"),
        (format!("postgres://u:{PASSWORD}@db:port/x"), "expected postgres://user:password@host"),
        (format!("host=db password={PASSWORD}"), "expected postgres://user:password@host"),
        (format!("postgres://u@db/x?{PASSWORD}"), "expected postgres://user:password@host"),
        (
            format!("postgres://u:{PASSWORD}@127.0.0.1:{nobody}/x?sslmode=disable"),
            "the store is not available",
        ),
    ] {
        refused(&start(&[("RESCIND_DATABASE__URL", &url)]), &canary, 1, problem);
        fs::write(&file, &url).unwrap();
        let name = file.to_str().unwrap();
        refused(&start(&[("RESCIND_DATABASE__URL_FILE", name)]), &canary, 1, problem);
        refused(
            &start(&[("RESCIND_DATABASE__URL_FILE", &url)]),
            &canary,
            1,
            "RESCIND_DATABASE__URL_FILE names ",
        );
        let mut with_flag = serve(&dir.path().join("data"));
        with_flag.args(["--database-url", &url]).env("RESCIND_DATABASE__START_TIMEOUT", "0s");
        let flag = run(&mut with_flag);
        refused(&flag, &canary, 1, problem);
        fs::write(&file, format!("[database]\nurl = {url:?}")).unwrap();
        refused(&start(&[("RESCIND_CONFIG", name)]), &canary, 1, problem);
        let copy = cli(dir.path(), ["db", "copy", "--to", &url]);
        canary.assert_absent(&copy.stderr);
    }
    let url = format!("postgres://u:{PASSWORD}@db/x");
    for text in [
        format!("[database]\nurl = {url}"),
        format!("[database]\nurl = \"{url}"),
        format!("[database]\nurl = [\"{url}\"]"),
        format!("[database]\nurl = {{ password = \"{PASSWORD}\" }}"),
        format!("[database]\npool_size = \"{url}\""),
        format!("[database]\npassword = \"{PASSWORD}\""),
        format!("[server]\nurl = \"{url}\""),
        format!("[audit]\nkeep = \"{url}\""),
        format!("[server]\ntrusted_proxies = [\"{url}\"]"),
        format!("[tokens]\non_reuse = \"{url}\""),
        format!("[secrets]\ndatabase = \"{url}\""),
        format!("database = \"{url}\""),
        format!("\"{url}\" = 1"),
    ] {
        fs::write(&file, &text).unwrap();
        let outcome = start(&[("RESCIND_CONFIG", file.to_str().unwrap())]);
        canary.assert_absent(&outcome.stderr);
        assert_eq!(outcome.code, Some(1), "{text}: {outcome:?}");
    }
}

// check 108
#[test]
fn a_key_in_the_place_of_its_file_is_not_repeated() {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let canary = Canary::new(key.lines().nth(1).unwrap());
    for variable in
        ["RESCIND_TLS__KEY", "RESCIND_TLS__CERTIFICATE", "RESCIND_TLS__CLIENT_CA", "RESCIND_DATABASE__TLS_CA"]
    {
        for text in [key.clone(), key.replace('\n', "\\n")] {
            refused(
                &start(&[(variable, &text)]),
                &canary,
                1,
                "expected the path of a file, not what is in it",
            );
        }
    }
}

// check 108
#[test]
fn an_argument_in_a_wrong_place_is_not_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let token =
        "eyJhbGciOiJIUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJjYW5hcnkiOiJjYW5hcnkifQ.Y2FuYXJ5LWNhbmFyeS1jYW5hcnk";
    let secret = "rs_jbswy3dpeblw64tmmqqq2ylbpbswy3dpeblw64tmmqqq2ylbpbswy3dpebl";
    let name = format!("billing ({secret})");
    let url = format!("postgres://u:{PASSWORD}@db/x");
    let canaries = [Canary::new(token), Canary::new(secret), Canary::new(PASSWORD)];
    for args in [
        vec!["token", token],
        vec!["token", "inspect", token, token],
        vec!["token", "inspect", "-", &format!("--token={token}")],
        vec!["db", "copy", &url],
        vec!["serve", &url],
        vec!["serve", &format!("--databaseurl={url}")],
        vec!["client", "show", secret],
        vec!["credential", "revoke", secret, "--yes"],
        vec!["credential", "rotate", secret],
        vec!["credential", "rotate", "rk_x", "--overlap", secret],
        vec!["completions", secret],
        vec![secret],
        // In the place of a name, and within a text.
        vec!["key", "retire", secret],
        vec!["key", "retire", token],
        vec!["admin", "remove", secret],
        vec!["admin", "create", secret, "--role", "viewer"],
        vec!["admin", "reset", token],
        vec!["webhook", "test", secret],
        vec!["client", "create", "--name", &name],
        vec!["client", "suspend", "c", "--reason", &name],
        vec!["explain", secret],
    ] {
        let outcome = cli(dir.path(), &args);
        canaries.iter().for_each(|canary| canary.assert_absent(&outcome.stderr));
        outcome.refused(2, "error: ");
    }
    // Others are.
    cli(dir.path(), ["client", "lsit"]).refused(2, "unrecognized subcommand 'lsit'");
}

/// Serves the folder's socket, and answers every request with this text.
fn answering(data_dir: &Path, answer: String) {
    fs::create_dir(data_dir).unwrap();
    let listener = UnixListener::bind(data_dir.join("rescind.sock")).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = [0; 4096];
        assert!(stream.read(&mut asked).unwrap() > 0);
        stream.write_all(answer.as_bytes()).unwrap();
    });
}

// check 108
#[test]
fn an_answer_that_cannot_be_read_is_not_repeated() {
    let canary = Canary::new(KEY);
    for (name, body) in [
        ("type", json!({ "client_id": KEY, "api_secret": KEY }).to_string()),
        ("json", format!("\"{KEY}")),
        ("http", String::new()),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let answer = match name {
            "http" => format!("HTTP/1.1 {KEY}\r\n\r\n"),
            _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        };
        answering(&data, answer);
        let outcome = cli(&data, ["client", "create", "--name", "c"]);
        refused(&outcome, &canary, 1, if name == "http" { "the server went away" } else { "cannot be read" });
    }
}

// check 108
#[tokio::test]
async fn what_a_caller_puts_into_a_wrong_place_is_not_logged() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &[("RESCIND_LOG__LEVEL", "trace")]);
    let credential = Credential::from_json(&json(dir.path(), "client create --name c"));
    let tokens = Api::new(&server.url).login(&credential).await;
    let canaries = [&credential.api_secret, &tokens.refresh].map(Canary::new);
    let secrets = [&credential.api_secret, &tokens.refresh];
    let clients = [false, true].map(|http2| {
        let builder = reqwest::Client::builder().no_proxy();
        if http2 { builder.http2_prior_knowledge() } else { builder }.build().unwrap()
    });
    for client in &clients {
        for secret in secrets {
            for path in
                ["/auth/login", "/auth/refresh", "/auth/logout", "/verify", "/oauth2/token", "/nowhere"]
            {
                let url = format!("{}{path}", server.url);
                for body in [
                    json!({ "username": secret, "password": 7 }).to_string(),
                    json!({ secret: secret, "refresh_token": { "x": secret } }).to_string(),
                    json!([secret]).to_string(),
                    format!("{{\"password\":\"{secret}"),
                    format!("{{\"a\":\"{secret}\",\"a\":\"{secret}\"}}"),
                    format!("\"{secret}\\ud800\""),
                    secret.clone(),
                ] {
                    let posted = client.post(&url).header("content-type", "application/json").body(body);
                    assert!(posted.send().await.unwrap().status().as_u16() >= 400);
                }
                for form in
                    [format!("client_secret={secret}&client_secret={secret}"), format!("{secret}=%ff")]
                {
                    let posted = client
                        .post(&url)
                        .header("content-type", "application/x-www-form-urlencoded")
                        .body(form);
                    assert!(posted.send().await.unwrap().status().as_u16() >= 400);
                }
                for url in [format!("{url}/{secret}"), format!("{url}?access_token={secret}")] {
                    let asked = client.get(&url).header("authorization", format!("Basic {secret}"));
                    let asked = asked.header("cookie", secret).header("x-forwarded-for", secret);
                    assert!(asked.send().await.unwrap().status().as_u16() >= 400);
                }
            }
        }
    }
    let (_, log) = server.stop(Signal::TERM).await;
    let log = log.join("\n");
    assert!(log.contains("/auth/refresh/…"), "{log}");
    canaries.iter().for_each(|canary| canary.assert_absent(&log));
}

// check 108
#[cfg(feature = "otel")]
#[tokio::test]
async fn a_collector_of_no_use_is_told_without_its_password() {
    let canary = Canary::new(PASSWORD);
    let failing = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = failing.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in failing.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked);
            let _ = write!(stream, "HTTP/1.1 500 x\r\nContent-Length: {}\r\n\r\n{PASSWORD}", PASSWORD.len());
        }
    });
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for endpoint in [
        format!("http://u:{PASSWORD}@127.0.0.1:{port}"),
        format!("http://u:{PASSWORD}@127.0.0.1:{nobody}"),
        format!("http://u:{PASSWORD}@[::1"),
        format!("u:{PASSWORD}"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = serve(dir.path());
        command
            .env("RESCIND_LOG__LEVEL", "trace")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
            .env(
                "OTEL_EXPORTER_OTLP_HEADERS",
                format!("authorization=Bearer {PASSWORD},{PASSWORD},x=%zz{PASSWORD}"),
            )
            .env("OTEL_BSP_SCHEDULE_DELAY", "10");
        let mut process = Process::spawn(&mut command);
        let serving = process.wait_for_log("serving");
        let url = format!("http://{}", serving["listen"].as_str().unwrap());
        assert_eq!(Api::new(&url).verify("x").await.0, 401);
        process.signal(Signal::TERM);
        let (_, log) = process.ended().await;
        canary.assert_absent(&log.join("\n"));
        assert!(
            log.iter().any(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\"")),
            "{endpoint}: {log:#?}"
        );
    }
}

// check 108, 109
#[test]
fn a_secret_in_a_variable_that_there_is_not_is_not_repeated() {
    let canary = Canary::new(PASSWORD);
    for name in
        ["RESCIND_DATABASE__PASSWORD", "RESCIND_DATABASE_URL", "RESCIND_SECRET__KEY", "RESCIND_MASTER__KEY"]
    {
        refused(&run(rescind().args(["config", "check"]).env(name, PASSWORD)), &canary, 1, "no such s");
    }
}
