//! `rescind admin`, and the link that a start prints.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use crate::process::{Server, cli, json, rescind};

#[test]
fn administrators_by_command() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let created = json(dir.path(), "admin create alice --role operator");
    assert_eq!((&created["name"], &created["role"]), (&"alice".into(), &"operator".into()));
    let link = created["link"].as_str().unwrap().to_owned();
    let status = json(dir.path(), "status");
    let prefix = format!("{}/dashboard/enrol/re_", status["management_url"].as_str().unwrap());
    assert!(link.starts_with(&prefix), "{link}");
    cli(dir.path(), ["admin", "create", "alice", "--role", "admin"])
        .refused(1, "there is an administrator of this name");
    cli(dir.path(), ["admin", "create", "bob", "--role", "root"])
        .refused(2, "expected viewer, operator or admin");
    let listed = cli(dir.path(), ["admin", "list"]).stdout;
    assert!(listed.contains("alice") && listed.contains("operator") && listed.contains("no"), "{listed}");
    assert_eq!(json(dir.path(), "admin role alice viewer")["role"], "viewer");
    let again = json(dir.path(), "admin reset alice --yes");
    assert_ne!(again["link"], created["link"]);
    cli(dir.path(), ["admin", "reset", "bob", "--yes"]).refused(1, "there is no administrator");
    cli(dir.path(), ["admin", "remove", "alice"]).refused(2, "say --yes");
    json(dir.path(), "admin remove alice --yes");
    assert_eq!(json(dir.path(), "admin list"), serde_json::json!([]));
    drop(server);
}

// check 80
#[test]
fn a_start_prints_the_first_administrators_link_to_standard_output_while_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let start = |listen: &str| {
        let mut command = rescind();
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--management-listen", listen, "--data-dir"])
            .arg(dir.path());
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut server = start("127.0.0.1:0");
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("There is no administrator."));
    let link = lines.next().unwrap().unwrap();
    assert!(link.trim().starts_with("http://127.0.0.1:") && link.contains("/dashboard/enrol/re_"), "{link}");
    server.kill().unwrap();
    server.wait().unwrap();
}
