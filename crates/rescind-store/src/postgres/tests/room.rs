//! A database with fewer connections than the pool may have.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::*;

/// Returns a new database's URL, with a user who owns it and may have so many connections.
async fn with_connections(count: usize) -> String {
    let url = Server::shared().database().await;
    let name = url.rsplit_once('/').unwrap().1;
    let db = connect(&url).await;
    db.batch_execute(&format!(
        "CREATE ROLE {name} LOGIN CONNECTION LIMIT {count}; ALTER DATABASE {name} OWNER TO {name}"
    ))
    .await
    .unwrap();
    url.replace("postgres@", &format!("{name}@"))
}

async fn many_changes(store: &Arc<Store>) {
    let mut changes = JoinSet::new();
    for i in 0..40 {
        let store = Arc::clone(store);
        let client = conformance::client(&format!("rk_{i}"));
        changes
            .spawn(async move { store.create_client(client, false, conformance::origin()).await.map(drop) });
    }
    for change in changes.join_all().await {
        change.unwrap();
    }
}

#[tokio::test]
async fn a_pool_that_cannot_grow_waits_for_a_connection_that_it_has() {
    let url = with_connections(3).await;
    let store = Arc::new(Store::connect(&options(&url)).await.unwrap());
    many_changes(&store).await;
    assert_eq!(store.clients().await.unwrap().len(), 40);
}

#[tokio::test]
async fn the_lease_gets_the_place_of_an_idle_connection_and_comes_first() {
    let url = with_connections(3).await;
    let store = Arc::new(Store::connect(&options(&url)).await.unwrap());
    many_changes(&store).await;
    let postgres = store.postgres().unwrap();
    postgres.lease_comes_first();
    let lease = async {
        loop {
            if let Ok(lease) = postgres.lease_connection(Duration::MAX).await {
                break lease;
            }
        }
    };
    let mut lease = tokio::time::timeout(Duration::from_secs(30), lease).await.unwrap();
    lease.join("one", Duration::from_secs(3), "profile").await.unwrap();
    many_reads(&store).await;

    // Until the lease has a connection again, the pool opens none.
    drop(lease);
    postgres.lease_comes_first();
    let others = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                  WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let admin = connect(&Server::shared().named(url.rsplit_once('/').unwrap().1)).await;
    admin.query_one(others, &[]).await.unwrap();
    until(&admin, "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database()").await;
    let is_refused = async || {
        let refused =
            store.clients().await.err().map(|refused| format!("{:#}", anyhow::Error::from(refused)));
        refused.is_some_and(|refused| refused.contains("no connection for its lease"))
    };
    while !is_refused().await {}
    let _lease = postgres.lease_connection(Duration::MAX).await.unwrap();
    store.clients().await.unwrap();
}

async fn many_reads(store: &Arc<Store>) {
    let mut reads = JoinSet::new();
    for _ in 0..20 {
        let store = Arc::clone(store);
        reads.spawn(async move { store.clients().await.unwrap().len() });
    }
    assert_eq!(reads.join_all().await, [40; 20]);
}

#[tokio::test]
async fn idle_connections_make_room_for_other_nodes() {
    let url = with_connections(12).await;
    let store = Arc::new(Store::connect(&options(&url)).await.unwrap());
    let postgres = store.postgres().unwrap();
    let mut lease = postgres.lease_connection(Duration::MAX).await.unwrap();
    lease.join("one", Duration::from_secs(3), "profile").await.unwrap();
    postgres.share_connections(1);
    many_changes(&store).await;
    let db = connect(&url).await;
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rescind' AND datname = current_database()";
    let open = async || db.query_one(count, &[]).await.unwrap().get::<_, i64>(0);
    assert!(open().await > 4, "{}", open().await);
    // Three nodes have two connections each, beside their leases, and three are left for a fourth one's start.
    postgres.share_connections(3);
    until(&db, &count.replace("count(*)", "count(*) <= 3")).await;
    many_reads(&store).await;
    assert!(open().await <= 3, "{}", open().await);
}
