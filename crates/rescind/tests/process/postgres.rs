//! The program with its store in PostgreSQL.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
};

use rustix::process::Signal;
use serde_json::json;

use crate::{
    api::{Api, Credential, ok, unauthorized},
    database::Database,
    fixture::{Server as Postgres, connect},
    process::{Process, Server, cli, json, rescind, run, serve},
};

const URL: &str = "RESCIND_DATABASE__URL";

/// The URL of a new database. Its password must appear nowhere.
async fn database() -> String {
    Postgres::shared().database().await.replace("postgres@", "postgres:canary@")
}

/// Starts a server, and waits until it has joined its cluster.
fn start(data_dir: &Path, url: &str) -> Server {
    let mut server = Server::start_with(data_dir, &[(URL, url)]);
    server.wait_for_log("joined the cluster");
    server
}

// check 12
#[tokio::test]
async fn tokens_live_on_when_the_store_moves() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let api = Api::new(&server.url);
    let kept = Credential::from_json(&json(dir.path(), "client create --name kept"));
    let gone = Credential::from_json(&json(dir.path(), "client create --name gone"));
    let used = api.login(&kept).await;
    let newest = api.refresh(&used.refresh).await.unwrap();
    let untouched = api.login(&kept).await;
    let taken_back = api.login(&gone).await;
    assert_eq!(api.logout(&taken_back.access).await, ok());

    let url = database().await;
    cli(dir.path(), ["db", "copy", "--to", &url]).refused(1, "in use by another rescind");
    server.stop(Signal::TERM).await;
    let copied = cli(dir.path(), ["db", "copy", "--to", &url, "--json"]);
    assert_eq!(copied.json(), json!({"clients": 2, "credentials": 2, "sessions": 3, "events": 5}));
    assert_eq!(copied.stderr, "");
    let again = cli(dir.path(), ["db", "copy", "--to", &url]);
    again.refused(1, "already holds clients");
    assert!(!again.stderr.contains("canary"), "{again:?}");

    let server = start(dir.path(), &url);
    let api = Api::new(&server.url);
    for token in [&used.access, &newest.access, &untouched.access] {
        assert_eq!(api.verify(token).await, ok());
    }
    assert_eq!(api.verify(&taken_back.access).await, unauthorized("Invalid token"));
    assert_eq!(api.refresh(&taken_back.refresh).await.unwrap_err(), unauthorized("Invalid token"));
    assert!(api.refresh(&untouched.refresh).await.is_ok());
    // The used one is still a sign of theft: the newest goes with it.
    assert_eq!(api.refresh(&used.refresh).await.unwrap_err(), unauthorized("Invalid token"));
    assert_eq!(api.refresh(&newest.refresh).await.unwrap_err(), unauthorized("Invalid token"));
    let anew = api.login(&gone).await;
    assert_eq!(api.logout(&anew.access).await, ok());
    assert_eq!(api.verify(&anew.access).await, unauthorized("Invalid token"));

    let (status, log) = server.stop(Signal::TERM).await;
    assert!(status.success());
    assert!(!log.iter().any(|line| line.contains("canary")), "{log:#?}");
}

#[tokio::test]
async fn what_was_revoked_stays_so_when_a_server_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let url = database().await;
    let server = start(dir.path(), &url);
    let api = Api::new(&server.url);
    let client = Credential::from_json(&json(dir.path(), "client create --name c"));
    let (gone, anew) = (api.login(&client).await, {
        let first = api.login(&client).await;
        assert_eq!(api.logout(&first.access).await, ok());
        api.login(&client).await
    });
    server.stop(Signal::KILL).await;

    let server = start(dir.path(), &url);
    let api = Api::new(&server.url);
    assert_eq!(api.verify(&gone.access).await, unauthorized("Invalid token"));
    assert_eq!(api.verify(&anew.access).await, ok());
}

#[tokio::test]
async fn the_command_line_works_on_the_database_where_no_server_runs() {
    let dir = tempfile::tempdir().unwrap();
    let url = database().await;
    let with_url = |args: &str| {
        run(rescind().env(URL, &url).arg("--data-dir").arg(dir.path()).args(["--json"]).args(args.split(' ')))
    };
    assert_eq!(with_url("db migrate").json(), json!({"version": 14}));
    assert_eq!(with_url("client create --name c").json()["client_id"], 1);
    assert_eq!(with_url("client list").json()[0]["name"], "c");
    let shown = with_url("config print");
    assert!(shown.stdout.contains(":***@") && !shown.stdout.contains("canary"), "{shown:?}");
    assert!(!dir.path().join("rescind.db").exists());
}

#[tokio::test]
async fn a_database_that_is_not_there_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = Postgres::shared().named("nowhere").replace("postgres@", "postgres:canary@");
    let outcome = run(serve(dir.path()).env(URL, &nowhere));
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("\"nowhere\" does not exist"), "{outcome:?}");
    assert!(!outcome.stderr.contains("canary"), "{outcome:?}");
    cli(dir.path(), ["db", "migrate"]).refused(1, "there is no data in");
    cli(dir.path(), ["db", "copy"]).refused(2, "--to URL");
    let bad = cli(dir.path(), ["db", "copy", "--to", "postgres://u:can@ary@db/x"]);
    bad.refused(2, "--to: expected postgres://");
    assert!(!bad.stderr.contains("ary@"), "{bad:?}");
}

#[tokio::test]
async fn a_start_waits_for_a_database_that_is_down_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut postgres = Database::start();
    postgres.kill().await;
    let url = postgres.url.replace("postgres@", "postgres:canary@");
    let mut process = Process::spawn(serve(dir.path()).env(URL, &url));
    let said = process.wait_for_log("this start waits for the database");
    assert!(said["error"].as_str().unwrap().contains("onnection refused"), "{said}");
    assert!(!said.to_string().contains("canary"), "{said}");
    postgres.start_again();
    process.wait_for_log("joined the cluster");
}

#[tokio::test]
async fn a_first_start_without_the_stand_by_says_what_it_waits_for() {
    let dir = tempfile::tempdir().unwrap();
    let postgres = Database::start();
    let db = connect(&postgres.url).await;
    db.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await.unwrap();
    db.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let mut process = Process::spawn(serve(dir.path()).env(URL, &postgres.url));
    let said = process.wait_for_log("bringing the tables up to date takes long");
    assert!(said["reason"].as_str().unwrap().contains("waits for a stand-by"), "{said}");
    db.batch_execute("ALTER SYSTEM RESET synchronous_standby_names").await.unwrap();
    db.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    process.wait_for_log("joined the cluster");
    // With tables there, the renewal of the lease is what waits.
    db.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await.unwrap();
    db.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    process.wait_for("the renewal's reason", |line| {
        (line.contains("cannot renew its lease") && line.contains("waits for a stand-by")).then_some(())
    });
}

// A real one is not to be had beside the one that all is tested with.
#[tokio::test]
async fn a_server_that_is_too_old_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer_as_version_14(stream.unwrap());
        }
    });
    let url = format!("postgres://u:canary@127.0.0.1:{port}/x?sslmode=disable");
    let outcome = run(serve(dir.path()).env(URL, url));
    outcome.refused(1, "the server is older than PostgreSQL 15 (server_version_num 140011): upgrade it");
    assert!(!outcome.stderr.contains("canary"), "{outcome:?}");
}

/// Accepts every client, and answers every query with one row: the settings of a server of version 14.
fn answer_as_version_14(mut stream: TcpStream) {
    let message =
        |kind: u8, body: &[u8]| [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat();
    let (mut columns, mut row) = (vec![0, 5], vec![0, 5]);
    for setting in ["140011", "on", "on", "on", "00000001"] {
        // A name, and that it is text.
        columns.extend(b"setting\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
        row.extend((setting.len() as u32).to_be_bytes());
        row.extend(setting.as_bytes());
    }
    let ready = message(b'Z', b"I");
    let welcome = [message(b'R', &[0; 4]), message(b'K', &[0; 8]), ready.clone()].concat();
    let settings =
        [message(b'T', &columns), message(b'D', &row), message(b'C', b"SELECT 1\0"), ready].concat();
    // What is asked first has no kind.
    let mut asked = skip_message(&mut stream, 0);
    let mut answer = welcome;
    while asked.is_ok() && stream.write_all(&answer).is_ok() {
        answer = settings.clone();
        asked = skip_message(&mut stream, 1);
    }
}

fn skip_message(stream: &mut TcpStream, kind: usize) -> std::io::Result<()> {
    let mut length = [0; 4];
    stream.read_exact(&mut vec![0; kind])?;
    stream.read_exact(&mut length)?;
    stream.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize - 4])
}
