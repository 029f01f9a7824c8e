//! Settings that roles and databases have.

use super::*;
use crate::StoreError;

async fn refused(url: &str) -> String {
    match Store::connect(&options(url)).await {
        Err(StoreError::Unsuitable(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// Sets this for every new session of the database.
async fn set(url: &str, setting: &str) {
    let name = url.rsplit_once('/').unwrap().1;
    connect(url).await.batch_execute(&format!("ALTER DATABASE {name} SET {setting}")).await.unwrap();
}

#[tokio::test]
async fn settings_that_end_or_slow_down_sessions_are_overridden() {
    let url = Server::shared().database().await;
    for setting in
        ["idle_session_timeout = '5s'", "statement_timeout = '9s'", "jit = on", "client_min_messages = error"]
    {
        set(&url, setting).await;
    }
    let version = "SELECT current_setting('server_version_num')::int >= 170000";
    if connect(&url).await.query_one(version, &[]).await.unwrap().get(0) {
        set(&url, "transaction_timeout = '7s'").await;
    }
    let store = Store::connect(&options(&url)).await.unwrap();
    let (db, _seat) = store.postgres().unwrap().connection().await.unwrap();
    let answers = db
        .simple(
            "SELECT concat_ws(' ', current_setting('idle_session_timeout'), current_setting('statement_timeout'),
                              current_setting('jit'), current_setting('client_min_messages'),
                              coalesce(current_setting('transaction_timeout', true), '0'))",
        )
        .await
        .unwrap();
    assert_eq!(super::super::answered::said(&answers), Some("0 1min off warning 0"));
}

#[tokio::test]
async fn a_session_without_triggers_a_missing_schema_and_a_narrow_encoding_are_told_as_what_they_are() {
    let url = Server::shared().database().await;
    set(&url, "session_replication_role = replica").await;
    let why = refused(&url).await;
    assert!(why.contains("session_replication_role is replica") && why.contains("set it to origin"), "{why}");

    let url = Server::shared().database().await;
    set(&url, "search_path = nowhere").await;
    let why = refused(&url).await;
    assert!(why.contains("search_path = nowhere") && why.contains("GRANT USAGE, CREATE"), "{why}");

    let name = format!("{}_latin", url.rsplit_once('/').unwrap().1);
    let made = format!("CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    connect(&url).await.batch_execute(&made).await.unwrap();
    let why = refused(&Server::shared().named(&name)).await;
    assert!(why.contains("its encoding is LATIN1") && why.contains("ENCODING 'UTF8'"), "{why}");
}
