//! The key set (RFC 7517), read by an independent implementation.

use data_encoding::BASE64URL_NOPAD;
use hmac::Mac;
use jsonwebtoken::{Algorithm, DecodingKey, TokenData, Validation, decode, decode_header, jwk::JwkSet};
use reqwest::Method;
use rescind_admin as admin;
use rescind_base::secret::hmac_sha256;
use serde_json::{Value, json};

use crate::{
    app::{Client, DAY, HOUR, NOW, Pair, TestApp},
    oauth::access_token,
    raw,
    reply::Reply,
};

const ISSUER: &str = "http://127.0.0.1:8080";

async fn key_set(app: &TestApp) -> Value {
    let reply = app.send(app.request(Method::GET, "/.well-known/jwks.json")).await;
    assert_eq!(reply.status, 200);
    reply.json()
}

async fn kids(app: &TestApp) -> Vec<String> {
    let keys = key_set(app).await["keys"].as_array().unwrap().clone();
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

/// Reads a token by `jsonwebtoken`, with the key set alone.
async fn read(app: &TestApp, token: &str) -> TokenData<Value> {
    let keys: JwkSet = serde_json::from_value(key_set(app).await).unwrap();
    let header = decode_header(token).unwrap();
    let jwk = keys.find(header.kid.as_ref().unwrap()).expect("the key in the set");
    let mut validation = Validation::new(header.alg);
    // It reads the wall clock, where tests have one of their own.
    validation.validate_exp = false;
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[ISSUER]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    assert_eq!(jwk.common.key_algorithm.unwrap().to_string(), format!("{:?}", header.alg));
    let key = DecodingKey::from_jwk(jwk).unwrap();
    let mut forged = token.as_bytes().to_vec();
    let middle = token.rfind('.').unwrap() + 10;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    decode::<Value>(str::from_utf8(&forged).unwrap(), &key, &validation).unwrap_err();
    decode(token, &key, &validation).unwrap()
}

/// The kid in a token's header.
fn kid(token: &str) -> String {
    decode_header(token).unwrap().kid.unwrap()
}

async fn rotate(app: &TestApp, algorithm: &str, publish_ahead: &str) -> Vec<Value> {
    let body = json!({"algorithm": algorithm, "publish_ahead": publish_ahead}).to_string();
    let reply = raw::local(&app.socket(), "POST", "/admin/v1/keys/rotate", &body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json().as_array().unwrap().clone()
}

async fn retire(app: &TestApp, kid: &str) -> Reply {
    raw::local(&app.socket(), "POST", &format!("/admin/v1/keys/{kid}/retire"), "").await
}

/// Whether a pair is valid. If not, both its tokens must be refused.
async fn stands(app: &TestApp, pair: &Pair) -> bool {
    let stands = app.stands(&pair.access).await;
    if !stands {
        app.refresh(&pair.refresh).await.is_error(401, "Invalid token");
    }
    stands
}

async fn client_and_pair(app: &TestApp) -> (Client, Pair) {
    let client = app.client().await;
    let pair = app.grant(&client).await;
    (client, pair)
}

// An HS256 key is a secret: whoever has it can sign.
// check 49
#[tokio::test]
async fn secret_keys_are_not_in_the_set() {
    let app = TestApp::start().await;
    assert_eq!(key_set(&app).await, json!({"keys": []}));
    rotate(&app, "HS256", "0s").await;
    assert_eq!(key_set(&app).await, json!({"keys": []}));
    rotate(&app, "EdDSA", "0s").await;
    rotate(&app, "HS256", "0s").await;
    let keys = key_set(&app).await;
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
    assert_eq!(keys["keys"][0]["alg"], "EdDSA");
}

#[tokio::test]
async fn what_is_in_the_set_of_each_algorithm() {
    let app = TestApp::start().await;
    rotate(&app, "EdDSA", "0s").await;
    rotate(&app, "Ed25519", "0s").await;
    let rotated = rotate(&app, "ES256", "0s").await;
    let keys = key_set(&app).await;
    let names = |key: &Value| key.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let [eddsa, ed25519, es256] = keys["keys"].as_array().unwrap().as_slice() else { panic!("{keys}") };
    // No private part, whatever it is called.
    assert_eq!(names(eddsa), ["alg", "crv", "kid", "kty", "use", "x"]);
    assert_eq!(names(ed25519), names(eddsa));
    assert_eq!(names(es256), ["alg", "crv", "kid", "kty", "use", "x", "y"]);
    for (key, kty, crv, alg) in [
        (eddsa, "OKP", "Ed25519", "EdDSA"),
        (ed25519, "OKP", "Ed25519", "Ed25519"),
        (es256, "EC", "P-256", "ES256"),
    ] {
        assert_eq!((&key["kty"], &key["crv"], &key["alg"]), (&json!(kty), &json!(crv), &json!(alg)));
        assert_eq!(key["use"], "sig");
        for coordinate in ["x", "y"].iter().filter_map(|name| key[name].as_str()) {
            let bytes = BASE64URL_NOPAD.decode(coordinate.as_bytes()).unwrap();
            assert_eq!(bytes.len(), 32);
        }
    }
    assert_eq!((&eddsa["kid"], &es256["kid"]), (&rotated[1]["kid"], &rotated[3]["kid"]));
}

#[tokio::test]
async fn either_name_of_ed25519_signs_and_is_verified() {
    let app = TestApp::start().await;
    let mut pairs = vec![];
    for name in ["EdDSA", "Ed25519"] {
        rotate(&app, name, "0s").await;
        let (_, pair) = client_and_pair(&app).await;
        let header = BASE64URL_NOPAD.decode(pair.access.split('.').next().unwrap().as_bytes()).unwrap();
        let header: Value = serde_json::from_slice(&header).unwrap();
        assert_eq!((&header["alg"], &header["typ"]), (&json!(name), &json!("at+jwt")));
        pairs.push(pair);
    }
    let app = app.restart().await;
    for pair in &pairs {
        assert!(stands(&app, pair).await);
    }
    let refused =
        raw::local(&app.socket(), "POST", "/admin/v1/keys/rotate", r#"{"algorithm":"Ed448"}"#).await;
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("HS256, ES256, Ed25519 and EdDSA"), "{}", refused.body);
}

// check 48
#[tokio::test]
async fn an_independent_reader_verifies_our_tokens_with_the_set() {
    let app = TestApp::start().await;
    for algorithm in ["EdDSA", "ES256"] {
        rotate(&app, algorithm, "0s").await;
        let (client, pair) = client_and_pair(&app).await;
        let single = access_token(&app, &client).await;
        for token in [&pair.access, &single] {
            let read = read(&app, token).await;
            assert_eq!(read.header.typ.as_deref(), Some("at+jwt"), "{algorithm}");
            assert_eq!(format!("{:?}", read.header.alg), algorithm);
            assert_eq!(read.claims["sub"], client.id.to_string());
            assert_eq!((&read.claims["iss"], &read.claims["aud"]), (&json!(ISSUER), &json!(ISSUER)));
            assert_eq!(read.claims["iat"], NOW);
            assert_eq!(read.claims["exp"], NOW + u64::try_from(HOUR).unwrap());
        }
        assert!(stands(&app, &pair).await);
    }
}

/// A token's header and payload, still encoded.
fn parts(token: &str) -> (&str, &str) {
    token.rsplit_once('.').unwrap().0.split_once('.').unwrap()
}

// check 92
#[tokio::test]
async fn no_key_that_others_hold_verifies_a_refresh_token() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let mut pairs = vec![("HS256", app.grant(&client).await)];
    for algorithm in ["EdDSA", "ES256"] {
        rotate(&app, algorithm, "0s").await;
        pairs.push((algorithm, app.grant(&client).await));
    }
    // What a verifier is given that is trusted with secrets, and all that anybody else may have.
    let shared = app.app.memory.issuer.keyring().wire_keys(true);
    let public: JwkSet = serde_json::from_value(key_set(&app).await).unwrap();
    assert_eq!((shared.len(), public.keys.len()), (3, 2));
    let accepts = |token: &str| {
        let mut good = 0;
        for algorithm in [Algorithm::HS256, Algorithm::EdDSA, Algorithm::ES256] {
            let mut validation = Validation::new(algorithm);
            (validation.validate_exp, validation.validate_aud) = (false, false);
            let public = public.keys.iter().map(|key| DecodingKey::from_jwk(key).unwrap());
            let secrets = shared.iter().map(|key| BASE64URL_NOPAD.decode(key.key.as_bytes()).unwrap());
            let keys = public.chain(secrets.map(|secret| DecodingKey::from_secret(&secret)));
            good += keys.filter(|key| decode::<Value>(token, key, &validation).is_ok()).count();
        }
        good
    };
    for (algorithm, pair) in pairs {
        assert_eq!((accepts(&pair.access), accepts(&pair.refresh)), (1, 0), "{algorithm}");
        assert!(pair.refresh.starts_with("eyJhbGciOiJIUzI1NiIs"));
        let header = decode_header(&pair.refresh).unwrap();
        assert_eq!((header.alg, header.typ.as_deref()), (Algorithm::HS256, Some("rt+jwt")));
        assert_eq!(header.kid, decode_header(&pair.access).unwrap().kid);
        let payload = BASE64URL_NOPAD.decode(parts(&pair.refresh).1.as_bytes()).unwrap();
        let claims: Value = serde_json::from_slice(&payload).unwrap();
        let audience = format!("{ISSUER}/auth/refresh");
        assert_eq!((&claims["iss"], &claims["aud"]), (&json!(ISSUER), &json!(audience)));
        assert_eq!(claims["exp"], NOW + u64::try_from(7 * DAY).unwrap());
        app.renew(&pair).await;
    }
}

// check 92
#[tokio::test]
async fn no_key_that_others_hold_makes_a_refresh_token() {
    let app = TestApp::start().await;
    let pair = app.grant(&app.client().await).await;
    let shared = app.app.memory.issuer.keyring().wire_keys(true);
    let secret = BASE64URL_NOPAD.decode(shared[0].key.as_bytes()).unwrap().try_into().unwrap();
    let sign = |(header, payload): (&str, &str)| {
        let text = format!("{header}.{payload}");
        let tag = hmac_sha256(&secret).chain_update(&text).finalize().into_bytes();
        format!("{text}.{}", BASE64URL_NOPAD.encode(&tag))
    };
    assert_eq!(sign(parts(&pair.access)), pair.access);
    // In today's form, and in the one in which keys from before sign theirs.
    let (header, payload) = parts(&pair.refresh);
    for forged in [sign((header, payload)), sign((header, parts(&pair.access).1))] {
        app.refresh(&forged).await.is_error(401, "Invalid token");
    }
    app.renew(&pair).await;
}

// check 48
#[tokio::test]
async fn a_key_is_in_the_set_before_it_signs_and_the_old_one_until_it_is_retired() {
    let app = TestApp::start().await;
    let first = rotate(&app, "EdDSA", "0s").await[1]["kid"].as_str().unwrap().to_owned();
    let (client, old) = client_and_pair(&app).await;
    let keys = rotate(&app, "ES256", "10m").await;
    let second = keys[2]["kid"].as_str().unwrap().to_owned();
    assert_eq!((&keys[1]["status"], &keys[2]["status"]), (&json!("signing"), &json!("next")));
    assert_eq!(keys[2]["signs_from"], "2025-01-15T12:10:00Z");
    // The old key's last refresh token is of the second before.
    assert_eq!(keys[1]["retires_at"], "2025-01-22T12:10:00Z");

    assert_eq!(kids(&app).await, [first.as_str(), &second]);
    app.advance(599);
    let last = app.grant(&client).await;
    assert_eq!((kid(&last.access), kid(&last.refresh)), (first.clone(), first.clone()));
    // Neither of them can be retired now: one signs, the other is next.
    for kid in [&first, &second] {
        assert_eq!(retire(&app, kid).await.status, 400);
    }
    app.advance(1);
    let new = app.grant(&client).await;
    assert_eq!((kid(&new.access), kid(&new.refresh)), (second.clone(), second.clone()));
    assert_eq!(kids(&app).await, [first.as_str(), &second]);
    for pair in [&old, &last, &new] {
        assert!(stands(&app, pair).await);
        read(&app, &pair.access).await;
    }
    // A refresh goes over to the new key.
    let renewed = app.renew(&last).await;
    assert_eq!(kid(&renewed.access), second);

    let app = app.restart().await;
    assert!(stands(&app, &old).await);
    assert_eq!(retire(&app, &first).await.status, 200);
    assert_eq!(kids(&app).await, [second.as_str()]);
    assert!(!stands(&app, &old).await && !app.stands(&last.access).await);
    assert!(stands(&app, &new).await && stands(&app, &renewed).await);
    assert_eq!(retire(&app, &first).await.status, 404);
    assert_eq!(retire(&app, &second).await.status, 400);
}

// check 48: a key goes by itself when its last token has run out, and not before
#[tokio::test]
async fn an_old_key_leaves_with_its_last_token() {
    let app = TestApp::start().await;
    rotate(&app, "EdDSA", "0s").await;
    let (_, pair) = client_and_pair(&app).await;
    rotate(&app, "EdDSA", "0s").await;
    let both = kids(&app).await;
    assert_eq!(both.len(), 2);
    app.advance(7 * DAY - 1);
    app.app.sweep().await.unwrap();
    assert_eq!(kids(&app).await, both);
    app.renew(&pair).await;
    app.advance(2);
    app.app.sweep().await.unwrap();
    assert_eq!(kids(&app).await, both[1..]);
}

// What a key set's readers keep for a while must have the key by the time that it signs.
#[tokio::test]
async fn public_keys_are_published_ahead_unless_told_otherwise() {
    let app = TestApp::start().await;
    for (algorithm, signs_from) in [
        ("HS256", "2025-01-15T12:00:00Z"),
        ("EdDSA", "2025-01-15T12:10:00Z"),
        ("ES256", "2025-01-15T12:10:00Z"),
    ] {
        let body = json!({"algorithm": algorithm}).to_string();
        let reply = raw::local(&app.socket(), "POST", "/admin/v1/keys/rotate", &body).await;
        let keys = reply.json();
        assert_eq!(keys.as_array().unwrap().last().unwrap()["signs_from"], signs_from, "{algorithm}");
    }
    let signing: Vec<_> = admin::keys(&app.app).await.unwrap();
    let signing: Vec<_> = signing.iter().filter(|key| key.status == "signing").collect();
    assert_eq!(signing.len(), 1);
    assert_eq!(signing[0].algorithm, "HS256");
}
