//! Cases about the state of clients and sessions, the caller's address, and the required scopes.

use rescind_verifier::{Claims, Denied};

use super::{NOW, claims, format::Case, keys::CURRENT};

const SCOPES: &str = "orders:read orders:write";

pub(super) fn cases() -> Vec<Case> {
    [clients(), sessions(), addresses(), scopes(), order()].concat()
}

fn token(claims: Claims) -> String {
    CURRENT.issue(&claims)
}

/// The claims of the client that may call from any address.
fn from_anywhere() -> Claims {
    Claims {
        client: 44,
        session: 10,
        credential: 6,
        generation: 0,
        pair: 1,
        scopes: "orders:read".parse().unwrap(),
        ..claims()
    }
}

fn suspended() -> Claims {
    Claims { client: 43, session: 9, credential: 5, generation: 1, pair: 1, ..claims() }
}

fn clients() -> Vec<Case> {
    let born_under = |generation| token(Claims { generation, ..claims() });
    let with_credential = |credential| token(Claims { credential, ..claims() });
    vec![
        Case::denied("born before the last logout", born_under(4), Denied::Revoked).check(15),
        Case::denied("born before all logouts", born_under(0), Denied::Revoked).check(15),
        Case::denied("born after a logout not heard of", born_under(6), Denied::NotKnown).check(15),
        Case::denied("client suspended", token(suspended()), Denied::ClientInactive).check(17),
        Case::denied(
            "client suspended, and logged out before",
            token(Claims { generation: 0, ..suspended() }),
            Denied::ClientInactive,
        )
        .check(17),
        Case::denied("client not known", token(Claims { client: 41, ..claims() }), Denied::NotKnown),
        Case::stands("of the client's other credential", with_credential(4), SCOPES).check(17),
        Case::denied("credential revoked", with_credential(2), Denied::Revoked).check(17),
    ]
}

fn sessions() -> Vec<Case> {
    let of = |session, pair| token(Claims { session, pair, ..claims() });
    vec![
        Case::stands("of an older pair of its session", of(7, 1), SCOPES),
        Case::denied("of a pair not heard of", of(7, 3), Denied::NotKnown),
        Case::denied("session not known", of(6, 1), Denied::NotKnown),
        Case::denied("session of another client", of(10, 1), Denied::NotKnown),
        Case::denied("session ended", of(8, 1), Denied::Revoked).check(27),
        Case::denied("session ended, of a pair not heard of", of(8, 2), Denied::NotKnown).check(27),
    ]
}

fn addresses() -> Vec<Case> {
    let from = |address: Option<&str>, verdict: Option<Denied>| {
        let name = format!("from {}", address.unwrap_or("an address that could not be told"));
        let case = match verdict {
            None => Case::stands(name, token(claims()), SCOPES),
            Some(denied) => Case::denied(name, token(claims()), denied),
        };
        case.from(address)
    };
    let refused = Some(Denied::AddressNotAllowed);
    let mut cases: Vec<Case> = [
        (Some("203.0.113.0"), None),
        (Some("203.0.113.255"), None),
        (Some("203.0.112.255"), refused),
        (Some("203.0.114.0"), refused),
        (Some("2001:db8::1"), None),
        (Some("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"), None),
        (Some("2001:db9::"), refused),
        (Some("::1"), refused),
        (None, refused),
    ]
    .map(|(address, verdict)| from(address, verdict).check(70))
    .into();
    for (address, verdict) in [
        ("::ffff:203.0.113.7", None),
        ("::ffff:203.0.114.7", refused),
        // NAT64 translates IPv4 addresses into these (RFC 6052).
        ("64:ff9b::203.0.113.7", None),
        ("64:ff9b::203.0.114.7", refused),
        // Neither contains an IPv4 address for this purpose.
        ("64:ff9b:1::203.0.113.7", refused),
        ("::203.0.113.7", refused),
    ] {
        cases.push(from(Some(address), verdict).check(66).advisory("CVE-2024-24790"));
    }
    for address in ["198.51.100.1", "2001:db9::1", "::ffff:198.51.100.1"] {
        let name = format!("no allowlist, from {address}");
        cases.push(Case::stands(name, token(from_anywhere()), "orders:read").from(Some(address)).check(70));
    }
    let name = "no allowlist, from an address that could not be told";
    cases.push(Case::denied(name, token(from_anywhere()), Denied::AddressNotAllowed).from(None).check(65));
    cases
}

fn scopes() -> Vec<Case> {
    let issued = |scopes: &str| token(Claims { scopes: scopes.parse().unwrap(), ..claims() });
    let needs = |scopes: &str, needed: &str| {
        Case::stands(format!("{needed:?} needed, {scopes:?} issued"), issued(scopes), scopes).requires(needed)
    };
    let lacks = |scopes: &str, needed: &str| {
        let name = format!("{needed:?} needed, only {scopes:?} issued");
        Case::denied(name, issued(scopes), Denied::ScopeMissing).requires(needed)
    };
    let cases = vec![
        needs(SCOPES, "orders:read"),
        needs(SCOPES, "orders:write orders:read"),
        needs("orders:read", "orders:read"),
        lacks("orders:read", "orders:write"),
        lacks("orders:read", "orders:read orders:write"),
        lacks(SCOPES, "orders"),
        lacks(SCOPES, "orders:rea"),
        lacks(SCOPES, "ORDERS:READ"),
        lacks("", "orders:read"),
        // Narrowing a client's scopes narrows every token at once.
        Case::stands(
            "scopes that the client has no more",
            issued("orders:delete orders:read"),
            "orders:read",
        ),
        Case::denied(
            "a scope needed that the client has no more",
            issued("orders:delete orders:read"),
            Denied::ScopeMissing,
        )
        .requires("orders:delete"),
    ];
    cases.into_iter().map(|case| case.check(21)).collect()
}

/// If several rules are broken, the first one is reported.
fn order() -> Vec<Case> {
    let revoked = Claims { generation: 4, ..claims() };
    let expired = Claims { expires_at: NOW, ..revoked.clone() };
    let elsewhere = Some("198.51.100.1");
    vec![
        Case::denied("expired and revoked", token(expired.clone()), Denied::Expired),
        Case::denied("revoked, from a wrong address", token(revoked), Denied::Revoked).from(elsewhere),
        Case::denied("wrong address and a scope missing", token(claims()), Denied::AddressNotAllowed)
            .from(elsewhere)
            .requires("orders:delete"),
        Case::denied("expired refresh token", CURRENT.issue_refresh(&expired), Denied::UnknownKey),
    ]
}
