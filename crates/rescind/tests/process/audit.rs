//! The audit log from the command line.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    fixture::Server as Postgres,
    process::{Process, Server, cli, json, rescind, run},
};

/// `rescind audit list --follow --json` on this folder, not yet started.
fn follow(dir: &std::path::Path) -> std::process::Command {
    let mut command = rescind();
    command.args(["audit", "list", "--follow", "--json", "--data-dir"]).arg(dir);
    command
}

/// Waits for the next event of this kind, one JSON object a line.
fn next(process: &mut Process, kind: &str) -> Value {
    process.wait_for(kind, |line| {
        let event: Value = serde_json::from_str(line).unwrap();
        (event["kind"] == kind).then_some(event)
    })
}

#[tokio::test]
async fn it_is_listed_with_a_server_and_without_one() {
    let dir = tempfile::tempdir().unwrap();
    cli(dir.path(), ["audit", "list"]).refused(1, "there is no data in");
    json(dir.path(), "client create --name Nord");
    json(dir.path(), "client suspend 1 --yes");
    let all = json(dir.path(), "audit list");
    let kinds: Vec<_> = all.as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["signing_key_created", "client_created", "credential_created", "client_suspended"]);
    assert_eq!((&all[1]["detail"], &all[1]["by"]), (&json!("Nord"), &json!("operator")));

    let server = Server::start(dir.path());
    assert_eq!(json(dir.path(), "audit list"), all);
    assert_eq!(json(dir.path(), "audit list --limit 1"), json!([all[3]]));
    assert_eq!(json(dir.path(), "audit list --after 1 --limit 2"), json!([all[1], all[2]]));
    assert_eq!(json(dir.path(), "audit list --kind client_created --since 1h"), json!([all[1]]));
    assert_eq!(json(dir.path(), "audit list --client 2"), json!([]));
    let text = cli(dir.path(), ["audit", "list"]);
    let lines: Vec<_> = text.stdout.lines().collect();
    assert!(text.code == Some(0) && lines.len() == 5 && lines[0].starts_with("ID "), "{text:?}");
    assert!(lines[4].contains("client_suspended") && !lines[4].contains("operator"), "{text:?}");
    server.stop(Signal::TERM).await;

    cli(dir.path(), ["audit", "list", "--kind", "x"]).refused(2, "client_created, client_renamed");
    cli(dir.path(), ["audit", "list", "--limit", "0"]).refused(2, "--limit");
    cli(dir.path(), ["audit", "list", "--limit", "1001"]).refused(2, "--limit");
    cli(dir.path(), ["audit", "list", "--since", "soon"]).refused(2, "expected a duration");
    cli(dir.path(), ["audit", "list", "--after", "1 OR 1=1"]).refused(2, "--after");
}

#[tokio::test]
async fn whoever_follows_hears_of_everything_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    json(dir.path(), "client create --name before");
    let mut following = Process::spawn_talking(&mut follow(dir.path()));
    assert_eq!(next(&mut following, "client_created")["detail"], "before");
    // The folder is free for a server, and for commands.
    json(dir.path(), "client suspend 1 --yes");
    let server = Server::start(dir.path());
    next(&mut following, "client_suspended");
    json(dir.path(), "client resume 1");
    next(&mut following, "client_resumed");
    server.stop(Signal::KILL).await;
    let _server = Server::start(dir.path());
    json(dir.path(), "client create --name after");
    assert_eq!(next(&mut following, "client_created")["detail"], "after");
    following.signal(Signal::INT);
    let (status, seen) = following.ended().await;
    assert!(status.success(), "{status:?}");
    // Each once, in the order of the ids.
    let ids: Vec<_> = seen
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, (1..=7).collect::<Vec<_>>());
}

#[tokio::test]
async fn on_a_database_no_server_is_needed() {
    let url = Postgres::shared().database().await;
    let dir = tempfile::tempdir().unwrap();
    let with_url = |args: &str| {
        let mut command = rescind();
        command.env("RESCIND_DATABASE__URL", &url).arg("--data-dir").arg(dir.path());
        run(command.arg("--json").args(args.split(' '))).json()
    };
    with_url("client create --name before");
    let mut following = Process::spawn_talking(follow(dir.path()).env("RESCIND_DATABASE__URL", &url));
    next(&mut following, "client_created");
    for command in ["suspend", "resume", "logout"] {
        with_url(&format!("client {command} 1 --yes"));
    }
    for kind in ["client_suspended", "client_resumed", "client_logged_out"] {
        next(&mut following, kind);
    }
    following.signal(Signal::TERM);
    assert!(following.ended().await.0.success());
}

#[tokio::test]
async fn it_ends_when_nobody_reads_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path());
    let mut command = follow(dir.path());
    // What it says there ends with it.
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    json(dir.path(), "client create --name c");
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
    let ended = tokio::time::timeout(std::time::Duration::from_secs(60), ended).await;
    let output = ended.expect("it goes on").unwrap().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
