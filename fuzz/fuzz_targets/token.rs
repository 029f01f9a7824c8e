//! Any text as a token; any bytes as a header or a payload that the right key signed. What is
//! accepted is byte for byte what the issuer would have written.

#![no_main]

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use libfuzzer_sys::fuzz_target;
use rescind_verifier::{Claims, Key, KeySet, Kind, Profile, Verifier, header_segment};
use sha2::Sha256;

const SECRET: &[u8] = b"the fuzzer's key, and nobody else's";
const NOW: u64 = 1_736_942_400;
/// A payload that stands, to go with headers.
const PAYLOAD: &str = r#"{"iss":"https://id.example","aud":"https://api.example","sub":"42","iat":1736942400,"exp":1736946000,"sid":"7","cred":3,"gen":0,"pair":1,"scope":"a b"}"#;

static PROFILE: LazyLock<Profile> =
    LazyLock::new(|| Profile::new("https://id.example", "https://api.example").unwrap());
static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let key = Key::hs256("k1", SECRET).unwrap();
    Verifier::new(KeySet::from_iter([key.clone(), key.for_refresh_tokens()]), PROFILE.clone())
});
static CACHED: LazyLock<Verifier> = LazyLock::new(|| VERIFIER.clone().with_token_cache(64));

fn sign(header: &str, payload: &[u8]) -> String {
    let mut token = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    let tag = Hmac::<Sha256>::new_from_slice(SECRET).unwrap().chain_update(&token).finalize().into_bytes();
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(tag, &mut token);
    token
}

/// The payload that the issuer would write. `client_id` is not among the claims, so it is taken from where it stands.
fn rewritten(claims: &Claims, payload: &[u8]) -> String {
    let text = str::from_utf8(payload).unwrap();
    let client_id = text.split(r#","client_id":""#).nth(1).and_then(|rest| rest.split('"').next());
    claims.write(&PROFILE, client_id)
}

fn accepted(token: &str) -> Option<(Kind, Claims)> {
    let accepted = [Kind::Access, Kind::Refresh].map(|kind| {
        let verdict = VERIFIER.authenticate(token, kind, NOW);
        for _ in 0..2 {
            assert_eq!(CACHED.authenticate(token, kind, NOW), verdict, "a cache changes no verdict");
        }
        verdict.ok().map(|claims| (kind, claims))
    });
    assert!(accepted.iter().flatten().count() <= 1, "one token is good for one use");
    let (kind, claims) = accepted.into_iter().flatten().next()?;
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let payload = rewritten(&claims, &payload);
    let again = sign(&header_segment(rescind_verifier::Algorithm::Hs256, "k1", kind), payload.as_bytes());
    assert_eq!(again, token, "one meaning has one text");
    assert!(NOW < claims.expires_at);
    Some((kind, claims))
}

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = str::from_utf8(data) {
        accepted(text);
    }
    for kind in [Kind::Access, Kind::Refresh] {
        if let Some((actual, claims)) = accepted(&sign(&header_segment(rescind_verifier::Algorithm::Hs256, "k1", kind), data)) {
            assert_eq!(actual, kind);
            assert_eq!(rewritten(&claims, data).as_bytes(), data);
        }
    }
    let header = URL_SAFE_NO_PAD.encode(data);
    let known = [Kind::Access, Kind::Refresh].iter().any(|&kind| header_segment(rescind_verifier::Algorithm::Hs256, "k1", kind) == header);
    assert_eq!(accepted(&sign(&header, PAYLOAD.as_bytes())).is_some(), known);
});
