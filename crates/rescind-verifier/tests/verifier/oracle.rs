//! Compares the reader of this crate with `jsonwebtoken`, a general reader.
//!
//! Both read every issued token alike. [`crate::mutants`] shows that this crate never accepts more. This crate is
//! stricter, because it accepts one exact text. [`where_ours_is_stricter`] shows each of these
//! differences:
//!
//! - header: its exact bytes, so the order of members, white space, `crit`, `b64`, `jwk`, `jku`,
//!   `x5u`, another `typ`, another `kid` or none are refused; `jsonwebtoken` ignores them all, and
//!   leaves `typ`, `kid` and `crit` to its caller;
//! - payload: its exact bytes, so the order of members, white space, escapes, unknown members
//!   (`nbf`, `cnf`), missing members of our own, and duplicates of any are refused;
//! - `exp`: plain decimal below 2^53; `jsonwebtoken` rounds fractions and exponents;
//! - `iss`: one string; `aud`: one, or a sorted array of more; `jsonwebtoken` takes any array that holds it;
//! - `iat` in the future: refused; `jsonwebtoken` does not look at it;
//! - length: bounded.
//!
//! One more difference cannot be shown without racing the clock: at the second of `exp`, `jsonwebtoken`
//! still accepts a token, which RFC 7519 §4.1.4 forbids.
//!
//! `jsonwebtoken` compares `exp` with the wall clock, and accepts no other time. So its check of `exp` is off
//! (it still requires an `exp` that it can read). The tests compare the value that it read with this crate's
//! value, which this crate has compared with the test's time.

use jsonwebtoken::{Algorithm, DecodingKey, TokenData, Validation, decode};
use proptest::{collection::vec, option, prelude::*, sample::select, test_runner::Config};
use rescind_verifier::{Claims, Denied, Key, Kind, Profile, Resources, Verifier, header_segment};
use serde_json::{Value, json};

use crate::fixture::{HEADER, KEY, NOW, authenticate, base64url, claims, payload, profile, with};

const MAX_INTEGER: u64 = (1 << 53) - 1;

fn peer(token: &str, secret: &[u8], profile: &Profile) -> jsonwebtoken::errors::Result<TokenData<Value>> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.leeway = 0;
    validation.validate_exp = false;
    validation.set_issuer(&[profile.issuer()]);
    validation.set_audience(&[profile.audience()]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    decode(token, &DecodingKey::from_secret(secret), &validation)
}

/// The claims as a JSON reader should see them. The members are repeated here on purpose.
pub(crate) fn as_json(claims: &Claims, profile: &Profile, client_id: Option<&str>) -> Value {
    let mut json = json!({
        "iss": profile.issuer(),
        "aud": profile.audience(),
        "sub": claims.client.to_string(),
        "iat": claims.issued_at,
        "exp": claims.expires_at,
        "sid": claims.session.to_string(),
        "cred": claims.credential,
        "gen": claims.generation,
        "pair": claims.pair,
    });
    match claims.resources.iter().collect::<Vec<_>>().as_slice() {
        [] => {}
        [one] => json["aud"] = (*one).into(),
        several => json["aud"] = several.into(),
    }
    if let Some(client_id) = client_id {
        json["client_id"] = client_id.into();
        json["jti"] = format!("{}-{}", claims.session, claims.pair).into();
    }
    if !claims.scopes.is_empty() {
        json["scope"] = claims.scopes.as_str().into();
    }
    json
}

fn kinds() -> impl Strategy<Value = Kind> {
    select(vec![Kind::Access, Kind::Refresh])
}

fn integers() -> impl Strategy<Value = u64> {
    prop_oneof![0..10u64, 0..=MAX_INTEGER, Just(MAX_INTEGER)]
}

fn any_claims() -> impl Strategy<Value = Claims> {
    let times = (0..MAX_INTEGER).prop_flat_map(|issued_at| (Just(issued_at), issued_at + 1..=MAX_INTEGER));
    let ids = (integers(), integers(), integers(), integers(), integers());
    (ids, times, vec("[!#-\\[\\]-~]{1,12}", 0..6)).prop_map(|(ids, (issued_at, expires_at), scopes)| {
        let (client, session, credential, generation, pair) = ids;
        let scopes = scopes.join(" ").parse().unwrap();
        let resources = Resources::default();
        Claims { client, issued_at, expires_at, session, credential, generation, pair, scopes, resources }
    })
}

proptest! {
    #![proptest_config(Config::with_cases(1024))]

    #[test]
    fn both_accept_what_is_issued(
        claims in any_claims(),
        kind in kinds(),
        id in "[A-Za-z0-9_-]{1,64}",
        secret in vec(any::<u8>(), 32..80),
        issuer in "[!#-\\[\\]-~]{1,40}",
        audience in "[!#-\\[\\]-~]{1,40}",
        others in vec("[a-z]:[!$-;=?-\\[\\]-~]{1,12}", 0..4),
        client_id in option::of("[!#-\\[\\]-~]{1,40}"),
    ) {
        let mut claims = claims;
        if let Ok(resources) = format!("{audience} {}", others.join(" ")).parse::<Resources>() {
            claims.resources = if others.is_empty() { Resources::default() } else { resources };
        }
        let client_id = client_id.as_deref();
        let profile = Profile::new(&issuer, &audience).unwrap();
        let payload = claims.write(&profile, client_id);
        let token = {
            use hmac::{Hmac, KeyInit, Mac};
            let signed = format!("{}.{}", header_segment(rescind_verifier::Algorithm::Hs256, &id, kind), base64url(payload));
            let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&secret).unwrap();
            mac.update(signed.as_bytes());
            format!("{signed}.{}", base64url(mac.finalize().into_bytes()))
        };

        let theirs = peer(&token, &secret, &profile).unwrap();
        prop_assert_eq!(theirs.header.typ.as_deref(), Some(kind.typ()));
        prop_assert_eq!(theirs.header.kid.as_deref(), Some(id.as_str()));
        prop_assert_eq!(&theirs.claims, &as_json(&claims, &profile, client_id));

        let key = Key::hs256(&id, &secret).unwrap();
        let keys = [key.clone(), key.for_refresh_tokens()];
        let verifier = Verifier::new(keys.into_iter().collect(), profile);
        let ours = verifier.authenticate(&token, kind, claims.expires_at - 1);
        prop_assert_eq!(ours.as_ref(), Ok(&claims));
        let late = verifier.authenticate(&token, kind, claims.expires_at);
        prop_assert_eq!(late, Err(Denied::Expired));
    }
}

#[test]
fn where_ours_is_stricter() {
    let stricter = |header: &str, payload: &str, reason| {
        let token = KEY.mint(header, payload);
        assert!(peer(&token, &KEY.secret, &profile()).is_ok(), "{header} {payload}");
        assert_eq!(authenticate(&token), Err(reason), "{header} {payload}");
    };
    let payload = payload();

    for header in [
        r#"{"kid":"k1","typ":"at+jwt","alg":"HS256"}"#.to_owned(),
        with(HEADER, "{", "{ "),
        with(HEADER, "at+jwt", "JWT"),
        with(HEADER, "k1", "k2"),
        with(HEADER, r#","kid":"k1""#, ""),
        with(HEADER, "HS256", "HS\\u003256"),
        with(HEADER, "}", r#","crit":["unknown"],"unknown":1}"#),
        with(HEADER, "}", r#","b64":false,"crit":["b64"]}"#),
        with(HEADER, "}", r#","jku":"https://evil.example/keys"}"#),
        with(HEADER, "}", r#","x5u":"https://evil.example/cert"}"#),
        with(HEADER, "}", r#","jwk":{"kty":"oct","k":"AAAA"}}"#),
    ] {
        stricter(&header, &payload, Denied::UnknownKey);
    }

    let exp = format!(r#""exp":{}"#, claims().expires_at);
    for payload in [
        with(&payload, "{", "{ "),
        with(&payload, "}", "}\n"),
        with(&payload, r#""gen":5,"pair":2"#, r#""pair":2,"gen":5"#),
        with(&payload, "orders:read", "orders\\u003aread"),
        with(&payload, r#","gen":5"#, ""),
        with(&payload, r#","gen":5"#, r#","gen":4,"gen":5"#),
        with(&payload, r#","gen":5"#, r#","gen":"5""#),
        with(&payload, "}", r#","nbf":4000000000}"#),
        with(&payload, "}", r#","cnf":{"jkt":"x"}}"#),
        with(&payload, r#""https://api.example""#, r#"["https://evil.example","https://api.example"]"#),
        with(&payload, r#""https://api.example""#, r#"["https://api.example"]"#),
        with(&payload, r#""https://id.example""#, r#"["https://id.example"]"#),
        with(&payload, &exp, &format!("{exp}.4")),
        with(&payload, &exp, r#""exp":1e10"#),
        with(&payload, &exp, r#""exp":9007199254740992"#),
    ] {
        stricter(HEADER, &payload, Denied::Malformed);
    }
    let future = Claims { issued_at: NOW + 61, ..claims() }.write(&profile(), None);
    stricter(HEADER, &future, Denied::NotYetValid);
    let long = with(&payload, "}", &format!(r#","x":"{}"}}"#, "x".repeat(4096)));
    stricter(HEADER, &long, Denied::Malformed);
}
