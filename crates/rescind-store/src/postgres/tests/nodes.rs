//! Leases, and the order of changes.

use std::sync::Arc;

use rescind_base::{
    model::{EventFilter, EventKind, Phase, Session as Login, Status, VerifierRecord},
    secret::SecretHash,
};
use tokio::task::JoinSet;

use super::*;
use crate::{ChangedRow, NodeRow, postgres::migrate::NEWEST_KNOWN};

const WAIT: Duration = Duration::from_millis(3600);

async fn store() -> (String, Store) {
    let url = Server::shared().database().await;
    let store = Store::connect(&options(&url)).await.unwrap();
    (url, store)
}

#[tokio::test]
async fn a_node_joins_renews_and_leaves() {
    let (_url, store) = store().await;
    let postgres = store.postgres().unwrap();
    let nodes = async || postgres.nodes().await.map(|(_, head, nodes)| (head, nodes)).unwrap();
    assert_eq!(nodes().await, (0, vec![]));
    let mut lease = postgres.lease_connection(Duration::MAX).await.unwrap();
    let (one, two) = (
        lease.join("one", WAIT, "profile").await.unwrap(),
        lease.join("two", WAIT, "profile").await.unwrap(),
    );
    assert_ne!(one, two);
    conformance::create(&store, "rk_1").await;

    let renewed = lease.renew(one, 1).await.unwrap().unwrap();
    assert_eq!(renewed.head, 1);
    let first = NodeRow {
        id: one,
        name: "one".into(),
        wait: WAIT,
        acked: 1,
        beat: 1,
        schema_version: NEWEST_KNOWN,
        profile: Some("profile".into()),
    };
    let second = NodeRow { id: two, name: "two".into(), acked: 0, beat: 0, ..first.clone() };
    assert_eq!(renewed.nodes, [first.clone(), second]);

    lease.renew(two, 1).await.unwrap().unwrap();
    lease.forget(two, 0).await.unwrap();
    assert_eq!(nodes().await.1.len(), 2);
    lease.forget(two, 1).await.unwrap();
    assert_eq!(nodes().await, (1, vec![first]));
    assert_eq!(lease.renew(two, 1).await.unwrap(), None);
    lease.leave(one).await.unwrap();
    assert_eq!(lease.renew(one, 1).await.unwrap(), None);
    assert!(lease.join("two", WAIT, "profile").await.unwrap() > two);
}

// check 92
#[tokio::test]
async fn a_node_from_before_and_a_key_with_a_refresh_key_exclude_each_other() {
    const JOIN_FROM_BEFORE: &str = "INSERT INTO node (name, wait_ms) VALUES ('old', 3600)";
    let (url, store) = store().await;
    let store = Arc::new(store);
    let (db, other, watch) = (connect(&url).await, connect(&url).await, connect(&url).await);
    // The first of the two wins, even before it is committed.
    other.batch_execute(&format!("BEGIN; {JOIN_FROM_BEFORE}")).await.unwrap();
    let first_key = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.first_key(conformance::key("k1"), conformance::origin()).await }
    });
    until(&watch, WAITS_FOR_A_LOCK).await;
    other.batch_execute("COMMIT").await.unwrap();
    let error = first_key.await.unwrap().unwrap_err();
    assert!(format!("{error:?}").contains("a node of an older version serves"), "{error:?}");
    assert!(store.keys().await.unwrap().is_empty());

    db.batch_execute("DELETE FROM node").await.unwrap();
    let insert = "INSERT INTO signing_key (kid, algorithm, sealed, refresh_sealed, created_at, signs_from)
                  VALUES ('k1', 'HS256', '', '', 0, 0)";
    db.batch_execute(&format!("BEGIN; {insert}")).await.unwrap();
    let joining = tokio::spawn(async move { other.batch_execute(JOIN_FROM_BEFORE).await });
    until(&watch, WAITS_FOR_A_LOCK).await;
    db.batch_execute("COMMIT").await.unwrap();
    let error = joining.await.unwrap().unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("newer version than this node's"), "{error:?}");
    let mut lease = store.postgres().unwrap().lease_connection(Duration::MAX).await.unwrap();
    lease.join("new", WAIT, "profile").await.unwrap();
}

#[tokio::test]
async fn whatever_memory_holds_is_told_of_and_nothing_else() {
    let (_url, store) = store().await;
    let mut lease = store.postgres().unwrap().lease_connection(Duration::MAX).await.unwrap();
    let client = conformance::create(&store, "rk_1").await;
    store.first_key(conformance::key("k1"), conformance::origin()).await.unwrap();
    store.first_key(conformance::key("k2"), conformance::origin()).await.unwrap();
    store.rotate_key(None, conformance::key("k3"), 5, conformance::origin()).await.unwrap();
    store.retire_keys(conformance::origin(), |_| false).await.unwrap();
    store.retire_keys(conformance::origin(), |key| key.kid == "k1").await.unwrap();
    let verifier = VerifierRecord {
        id: 0,
        name: "v".into(),
        token_hash: SecretHash { bytes: [1; 32], pepper: 1 },
        shares_hs256: false,
        created_at: 1,
    };
    let verifiers = store.create_verifier(verifier, conformance::origin()).await.unwrap();
    store.delete_verifier(99, conformance::origin()).await.unwrap();
    store.delete_verifier(verifiers[0].id, conformance::origin()).await.unwrap();

    let session = conformance::login(&store, &client, 1000).await;
    let advance = |_: &_, session: &mut Login| (session.advance(1, 1001, &conformance::RULES), None);
    store.change_session(client.id, session.id, advance).await.unwrap().unwrap();
    let phase = |phase| move |_: &_, session: &mut Login| (session.phase = phase, None);
    store.change_session(client.id, session.id, phase(Phase::RefreshEnded)).await.unwrap().unwrap();
    store.change_session(client.id, session.id, phase(Phase::Ended)).await.unwrap().unwrap();
    store.change_session(client.id, session.id, advance).await.unwrap().unwrap();
    store
        .change_client(client.id, conformance::origin(), |_| Err::<(), _>(()))
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    store
        .change_client(client.id, conformance::origin(), |_| Ok::<_, ()>(()))
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    conformance::logout(&store, &client).await;

    let expected = [
        ChangedRow::Client(client.id),
        ChangedRow::Keys,
        ChangedRow::Keys,
        ChangedRow::Keys,
        ChangedRow::Verifiers,
        ChangedRow::Verifiers,
        ChangedRow::Session { client: client.id, session: session.id },
        ChangedRow::Client(client.id),
    ];
    let expected: Vec<_> = (1..).zip(expected).collect();
    let changes = lease.changes(0).await.unwrap();
    assert_eq!(changes.iter().map(|change| (change.seq, change.what)).collect::<Vec<_>>(), expected);
    assert_eq!(lease.changes(7).await.unwrap(), changes[7..]);
    let newest = store.load().await.unwrap().head;
    assert_eq!((newest.seq, Some(newest)), (8, changes.last().map(|change| change.known)));
    assert_eq!(store.postgres().unwrap().head().await.unwrap(), 8);
    // What is told of is read on the same connection, many at once.
    let other = conformance::create(&store, "rk_2").await;
    let found = store.find(client.id, session.id).await.unwrap();
    let clients = lease.clients(&[other.id, 99, client.id]).await.unwrap();
    assert_eq!(clients, [found.client.unwrap(), other]);
    assert_eq!(lease.sessions(&[99, session.id]).await.unwrap(), [found.session.unwrap()]);
}

#[tokio::test]
async fn changes_at_once_are_numbered_without_a_gap() {
    let (url, _store) = store().await;
    let mut nodes = JoinSet::new();
    for node in 0..4 {
        let options = options(&url);
        nodes.spawn(async move {
            let store = Store::connect(&options).await.unwrap();
            for i in 0..10 {
                let client = conformance::create(&store, &format!("rk_{node}_{i}")).await;
                conformance::logout(&store, &client).await;
            }
        });
    }
    nodes.join_all().await;
    let (_url, store) = (url.clone(), Store::connect(&options(&url)).await.unwrap());
    let mut lease = store.postgres().unwrap().lease_connection(Duration::MAX).await.unwrap();
    let seqs: Vec<_> = lease.changes(0).await.unwrap().iter().map(|change| change.seq).collect();
    assert_eq!(seqs, (1..=80).collect::<Vec<_>>());
}

#[tokio::test]
async fn of_refreshes_on_two_nodes_at_once_one_wins() {
    let (url, one) = store().await;
    let two = Arc::new(Store::connect(&options(&url)).await.unwrap());
    let one = Arc::new(one);
    let client = conformance::create(&one, "rk_1").await;
    for round in 1..=20 {
        let session = conformance::login(&one, &client, 1000).await;
        let mut refreshes = JoinSet::new();
        for store in [&one, &two] {
            let (store, session) = (Arc::clone(store), session.clone());
            let rule = |_: &_, session: &mut Login| {
                let first = session.pair == 1;
                if first {
                    session.advance(1, 1001, &conformance::RULES);
                }
                (first, None)
            };
            refreshes.spawn(async move { store.change_session(session.client, session.id, rule).await });
        }
        let outcomes = refreshes.join_all().await;
        let won = outcomes.into_iter().filter(|outcome| outcome.as_ref().unwrap().as_ref().unwrap().0);
        assert_eq!(won.count(), 1, "round {round}");
    }
}

#[tokio::test]
async fn changes_that_every_node_has_applied_may_go() {
    let (_url, store) = store().await;
    let postgres = store.postgres().unwrap();
    let mut lease = postgres.lease_connection(Duration::MAX).await.unwrap();
    let (one, two) = (
        lease.join("one", WAIT, "profile").await.unwrap(),
        lease.join("two", WAIT, "profile").await.unwrap(),
    );
    for i in 0..10 {
        conformance::create(&store, &format!("rk_{i}")).await;
    }
    let oldest = async |lease: &mut super::super::LeaseConnection| lease.changes(0).await.unwrap()[0].seq;
    lease.renew(one, 10).await.unwrap();
    postgres.trim_changes(2).await.unwrap();
    assert_eq!(oldest(&mut lease).await, 1);
    lease.renew(two, 5).await.unwrap();
    postgres.trim_changes(2).await.unwrap();
    assert_eq!(oldest(&mut lease).await, 6);
    lease.leave(one).await.unwrap();
    lease.leave(two).await.unwrap();
    postgres.trim_changes(2).await.unwrap();
    assert_eq!(oldest(&mut lease).await, 9);
}

#[tokio::test]
async fn a_ring_is_heard_however_late_one_listens() {
    let (url, store) = store().await;
    let postgres = store.postgres().unwrap();
    let mut lease = postgres.lease_connection(Duration::MAX).await.unwrap();
    for _ in 0..2 {
        postgres.notify().await;
        // The connection is used for something else in between.
        lease.changes(0).await.unwrap();
        lease.notified().await.unwrap();
    }

    let db = connect(&url).await;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE application_name = 'rescind' AND datname = current_database()";
    db.query_one(end, &[]).await.unwrap();
    assert!(lease.notified().await.is_err());
    assert!(lease.renew(1, 0).await.is_err());
}

#[tokio::test]
async fn a_connection_that_broke_is_replaced() {
    let (url, store) = store().await;
    let client = conformance::create(&store, "rk_1").await;
    let db = connect(&url).await;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE application_name = 'rescind' AND datname = current_database()";
    db.query_one(end, &[]).await.unwrap();
    until(
        &db,
        "SELECT count(*) = 0 FROM pg_stat_activity
                WHERE application_name = 'rescind' AND datname = current_database()",
    )
    .await;
    // At most one operation fails, on a connection that was not yet known to be broken.
    let rule = |client: &mut rescind_base::model::Client| {
        client.status = Status::Suspended;
        Ok::<_, ()>(())
    };
    if store.change_client(client.id, conformance::origin(), rule).await.is_err() {
        store.change_client(client.id, conformance::origin(), rule).await.unwrap();
    }
    assert_eq!(store.clients().await.unwrap()[0].status, Status::Suspended);
}

#[tokio::test]
async fn nothing_is_put_on_record_before_what_has_the_number_before() {
    let (url, store) = store().await;
    let store = Arc::new(store);
    let slow = connect(&url).await;
    slow.batch_execute("BEGIN").await.unwrap();
    slow.batch_execute(audit::LOCK_HEAD).await.unwrap();
    let insert = "INSERT INTO audit (at, kind, actor, node, count) VALUES (1, 'first', 'operator', 'n', 1)";
    slow.batch_execute(insert).await.unwrap();
    let recording = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.record(vec![conformance::origin().event(EventKind::Throttled)]).await }
    });
    until(&connect(&url).await, WAITS_FOR_A_LOCK).await;
    let wanted = EventFilter { after: Some(0), ..EventFilter::newest(10) };
    let before = store.records(wanted).await.unwrap();
    assert_eq!((before.records.len(), before.last), (0, 0));
    slow.batch_execute("COMMIT").await.unwrap();
    recording.await.unwrap().unwrap();
    let page = store.records(wanted).await.unwrap();
    let kinds: Vec<_> = page.records.iter().map(|record| record.kind.as_str()).collect();
    assert_eq!((kinds, page.last), (vec!["first", "throttled"], 2));
}
