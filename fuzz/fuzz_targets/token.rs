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

fn sign(header: &str, payload: &[u8]) -> String {
    let mut token = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    let tag = Hmac::<Sha256>::new_from_slice(SECRET).unwrap().chain_update(&token).finalize().into_bytes();
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(tag, &mut token);
    token
}

fn accepted(token: &str) -> Option<(Kind, Claims)> {
    let accepted = [Kind::Access, Kind::Refresh]
        .map(|kind| VERIFIER.authenticate(token, kind, NOW).ok().map(|claims| (kind, claims)));
    assert!(accepted.iter().flatten().count() <= 1, "one token is good for one use");
    let (kind, claims) = accepted.into_iter().flatten().next()?;
    let rewritten = sign(&header_segment(rescind_verifier::Algorithm::Hs256, "k1", kind), claims.write(&PROFILE).as_bytes());
    assert_eq!(rewritten, token, "one meaning has one text");
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
            assert_eq!(claims.write(&PROFILE).as_bytes(), data);
        }
    }
    let header = URL_SAFE_NO_PAD.encode(data);
    let known = [Kind::Access, Kind::Refresh].iter().any(|&kind| header_segment(rescind_verifier::Algorithm::Hs256, "k1", kind) == header);
    assert_eq!(accepted(&sign(&header, PAYLOAD.as_bytes())).is_some(), known);
});
