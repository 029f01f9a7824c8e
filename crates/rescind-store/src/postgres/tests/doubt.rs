//! Commits with an unknown outcome, and operations that are cut off.

use std::sync::Arc;

use rescind_base::model::Client;
use tokio::task::{JoinHandle, JoinSet};

use super::*;
use crate::{Result, StoreError};

pub(super) const CANCEL: &str = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
                      WHERE wait_event = 'SyncRep'";

pub(super) const WAITING: &str = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

/// Whether a session of the program waits for a lock in this database.
const LOCKED: &str = "SELECT count(*) > 0 FROM pg_stat_activity
                      WHERE application_name = 'rescind' AND datname = current_database()
                        AND wait_event_type = 'Lock'";

/// Makes every commit wait for a stand-by that does not exist.
pub(super) async fn without_stand_by(url: &str, db: &Session) {
    db.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await.unwrap();
    db.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    // The first commits may come before the server has loaded the setting.
    loop {
        let probe = connect(url).await;
        let probe = tokio::spawn(async move { probe.batch_execute("UPDATE head SET seq = seq").await });
        while !probe.is_finished() {
            if db.query_one(WAITING, &[]).await.unwrap().get(0) {
                db.query_one(CANCEL, &[]).await.unwrap();
                probe.await.unwrap().unwrap();
                return;
            }
        }
    }
}

pub(super) fn raise(client: &mut Client) -> Result<(), ()> {
    client.generation += 1;
    Ok(())
}

type Changed<T> = Result<Option<Result<(T, Client), ()>>>;

/// Starts to change a client.
fn changing<T: Send + 'static>(
    store: &Arc<Store>,
    client: &Client,
    rule: impl FnOnce(&mut Client) -> Result<T, ()> + Send + 'static,
) -> JoinHandle<Changed<T>> {
    let (store, id) = (Arc::clone(store), client.id);
    tokio::spawn(async move { store.change_client(id, conformance::origin(), rule).await })
}

// check 16
#[tokio::test]
async fn a_commit_whose_replication_was_cancelled_is_no_success() {
    let server = Server::start();
    let url = server.database().await;
    let store = Arc::new(Store::connect(&options(&url)).await.unwrap());
    let client = conformance::create(&store, "rk_1").await;
    let mut lease = store.postgres().unwrap().lease_connection(Duration::MAX).await.unwrap();
    let node = lease.join("one", Duration::from_millis(3600), "profile").await.unwrap();
    let db = connect(&url).await;
    without_stand_by(&url, &db).await;

    let logout = changing(&store, &client, raise);
    until(&db, WAITING).await;
    db.query_one(CANCEL, &[]).await.unwrap();
    let error = logout.await.unwrap().unwrap_err();
    let StoreError::Unavailable(cause) = error else { panic!("{error:?}") };
    assert!(cause.to_string().contains("not known to be replicated"), "{cause}");
    // The logout is committed all the same, and reads find it.
    assert_eq!(store.find(client.id, 0).await.unwrap().client.unwrap().generation, 1);

    // A retry that finds the logout done cannot be sure of it either.
    let retry = changing(&store, &client, |_| Ok(()));
    until(&db, WAITING).await;
    db.query_one(CANCEL, &[]).await.unwrap();
    assert!(matches!(retry.await.unwrap(), Err(StoreError::Unavailable(_))));

    let revoked = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.delete_verifier(7, conformance::origin()).await })
    };
    until(&db, WAITING).await;
    db.query_one(CANCEL, &[]).await.unwrap();
    assert!(matches!(revoked.await.unwrap(), Err(StoreError::Unavailable(_))));

    let renewal = tokio::spawn(async move { lease.renew(node, 0).await });
    until(&db, WAITING).await;
    db.query_one(CANCEL, &[]).await.unwrap();
    assert!(matches!(renewal.await.unwrap(), Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn a_commit_that_waits_too_long_is_given_up_and_holds_nothing() {
    let server = Server::start();
    let url = server.database().await;
    let short = PostgresOptions { statement_timeout: Duration::from_secs(1), ..options(&url) };
    let store = Store::connect(&short).await.unwrap();
    let client = conformance::create(&store, "rk_1").await;
    let db = connect(&url).await;
    without_stand_by(&url, &db).await;
    let error = store.change_client(client.id, conformance::origin(), raise).await;
    assert!(matches!(error, Err(StoreError::Unavailable(_))), "{error:?}");
    until(&db, &format!("SELECT NOT ({WAITING})")).await;
}

#[tokio::test]
async fn an_operation_that_nobody_waits_for_any_more_holds_no_lock() {
    let url = Server::shared().database().await;
    let store = Arc::new(Store::connect(&options(&url)).await.unwrap());
    let client = conformance::create(&store, "rk_1").await;
    let db = connect(&url).await;
    db.batch_execute("BEGIN; SELECT FROM client FOR UPDATE").await.unwrap();
    let waiting = changing(&store, &client, |_| Ok(()));
    let watch = connect(&url).await;
    until(&watch, LOCKED).await;
    waiting.abort();
    until(&watch, &format!("SELECT NOT ({LOCKED})")).await;
    db.batch_execute("COMMIT").await.unwrap();
    conformance::logout(&store, &client).await;
}

#[tokio::test]
async fn an_operation_whose_server_dies_fails_at_once() {
    let server = Server::start();
    let url = server.database().await;
    let store = Arc::new(Store::connect(&options(&url)).await.unwrap());
    let client = conformance::create(&store, "rk_1").await;
    let db = connect(&url).await;
    db.batch_execute("BEGIN; SELECT FROM client FOR UPDATE").await.unwrap();
    let waiting = changing(&store, &client, raise);
    drop(store);
    let watch = connect(&url).await;
    until(&watch, LOCKED).await;
    let pid =
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'rescind' AND wait_event_type = 'Lock'";
    let pid: i32 = watch.query_one(pid, &[]).await.unwrap().get(0);
    // The end of that process restarts the whole server.
    let _ = watch.batch_execute(&format!("COPY (SELECT) TO PROGRAM 'kill -KILL {pid}'")).await;
    // The error comes long before the statement's time limit.
    let told = tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap().unwrap();
    assert!(matches!(told, Err(StoreError::Unavailable(_))), "{told:?}");
}

#[tokio::test]
async fn who_waits_for_a_client_sees_what_was_committed_meanwhile() {
    let url = Server::shared().database().await;
    let store = Arc::new(Store::connect(&options(&url)).await.unwrap());
    let client = conformance::create(&store, "rk_1").await;
    let db = connect(&url).await;
    db.batch_execute(
        "BEGIN;
         UPDATE client SET generation = 7;
         INSERT INTO credential (client_id, api_key, secret_hash, created_at) SELECT 1, 'rk_2', secret_hash, 5
             FROM credential",
    )
    .await
    .unwrap();
    let waiting = changing(&store, &client, |client| Ok((client.generation, client.credentials.len())));
    until(&connect(&url).await, LOCKED).await;
    db.batch_execute("COMMIT").await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().unwrap().unwrap().0, (7, 2));
}

#[tokio::test]
async fn a_session_that_is_refreshed_while_it_would_be_swept_stays() {
    let url = Server::shared().database().await;
    let store = Arc::new(Store::connect(&options(&url)).await.unwrap());
    let client = conformance::create(&store, "rk_1").await;
    let session = conformance::login(&store, &client, 1000).await;
    let db = connect(&url).await;
    db.batch_execute("BEGIN; UPDATE session SET pair = 2, refresh_expires_at = 99999").await.unwrap();
    let sweep = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.sweep(0, 50_000).await.unwrap().deleted }
    });
    until(&connect(&url).await, LOCKED).await;
    db.batch_execute("COMMIT").await.unwrap();
    assert_eq!(sweep.await.unwrap(), 0);
    assert_eq!(store.find(client.id, session.id).await.unwrap().session.unwrap().pair, 2);
}

#[tokio::test]
async fn a_client_that_all_want_leaves_connections_for_the_others() {
    let url = Server::shared().database().await;
    let store = Arc::new(Store::connect(&PostgresOptions { pool_size: 2, ..options(&url) }).await.unwrap());
    let busy = conformance::create(&store, "rk_1").await;
    let other = conformance::create(&store, "rk_2").await;
    let db = connect(&url).await;
    db.batch_execute("BEGIN; SELECT FROM client WHERE id = 1 FOR UPDATE").await.unwrap();
    let mut logins = JoinSet::new();
    for _ in 0..10 {
        let (store, busy) = (Arc::clone(&store), busy.clone());
        logins.spawn(async move { conformance::login(&store, &busy, 1000).await });
    }
    until(&connect(&url).await, LOCKED).await;
    conformance::login(&store, &other, 1000).await;
    assert_eq!(logins.try_join_next().map(|login| login.unwrap()), None);
    db.batch_execute("COMMIT").await.unwrap();
    assert_eq!(logins.join_all().await.len(), 10);
}

// A server near the end of its transaction ids warns of each commit, whichever of its databases is old.
#[tokio::test]
async fn a_warning_of_something_else_makes_no_commit_doubtful() {
    let url = Server::shared().database().await;
    let store = Store::connect(&options(&url)).await.unwrap();
    let client = conformance::create(&store, "rk_1").await;
    connect(&url)
        .await
        .batch_execute(
            "CREATE FUNCTION warns() RETURNS trigger LANGUAGE plpgsql
                 AS 'BEGIN RAISE WARNING ''database must be vacuumed''; RETURN NULL; END';
             CREATE CONSTRAINT TRIGGER warns AFTER UPDATE ON client DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION warns()",
        )
        .await
        .unwrap();
    assert_eq!(conformance::logout(&store, &client).await.generation, 1);
}
