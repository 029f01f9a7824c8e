//! The reader held against `jsonwebtoken`, a general one.
//!
//! Every issued token is read alike by both, and whatever ours accepts, `jsonwebtoken` accepts too
//! and reads the same: ours is never the laxer one. The reverse does not hold. Ours is stricter in
//! that it reads one exact text, and [`where_ours_is_stricter`] shows each of these differences:
//!
//! - header: its exact bytes, so the order of members, white space, `crit`, `b64`, `jwk`, `jku`,
//!   `x5u`, another `typ`, another `kid` or none are refused; `jsonwebtoken` ignores them all, and
//!   leaves `typ`, `kid` and `crit` to its caller;
//! - payload: its exact bytes, so the order of members, white space, escapes, unknown members
//!   (`nbf`, `cnf`), missing members of our own, and duplicates of any are refused;
//! - `exp`: plain decimal below 2^53; `jsonwebtoken` rounds fractions and exponents;
//! - `iss`, `aud`: one string; `jsonwebtoken` also takes an array that holds it;
//! - `iat` in the future: refused; `jsonwebtoken` does not look at it;
//! - length: bounded.
//!
//! One more cannot be shown without racing the clock: at the very second of `exp`, `jsonwebtoken`
//! still accepts, where RFC 7519 §4.1.4 says that a token must no longer be.
//!
//! `jsonwebtoken` reads the wall clock for `exp` and cannot be told another time. Its own check of
//! `exp` is therefore off (it still demands one that it can read), and the value that it read is
//! compared with ours, which ours compared with the test's time.

use std::cell::Cell;

use jsonwebtoken::{Algorithm, DecodingKey, TokenData, Validation, decode};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, TestRunner},
};
use rescind_verifier::{Claims, Denied, Key, Kind, Profile, Verifier, header_segment};
use serde_json::{Value, json};

use crate::fixture::{
    HEADER, KEY, NOW, authenticate, base64url, claims, payload, profile, verifier_of, with,
};

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

/// The claims as any JSON reader should see them, written down a second time on purpose.
fn as_json(claims: &Claims, profile: &Profile) -> Value {
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
        Claims { client, issued_at, expires_at, session, credential, generation, pair, scopes }
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
    ) {
        let profile = Profile::new(&issuer, &audience).unwrap();
        let payload = claims.write(&profile);
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
        prop_assert_eq!(&theirs.claims, &as_json(&claims, &profile));

        let key = Key::hs256(&id, &secret).unwrap();
        let verifier = Verifier::new([key].into_iter().collect(), profile);
        let ours = verifier.authenticate(&token, kind, claims.expires_at - 1);
        prop_assert_eq!(ours.as_ref(), Ok(&claims));
        let late = verifier.authenticate(&token, kind, claims.expires_at);
        prop_assert_eq!(late, Err(Denied::Expired));
    }
}

/// One change of a text.
#[derive(Debug, Clone)]
enum Edit {
    Replace(Index, u8),
    Insert(Index, u8),
    Delete(Index),
    Truncate(Index),
    /// Another digit for a digit: what is left is often a good payload still.
    Digit(Index, u8),
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match *self {
            Edit::Replace(at, byte) => *at.get_mut(bytes) = byte,
            Edit::Insert(at, byte) => bytes.insert(at.index(bytes.len()), byte),
            Edit::Delete(at) => drop(bytes.remove(at.index(bytes.len()))),
            Edit::Truncate(at) => bytes.truncate(at.index(bytes.len())),
            Edit::Digit(at, digit) => {
                let digits: Vec<usize> = (0..bytes.len()).filter(|&i| bytes[i].is_ascii_digit()).collect();
                if !digits.is_empty() {
                    bytes[*at.get(&digits)] = digit;
                }
            }
        }
    }
}

fn edits(count: usize) -> impl Strategy<Value = Vec<Edit>> {
    let byte = prop_oneof![0u8..128, select(&b"\"\\{}[],:.+-=_/ 0eE"[..])];
    let edit = prop_oneof![
        (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Edit::Replace(at, byte)),
        (any::<Index>(), byte).prop_map(|(at, byte)| Edit::Insert(at, byte)),
        any::<Index>().prop_map(Edit::Delete),
        any::<Index>().prop_map(Edit::Truncate),
        (any::<Index>(), b'0'..=b'9').prop_map(|(at, digit)| Edit::Digit(at, digit)),
    ];
    vec(edit, 0..=count)
}

fn edited(text: &str, edits: &[Edit]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    edits.iter().for_each(|edit| edit.apply(&mut bytes));
    bytes
}

/// One change of a JSON object's members.
#[derive(Debug, Clone)]
enum MemberEdit {
    Drop(Index),
    Repeat(Index, Index),
    Swap(Index, Index),
    Set(Index, &'static str),
    Add(Index, &'static str),
}

fn member_edits(count: usize) -> impl Strategy<Value = Vec<MemberEdit>> {
    const VALUES: &[&str] = &[
        "0",
        "7",
        "1736946000",
        "9007199254740991",
        "9007199254740992",
        "1e3",
        "1.5",
        "-1",
        "null",
        "true",
        "[]",
        "{}",
        "\"\"",
        "\"7\"",
        "\"a b\"",
        "\"b a\"",
        "\"a  b\"",
        "\"https://id.example\"",
        "\"https://api.example\"",
        "[\"https://api.example\"]",
        "\"\\u0061\"",
        "\"HS256\"",
        "\"none\"",
        "\"at+jwt\"",
        "\"rt+jwt\"",
        "\"k1\"",
    ];
    const MEMBERS: &[&str] = &[
        r#""nbf":0"#,
        r#""cnf":{}"#,
        r#""crit":["b64"]"#,
        r#""b64":false"#,
        r#""jwk":null"#,
        r#""exp":4000000000"#,
        r#""alg":"none""#,
        r#""scope":"a""#,
        r#""x":1"#,
        "",
    ];
    let edit = prop_oneof![
        any::<Index>().prop_map(MemberEdit::Drop),
        any::<(Index, Index)>().prop_map(|(from, to)| MemberEdit::Repeat(from, to)),
        any::<(Index, Index)>().prop_map(|(a, b)| MemberEdit::Swap(a, b)),
        (any::<Index>(), select(VALUES)).prop_map(|(at, value)| MemberEdit::Set(at, value)),
        (any::<Index>(), select(MEMBERS)).prop_map(|(at, member)| MemberEdit::Add(at, member)),
    ];
    vec(edit, 0..=count)
}

fn members_edited(object: &str, edits: &[MemberEdit]) -> String {
    // No value of the fixture's objects holds a comma.
    let mut members: Vec<String> = object.trim_matches(['{', '}']).split(',').map(str::to_owned).collect();
    for edit in edits {
        if members.is_empty() {
            break;
        }
        let count = members.len();
        match *edit {
            MemberEdit::Drop(at) => drop(members.remove(at.index(count))),
            MemberEdit::Repeat(from, to) => {
                let member = members[from.index(count)].clone();
                members.insert(to.index(count + 1), member);
            }
            MemberEdit::Swap(a, b) => members.swap(a.index(count), b.index(count)),
            MemberEdit::Set(at, value) => {
                let member = at.get_mut(&mut members);
                let name = member.split(':').next().unwrap_or_default().to_owned();
                *member = format!("{name}:{value}");
            }
            MemberEdit::Add(at, member) => members.insert(at.index(count + 1), member.to_owned()),
        }
    }
    format!("{{{}}}", members.join(","))
}

/// Tokens that are nearly good: damaged ones, segments of several put together, and ones whose
/// header or payload was changed before they were signed with the right key.
fn near_tokens() -> impl Strategy<Value = String> {
    let other = Claims { client: 43, pair: 9, scopes: Default::default(), ..claims() };
    let tokens: Vec<String> = [claims(), other]
        .iter()
        .flat_map(|claims| [Kind::Access, Kind::Refresh].map(|kind| KEY.issue(kind, claims, &profile())))
        .collect();
    let segments: Vec<String> = tokens.iter().flat_map(|t| t.split('.')).map(str::to_owned).collect();

    prop_oneof![
        (select(tokens), edits(4))
            .prop_map(|(token, edits)| String::from_utf8(edited(&token, &edits)).unwrap_or_default()),
        vec(select(segments), 2..=4).prop_map(|segments| segments.join(".")),
        (edits(1), edits(4))
            .prop_map(|(header, claims)| KEY.mint(edited(HEADER, &header), edited(&payload(), &claims))),
        (member_edits(1), member_edits(3)).prop_map(|(header, claims)| {
            KEY.mint(members_edited(HEADER, &header), members_edited(&payload(), &claims))
        }),
        // A good header, so that more of the payloads are reached.
        edits(3).prop_map(|edits| KEY.mint(HEADER, edited(&payload(), &edits))),
        member_edits(2).prop_map(|edits| KEY.mint(HEADER, members_edited(&payload(), &edits))),
    ]
}

#[test]
fn ours_is_never_the_laxer_one() {
    let verifier = verifier_of(&[KEY]);
    let (accepted, refused) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(Config { cases: 8192, source_file: Some(file!()), ..Config::default() });
    let outcome = runner.run(&near_tokens(), |token| {
        for kind in [Kind::Access, Kind::Refresh] {
            let Ok(claims) = verifier.authenticate(&token, kind, NOW) else {
                refused.set(refused.get() + 1);
                continue;
            };
            accepted.set(accepted.get() + 1);
            let theirs = peer(&token, &KEY.secret, &profile());
            prop_assert!(theirs.is_ok(), "{theirs:?}");
            let theirs = theirs.unwrap();
            prop_assert_eq!(theirs.claims, as_json(&claims, &profile()));
            prop_assert_eq!(theirs.header.typ.as_deref(), Some(kind.typ()));
            prop_assert_eq!(theirs.header.kid.as_deref(), Some(KEY.id));
            prop_assert!(NOW < claims.expires_at);
        }
        Ok(())
    });
    outcome.unwrap();
    // Were all refused, nothing would have been compared.
    assert!(accepted.get() > 100 && refused.get() > 100, "{} accepted", accepted.get());
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
        with(&payload, r#""https://id.example""#, r#"["https://id.example"]"#),
        with(&payload, &exp, &format!("{exp}.4")),
        with(&payload, &exp, r#""exp":1e10"#),
        with(&payload, &exp, r#""exp":9007199254740992"#),
    ] {
        stricter(HEADER, &payload, Denied::Malformed);
    }
    let future = Claims { issued_at: NOW + 61, ..claims() }.write(&profile());
    stricter(HEADER, &future, Denied::NotYetValid);
    let long = with(&payload, "}", &format!(r#","x":"{}"}}"#, "x".repeat(4096)));
    stricter(HEADER, &long, Denied::Malformed);
}
