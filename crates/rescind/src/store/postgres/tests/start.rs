//! The first connection: which servers are refused, and with which message.

use tokio::task::JoinSet;

use super::*;
use crate::{
    model::{CertificateNames, Client},
    store::StoreError,
};

async fn refused(options: PostgresOptions) -> String {
    match Store::connect(&options).await {
        Err(StoreError::Unsuitable(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn many_first_starts_at_once_make_one_store() {
    let url = Server::shared().database().await;
    let mut starts = JoinSet::new();
    for _ in 0..4 {
        let options = options(&url);
        starts.spawn(async move { Store::connect(&options).await.unwrap().load().await.unwrap().head.seq });
    }
    assert_eq!(starts.join_all().await, [0; 4]);
    let migrations = "SELECT count(*) FROM refinery_schema_history";
    assert_eq!(connect(&url).await.query_one(migrations, &[]).await.unwrap().get::<_, i64>(0), 4);
}

#[tokio::test]
async fn no_program_from_before_starts_once_a_client_is_bound_to_a_certificate() {
    let url = Server::shared().database().await;
    let db = connect(&url).await;
    let readable_by = async || {
        db.query_one("SELECT readable_by FROM schema", &[]).await.unwrap().get::<_, i32>("readable_by")
    };
    let store = Store::connect(&options(&url)).await.unwrap();
    let unbound = Client { certificates: CertificateNames::default(), ..conformance::client("rk_1") };
    let unbound = store.create_client(unbound, conformance::origin()).await.unwrap();
    conformance::logout(&store, &unbound).await;
    assert_eq!(readable_by().await, 1);
    let bind = |client: &mut Client| {
        client.certificates = "dns:a.example".parse().unwrap();
        Ok::<_, ()>(())
    };
    store.change_client(unbound.id, conformance::origin(), bind).await.unwrap().unwrap().unwrap();
    assert_eq!(readable_by().await, 3);
    db.batch_execute("UPDATE schema SET readable_by = 1").await.unwrap();
    store.create_client(conformance::client("rk_2"), conformance::origin()).await.unwrap();
    assert_eq!(readable_by().await, 3);
}

#[tokio::test]
async fn tables_of_a_newer_version_are_used_as_far_as_they_say() {
    let url = Server::shared().database().await;
    let store = Store::connect(&options(&url)).await.unwrap();
    let client = store.create_client(conformance::client("rk_1"), conformance::origin()).await.unwrap();
    let db = connect(&url).await;
    db.batch_execute(
        "ALTER TABLE client ADD COLUMN colour text;
         INSERT INTO refinery_schema_history
             SELECT 99, 'colours', applied_on, '1' FROM refinery_schema_history WHERE version = 1",
    )
    .await
    .unwrap();
    // A store that was connected before, and one that connects now.
    conformance::logout(&store, &client).await;
    let store = Store::connect(&options(&url)).await.unwrap();
    assert_eq!(conformance::logout(&store, &client).await.generation, 2);

    db.batch_execute("UPDATE schema SET readable_by = 99").await.unwrap();
    assert!(refused(options(&url)).await.contains("a newer version"));
}

#[tokio::test]
async fn a_database_that_is_not_there_and_a_user_that_is_not_known_are_told() {
    let server = Server::shared();
    let why = refused(options(&server.named("nowhere"))).await;
    assert!(why.contains("\"nowhere\" does not exist") && why.contains("database.url"), "{why}");
    let url = server.database().await;
    let why = refused(options(&url.replace("postgres@", "stranger:canary@"))).await;
    assert!(why.contains("\"stranger\" does not exist") && why.contains("pg_hba.conf"), "{why}");
    assert!(!why.contains("canary"), "{why}");
}

#[tokio::test]
async fn a_wrong_password_is_told_and_not_repeated() {
    let server = Server::start();
    let url = server.database().await;
    let db = connect(&url).await;
    db.batch_execute(
        "CREATE ROLE locked LOGIN SUPERUSER PASSWORD 'right';
         COPY (SELECT 'host all locked 127.0.0.1/32 scram-sha-256' UNION ALL
               SELECT 'host all postgres 127.0.0.1/32 trust') TO PROGRAM 'cat > pg_hba.conf';
         SELECT pg_reload_conf()",
    )
    .await
    .unwrap();
    until(&db, "SELECT bool_or(auth_method = 'scram-sha-256') FROM pg_hba_file_rules").await;
    let with = |password| options(&url.replace("postgres@", &format!("locked:{password}@")));
    // The postmaster needs time to load the new rules.
    while Store::connect(&with("canary")).await.is_ok() {}
    let why = refused(with("canary")).await;
    assert!(
        why.contains("password authentication failed for user \"locked\"") && !why.contains("canary"),
        "{why}"
    );
    Store::connect(&with("right")).await.unwrap();
}

#[tokio::test]
async fn a_database_that_cannot_be_written_is_told() {
    let url = Server::shared().database().await;
    let db = connect(&url).await;
    db.batch_execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on',
                                    current_database()); END $$",
    )
    .await
    .unwrap();
    assert!(refused(options(&url)).await.contains("stand-by"));
}

#[tokio::test]
async fn rights_that_are_missing_are_told_and_none_is_needed_that_is_not_used() {
    let url = Server::shared().database().await;
    let db = connect(&url).await;
    let role = url.rsplit_once('/').unwrap().1;
    db.batch_execute(&format!("CREATE ROLE {role} LOGIN")).await.unwrap();
    let limited = options(&url.replace("postgres@", &format!("{role}@")));
    let why = refused(limited.clone()).await;
    assert!(why.contains("GRANT CREATE ON SCHEMA public"), "{why}");

    Store::connect(&options(&url)).await.unwrap();
    let why = refused(limited.clone()).await;
    // The first statement of the advice is what an operator would paste.
    let (_, grant) = why.split_once("as their owner, ").unwrap();
    db.batch_execute(grant).await.unwrap();
    let store = Store::connect(&limited).await.unwrap();
    store.create_client(conformance::client("rk_1"), conformance::origin()).await.unwrap();
}

#[tokio::test]
async fn tables_of_something_else_are_left_alone() {
    let url = Server::shared().database().await;
    connect(&url).await.batch_execute("CREATE TABLE client (name text)").await.unwrap();
    let why = refused(options(&url)).await;
    assert!(why.contains("a database of its own"), "{why}");
    let left = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'refinery_schema_history'";
    assert_eq!(connect(&url).await.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 1);
}

#[tokio::test]
async fn a_server_that_does_not_wait_for_its_disk_is_refused_unless_that_is_accepted() {
    let url = Server::shared().database().await;
    let db = connect(&url).await;
    let set = |value| {
        format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = {value}', current_database());
             END $$"
        )
    };
    db.batch_execute(&set("local")).await.unwrap();
    assert!(refused(options(&url)).await.contains("synchronous_commit"));
    Store::connect(&PostgresOptions { accept_lost_commits: true, ..options(&url) }).await.unwrap();
    db.batch_execute(&set("remote_apply")).await.unwrap();
    Store::connect(&options(&url)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_told_without_the_password() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut options = options(&format!("postgres://u:canary@127.0.0.1:{port}/x"));
    options.statement_timeout = Duration::from_secs(1);
    let told = |e: StoreError| format!("{:#}", anyhow::Error::from(e));
    let error = told(Store::connect(&options).await.unwrap_err());
    assert!(error.contains("does not answer") && !error.contains("canary"), "{error}");
    drop(silent);
    let error = told(Store::connect(&options).await.unwrap_err());
    assert!(error.contains(&format!("postgres://u:***@127.0.0.1:{port}/x")), "{error}");
    assert!(error.contains("refused") && !error.contains("canary"), "{error}");
}
