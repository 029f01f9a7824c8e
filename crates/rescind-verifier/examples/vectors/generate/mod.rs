//! The content of the test vectors. The verdicts are written by hand.

pub(crate) mod format;
mod keys;
mod signatures;
mod state;
mod texts;

use rescind_verifier::{Claims, Profile, UnixSeconds};

use format::{Client, Session, Vectors};

pub(crate) const NOW: UnixSeconds = 1_736_942_400;

/// An address on the allowlist of client 42.
const CALLER: &str = "203.0.113.7";

const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "https://api.example";
const API_KEY: &str = "rk_0123456789";

/// All test vectors.
pub(crate) fn vectors() -> Vectors {
    let cases = [signatures::cases(), texts::cases(), state::cases()].concat();
    Vectors {
        now: NOW,
        profile: format::Profile { issuer: ISSUER.to_owned(), audience: AUDIENCE.to_owned() },
        keys: keys::good(),
        refused_keys: keys::refused(),
        clients: vec![
            Client {
                id: 42,
                name: "billing".to_owned(),
                generation: 5,
                active: true,
                allowlist: vec!["203.0.113.0/24".to_owned(), "2001:db8::/32".to_owned()],
                scopes: "orders:read orders:write".to_owned(),
                credentials: vec![3, 4],
            },
            Client {
                id: 43,
                name: "suspended".to_owned(),
                generation: 1,
                active: false,
                allowlist: vec![],
                scopes: String::new(),
                credentials: vec![5],
            },
            Client {
                id: 44,
                name: "from anywhere".to_owned(),
                generation: 0,
                active: true,
                allowlist: vec![],
                scopes: "orders:read".to_owned(),
                credentials: vec![6],
            },
        ],
        sessions: vec![
            Session { id: 7, client: 42, pair: 2, ended: false },
            Session { id: 8, client: 42, pair: 1, ended: true },
            Session { id: 9, client: 43, pair: 1, ended: false },
            Session { id: 10, client: 44, pair: 1, ended: false },
        ],
        cases,
    }
}

fn profile() -> Profile {
    Profile::new(ISSUER, AUDIENCE).unwrap()
}

/// The claims of a valid access token of client 42.
fn claims() -> Claims {
    Claims {
        client: 42,
        issued_at: NOW,
        expires_at: NOW + 3600,
        session: 7,
        credential: 3,
        generation: 5,
        pair: 2,
        scopes: "orders:read orders:write".parse().unwrap(),
        resources: Default::default(),
    }
}

/// The text of a payload with these claims, as an access token of client 42 has it.
fn written(claims: &Claims) -> String {
    claims.write(&profile(), Some(API_KEY))
}

/// The payload of [`claims`], in clear.
fn payload() -> String {
    written(&claims())
}

/// `text` with one part replaced. Panics if the part is missing, because the case would then test nothing.
fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in {text:?}");
    text.replacen(from, to, 1)
}
