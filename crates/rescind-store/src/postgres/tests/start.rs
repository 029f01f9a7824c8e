//! The first connection: which servers are refused, and with which message.

use std::collections::BTreeSet;

use rescind_base::model::{CertificateNames, Client};
use rescind_verifier::Resources;
use tokio::task::JoinSet;

use super::*;
use crate::{
    StoreError,
    postgres::migrate::{NEWEST_KNOWN, TABLES},
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
    assert_eq!(
        connect(&url).await.query_one(migrations, &[]).await.unwrap().get::<_, i64>(0),
        i64::from(NEWEST_KNOWN)
    );
}

#[tokio::test]
async fn the_rights_on_every_table_are_looked_at() {
    let url = Server::shared().database().await;
    Store::connect(&options(&url)).await.unwrap();
    let made = "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema()";
    let made = connect(&url).await.query(made, &[]).await.unwrap();
    let made: BTreeSet<String> = made.iter().map(|row| row.get(0)).collect();
    assert_eq!(made, TABLES.iter().map(|&table| table.to_owned()).collect());
}

#[tokio::test]
async fn no_program_from_before_starts_once_a_client_has_what_it_would_ignore() {
    let url = Server::shared().database().await;
    let db = connect(&url).await;
    let readable_by = async || {
        db.query_one("SELECT readable_by FROM schema", &[]).await.unwrap().get::<_, i32>("readable_by")
    };
    let store = Store::connect(&options(&url)).await.unwrap();
    let plain = |api_key| Client {
        resources: Resources::default(),
        introspect_lifetime: None,
        ..conformance::client(api_key)
    };
    let unbound = Client { certificates: CertificateNames::default(), ..plain("rk_1") };
    let unbound = store.create_client(unbound, false, conformance::origin()).await.unwrap().unwrap();
    conformance::logout(&store, &unbound).await;
    assert_eq!(readable_by().await, 1);
    let bind = |client: &mut Client| {
        client.certificates = "dns:a.example".parse().unwrap();
        Ok::<_, ()>(())
    };
    store.change_client(unbound.id, conformance::origin(), bind).await.unwrap().unwrap().unwrap();
    assert_eq!(readable_by().await, 3);
    db.batch_execute("UPDATE schema SET readable_by = 1").await.unwrap();
    store.create_client(plain("rk_2"), false, conformance::origin()).await.unwrap().unwrap();
    assert_eq!(readable_by().await, 3);

    let keep = |client: &mut Client| {
        client.introspect_lifetime = Some(0);
        Ok::<_, ()>(())
    };
    let (_, changed) =
        store.change_client(unbound.id, conformance::origin(), keep).await.unwrap().unwrap().unwrap();
    assert_eq!((changed.introspect_lifetime, readable_by().await), (Some(0), 6));
}

#[tokio::test]
async fn a_client_has_no_resources_while_a_program_from_before_serves_and_none_starts_afterwards() {
    let url = Server::shared().database().await;
    let db = connect(&url).await;
    let store = Store::connect(&options(&url)).await.unwrap();
    let plain =
        Client { resources: Resources::default(), introspect_lifetime: None, ..conformance::client("rk_1") };
    let plain = store.create_client(plain, false, conformance::origin()).await.unwrap().unwrap();
    db.batch_execute("INSERT INTO node (name, wait_ms, schema_version) VALUES ('old', 3600, 4)")
        .await
        .unwrap();
    conformance::logout(&store, &plain).await;
    let give = |client: &mut Client| {
        client.resources = "urn:a".parse().unwrap();
        Ok::<_, ()>(())
    };
    store.change_client(plain.id, conformance::origin(), give).await.unwrap_err();
    let other = Client { introspect_lifetime: None, ..conformance::client("rk_2") };
    store.create_client(other, false, conformance::origin()).await.unwrap_err();
    let readable_by = async || {
        db.query_one("SELECT readable_by FROM schema", &[]).await.unwrap().get::<_, i32>("readable_by")
    };
    assert!(readable_by().await < 5);
    db.batch_execute("DELETE FROM node WHERE name = 'old'").await.unwrap();
    store.change_client(plain.id, conformance::origin(), give).await.unwrap().unwrap().unwrap();
    assert_eq!(readable_by().await, 5);
    let late = "INSERT INTO node (name, wait_ms, schema_version) VALUES ('old', 3600, 4)";
    db.batch_execute(late).await.unwrap_err();

    // A change of anything else takes no lock that others would wait for.
    let mut other = connect(&url).await;
    let locked = other.transaction().await.unwrap();
    locked.batch_execute("SELECT FROM schema FOR UPDATE").await.unwrap();
    conformance::logout(&store, &plain).await;
}

#[tokio::test]
async fn the_pepper_is_not_rotated_while_a_program_from_before_serves_and_none_starts_afterwards() {
    let url = Server::shared().database().await;
    let db = connect(&url).await;
    let store = Store::connect(&options(&url)).await.unwrap();
    let named = |name: &str| [(name.to_owned(), vec![1])].into();
    store.first_pepper(named("pepper")).await.unwrap();
    let old = "INSERT INTO node (name, wait_ms, schema_version) VALUES ('old', 3600, 9)";
    db.batch_execute(old).await.unwrap();
    store.rotate_pepper(named("pepper 2"), conformance::origin()).await.unwrap_err();
    assert_eq!(store.load().await.unwrap().secrets, named("pepper"));
    db.batch_execute("DELETE FROM node WHERE name = 'old'").await.unwrap();
    assert_eq!(store.rotate_pepper(named("pepper 2"), conformance::origin()).await.unwrap().len(), 2);
    db.batch_execute(old).await.unwrap_err();
}

#[tokio::test]
async fn a_client_has_no_introspect_lifetime_while_a_program_from_before_serves() {
    let url = Server::shared().database().await;
    let db = connect(&url).await;
    let store = Store::connect(&options(&url)).await.unwrap();
    let with = |api_key, introspect_lifetime| Client {
        resources: Resources::default(),
        introspect_lifetime,
        ..conformance::client(api_key)
    };
    let plain = store.create_client(with("rk_1", None), false, conformance::origin()).await.unwrap().unwrap();
    let old = "INSERT INTO node (name, wait_ms, schema_version) VALUES ('old', 3600, 5)";
    db.batch_execute(old).await.unwrap();
    conformance::logout(&store, &plain).await;
    let limit = |client: &mut Client| {
        client.introspect_lifetime = Some(0);
        Ok::<_, ()>(())
    };
    store.change_client(plain.id, conformance::origin(), limit).await.unwrap_err();
    store.create_client(with("rk_2", Some(0)), false, conformance::origin()).await.unwrap_err();
    db.batch_execute("DELETE FROM node WHERE name = 'old'").await.unwrap();
    store.change_client(plain.id, conformance::origin(), limit).await.unwrap().unwrap().unwrap();
    db.batch_execute(old).await.unwrap_err();
    conformance::logout(&store, &plain).await;
}

#[tokio::test]
async fn tables_of_a_newer_version_are_used_as_far_as_they_say() {
    let url = Server::shared().database().await;
    let store = Store::connect(&options(&url)).await.unwrap();
    let client = store
        .create_client(conformance::client("rk_1"), false, conformance::origin())
        .await
        .unwrap()
        .unwrap();
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

/// Gives the server's role `locked` a password, `right`. Returns the URL of a database.
async fn lock(server: &Server) -> String {
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
    let without = options(&url.replace("postgres@", "locked@"));
    // The postmaster needs time to load the new rules.
    while Store::connect(&without).await.is_ok() {}
    url
}

#[tokio::test]
async fn a_wrong_password_is_told_and_not_repeated() {
    let server = Server::start();
    let url = lock(&server).await;
    let with = |password| options(&url.replace("postgres@", &format!("locked:{password}@")));
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
    store.create_client(conformance::client("rk_1"), false, conformance::origin()).await.unwrap().unwrap();
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

#[tokio::test]
async fn a_host_that_accepts_and_never_answers_holds_up_no_start() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let url = Server::shared().database().await;
    for hosts in [format!("@{address},127.0.0.1:"), format!("@{address},{address},127.0.0.1:")] {
        let url = url.replace("@127.0.0.1:", &hosts);
        // Far less than the limit of one host, in which the silent one is waited for.
        let connected = tokio::time::timeout(Duration::from_secs(30), Store::connect(&options(&url))).await;
        connected.unwrap().unwrap().clients().await.unwrap();
    }
}

#[tokio::test]
async fn a_password_that_is_missing_is_told_with_what_is_not_read() {
    let server = Server::start();
    let url = lock(&server).await;
    let why = refused(options(&url.replace("postgres@", "locked@"))).await;
    assert!(why.contains("database.url has none") && why.contains(".pgpass are not read"), "{why}");
}
