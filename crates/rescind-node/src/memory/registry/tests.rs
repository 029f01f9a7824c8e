use rescind_base::{model::Phase, secret::SecretHash};
use rescind_verifier::{Allowlist, Scopes};

use super::*;

fn client(revision: u64, status: Status) -> Client {
    let credential = Credential {
        id: 1,
        api_key: "rk_a".into(),
        secret_hash: SecretHash { bytes: [0; 32], pepper: 1 },
        created_at: 0,
        expires_at: None,
        revoked_at: None,
        replaced_at: None,
        note: None,
    };
    Client {
        id: 1,
        name: format!("revision {revision}"),
        suspension: rescind_base::model::Suspension::default(),
        status,
        generation: 0,
        tokens_revoked_at: None,
        revision,
        allowlist: Allowlist::default(),
        certificates: CertificateNames::default(),
        scopes: Scopes::default(),
        resources: Default::default(),
        enforces_allowlist: false,
        introspect_lifetime: None,
        created_at: 0,
        credentials: vec![credential],
    }
}

fn registry(max_sessions: usize) -> Registry {
    Registry::new(max_sessions, Feed::new("epoch".into(), vec![]))
}

fn session(id: SessionId, pair: u64, phase: Phase) -> Session {
    Session {
        id,
        client: 1,
        credential: 1,
        key: 1,
        generation: 0,
        scopes: Scopes::default(),
        resources: Default::default(),
        pair,
        phase,
        started_at: 0,
        issued_at: 0,
        access_expires_at: 0,
        refresh_expires_at: 9,
    }
}

#[test]
fn changes_may_arrive_in_any_order() {
    let registry = registry(100);
    let beginning = registry.feed().head().seq;
    registry.apply(&client(2, Status::Active));
    registry.apply(&client(1, Status::Active));
    assert_eq!(registry.client(1).unwrap().revision, 2);
    assert!(registry.credential("rk_a").is_some());
    registry.apply(&client(4, Status::Deleted));
    registry.apply(&client(3, Status::Active));
    assert!(!registry.client(1).unwrap().active);
    assert!(registry.credential("rk_a").is_none());

    let stamp = registry.stamp();
    registry.fill(&session(7, 3, Phase::Ended), stamp);
    registry.fill(&session(7, 2, Phase::Live), registry.stamp());
    assert_eq!(registry.session(7), Some(SessionState::new(1, 3, true)));
    let ended = Changed::Session(EndedSession { session: 7, until: 9 });
    let changes = registry.feed().since(beginning);
    assert_eq!(changes, Some(vec![Changed::Client(1), Changed::Client(1), ended]));
}

#[test]
fn what_a_store_that_took_over_never_had_is_forgotten() {
    let registry = registry(100);
    registry.apply(&client(5, Status::Active));
    registry.apply(&Client { id: 2, credentials: vec![], ..client(1, Status::Active) });
    let stamp = registry.stamp();
    registry.fill(&session(7, 3, Phase::Ended), stamp);
    let stamp = registry.stamp();
    let older = client(4, Status::Suspended);
    registry.replace(std::slice::from_ref(&older), vec![], "f".into());
    assert_eq!(registry.client(1).unwrap().revision, 4);
    assert!(registry.client(2).is_none() && registry.session(7).is_none());
    // A result from before the replacement is dropped.
    registry.fill(&session(7, 1, Phase::Live), stamp);
    assert!(registry.session(7).is_none());
    registry.apply(&client(5, Status::Active));
    assert_eq!(registry.client(1).unwrap().revision, 5);
    registry.replace(&[Client { credentials: vec![], ..older }], vec![], "g".into());
    assert!(registry.credential("rk_a").is_none());
}

// The same holds for the results of a login, a refresh and another node's change.
// check 94
#[test]
fn an_answer_from_before_an_ending_is_not_remembered() {
    let registry = registry(1);
    let live = |id| session(id, 1, Phase::Live);
    let stamp = registry.stamp();
    registry.fill(&session(7, 1, Phase::Ended), stamp);
    // Two other sessions fill both halves of the shard, so the shard drops the ended session.
    registry.fill(&live(7 + 64), registry.stamp());
    registry.fill(&live(7 + 128), registry.stamp());
    assert_eq!(registry.session(7), None);
    registry.fill(&live(7), stamp);
    assert_eq!(registry.session(7), None);
    // Sessions of other shards are not affected.
    registry.fill(&live(8), stamp);
    assert!(registry.session(8).is_some());
    registry.fill(&session(7, 1, Phase::Ended), stamp);
    assert!(registry.session(7).unwrap().ended);
}

#[test]
fn memory_is_bounded() {
    let registry = registry(6400);
    for id in 0..1_000_000 {
        registry.fill(&session(id, 1, Phase::Live), registry.stamp());
    }
    assert!(registry.sessions() <= 6400, "{}", registry.sessions());
    assert!(registry.session(999_999).is_some());
}

#[test]
fn verifications_are_counted_after_a_login_and_no_more_than_matter() {
    let registry = registry(100);
    registry.apply(&client(1, Status::Active));
    let verify = |times| (0..times).for_each(|_| drop(State::client(&registry, 1)));
    verify(100);
    assert_eq!(registry.count_after_login(1), 0);
    verify(3);
    assert_eq!(registry.count_after_login(1), 3);
    verify(100);
    assert_eq!(registry.verifications(1), 2 * COUNTED_PER_LOGIN);
    registry.apply(&client(2, Status::Active));
    assert_eq!(registry.count_after_login(1), 2 * COUNTED_PER_LOGIN);
    verify(1);
    assert_eq!((registry.verifications(1), registry.verifications(2)), (2 * COUNTED_PER_LOGIN + 1, 0));
}
