//! What every store must do, whatever its kind.

mod administrators;
mod audit;
mod chain;
mod cost;
mod denials;
mod home;
mod management;
mod operators;
mod pepper;
mod sweep;
mod usage;
mod webhooks;

use std::sync::Arc;

use rescind_base::{
    model::{
        Actor, ChangeOrigin, Client, Credential, OnReuse, Phase, Session, Status, Suspension, TokenRules,
    },
    secret::SecretHash,
};
use rescind_verifier::{Algorithm, Allowlist, State};
use tokio::task::JoinSet;

use super::{Result, SessionPart, SigningKeyRecord, Store, StoreError, Swept};
use administrators::*;
use audit::*;
use chain::*;
use cost::logout_writes_as_much_however_many_sessions_live;
use denials::*;
use home::Home;
use management::*;
use operators::*;
use pepper::*;
use sweep::a_sweep_takes_what_is_over_and_nothing_else;
use usage::*;
use webhooks::*;

pub(super) const RULES: TokenRules = TokenRules {
    access_ttl: 3600,
    refresh_ttl: 7200,
    session_max_age: None,
    refresh_grace: None,
    on_reuse: OnReuse::EndRefresh,
};

/// Makes a test of each function on every store.
macro_rules! on_every_store {
    ($($what:ident,)*) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $what() {
                super::$what(&super::Home::folder()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $what() {
                super::$what(&super::Home::database().await).await;
            })*
        }
    };
}

on_every_store![
    what_is_saved_is_loaded_again,
    a_change_is_one_revision_and_nothing_changes_on_an_error,
    sessions_are_changed_with_their_own_client_only,
    a_session_is_ended_whether_its_row_is_there_or_not,
    of_a_hundred_refreshes_at_once_one_wins,
    a_session_is_of_the_generation_that_a_logout_at_the_same_time_leaves,
    a_rule_that_fails_or_panics_costs_nobody_else_anything,
    a_deleted_client_is_loaded_and_not_listed,
    the_first_key_stands,
    the_first_pepper_stands,
    a_pepper_is_added_once_and_retired_once,
    a_secret_is_found_by_each_hash_and_kept_under_the_present_pepper,
    one_key_signs_at_a_time,
    a_sweep_takes_what_is_over_and_nothing_else,
    logout_writes_as_much_however_many_sessions_live,
    a_client_is_created_once_under_a_name_that_must_be_absent,
    what_is_suspended_or_has_ended_is_found_when_its_time_has_come,
    the_sessions_of_a_client_are_listed,
    the_uses_of_credentials_are_added_up_and_the_last_one_stays,
    the_counts_of_an_hour_are_added_up_until_they_are_swept,
    an_expiry_is_told_of_once_whoever_asks,
    a_management_token_is_found_until_it_ends,
    management_tokens_end_with_every_token,
    an_idempotency_key_is_reserved_once,
    administrators_are_changed_as_a_whole,
    a_sign_in_is_good_for_a_time_and_one_generation,
    a_handed_over_secret_is_read_once,
    a_credential_has_a_note,
    every_change_is_on_record,
    what_cannot_be_put_on_record_is_not_done,
    what_is_on_record_is_found_page_by_page,
    what_is_on_record_stays_as_it_is,
    records_are_swept_when_they_are_old_or_too_many,
    one_clients_records_push_out_no_other_clients,
    whoever_follows_the_record_misses_nothing,
    denials_are_found_by_all_that_they_are_asked_for,
    denials_are_swept_when_they_are_old_or_too_many,
    each_node_has_a_chain_that_goes_on_after_a_restart,
    what_many_write_at_once_is_one_chain_for_each_node,
    a_changed_removed_or_moved_row_is_found,
    a_checkpoint_proves_the_end_and_all_before_it,
    what_is_swept_leaves_the_rest_verifiable,
    a_chain_is_walked_in_parts_however_many_cuts_it_has,
    rows_without_a_place_are_old_or_were_added,
    a_sweep_signs_nothing_for_a_row_that_was_changed,
    one_node_has_a_webhook_until_its_claim_ends,
    what_a_receiver_has_not_accepted_is_kept_until_it_has,
];

fn credential(api_key: &str) -> Credential {
    Credential {
        id: 0,
        api_key: api_key.into(),
        secret_hash: SecretHash { bytes: [7; 32], pepper: 1 },
        created_at: 1000,
        expires_at: None,
        revoked_at: None,
        replaced_at: None,
        note: None,
    }
}

pub(super) fn client(api_key: &str) -> Client {
    Client {
        id: 0,
        name: "tést".into(),
        suspension: Suspension::default(),
        status: Status::Active,
        generation: 0,
        tokens_revoked_at: Some(900),
        revision: 0,
        allowlist: Allowlist::from_iter(["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()]),
        certificates: "dns:api.example.com uri:spiffe://example.com/api".parse().unwrap(),
        scopes: "a b".parse().unwrap(),
        resources: "https://api.example.com/b urn:a".parse().unwrap(),
        enforces_allowlist: true,
        introspect_lifetime: Some(7),
        created_at: 1000,
        credentials: vec![credential(api_key)],
    }
}

pub(super) fn origin() -> ChangeOrigin {
    ChangeOrigin {
        at: 1000,
        by: Actor::Operator,
        operator: Some("alice".into()),
        from: None,
        node: "node".into(),
        request: Some("r1".into()),
    }
}

pub(super) fn key(kid: &str) -> SigningKeyRecord {
    SigningKeyRecord {
        refresh_sealed: Some(vec![4, 5]),
        rfc9068: true,
        id: 0,
        kid: kid.into(),
        algorithm: Algorithm::Ed25519,
        sealed: vec![1, 2, 3],
        created_at: 1000,
        signs_from: 1000,
        retire_at: None,
    }
}

pub(super) async fn create(store: &Store, api_key: &str) -> Client {
    store.create_client(client(api_key), false, origin()).await.unwrap().unwrap()
}

pub(super) async fn login(store: &Store, client: &Client, now: u64) -> Session {
    let credential = client.credentials[0].id;
    let open = move |client: &Client| {
        Ok::<_, ()>(Session::open(client, credential, client.scopes.clone(), 1, now, &RULES))
    };
    store.open_session(client.id, open).await.unwrap().unwrap().unwrap()
}

pub(super) async fn logout(store: &Store, client: &Client) -> Client {
    let rule = |client: &mut Client| {
        client.revoke_tokens(1500);
        Ok::<_, ()>(())
    };
    // The client itself logs out.
    let origin = ChangeOrigin { by: Actor::Caller, ..origin() };
    store.change_client(client.id, origin, rule).await.unwrap().unwrap().unwrap().1
}

async fn what_is_saved_is_loaded_again(home: &Home) {
    let store = home.open().await;
    assert!(store.load().await.unwrap().secrets.is_empty());
    store.first_pepper(secrets([("pepper", 9)])).await.unwrap();
    let saved = create(&store, "rk_1").await;
    assert_eq!((saved.id, saved.credentials[0].id), (1, 1));
    store.rotate_key(None, key("k1"), 5, origin()).await.unwrap();
    let session = login(&store, &saved, 2000).await;
    drop(store);

    let store = home.open().await;
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.clients, [saved]);
    assert_eq!(loaded.secrets, secrets([("pepper", 9)]));
    assert_eq!(loaded.keys[0].kid, "k1");
    let found = store.find(1, session.id).await.unwrap();
    assert_eq!(found.session, Some(session));
    assert!(found.client(1).is_some() && found.client(2).is_none());
}

async fn a_change_is_one_revision_and_nothing_changes_on_an_error(home: &Home) {
    let store = home.open().await;
    let saved = create(&store, "rk_1").await;
    let rule = |client: &mut Client| {
        client.name = "other".into();
        client.revoke_tokens(1700);
        client.credentials[0].revoked_at = Some(1);
        client.credentials.push(credential("rk_2"));
        Ok::<_, ()>(5)
    };
    let (outcome, changed) = store.change_client(saved.id, origin(), rule).await.unwrap().unwrap().unwrap();
    assert_eq!((outcome, changed.revision, changed.credentials[1].id), (5, 1, 2));
    assert_eq!(store.clients().await.unwrap(), std::slice::from_ref(&changed));

    let rule = |client: &mut Client| {
        client.name = "lost".into();
        Err::<(), _>("no")
    };
    assert_eq!(store.change_client(saved.id, origin(), rule).await.unwrap().unwrap().unwrap_err(), "no");
    let (_, same) =
        store.change_client(saved.id, origin(), |_| Ok::<_, ()>(())).await.unwrap().unwrap().unwrap();
    assert_eq!(same, changed);
    assert!(store.change_client(99, origin(), |_| Ok::<_, ()>(())).await.unwrap().is_none());
}

async fn sessions_are_changed_with_their_own_client_only(home: &Home) {
    let store = home.open().await;
    let one = create(&store, "rk_1").await;
    let two = create(&store, "rk_2").await;
    let session = login(&store, &one, 2000).await;
    assert!(store.change_session(two.id, session.id, |_, _| ((), None)).await.unwrap().is_none());
    assert!(store.change_session(one.id, 99, |_, _| ((), None)).await.unwrap().is_none());
    let advance = |_: &Client, session: &mut Session| (session.advance(2, 2100, &RULES), None);
    let ((), changed) = store.change_session(one.id, session.id, advance).await.unwrap().unwrap();
    assert_eq!((changed.pair, changed.key, changed.refresh_expires_at), (2, 2, 9300));
    let end = |_: &Client, session: &mut Session| (session.phase = Phase::Ended, None);
    store.change_session(one.id, session.id, end).await.unwrap().unwrap();
    let found = store.find(one.id, session.id).await.unwrap();
    assert_eq!(found.session.unwrap(), Session { phase: Phase::Ended, ..changed });
}

async fn a_session_is_ended_whether_its_row_is_there_or_not(home: &Home) {
    let store = home.open().await;
    let one = create(&store, "rk_1").await;
    let two = create(&store, "rk_2").await;
    let (there, gone) = (login(&store, &one, 9000).await, login(&store, &one, 1000).await);
    store.sweep(0, 8201).await.unwrap();
    for session in [&there, &gone] {
        let ended = Session { phase: Phase::Ended, refresh_expires_at: 20_000, ..session.clone() };
        let (expected, end) = ((session.id == there.id).then(|| there.clone()), ended.clone());
        let rule = move |client: &Client, found: Option<Session>| {
            assert_eq!((client.id, &found), (1, &expected));
            Some((end, None))
        };
        let nothing =
            |_: &Client, found: Option<Session>| found.filter(|_| false).map(|session| (session, None));
        assert_eq!(store.end_session(one.id, session.id, nothing).await.unwrap(), None);
        assert_eq!(store.end_session(one.id, session.id, rule).await.unwrap(), Some(ended.clone()));
        assert_eq!(store.find(one.id, session.id).await.unwrap().session, Some(ended.clone()));
        // A second end changes nothing. Another client cannot end the session.
        let again = |_: &Client, found: Option<Session>| Some((found?, None));
        assert_eq!(store.end_session(one.id, session.id, again).await.unwrap(), Some(ended.clone()));
        assert_eq!(store.end_session(two.id, session.id, again).await.unwrap(), None);
        assert_eq!(store.end_session(99, session.id, again).await.unwrap(), None);
    }
    let ended: Vec<_> = store.load().await.unwrap().ended.iter().map(|e| (e.session, e.until)).collect();
    assert_eq!(ended, [(there.id, 20_000), (gone.id, 20_000)]);
    // The session's number is not given again.
    assert!(login(&store, &one, 9000).await.id > gone.id);
}

async fn of_a_hundred_refreshes_at_once_one_wins(home: &Home) {
    let store = Arc::new(home.open().await);
    let client = create(&store, "rk_1").await;
    let session = login(&store, &client, 1000).await;
    let mut refreshes = JoinSet::new();
    for _ in 0..100 {
        let (store, session) = (Arc::clone(&store), session.clone());
        let rule = |_: &Client, session: &mut Session| {
            let first = session.pair == 1;
            if first {
                session.advance(1, 1001, &RULES);
            }
            (first, None)
        };
        refreshes.spawn(async move { store.change_session(session.client, session.id, rule).await });
    }
    let outcomes = refreshes.join_all().await;
    let won = outcomes.into_iter().filter(|outcome| outcome.as_ref().unwrap().as_ref().unwrap().0);
    assert_eq!(won.count(), 1);
    assert_eq!(store.find(client.id, session.id).await.unwrap().session.unwrap().pair, 2);
}

// check 18
async fn a_session_is_of_the_generation_that_a_logout_at_the_same_time_leaves(home: &Home) {
    async fn generation(store: &Store) -> u64 {
        store.clients().await.unwrap()[0].generation
    }

    let store = Arc::new(home.open().await);
    let client = create(&store, "rk_1").await;
    let mut logins = JoinSet::new();
    for _ in 0..20 {
        let (shared, login_of) = (Arc::clone(&store), client.clone());
        logins.spawn(async move {
            let before = generation(&shared).await;
            let session = login(&shared, &login_of, 1000).await;
            assert!((before..=generation(&shared).await).contains(&session.generation));
        });
        logout(&store, &client).await;
    }
    logins.join_all().await;
    assert_eq!(generation(&store).await, 20);
}

// check 90
async fn a_rule_that_fails_or_panics_costs_nobody_else_anything(home: &Home) {
    let store = home.open().await;
    let saved = create(&store, "rk_1").await;
    let duplicate = store.create_client(client("rk_1"), false, origin());
    let panicking =
        store.change_client(saved.id, origin(), |_| -> Result<(), ()> { panic!("a rule's own fault") });
    let good = store.create_client(client("rk_3"), false, origin());
    let (duplicate, panicking, good) = tokio::join!(duplicate, panicking, good);
    assert!(matches!(duplicate, Err(StoreError::Unavailable(_))));
    assert!(matches!(panicking, Err(StoreError::Unavailable(_))));
    assert_eq!(store.clients().await.unwrap(), [saved, good.unwrap().unwrap()]);
}

async fn a_deleted_client_is_loaded_and_not_listed(home: &Home) {
    let store = home.open().await;
    let saved = create(&store, "rk_1").await;
    let rule = |client: &mut Client| {
        client.status = Status::Deleted;
        Ok::<_, ()>(())
    };
    let ((), deleted) = store.change_client(saved.id, origin(), rule).await.unwrap().unwrap().unwrap();
    assert_eq!(store.load().await.unwrap().clients, [deleted]);
    assert_eq!(store.clients().await.unwrap(), []);
}

async fn the_first_key_stands(home: &Home) {
    let store = home.open().await;
    store.first_key(key("k1"), origin()).await.unwrap();
    let keys = store.first_key(key("k2"), origin()).await.unwrap();
    assert_eq!(keys.iter().map(|k| k.kid.as_str()).collect::<Vec<_>>(), ["k1"]);
}

async fn one_key_signs_at_a_time(home: &Home) {
    let store = home.open().await;
    store.rotate_key(None, key("k1"), 5, origin()).await.unwrap();
    let keys = store.rotate_key(None, key("k2"), 500, origin()).await.unwrap();
    let state: Vec<_> = keys.iter().map(|k| (k.id, k.kid.as_str(), k.retire_at)).collect();
    assert_eq!(state, [(1, "k1", Some(500)), (2, "k2", None)]);
    // Of two rotations of one key, the second comes too late.
    assert_eq!(store.rotate_key(Some(1), key("k3"), 500, origin()).await.unwrap().len(), 2);
    let left = store.retire_keys(origin(), |key| key.retire_at.is_some_and(|at| at < 501)).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(store.load().await.unwrap().keys[0].kid, "k2");
}
