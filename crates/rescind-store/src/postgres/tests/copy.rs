//! Copies from the embedded store.

use std::path::PathBuf;

use rescind_base::{
    model::{
        Client, Creation, CreationKey, EventFilter, Handover, Phase, Session as Login, Status, VerifierRecord,
    },
    random::Random,
    secret::{SecretHash, TicketHash},
};
use tempfile::TempDir;

use super::*;
use crate::{ChangedRow, Copied, StoreError};

fn link() -> Handover {
    Handover {
        hash: TicketHash([1; 32]),
        client: 1,
        api_key: "rk_1".into(),
        sealed: Some(vec![0, 92, 255]),
        created_at: 1000,
        ends_at: 5000,
        read_at: None,
    }
}

fn creation() -> CreationKey {
    CreationKey { token: 0, key: "a\tb".into() }
}

/// Makes a store with rows of every kind, and an empty database. Returns the store, its folder and file, and the
/// database's address.
async fn some_of_everything() -> (Store, TempDir, PathBuf, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rescind.db");
    let store = Store::open_file(&file, &Random::System).unwrap();
    store.first_pepper([("pepper".to_owned(), vec![0, 92, 255])].into()).await.unwrap();
    store.rotate_pepper([("pepper 2".to_owned(), vec![9])].into(), conformance::origin()).await.unwrap();
    store.rotate_key(None, conformance::key("k1"), 5, conformance::origin()).await.unwrap();
    store.rotate_key(None, conformance::key("k2"), 5, conformance::origin()).await.unwrap();
    let awkward = Client { name: "a\tb\nc\\N \"é\"".into(), ..conformance::client("rk_1") };
    let one = store.create_client(awkward, false, conformance::origin()).await.unwrap().unwrap();
    let two = conformance::create(&store, "rk_2").await;
    let verifier = VerifierRecord {
        id: 0,
        name: "v".into(),
        token_hash: SecretHash { bytes: [255; 32], pepper: 2 },
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
    store.hand_over(link(), conformance::origin()).await.unwrap();
    store.reserve_creation(creation(), [7; 32], 1000).await.unwrap();
    store.settle_creation(creation(), Some("/clients/1".into())).await.unwrap();
    // The newest session is swept. Its number must not be given again.
    conformance::login(&store, &two, 1000).await;
    store.sweep(3, u64::MAX >> 1).await.unwrap();
    (store, folder, file, Server::shared().database().await)
}

#[tokio::test]
async fn everything_is_copied_and_goes_on_from_there() {
    let (before, _folder, file, url) = some_of_everything().await;
    let mut progress = vec![];
    let copied = Store::copy(&file, &options(&url), &Random::System, |sessions| progress.push(sessions))
        .await
        .unwrap();
    assert_eq!(copied, Copied { clients: 2, credentials: 2, sessions: 3, events: 10 });
    assert_eq!(progress, [3]);

    let after = Store::connect(&options(&url)).await.unwrap();
    let (before_all, after_all) = (before.load().await.unwrap(), after.load().await.unwrap());
    assert_eq!(after_all.clients, before_all.clients);
    assert_eq!(after_all.verifiers, before_all.verifiers);
    assert_eq!(after_all.secrets, before_all.secrets);
    assert_eq!(after_all.ended, before_all.ended);
    assert_eq!(format!("{:?}", after_all.keys), format!("{:?}", before_all.keys));
    for session in 1..=4 {
        let (there, here) = (before.find(1, session).await.unwrap(), after.find(1, session).await.unwrap());
        assert_eq!(here.session, there.session);
    }
    assert_eq!(after.handover(link().hash).await.unwrap(), Some(link()));
    let made = Creation { request: [7; 32], created: Some("/clients/1".into()) };
    assert_eq!(after.reserve_creation(creation(), [7; 32], 1000).await.unwrap(), Some(made));
    let on_record = EventFilter { after: Some(0), ..EventFilter::newest(100) };
    assert_eq!(after.records(on_record).await.unwrap(), before.records(on_record).await.unwrap());

    let (Client { id, .. }, login) = (
        conformance::create(&after, "rk_3").await,
        conformance::login(&after, &after_all.clients[0], 1000).await,
    );
    assert_eq!((id, login.id), (3, 5));
    assert_eq!(
        after.rotate_key(None, conformance::key("k3"), 9, conformance::origin()).await.unwrap()[2].id,
        3
    );
    assert_eq!(after.records(on_record).await.unwrap().last, 13);
}

#[tokio::test]
async fn a_node_that_started_on_the_empty_database_hears_of_all_that_was_copied() {
    let (before, _folder, file, url) = some_of_everything().await;
    drop(before);
    let early = Store::connect(&options(&url)).await.unwrap();
    let mut lease = early.postgres().unwrap().lease_connection(Duration::MAX).await.unwrap();
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
    let (before, _folder, file, url) = some_of_everything().await;
    drop(before);
    let taken = Store::connect(&options(&url)).await.unwrap();
    taken.first_key(conformance::key("k9"), conformance::origin()).await.unwrap();
    let refused = Store::copy(&file, &options(&url), &Random::System, |_| {}).await;
    assert!(matches!(refused, Err(StoreError::Unsuitable(_))), "{refused:?}");
    assert_eq!(taken.load().await.unwrap().clients, []);
    assert_eq!(taken.keys().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_copy_that_fails_leaves_nothing() {
    let (before, _folder, file, url) = some_of_everything().await;
    drop(before);
    let store = Store::connect(&options(&url)).await.unwrap();
    let db = connect(&url).await;
    db.batch_execute("ALTER TABLE session ADD CHECK (id < 3)").await.unwrap();
    let failed = Store::copy(&file, &options(&url), &Random::System, |_| {}).await;
    assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
    let loaded = store.load().await.unwrap();
    assert!(loaded.clients.is_empty() && loaded.keys.is_empty() && loaded.secrets.is_empty());
}
