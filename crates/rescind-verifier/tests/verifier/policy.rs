//! The effect of a client's and a session's state on a token whose text is valid.

use rescind_verifier::{Allowlist, Denied, SessionState};

use crate::fixture::Scene;

fn outcome(change: impl FnOnce(&mut Scene)) -> Result<(), Denied> {
    let mut scene = Scene::good();
    change(&mut scene);
    scene.verify().map(drop)
}

#[test]
fn a_generation_behind_is_revoked_and_one_ahead_is_not_known() {
    let at = |generation| outcome(|scene| scene.claims.generation = generation);
    assert_eq!(at(5), Ok(()));
    assert_eq!(at(4), Err(Denied::Revoked));
    assert_eq!(at(0), Err(Denied::Revoked));
    assert_eq!(at(6), Err(Denied::NotKnown));
}

/// Logout, as a verifier sees it.
#[test]
fn one_increment_revokes_and_the_next_login_stands() {
    let mut scene = Scene::good();
    scene.verify().unwrap();
    scene.client().generation += 1;
    assert_eq!(scene.verify().unwrap_err(), Denied::Revoked);
    scene.claims.generation += 1;
    scene.verify().unwrap();
}

#[test]
fn an_inactive_client_stands_behind_nothing() {
    assert_eq!(outcome(|scene| scene.client().active = false), Err(Denied::ClientInactive));
    let older = outcome(|scene| {
        scene.client().active = false;
        scene.claims.generation = 4;
    });
    assert_eq!(older, Err(Denied::ClientInactive));
}

#[test]
fn a_credential_that_is_gone_takes_its_sessions_along() {
    assert_eq!(outcome(|scene| scene.client().credentials.retain(|&id| id == 3)), Ok(()));
    assert_eq!(outcome(|scene| scene.client().credentials.retain(|&id| id != 3)), Err(Denied::Revoked));
    assert_eq!(outcome(|scene| scene.client().credentials.clear()), Err(Denied::Revoked));
}

#[test]
fn a_client_or_session_that_is_missing_is_not_known() {
    assert_eq!(outcome(|scene| scene.client = None), Err(Denied::NotKnown));
    assert_eq!(outcome(|scene| scene.session = None), Err(Denied::NotKnown));
}

/// The client and the credential are checked first, so the session's state cannot make a token valid again.
#[test]
fn a_missing_session_does_not_hide_a_revocation() {
    let denied = outcome(|scene| {
        scene.session = None;
        scene.client().generation += 1;
    });
    assert_eq!(denied, Err(Denied::Revoked));
}

#[test]
fn a_session_is_good_for_its_own_client_up_to_its_latest_pair() {
    let at =
        |client, pair, ended| outcome(|scene| scene.session = Some(SessionState::new(client, pair, ended)));
    assert_eq!(at(42, 2, false), Ok(()));
    // An older pair's access token runs out by itself.
    assert_eq!(at(42, 3, false), Ok(()));
    assert_eq!(at(42, 1, false), Err(Denied::NotKnown));
    assert_eq!(at(41, 2, false), Err(Denied::NotKnown));
    assert_eq!(at(42, 2, true), Err(Denied::Revoked));
    assert_eq!(at(42, 3, true), Err(Denied::Revoked));
}

#[test]
fn an_allowlist_is_held_against_the_callers_address() {
    let from = |address: &str| outcome(|scene| scene.caller = Some(address.parse().unwrap()));
    assert_eq!(from("203.0.113.255"), Ok(()));
    assert_eq!(from("::ffff:203.0.113.255"), Ok(()));
    assert_eq!(from("203.0.114.0"), Err(Denied::AddressNotAllowed));
    assert_eq!(from("2001:db8::1"), Err(Denied::AddressNotAllowed));
    assert_eq!(outcome(|scene| scene.caller = None), Err(Denied::AddressNotAllowed));
}

#[test]
fn without_an_allowlist_any_address_will_do_but_there_must_be_one() {
    let from = |address: Option<&str>| {
        outcome(|scene| {
            scene.client().allowlist = Allowlist::default();
            scene.caller = address.map(|a| a.parse().unwrap());
        })
    };
    assert_eq!(from(Some("198.51.100.1")), Ok(()));
    assert_eq!(from(Some("2001:db8::1")), Ok(()));
    assert_eq!(from(None), Err(Denied::AddressNotAllowed));
}

/// New scopes of a client are for the next login. Removed scopes are lost to every token at once.
// check 14
#[test]
fn a_token_has_the_scopes_that_its_client_still_has() {
    let scopes = |of_the_client: &str| {
        let mut scene = Scene::good();
        scene.client().scopes = of_the_client.parse().unwrap();
        scene.verify().unwrap().scopes().to_string()
    };
    assert_eq!(scopes("orders:read orders:write"), "orders:read orders:write");
    assert_eq!(scopes("orders:delete orders:read orders:write"), "orders:read orders:write");
    assert_eq!(scopes("orders:delete orders:read"), "orders:read");
    assert_eq!(scopes(""), "");
}
