use std::{
    os::unix::fs::PermissionsExt,
    process::{Command, Output},
};

use rescind_proofs::faults::Postgres;
use tempfile::TempDir;

const TABLE: &str = "CREATE TABLE t (n int)";

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    // The server's user has to get in.
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

/// Longer than a statement takes, however busy the machine.
const PATIENCE: u32 = 60;

/// Runs a statement, and gives up on it after so many seconds.
fn sql(postgres: &Postgres, seconds: u32, statement: &str) -> Output {
    let mut command = Command::new("timeout");
    command.args([&seconds.to_string(), "psql", "-Atc", statement, &Postgres::url(postgres.address())]);
    command.output().unwrap()
}

fn insert(postgres: &Postgres, seconds: u32, n: u32) -> bool {
    sql(postgres, seconds, &format!("INSERT INTO t VALUES ({n})")).status.success()
}

fn rows(postgres: &Postgres) -> String {
    let output = sql(postgres, PATIENCE, "SELECT string_agg(n::text, ' ' ORDER BY n) FROM t");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_survives_crashes_and_promotion() {
    let folder = folder();
    let mut postgres = Postgres::start(None, folder.path()).await.unwrap();
    assert!(sql(&postgres, PATIENCE, TABLE).status.success());
    assert!(insert(&postgres, PATIENCE, 1));

    postgres.kill().await.unwrap();
    assert!(!sql(&postgres, PATIENCE, "SELECT 1").status.success());
    postgres.start_again().await.unwrap();
    postgres.is_synchronous().await.unwrap();
    assert!(insert(&postgres, PATIENCE, 2));

    postgres.stop().await.unwrap();
    postgres.start_again().await.unwrap();
    postgres.is_synchronous().await.unwrap();
    assert!(insert(&postgres, PATIENCE, 3));
    assert_eq!(rows(&postgres), "1 2 3");

    for n in [4, 5] {
        postgres.kill().await.unwrap();
        drop(postgres.promote().await.unwrap());
        assert_eq!(rows(&postgres), (1..n).map(|n| n.to_string()).collect::<Vec<_>>().join(" "));
        postgres.add_standby().await.unwrap();
        assert!(insert(&postgres, PATIENCE, n));
    }
    assert_eq!(rows(&postgres), "1 2 3 4 5");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_committed_without_a_standby() {
    let folder = folder();
    let mut postgres = Postgres::start(None, folder.path()).await.unwrap();
    assert!(sql(&postgres, PATIENCE, TABLE).status.success());

    postgres.pause_standby().unwrap();
    assert!(!insert(&postgres, 1, 1), "committed while the stand-by hangs");
    postgres.resume_standby().unwrap();
    assert!(insert(&postgres, PATIENCE, 2));

    let former = postgres.promote().await.unwrap();
    assert!(!insert(&postgres, 1, 3), "committed by a new primary without a stand-by");
    drop(former);
    postgres.add_standby().await.unwrap();
    assert!(insert(&postgres, PATIENCE, 4));
}
