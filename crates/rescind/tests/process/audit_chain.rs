//! The audit log's chains from the command line.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    fixture::{Server as Postgres, connect},
    process::{Server, cli, json, rescind, run},
};

#[tokio::test]
async fn a_row_that_was_changed_or_removed_is_named_with_a_server_and_without_one() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    json(&data, "client create --name Nord");
    let server = Server::start_with(&data, &[("RESCIND_CLUSTER__NODE_NAME", "n2")]);
    json(&data, "client suspend 1 --yes");
    let kept = cli(&data, ["audit", "checkpoint"]);
    assert_eq!(kept.json()["checkpoints"].as_array().unwrap().len(), 2, "{kept:?}");
    let file = dir.path().join("checkpoint.json");
    fs::write(&file, &kept.stdout).unwrap();
    json(&data, "client resume 1");
    let verify = format!("audit verify --checkpoint {}", file.display());
    let proof = json(&data, &verify);
    assert_eq!((&proof["valid"], &proof["rows"], &proof["unchained"]), (&json!(true), &json!(5), &json!(0)));
    assert_eq!((&proof["chains"][0]["chain"], &proof["chains"][0]["number"]), (&json!("n2"), &json!(2)));
    server.stop(Signal::TERM).await;

    let db = rusqlite::Connection::open(data.join("rescind.db")).unwrap();
    db.execute_batch(
        "DROP TRIGGER audit_stays; UPDATE audit SET operator = 'nobody' WHERE kind = 'client_suspended'",
    )
    .unwrap();
    drop(db);
    let told = cli(&data, ["audit", "verify"]);
    assert_eq!((told.code, told.stderr.as_str()), (Some(1), ""));
    assert!(told.stdout.contains("chain n2, row 1 (id 4, "), "{told:?}");
    let told = cli(&data, ["audit", "verify", "--json"]);
    let proof: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!((told.code, &proof["faults"][0]["problem"]), (Some(1), &json!("changed")));

    // The newest rows are removed, and what the database says of them.
    let db = rusqlite::Connection::open(data.join("rescind.db")).unwrap();
    db.execute_batch("DELETE FROM audit WHERE id >= 4; DELETE FROM audit_checkpoint").unwrap();
    drop(db);
    assert_eq!(cli(&data, ["audit", "verify"]).code, Some(0));
    let mut command = rescind();
    command.arg("--data-dir").arg(&data).args(verify.split(' '));
    let told = run(&mut command);
    assert_eq!(told.code, Some(1));
    assert!(told.stdout.contains("chain n2, row 1: it was removed"), "{told:?}");

    // Another service has not signed it.
    let other = dir.path().join("other");
    json(&other, "client create --name other");
    cli(&other, ["audit", "verify", "--checkpoint", file.to_str().unwrap()])
        .refused(1, "expected what this service has signed");
    fs::write(&file, "{}").unwrap();
    cli(&other, ["audit", "verify", "--checkpoint", file.to_str().unwrap()])
        .refused(1, "expected what `rescind audit checkpoint`");
}

#[tokio::test]
async fn what_was_removed_is_not_signed_away() {
    let dir = tempfile::tempdir().unwrap();
    json(dir.path(), "client create --name Nord");
    // The sweep of a server's start signs what there is.
    let server = Server::start(dir.path());
    let mut signed = Value::Null;
    while signed.is_null() {
        signed = json(dir.path(), "audit verify")["chains"][0]["signed"].clone();
    }
    server.stop(Signal::TERM).await;
    let db = rusqlite::Connection::open(dir.path().join("rescind.db")).unwrap();
    db.execute_batch("DELETE FROM audit WHERE id = (SELECT max(id) FROM audit)").unwrap();
    drop(db);
    let mut server = Server::start(dir.path());
    server.wait_for_log("the audit log does not continue what was signed last, and is not signed again: `rescind audit verify` says which rows were changed or removed");
    cli(dir.path(), ["audit", "checkpoint"]).refused(1, "does not continue what was signed last");
    let told = cli(dir.path(), ["audit", "verify"]);
    assert_eq!(told.code, Some(1));
    assert!(told.stdout.contains("row 3: it was removed"), "{told:?}");
}

#[tokio::test]
async fn a_backup_and_a_move_to_postgresql_keep_the_chains() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backup) = (dir.path().join("data"), dir.path().join("b.db"));
    json(&data, "client create --name Nord");
    let kept = cli(&data, ["audit", "checkpoint"]).stdout;
    let file = dir.path().join("checkpoint.json");
    fs::write(&file, kept).unwrap();
    json(&data, &format!("db backup {}", backup.display()));
    json(&data, "client suspend 1 --yes");
    json(&data, &format!("--yes db restore {}", backup.display()));
    let verify = format!("audit verify --checkpoint {}", file.display());
    assert_eq!(json(&data, &verify)["valid"], true);
    json(&data, "client suspend 1 --yes");
    let rows = json(&data, &verify)["rows"].as_u64().unwrap();

    let url = Postgres::shared().database().await;
    cli(&data, ["db", "copy", "--to", &url, "--json"]).json();
    let on_postgres = |args: &str| {
        let mut command = rescind();
        command.env("RESCIND_DATABASE__URL", &url).arg("--data-dir").arg(&data);
        run(command.arg("--json").args(args.split(' '))).json()
    };
    on_postgres("client resume 1");
    let proof = on_postgres(&verify);
    assert_eq!((&proof["valid"], &proof["rows"]), (&json!(true), &json!(rows + 1)));
    // It takes the rights of an owner to change a row.
    let db = connect(&url).await;
    assert!(db.batch_execute("DELETE FROM audit WHERE number = 1").await.is_err());
    db.batch_execute("SET session_replication_role = replica; DELETE FROM audit WHERE number = 1")
        .await
        .unwrap();
    let mut command = rescind();
    command.env("RESCIND_DATABASE__URL", &url).arg("--data-dir").arg(&data);
    let told = run(command.args(["audit", "verify"]));
    assert!(told.code == Some(1) && told.stdout.contains("row 1: it was removed"), "{told:?}");
}
