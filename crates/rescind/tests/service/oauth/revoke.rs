//! The revocation endpoint (RFC 7009).

use rescind_admin as admin;
use rescind_verifier::follow::wire::EndedSession;

use crate::{
    app::{DAY, HOUR, NOW, Pair, TestApp},
    oauth::{REVOCATION, Who, access_token, ask, introspect, introspector, is_done, issue, revoke},
};

/// Whether every endpoint refuses both tokens of a pair.
async fn is_over(app: &TestApp, pair: &Pair) -> bool {
    let asking = introspector(app).await;
    let stands = app.stands(&pair.access).await;
    let told = introspect(app, Who::Basic(&asking), &pair.access).await;
    assert_eq!(told.json()["active"], stands);
    if !stands {
        app.refresh(&pair.refresh).await.is_error(401, "Invalid token");
    }
    !stands
}

// check 27, 31
#[tokio::test]
async fn a_token_of_either_kind_ends_its_session_and_no_other() {
    let app = TestApp::start().await;
    for by_refresh_token in [true, false] {
        let client = app.client().await;
        let before = app.grant(&client).await;
        let pair = app.renew(&before).await;
        let beside = app.grant(&client).await;
        let single = access_token(&app, &client).await;
        let stranger = app.grant(&app.client().await).await;
        let token = if by_refresh_token { &pair.refresh } else { &pair.access };
        is_done(&revoke(&app, &client, token).await);
        assert!(is_over(&app, &pair).await);
        // The access token of the pair before is the session's as well.
        assert!(!app.stands(&before.access).await);
        assert!(!is_over(&app, &beside).await && !is_over(&app, &stranger).await);
        assert!(app.stands(&single).await);
        // Once more is as good.
        is_done(&revoke(&app, &client, token).await);
        app.renew(&beside).await;
        app.renew(&stranger).await;
        is_done(&revoke(&app, &client, &single).await);
        assert!(!app.stands(&single).await && app.stands(&beside.access).await);
    }
}

// check 12, 31
#[tokio::test]
async fn what_was_revoked_stays_so() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (first, second) = (app.grant(&client).await, app.grant(&client).await);
    is_done(&revoke(&app, &client, &first.refresh).await);
    let app = app.restart().await;
    assert!(is_over(&app, &first).await && !is_over(&app, &second).await);
    app.app.sweep().await.unwrap();
    assert!(is_over(&app, &first).await);
}

// A refresh token used before tells its session as well as any.
#[tokio::test]
async fn a_used_refresh_token_still_ends_its_session() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let first = app.grant(&client).await;
    let second = app.renew(&first).await;
    is_done(&revoke(&app, &client, &first.refresh).await);
    assert!(is_over(&app, &second).await && !app.stands(&first.access).await);
}

// check 26
#[tokio::test]
async fn a_wrong_hint_finds_it_all_the_same() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for hint in ["access_token", "refresh_token", "saml2", ""] {
        for by_refresh_token in [true, false] {
            let pair = app.grant(&client).await;
            let token = if by_refresh_token { &pair.refresh } else { &pair.access };
            let parameters = [("token", token.as_str()), ("token_type_hint", hint)];
            is_done(&ask(&app, REVOCATION, Who::Body(&client), &parameters).await);
            assert!(is_over(&app, &pair).await, "{hint}");
        }
    }
}

// check 26, 33
#[tokio::test]
async fn what_stands_for_nothing_is_revoked_already() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (pair, logged_out) = (app.grant(&client).await, app.grant(&client).await);
    // Before the sweep may delete it.
    let mut unknown = app.session(1).await;
    app.logout(&logged_out.access).await.is_logged_out();
    let again = app.grant(&client).await;
    unknown.id = 99;
    let unknown = app.pair_of(&unknown);
    let elsewhere = TestApp::start().await;
    let foreign = elsewhere.grant(&elsewhere.client().await).await;
    for token in [
        "x",
        "..",
        "🦀",
        &pair.access,
        &logged_out.refresh,
        &unknown.access_token,
        &unknown.refresh_token,
        &foreign.access,
        &foreign.refresh,
        &again.access[..again.access.len() - 1],
        &format!("{}A", again.refresh),
    ] {
        is_done(&revoke(&app, &client, token).await);
    }
    assert!(!is_over(&app, &again).await);
}

// What has expired may be the only word that its client has of a session that goes on.
// check 94
#[tokio::test]
async fn an_expired_token_ends_what_lives_of_its_session() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    app.advance(HOUR);
    is_done(&revoke(&app, &client, &pair.access).await);
    app.refresh(&pair.refresh).await.is_error(401, "Invalid token");

    let first = app.grant(&client).await;
    app.advance(7 * DAY - 1);
    let second = app.renew(&first).await;
    app.advance(1);
    is_done(&revoke(&app, &client, &first.refresh).await);
    assert!(is_over(&app, &second).await);
}

// check 94
#[tokio::test]
async fn a_token_of_a_clock_that_was_ahead_or_behind_ends_its_session() {
    for ahead in [2 * HOUR, -2 * HOUR] {
        let app = TestApp::start().await;
        let client = app.client().await;
        app.advance(ahead);
        let (one, other) = (app.grant(&client).await, app.grant(&client).await);
        app.advance(-ahead);
        is_done(&revoke(&app, &client, &one.access).await);
        is_done(&revoke(&app, &client, &other.refresh).await);
        app.advance(ahead);
        assert!(is_over(&app, &one).await && is_over(&app, &other).await, "{ahead}");
    }
}

// Swept by a clock that was ahead: memory has the session yet, and followers take the signature's word.
// check 94
#[tokio::test]
async fn a_session_whose_row_is_gone_is_ended_all_the_same() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    let gone = app.client().await;
    let logged_out = app.grant(&gone).await;
    app.logout(&logged_out.access).await.is_logged_out();
    app.advance(8 * DAY);
    app.app.sweep().await.unwrap();
    app.advance(-8 * DAY);
    assert!(app.stands(&pair.access).await, "nothing is left that could be ended");
    is_done(&revoke(&app, &client, &pair.access).await);
    assert!(is_over(&app, &pair).await);
    let ended = |app: &TestApp| app.app.memory.registry.feed().ended();
    let (until, session) = (NOW + 7 * DAY as u64, 1);
    assert_eq!(ended(&app), [EndedSession { session, until }]);
    let app = app.restart().await;
    assert!(is_over(&app, &pair).await);
    assert_eq!(ended(&app), [EndedSession { session, until }]);
    // What a logout has ended needs no row of its own.
    is_done(&revoke(&app, &gone, &logged_out.access).await);
    assert_eq!(ended(&app), [EndedSession { session, until }]);
    // The row stays for as long as its tokens.
    app.advance(7 * DAY);
    app.app.sweep().await.unwrap();
    assert_eq!(app.app.store.load().await.unwrap().ended, [EndedSession { session, until }]);
    app.advance(HOUR + 1);
    app.app.sweep().await.unwrap();
    assert_eq!(app.app.store.load().await.unwrap().ended, []);
}

// check 25
#[tokio::test]
async fn only_the_client_that_it_was_issued_to_may_revoke_it() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    let session = app.session(1).await;
    for stranger in [app.client().await, introspector(&app).await] {
        for token in [&pair.access, &pair.refresh] {
            let reply = revoke(&app, &stranger, token).await;
            reply.is_oauth_error(400, "invalid_grant");
        }
    }
    let bad = crate::app::Client { secret: "rs_wrong".into(), ..client.clone() };
    for token in [&pair.access, &pair.refresh] {
        let parameters = [("token", token.as_str())];
        revoke(&app, &bad, token).await.is_oauth_error(401, "invalid_client");
        // A token is no authentication of its client.
        for who in [Who::Nobody, Who::Bearer(&pair.access)] {
            ask(&app, REVOCATION, who, &parameters).await.is_oauth_error(401, "invalid_client");
        }
    }
    assert_eq!(app.session(1).await, session);
    assert!(!is_over(&app, &pair).await);

    // Another credential of the same client is the same client.
    let second = admin::NewCredential::default();
    let second = admin::create_credential(&app.app, client.id, second).await.unwrap();
    let second = crate::app::Client { key: second.api_key, secret: second.api_secret, ..client };
    is_done(&revoke(&app, &second, &pair.refresh).await);
    assert!(is_over(&app, &pair).await);
}

// What may not ask any more need not: its tokens are dead.
#[tokio::test]
async fn a_suspended_client_has_nothing_to_revoke() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    admin::suspend(&app.app, client.id, Default::default()).await.unwrap();
    revoke(&app, &client, &pair.refresh).await.is_oauth_error(401, "invalid_client");
    assert!(is_over(&app, &pair).await);
    issue(&app, &client, None).await.is_oauth_error(401, "invalid_client");
}
