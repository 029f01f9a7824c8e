//! Which answers and which commits are accepted.

use std::sync::Arc;

use super::{
    super::statements::decisive,
    doubt::{WAITING, raise, without_stand_by},
    *,
};
use crate::Result;

async fn strict(url: &str) -> Store {
    Store::connect(&PostgresOptions { require_synchronous: true, ..options(url) }).await.unwrap()
}

async fn set_names(db: &Session, names: &str) {
    let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'");
    db.batch_execute(&set).await.unwrap();
    db.batch_execute("SELECT pg_reload_conf()").await.unwrap();
}

fn why<T: std::fmt::Debug>(result: Result<T>) -> String {
    format!("{:#}", anyhow::Error::from(result.unwrap_err()))
}

// check 112
#[tokio::test]
async fn what_a_stand_by_or_another_session_answers_decides_nothing() {
    let url = Server::shared().database().await;
    let store = Store::connect(&options(&url)).await.unwrap();
    let mut db = store.postgres().unwrap().pool.manager().connect().await.unwrap();
    let [stand_by, other, none, primary] = db
        .prepared([
            "SELECT 'a stand-by' AS answered_by, NULL::boolean AS is_there",
            "SELECT 'another' AS answered_by, true AS is_there",
            "SELECT NULL AS answered_by, true AS is_there",
            decisive!("'found' AS what", "WHERE $1"),
        ])
        .await
        .unwrap();
    assert!(why(db.query(&stand_by, &[]).await).contains("load_balance_mode = off"));
    for lost in [other, none] {
        assert!(why(db.query(&lost, &[]).await).contains("pool_mode = session"));
    }
    assert_eq!(db.query(&primary, &[&true]).await.unwrap().len(), 1);
    assert_eq!(db.query(&primary, &[&false]).await.unwrap().len(), 0);
}

// check 112
#[tokio::test]
async fn a_commit_in_a_session_that_is_no_longer_as_it_was_set_is_no_success() {
    let url = Server::shared().database().await;
    let store = Store::connect(&PostgresOptions { pool_size: 1, ..options(&url) }).await.unwrap();
    let client = conformance::create(&store, "rk_1").await;
    let lose = async || {
        let (db, _seat) = store.postgres().unwrap().connection().await.unwrap();
        db.batch("RESET ALL").await.unwrap();
    };
    lose().await;
    let logout = store.change_client(client.id, conformance::origin(), raise).await;
    assert!(why(logout).contains("pool_mode = session"));
    lose().await;
    assert!(why(store.find(client.id, 0).await).contains("pool_mode = session"));
    lose().await;
    assert!(why(store.postgres().unwrap().nodes().await).contains("pool_mode = session"));
    // The next operation uses a new session.
    store.change_client(client.id, conformance::origin(), raise).await.unwrap().unwrap().unwrap();

    let mut lease = store.postgres().unwrap().lease_connection(Duration::MAX).await.unwrap();
    let node = lease.join("one", Duration::from_millis(3600), "profile").await.unwrap();
    lease.renew(node, 0).await.unwrap().unwrap();
    lease.connection.batch("RESET ALL").await.unwrap();
    assert!(why(lease.renew(node, 0).await).contains("pool_mode = session"));
}

// check 112
#[tokio::test]
async fn a_commit_that_is_released_as_nobody_is_waited_for_any_more_is_no_success() {
    let server = Server::start();
    let url = server.database().await;
    let lenient = Arc::new(Store::connect(&options(&url)).await.unwrap());
    let client = conformance::create(&lenient, "rk_1").await;
    let db = connect(&url).await;
    without_stand_by(&url, &db).await;
    let strict = Arc::new(strict(&url).await);
    let mut lease = strict.postgres().unwrap().lease_connection(Duration::MAX).await.unwrap();
    let released = async |store: &Arc<Store>| {
        let (store, id) = (Arc::clone(store), client.id);
        let logout = tokio::spawn(async move { store.change_client(id, conformance::origin(), raise).await });
        until(&db, WAITING).await;
        set_names(&db, "").await;
        logout.await.unwrap()
    };

    assert!(why(released(&strict).await).contains("wait for no stand-by"));
    // A commit that does not even wait is no success either.
    let logout = strict.change_client(client.id, conformance::origin(), raise).await;
    assert!(why(logout).contains("wait for no stand-by"));
    let node = lease.join("one", Duration::from_millis(3600), "profile").await.unwrap();
    assert!(why(lease.renew(node, 0).await).contains("wait for no stand-by"));
    assert!(strict.postgres().unwrap().lacks_a_stand_by());
    // A read is a success.
    assert_eq!(strict.clients().await.unwrap()[0].generation, 2);
    let refused = Store::connect(&PostgresOptions { require_synchronous: true, ..options(&url) }).await;
    assert!(why(refused).contains("synchronous_standby_names is empty"));

    // Where no stand-by is required, the commit is a success.
    without_stand_by(&url, &db).await;
    released(&lenient).await.unwrap().unwrap().unwrap();
}

// check 112
#[tokio::test]
async fn a_commit_that_was_released_while_nobody_was_waited_for_for_a_moment_is_no_success() {
    let server = Server::start();
    let url = server.database().await;
    let store = Store::connect(&options(&url)).await.unwrap();
    let client = conformance::create(&store, "rk_1").await;
    let db = connect(&url).await;
    without_stand_by(&url, &db).await;
    let strict = strict(&url).await;
    let logout = tokio::spawn({
        let id = client.id;
        async move { strict.change_client(id, conformance::origin(), raise).await }
    });
    until(&db, WAITING).await;
    let pid = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let pid: i32 = db.query_one(pid, &[]).await.unwrap().get(0);
    // The process sleeps while the names change, and learns of both changes at once.
    let signal = async |signal| {
        db.batch_execute(&format!("COPY (SELECT) TO PROGRAM 'cat; kill -{signal} {pid}'")).await.unwrap();
    };
    signal("STOP").await;
    set_names(&db, "").await;
    // A commit that does not wait shows that the server has released those that did.
    db.batch_execute("UPDATE schema SET readable_by = readable_by").await.unwrap();
    set_names(&db, "nobody").await;
    let others = format!(
        "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND pid <> {pid}"
    );
    'heard: loop {
        let probe = connect(&url).await;
        let probe =
            tokio::spawn(
                async move { probe.batch_execute("UPDATE schema SET readable_by = readable_by").await },
            );
        while !probe.is_finished() {
            if db.query_one(&others, &[]).await.unwrap().get::<_, i64>(0) > 0 {
                break 'heard;
            }
        }
    }
    signal("CONT").await;
    assert!(why(logout.await.unwrap()).contains("read its settings anew"));
}
