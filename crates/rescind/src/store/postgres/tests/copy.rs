//! Copies from the embedded store.

use std::path::Path;

use super::*;
use crate::{
    model::{Client, Phase, Session as Login, Status, VerifierRecord, Wanted},
    random::Random,
    secret::SecretHash,
    store::{ChangedRow, Copied, StoreError},
};

/// Makes a store with rows of every kind.
async fn some_of_everything(path: &Path) -> Store {
    let store = Store::open_file(path, &Random::System).unwrap();
    store.set_pepper(vec![0, 92, 255]).await.unwrap();
    store.rotate_key(None, conformance::key("k1"), 5, conformance::origin()).await.unwrap();
    store.rotate_key(None, conformance::key("k2"), 5, conformance::origin()).await.unwrap();
    let awkward = Client { name: "a\tb\nc\\N \"é\"".into(), ..conformance::client("rk_1") };
    let one = store.create_client(awkward, conformance::origin()).await.unwrap();
    let two = store.create_client(conformance::client("rk_2"), conformance::origin()).await.unwrap();
    let verifier = VerifierRecord {
        id: 0,
        name: "v".into(),
        token_hash: SecretHash([255; 32]),
        shares_hs256: true,
        created_at: 1,
    };
    store.create_verifier(verifier, conformance::origin()).await.unwrap();
    for _ in 0..3 {
        conformance::login(&store, &one, 1000).await;
    }
    let end = |_: &_, session: &mut Login| (session.phase = Phase::Ended, None);
    store.change_session(one.id, 2, end).await.unwrap().unwrap();
    let delete = |client: &mut Client| {
        (client.status, client.credentials[0].revoked_at) = (Status::Deleted, Some(7));
        Ok::<_, ()>(())
    };
    store.change_client(two.id, conformance::origin(), delete).await.unwrap().unwrap().unwrap();
    // The newest session is swept. Its number must not be given again.
    conformance::login(&store, &two, 1000).await;
    store.sweep(3, u64::MAX >> 1).await.unwrap();
    store
}

#[tokio::test]
async fn everything_is_copied_and_goes_on_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rescind.db");
    let before = some_of_everything(&file).await;
    let url = Server::shared().database().await;
    let mut progress = vec![];
    let copied = Store::copy(&file, &options(&url), &Random::System, |sessions| progress.push(sessions))
        .await
        .unwrap();
    assert_eq!(copied, Copied { clients: 2, credentials: 2, sessions: 3, events: 8 });
    assert_eq!(progress, [3]);

    let after = Store::connect(&options(&url)).await.unwrap();
    let (before_all, after_all) = (before.load().await.unwrap(), after.load().await.unwrap());
    assert_eq!(after_all.clients, before_all.clients);
    assert_eq!(after_all.verifiers, before_all.verifiers);
    assert_eq!(after_all.pepper, before_all.pepper);
    assert_eq!(after_all.ended, before_all.ended);
    assert_eq!(format!("{:?}", after_all.keys), format!("{:?}", before_all.keys));
    for session in 1..=4 {
        let (there, here) = (before.find(1, session).await.unwrap(), after.find(1, session).await.unwrap());
        assert_eq!(here.session, there.session);
    }
    let on_record = Wanted { after: Some(0), limit: 100, kind: None, client: None, since: 0 };
    assert_eq!(after.records(on_record).await.unwrap(), before.records(on_record).await.unwrap());

    let (Client { id, .. }, login) = (
        after.create_client(conformance::client("rk_3"), conformance::origin()).await.unwrap(),
        conformance::login(&after, &after_all.clients[0], 1000).await,
    );
    assert_eq!((id, login.id), (3, 5));
    assert_eq!(
        after.rotate_key(None, conformance::key("k3"), 9, conformance::origin()).await.unwrap()[2].id,
        3
    );
    assert_eq!(after.records(on_record).await.unwrap().last, 11);
}

#[tokio::test]
async fn a_node_that_started_on_the_empty_database_hears_of_all_that_was_copied() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rescind.db");
    drop(some_of_everything(&file).await);
    let url = Server::shared().database().await;
    let early = Store::connect(&options(&url)).await.unwrap();
    let mut lease = early.postgres().unwrap().lease_connection().await.unwrap();
    Store::copy(&file, &options(&url), &Random::System, |_| {}).await.unwrap();
    let changes = lease.changes(0).await.unwrap();
    assert_eq!(changes.iter().map(|change| change.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    for told in [
        ChangedRow::Client(1),
        ChangedRow::Client(2),
        ChangedRow::Session { client: 1, session: 2 },
        ChangedRow::Keys,
        ChangedRow::Verifiers,
    ] {
        assert!(changes.iter().any(|change| change.what == told), "{told:?}");
    }
    assert_eq!(early.postgres().unwrap().head().await.unwrap(), 5);
}

#[tokio::test]
async fn a_database_that_holds_something_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rescind.db");
    drop(some_of_everything(&file).await);
    let url = Server::shared().database().await;
    let taken = Store::connect(&options(&url)).await.unwrap();
    taken.first_key(conformance::key("k9"), conformance::origin()).await.unwrap();
    let refused = Store::copy(&file, &options(&url), &Random::System, |_| {}).await;
    assert!(matches!(refused, Err(StoreError::Unsuitable(_))), "{refused:?}");
    assert_eq!(taken.load().await.unwrap().clients, []);
    assert_eq!(taken.keys().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_copy_that_fails_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rescind.db");
    drop(some_of_everything(&file).await);
    let url = Server::shared().database().await;
    let store = Store::connect(&options(&url)).await.unwrap();
    let db = connect(&url).await;
    db.batch_execute("ALTER TABLE session ADD CHECK (id < 3)").await.unwrap();
    let failed = Store::copy(&file, &options(&url), &Random::System, |_| {}).await;
    assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
    let loaded = store.load().await.unwrap();
    assert!(loaded.clients.is_empty() && loaded.keys.is_empty() && loaded.pepper.is_none());
}
