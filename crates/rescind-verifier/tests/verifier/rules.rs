//! Every reason for refusal on its own, and which one is reported when several apply.

use rescind_verifier::{Denied, Kind, Profile};

use crate::fixture::{NOW, STRANGER, Scene, claims};

#[test]
fn the_scene_stands() {
    let verified = Scene::good().verify().unwrap();
    assert_eq!(verified.claims(), &claims());
    assert_eq!(verified.client().name, "billing");
}

/// A change that breaks one rule.
type Fault = fn(&mut Scene);

const MALFORMED: Fault = |scene| {
    // Keeps any other fault of the text: one character less of the tag.
    scene.spoil = |mut token| {
        token.pop();
        token
    }
};
const UNKNOWN_KEY: Fault = |scene| scene.signer.id = STRANGER.id;
const BAD_SIGNATURE: Fault = |scene| scene.signer.secret = STRANGER.secret;
const WRONG_KIND: Fault = |scene| scene.kind = Kind::Refresh;
const WRONG_ISSUER: Fault =
    |scene| scene.profile = Profile::new("https://id.example.evil", scene.profile.audience()).unwrap();
const WRONG_AUDIENCE: Fault =
    |scene| scene.profile = Profile::new(scene.profile.issuer(), "https://billing.example").unwrap();
const NOT_YET_VALID: Fault = |scene| scene.claims.issued_at = NOW + 61;
const EXPIRED: Fault = |scene| scene.claims.expires_at = NOW;
const CLIENT_NOT_KNOWN: Fault = |scene| scene.claims.client = 43;
const GENERATION_AHEAD: Fault = |scene| scene.claims.generation = 6;
const CLIENT_INACTIVE: Fault = |scene| scene.client().active = false;
const CREDENTIAL_REVOKED: Fault = |scene| scene.client().credentials = vec![4];
const PAIR_AHEAD: Fault = |scene| scene.claims.pair = 3;
const SESSION_ENDED: Fault = |scene| scene.session().ended = true;
const WRONG_ADDRESS: Fault = |scene| scene.caller = Some("198.51.100.1".parse().unwrap());

#[test]
fn malformed() {
    assert_eq!(Scene::denied(MALFORMED), Denied::Malformed);
}

#[test]
fn unknown_key() {
    assert_eq!(Scene::denied(UNKNOWN_KEY), Denied::UnknownKey);
}

#[test]
fn bad_signature() {
    assert_eq!(Scene::denied(BAD_SIGNATURE), Denied::BadSignature);
}

#[test]
fn wrong_kind() {
    assert_eq!(Scene::denied(WRONG_KIND), Denied::WrongKind);
}

#[test]
fn wrong_issuer() {
    assert_eq!(Scene::denied(WRONG_ISSUER), Denied::WrongIssuer);
}

#[test]
fn wrong_audience() {
    assert_eq!(Scene::denied(WRONG_AUDIENCE), Denied::WrongAudience);
}

#[test]
fn not_yet_valid() {
    assert_eq!(Scene::denied(NOT_YET_VALID), Denied::NotYetValid);
}

#[test]
fn expired() {
    assert_eq!(Scene::denied(EXPIRED), Denied::Expired);
}

#[test]
fn not_known() {
    for fault in [CLIENT_NOT_KNOWN, GENERATION_AHEAD, PAIR_AHEAD] {
        assert_eq!(Scene::denied(fault), Denied::NotKnown);
    }
}

#[test]
fn client_inactive() {
    assert_eq!(Scene::denied(CLIENT_INACTIVE), Denied::ClientInactive);
}

#[test]
fn revoked() {
    for fault in [CREDENTIAL_REVOKED, SESSION_ENDED] {
        assert_eq!(Scene::denied(fault), Denied::Revoked);
    }
}

#[test]
fn address_not_allowed() {
    assert_eq!(Scene::denied(WRONG_ADDRESS), Denied::AddressNotAllowed);
}

/// The order that callers see: a forger learns nothing of the token's claims, an expired token is reported as
/// expired even if it was revoked, and an address is checked only for a valid token.
#[test]
fn the_first_rule_broken_is_the_one_told() {
    let in_order: [(Fault, Denied); 14] = [
        (MALFORMED, Denied::Malformed),
        (UNKNOWN_KEY, Denied::UnknownKey),
        (BAD_SIGNATURE, Denied::BadSignature),
        (WRONG_KIND, Denied::WrongKind),
        (WRONG_ISSUER, Denied::WrongIssuer),
        (WRONG_AUDIENCE, Denied::WrongAudience),
        (NOT_YET_VALID, Denied::NotYetValid),
        (EXPIRED, Denied::Expired),
        (GENERATION_AHEAD, Denied::NotKnown),
        (CLIENT_INACTIVE, Denied::ClientInactive),
        (CREDENTIAL_REVOKED, Denied::Revoked),
        (PAIR_AHEAD, Denied::NotKnown),
        (SESSION_ENDED, Denied::Revoked),
        (WRONG_ADDRESS, Denied::AddressNotAllowed),
    ];
    for (i, (first, denied)) in in_order.iter().enumerate() {
        for (second, later) in &in_order[i + 1..] {
            let told = Scene::denied(|scene| {
                first(scene);
                second(scene);
            });
            assert_eq!(told, *denied, "rather than {later:?}");
        }
    }
    let told = Scene::denied(|scene| in_order[2..].iter().for_each(|(fault, _)| fault(scene)));
    assert_eq!(told, Denied::BadSignature);
}

#[test]
fn only_a_token_that_the_issuer_wrote_proves_its_claims_when_it_is_refused() {
    let refused = |fault: Fault| {
        let mut scene = Scene::good();
        fault(&mut scene);
        let refused = scene.verify_explained().unwrap_err();
        assert_eq!(refused.reason, scene.verify().unwrap_err());
        assert!(refused.claims.as_ref().is_none_or(|claims| **claims == scene.claims));
        refused.claims.is_some()
    };
    for fault in [MALFORMED, UNKNOWN_KEY, BAD_SIGNATURE, WRONG_KIND, WRONG_ISSUER, WRONG_AUDIENCE] {
        assert!(!refused(fault));
    }
    for fault in
        [NOT_YET_VALID, EXPIRED, GENERATION_AHEAD, CLIENT_INACTIVE, PAIR_AHEAD, SESSION_ENDED, WRONG_ADDRESS]
    {
        assert!(refused(fault));
    }
}

#[test]
fn an_expired_token_that_was_revoked_is_expired() {
    let told = Scene::denied(|scene| {
        EXPIRED(scene);
        scene.client().generation += 1;
    });
    assert_eq!(told, Denied::Expired);
}

#[test]
fn a_revoked_token_from_a_wrong_address_is_revoked() {
    let told = Scene::denied(|scene| {
        WRONG_ADDRESS(scene);
        scene.client().generation += 1;
    });
    assert_eq!(told, Denied::Revoked);
}
