//! A database that has lost changes.

use std::sync::Arc;

use rescind_base::{
    model::{
        Client, Highest, ManagementToken, Phase, Remembered, RememberedClient, Role, Status, VerifierRecord,
    },
    secret::SecretHash,
};
use rescind_verifier::follow::wire::EndedSession;
use tokio::task::JoinSet;

use super::*;
use crate::{HistoryStatus, Known, Mark, Repeated};

/// Makes a store with a client, a session, two keys and a verifier, and returns a change that the store has lost.
async fn behind(url: &str) -> (Store, Client, Known) {
    let store = Store::connect(&options(url)).await.unwrap();
    let client = conformance::create(&store, "rk_1").await;
    conformance::login(&store, &client, 1000).await;
    store.rotate_key(None, conformance::key("k1"), 5000, conformance::origin()).await.unwrap();
    store.rotate_key(None, conformance::key("k2"), 5000, conformance::origin()).await.unwrap();
    let verifier = VerifierRecord {
        id: 0,
        name: "v".into(),
        token_hash: SecretHash { bytes: [1; 32], pepper: 1 },
        shares_hs256: true,
        created_at: 1,
    };
    store.create_verifier(verifier, conformance::origin()).await.unwrap();
    let head = store.load().await.unwrap().head;
    (store, client, Known { seq: 50, mark: Mark(9), ..head })
}

fn memory(client: &Client) -> Remembered {
    let Client { status, revision, allowlist, certificates, scopes, resources, enforces_allowlist, .. } =
        client.clone();
    let credentials = [].into();
    let known = RememberedClient {
        status,
        suspended_until: None,
        generation: 3,
        revision,
        allowlist,
        certificates,
        resources,
        scopes,
        enforces_allowlist,
        introspect_lifetime: None,
        credentials,
    };
    Remembered {
        clients: [(client.id, known)].into(),
        ended: vec![ended(1)],
        pairs: vec![],
        keys: vec![2],
        verifiers: vec![],
        highest: Highest { client: 7, credential: 8, verifier: 1, key: 2, session: 5000 },
    }
}

fn ended(session: u64) -> EndedSession {
    EndedSession { session, until: 6000 }
}

async fn repeat(store: &Store, known: &Known, memory: &Remembered) -> Option<Repeated> {
    let postgres = store.postgres().unwrap();
    let place = postgres.place().unwrap();
    let (key, origin) = (conformance::key("new"), conformance::origin());
    postgres.repeat(&place, known, known.seq, memory, key, &origin).await.unwrap()
}

async fn standing(store: &Store, known: &Known, remembers: bool) -> Option<HistoryStatus> {
    store.postgres().unwrap().position(known).await.unwrap().standing(known, remembers)
}

// check 96
#[tokio::test]
async fn what_was_lost_is_repeated_once_and_its_ids_are_not_given_again() {
    let url = Server::shared().database().await;
    let (store, client, known) = behind(&url).await;
    assert_eq!(standing(&store, &known, true).await, None);
    let before = store.load().await.unwrap().head;
    let repeated = repeat(&store, &known, &memory(&client)).await;
    assert_eq!(repeated, Some(Repeated { clients: 1, sessions: 1, keys: 1, verifiers: 1 }));

    let after = store.load().await.unwrap();
    assert!(after.head.seq > 50 && after.head.history != before.history, "{:?}", after.head);
    assert_eq!(store.postgres().unwrap().known(), after.head);
    let [changed] = after.clients.as_slice() else { panic!("one client") };
    assert_eq!((changed.generation, changed.status), (3, Status::Active));
    assert!(changed.credentials[0].revoked_at.is_some() && changed.revision > client.revision);
    assert_eq!(store.find(1, 1).await.unwrap().session.unwrap().phase, Phase::Ended);
    assert_eq!(after.keys.iter().map(|key| key.kid.as_str()).collect::<Vec<_>>(), ["k2"]);
    assert_eq!(after.verifiers, []);
    // A node that has applied the change before receives all of them.
    let mut lease = store.postgres().unwrap().lease_connection(Duration::MAX).await.unwrap();
    assert_eq!(lease.changes(before.seq).await.unwrap().len(), 4);

    let next = conformance::create(&store, "rk_2").await;
    assert!(next.id > 1000 && next.credentials[0].id > 1000, "{next:?}");
    assert!(conformance::login(&store, &next, 1000).await.id > 5000 + (1 << 32));

    // The database reports the repetition. A process that remembers no more has nothing to add.
    for remembers in [true, false] {
        assert_eq!(standing(&store, &known, remembers).await, Some(HistoryStatus::Repeated));
    }
    assert_eq!(repeat(&store, &known, &memory(&client)).await, None);
    // A process that remembers more adds that, and the history stays the same.
    let mut more = memory(&client);
    more.clients.get_mut(&client.id).unwrap().generation = 9;
    let added = repeat(&store, &known, &more).await;
    assert_eq!(added, Some(Repeated { clients: 1, ..Repeated::default() }));
    let head = store.load().await.unwrap().head;
    assert!(head.history == after.head.history && head.seq > after.head.seq);
    // A process that knows of a later change finds that one missing.
    assert_eq!(standing(&store, &Known { seq: 51, ..known }, false).await, None);
}

// check 96
#[tokio::test]
async fn a_session_that_was_lost_with_its_login_and_its_end_is_told_to_have_ended() {
    let url = Server::shared().database().await;
    let (store, client, known) = behind(&url).await;
    let memory = Remembered { ended: vec![ended(1), ended(4000)], ..memory(&client) };
    assert_eq!(repeat(&store, &known, &memory).await.unwrap().sessions, 2);
    assert_eq!(store.load().await.unwrap().ended.iter().map(|e| e.session).collect::<Vec<_>>(), [1, 4000]);
    assert_eq!(store.find(client.id, 4000).await.unwrap().session.unwrap().phase, Phase::Ended);
    assert_eq!(repeat(&store, &known, &memory).await, None);
}

// check 96
#[tokio::test]
async fn what_was_changed_elsewhere_before_this_processs_own_change_is_not_said_to_be_repeated() {
    let url = Server::shared().database().await;
    let (store, client, known) = behind(&url).await;
    let postgres = store.postgres().unwrap();
    let (place, key, origin) = (postgres.place().unwrap(), conformance::key("new"), conformance::origin());
    postgres.repeat(&place, &known, 48, &memory(&client), key, &origin).await.unwrap();
    assert_eq!(standing(&store, &Known { seq: 48, ..known }, false).await, Some(HistoryStatus::Repeated));
    assert_eq!(standing(&store, &Known { seq: 49, ..known }, false).await, None);
}

// check 96
#[tokio::test]
async fn a_database_that_lost_only_the_end_of_a_management_token_is_found_to_have_lost_it() {
    let url = Server::shared().database().await;
    let (store, ..) = behind(&url).await;
    let token = ManagementToken {
        id: 0,
        name: "ci".into(),
        role: Role::Operator,
        clients: None,
        token_hash: SecretHash { bytes: [1; 32], pepper: 1 },
        created_at: 1,
        expires_at: None,
        last_used_at: None,
    };
    let token = store.create_management_token(token, conformance::origin()).await.unwrap();
    let before = store.postgres().unwrap().known();
    store.delete_management_token(token.id, conformance::origin()).await.unwrap().unwrap();
    let known = store.postgres().unwrap().known();
    assert_eq!((known.seq, store.load().await.unwrap().head), (before.seq + 1, known));
    // The database without that commit.
    let db = connect(&url).await;
    db.batch_execute("DELETE FROM change WHERE seq = (SELECT seq FROM head); UPDATE head SET seq = seq - 1")
        .await
        .unwrap();
    assert_eq!(standing(&store, &known, true).await, None);
}

#[tokio::test]
async fn where_every_key_was_retired_another_one_signs() {
    let url = Server::shared().database().await;
    let (store, client, known) = behind(&url).await;
    let memory = Remembered { keys: vec![], ..memory(&client) };
    assert_eq!(repeat(&store, &known, &memory).await.unwrap().keys, 2);
    let keys = store.keys().await.unwrap();
    assert_eq!(keys.iter().map(|key| key.kid.as_str()).collect::<Vec<_>>(), ["new"]);
    assert!(keys[0].id > 1000);
}

// check 96
#[tokio::test]
async fn what_nobody_remembers_is_ended_once_and_repeated_by_who_does_after_all() {
    let url = Server::shared().database().await;
    let (store, client, known) = behind(&url).await;
    let postgres = store.postgres().unwrap();
    let place = postgres.place().unwrap();
    let end = async |kid: &str| {
        let (key, origin) = (conformance::key(kid), conformance::origin());
        postgres.end_history(&place, &known, key, &origin).await.unwrap()
    };
    let keys = end("k3").await.unwrap();
    assert_eq!(keys.iter().map(|key| key.kid.as_str()).collect::<Vec<_>>(), ["k3"]);
    assert_eq!(store.load().await.unwrap().verifiers, []);
    assert!(end("k4").await.is_none());
    assert_eq!(standing(&store, &known, false).await, Some(HistoryStatus::Ended));
    assert_eq!(standing(&store, &known, true).await, None);
    assert_eq!(repeat(&store, &known, &memory(&client)).await.unwrap().clients, 1);
    // The new key has a higher id than all that the process remembers.
    assert_eq!(store.keys().await.unwrap().len(), 1);

    // `end_tokens` ends the history that is known here as well as the database's.
    let elsewhere = Known { history: Mark(5), seq: 9999, mark: Mark(5) };
    postgres.set_known(elsewhere);
    store.end_tokens(conformance::key("k5"), conformance::origin()).await.unwrap();
    assert_eq!(standing(&store, &elsewhere, false).await, Some(HistoryStatus::Ended));
    assert!(store.load().await.unwrap().head.seq > 9999);
}

#[tokio::test]
async fn a_session_that_was_lost_with_its_login_is_swept_when_its_last_token_has_expired() {
    let url = Server::shared().database().await;
    let (store, client, known) = behind(&url).await;
    let memory = Remembered { ended: vec![ended(77)], ..memory(&client) };
    repeat(&store, &known, &memory).await.unwrap();
    store.sweep(0, 6000).await.unwrap();
    assert_eq!(store.load().await.unwrap().ended, [ended(77)]);
    store.sweep(0, 6001).await.unwrap();
    assert_eq!(store.load().await.unwrap().ended, []);
}

#[tokio::test]
async fn refresh_tokens_that_were_used_stay_so() {
    let url = Server::shared().database().await;
    let (store, client, known) = behind(&url).await;
    let [live, other] =
        [conformance::login(&store, &client, 1000).await, conformance::login(&store, &client, 1000).await];
    let pairs = vec![(client.id, live.id, 4), (client.id + 1, other.id, 4), (client.id, other.id + 99, 4)];
    let memory = Remembered { pairs, highest: Highest::default(), ..Remembered::default() };
    assert_eq!(repeat(&store, &known, &memory).await.unwrap().sessions, 1);
    let pair = async |id| store.find(client.id, id).await.unwrap().session.unwrap().pair;
    assert_eq!((pair(live.id).await, pair(other.id).await), (4, 1));
}

// Only the owner of the tables may move their sequences.
#[tokio::test]
async fn a_user_that_may_only_use_the_tables_repeats_as_well() {
    let url = Server::shared().database().await;
    let (store, client, known) = behind(&url).await;
    drop(store);
    let db = connect(&url).await;
    let user = url.rsplit_once('/').unwrap().1.replace("test_", "user_");
    db.batch_execute(&format!(
        "CREATE ROLE {user} LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {user}"
    ))
    .await
    .unwrap();
    let store = Store::connect(&options(&url.replace("postgres@", &format!("{user}@")))).await.unwrap();
    repeat(&store, &known, &memory(&client)).await.unwrap();
    assert!(conformance::login(&store, &client, 1000).await.id > 1 << 32);
}

#[tokio::test]
async fn changes_at_the_same_time_come_before_or_after_and_none_is_lost() {
    let url = Server::shared().database().await;
    let (store, client, known) = behind(&url).await;
    let store = Arc::new(store);
    let mut logouts = JoinSet::new();
    for _ in 0..20 {
        let (store, client) = (Arc::clone(&store), client.clone());
        logouts.spawn(async move { conformance::logout(&store, &client).await });
    }
    let repeated = repeat(&store, &known, &memory(&client)).await;
    logouts.join_all().await;
    assert!(repeated.is_some());
    assert!(store.clients().await.unwrap()[0].generation >= 20);
}

// A change locks what it writes first, and the head last.
#[tokio::test]
async fn a_change_that_has_begun_and_the_end_of_every_token_do_not_wait_for_each_other() {
    let url = Server::shared().database().await;
    let store = Arc::new(Store::connect(&options(&url)).await.unwrap());
    let (change, watch) = (connect(&url).await, connect(&url).await);
    for table in ["administrator", "sign_in", "management_token", "handover"] {
        let lock = format!("BEGIN; LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE");
        change.batch_execute(&lock).await.unwrap();
        let ending = Arc::clone(&store);
        let end =
            tokio::spawn(
                async move { ending.end_tokens(conformance::key(table), conformance::origin()).await },
            );
        until(&watch, WAITS_FOR_A_LOCK).await;
        change.batch_execute(&format!("{}; COMMIT", audit::LOCK_HEAD)).await.expect(table);
        assert_eq!(end.await.unwrap().expect(table).len(), 1);
    }
}
