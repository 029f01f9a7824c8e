//! Cases about headers, keys and signatures (RFC 7515, RFC 8725).

use data_encoding::BASE64URL_NOPAD;
use rescind_verifier::{Claims, Denied, Kind};

use super::{
    claims,
    format::Case,
    keys::{CURRENT, ED, ED25519, ES, PREVIOUS, RETIRED, TestKey, base64url, hs256},
    payload, profile, with,
};

const SCOPES: &str = "orders:read orders:write";

pub(super) fn cases() -> Vec<Case> {
    [good(), algorithms(), headers(), key_ids(), kinds(), damage()].concat()
}

fn access(key: TestKey) -> String {
    key.issue(&claims())
}

/// Signed with the right key under another header.
fn header(name: String, header: String) -> Case {
    Case::denied(name, CURRENT.mint(header, payload()), Denied::UnknownKey)
}

/// The header of every valid access token here.
fn plain() -> String {
    CURRENT.header(Kind::Access)
}

fn good() -> Vec<Case> {
    let bare = Claims { scopes: Default::default(), ..claims() };
    vec![
        Case::stands("access token, HS256", access(CURRENT), SCOPES),
        Case::stands("access token, EdDSA", access(ED), SCOPES),
        Case::stands("access token, Ed25519", access(ED25519), SCOPES),
        Case::stands("access token, ES256", access(ES), SCOPES),
        Case::stands(
            "access token of an earlier version, without client_id and jti",
            CURRENT.mint(plain(), claims().write(&profile(), None)),
            SCOPES,
        ),
        Case::stands("access token without scopes", CURRENT.issue(&bare), ""),
        Case::stands("the key before this one still verifies", access(PREVIOUS), SCOPES).check(48),
        Case::denied("a retired key verifies no more", access(RETIRED), Denied::UnknownKey).check(48),
        Case::denied(
            "one key's header, another key's signature",
            PREVIOUS.mint(plain(), payload()),
            Denied::BadSignature,
        )
        .check(48),
    ]
}

fn algorithms() -> Vec<Case> {
    let mut cases = Vec::new();
    for alg in [
        r#""none""#,
        r#""None""#,
        r#""nOnE""#,
        r#""""#,
        r#""hs256""#,
        r#""HS384""#,
        r#""HS512""#,
        r#""RS256""#,
        r#""ES256""#,
        r#""EdDSA""#,
        r#""Ed25519""#,
        r#"["HS256"]"#,
        "null",
        "256",
    ] {
        let other = with(&plain(), r#""HS256""#, alg);
        let unsigned = format!("{}.{}.", base64url(&other), base64url(payload()));
        cases.push(header(format!("alg {alg}, signed with HS256"), other));
        cases.push(Case::denied(format!("alg {alg}, not signed"), unsigned, Denied::Malformed));
    }
    cases.push(header("alg missing".to_owned(), with(&plain(), r#""alg":"HS256","#, "")));

    for (key, other) in [(ED, ES), (ES, ED)] {
        let (alg, kid) = (key.algorithm.name(), key.kid);
        let by = |signer: TestKey| signer.mint(key.header(Kind::Access), payload());
        cases.push(Case::denied(
            format!("{alg} header, signed by the {} key", other.algorithm.name()),
            by(other),
            Denied::BadSignature,
        ));
        cases.push(Case::denied(format!("{alg} header, HS256 tag"), by(CURRENT), Denied::Malformed));

        let confused = with(&key.header(Kind::Access), alg, "HS256");
        let text = format!("{}.{}", base64url(confused), base64url(payload()));
        let tag = hs256(&key.verification_bytes(), &text);
        cases.push(Case::denied(
            format!("the public key of {kid} taken for an HS256 secret"),
            format!("{text}.{}", base64url(tag)),
            Denied::UnknownKey,
        ));
    }
    for (key, other) in [(ED, ED25519), (ED25519, ED)] {
        let other = with(&key.header(Kind::Access), key.algorithm.name(), other.algorithm.name());
        let name = format!("the other name of {}, signed with its key", key.algorithm.name());
        cases.push(Case::denied(name, key.mint(other, payload()), Denied::UnknownKey));
    }
    let text = format!("{}.{}", base64url(ES.header(Kind::Access)), base64url(payload()));
    let zeros = format!("{text}.{}", base64url([0; 64]));
    cases.push(Case::denied("ES256 with r = s = 0", zeros, Denied::BadSignature).advisory("CVE-2022-21449"));
    let mut cases: Vec<Case> = cases.into_iter().map(|case| case.check(34)).collect();
    cases.push(Case::denied("ES256 with n - s for s", ES.sign_high(&text), Denied::BadSignature).check(41));
    cases
}

fn headers() -> Vec<Case> {
    let mut cases = Vec::new();
    let secret = base64url(RETIRED.secret());
    let jwk = format!(r#""jwk":{{"kty":"oct","alg":"HS256","kid":"current","k":"{secret}"}}"#);
    for (name, member) in [
        ("jwk", jwk.as_str()),
        ("jku", r#""jku":"https://evil.example/keys""#),
        ("x5u", r#""x5u":"https://evil.example/cert""#),
        ("x5c", r#""x5c":["MIIB"]"#),
    ] {
        let text = with(&plain(), "}", &format!(",{member}}}"));
        let theirs = RETIRED.mint(&text, payload());
        let own = header(format!("{name} in the header, signed with our key"), text);
        let foreign =
            Case::denied(format!("{name} in the header, signed with its key"), theirs, Denied::UnknownKey);
        for case in [own, foreign] {
            let case = case.check(36);
            cases.push(if name == "jwk" { case.advisory("CVE-2026-27962") } else { case });
        }
    }
    for member in [
        r#""crit":["exp"]"#,
        r#""crit":["unknown"],"unknown":1"#,
        r#""crit":[]"#,
        r#""b64":false"#,
        r#""b64":false,"crit":["b64"]"#,
        r#""zip":"DEF""#,
    ] {
        let text = with(&plain(), "}", &format!(",{member}}}"));
        let case = header(format!("{member} in the header"), text).check(38);
        cases.push(if member.contains("crit") { case.advisory("CVE-2026-32597") } else { case });
    }
    let not_encoded = format!("{}.{}", base64url(plain()), payload());
    let not_encoded = CURRENT.sign(&not_encoded);
    cases.push(Case::denied("payload not encoded (RFC 7797)", not_encoded, Denied::Malformed).check(38));

    for (name, from, to) in [
        ("alg", r#""alg""#, r#""alg":"none","alg""#),
        ("typ", r#""typ""#, r#""typ":"rt+jwt","typ""#),
        ("kid", r#""kid""#, r#""kid":"current","kid""#),
    ] {
        cases.push(header(format!("{name} twice in the header"), with(&plain(), from, to)).check(40));
    }
    for (name, text) in [
        ("white space in the header", with(&plain(), "{", "{ ")),
        ("escape in the header", with(&plain(), "HS256", "HS\\u003256")),
        ("header in another order", r#"{"typ":"at+jwt","alg":"HS256","kid":"current"}"#.to_owned()),
    ] {
        cases.push(header(name.to_owned(), text));
    }
    cases
}

fn key_ids() -> Vec<Case> {
    let kids = [
        "../../../../dev/null",
        "current' OR '1'='1",
        "current\\u0000",
        "current\0",
        "\\u0063urrent",
        "",
        "curren",
        "currentt",
        "CURRENT",
        "current ",
        "unknown",
    ];
    let quoted = kids.map(|kid| format!("{kid:?} as key id")).into_iter().zip(kids);
    let mut cases: Vec<Case> =
        quoted.map(|(name, kid)| header(name, with(&plain(), "current", kid))).collect();
    for kid in ["null", "1", r#"["current"]"#] {
        cases.push(header(format!("{kid} as key id"), with(&plain(), r#""current""#, kid)));
    }
    cases.push(header("no key id".to_owned(), with(&plain(), r#","kid":"current""#, "")));
    let long = CURRENT.mint(with(&plain(), "current", &"k".repeat(5000)), payload());
    cases.push(Case::denied("key id of 5000 characters", long, Denied::Malformed));
    cases.into_iter().map(|case| case.check(37)).collect()
}

fn kinds() -> Vec<Case> {
    let mut cases = Vec::new();
    for key in [CURRENT, ED, ES] {
        let alg = key.algorithm.name();
        let name = format!("refresh token of the {alg} key's sessions");
        cases.push(Case::denied(name, key.issue_refresh(&claims()), Denied::UnknownKey));
        let name = format!("refresh token, signed by the {alg} key itself");
        cases.push(Case::denied(name, key.mint(key.header(Kind::Refresh), payload()), Denied::UnknownKey));
        let name = format!("what a refresh token says, as an access token of the {alg} key");
        let payload = claims().write(&profile().of_refresh_tokens(), None);
        cases.push(Case::denied(name, key.mint(key.header(Kind::Access), payload), Denied::WrongAudience));
    }
    let text = format!("{}.{}", base64url(plain()), base64url(payload()));
    let name = "access token, signed by the key of the refresh tokens";
    cases.push(Case::denied(name, CURRENT.sign_refresh(&text), Denied::BadSignature));
    for typ in ["JWT", "at+JWT", "application/at+jwt", ""] {
        cases.push(header(format!("typ {typ:?}"), with(&plain(), "at+jwt", typ)));
    }
    cases.push(header("typ missing".to_owned(), with(&plain(), r#""typ":"at+jwt","#, "")));
    cases.into_iter().map(|case| case.check(39)).collect()
}

/// Bytes cut off or changed after signing.
fn damage() -> Vec<Case> {
    let mut cases = Vec::new();
    for key in [CURRENT, ED, ES] {
        let alg = key.algorithm.name();
        let token = access(key);
        let (dot, tag) = (token.find('.').unwrap(), token.rfind('.').unwrap() + 1);
        for (what, length) in [
            ("its last character", token.len() - 1),
            ("half its signature", tag + (token.len() - tag) / 2),
            ("its signature", tag),
            ("its signature and a dot", tag - 1),
            ("all but its header", dot),
        ] {
            let cut = Case::denied(format!("cut off: {what}, {alg}"), &token[..length], Denied::Malformed);
            cases.push(cut.advisory("CVE-2026-27840"));
        }
        for (what, at, denied) in [
            ("header", dot / 2, Denied::UnknownKey),
            ("payload", (dot + tag) / 2, Denied::BadSignature),
            ("signature", tag + 1, Denied::BadSignature),
            ("signature's second half", tag + (token.len() - tag) * 3 / 4, Denied::BadSignature),
        ] {
            let text = flipped(&token, at);
            cases.push(Case::denied(format!("one bit of the {what} changed, {alg}"), text, denied));
        }
    }
    // Equal modulo the order of the group, so that only a look at its size refuses it (RFC 8032 §5.1.7).
    let token = access(ED);
    let (text, signature) = token.rsplit_once('.').unwrap();
    let mut signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    add(&mut signature[32..], &ED25519_ORDER);
    let larger = format!("{text}.{}", base64url(signature));
    cases.push(Case::denied("EdDSA with S larger by the group's order", larger, Denied::BadSignature));
    cases.into_iter().map(|case| case.check(42)).collect()
}

/// 2^252 + 27742317777372353535851937790883648493, the lowest byte first.
const ED25519_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// The sum of two integers, the lowest byte first.
fn add(number: &mut [u8], other: &[u8; 32]) {
    let mut carry = 0;
    for (byte, other) in number.iter_mut().zip(other) {
        let sum = u16::from(*byte) + u16::from(*other) + carry;
        (*byte, carry) = ((sum & 0xff) as u8, sum >> 8);
    }
    assert_eq!(carry, 0);
}

/// The token with one base64url digit replaced by the digit that differs from it in the lowest bit.
fn flipped(token: &str, at: usize) -> String {
    let digit = BASE64URL_NOPAD.decode(format!("{}A", &token[at..=at]).as_bytes()).unwrap()[0];
    let other = base64url([digit ^ 0b100]);
    format!("{}{}{}", &token[..at], &other[..1], &token[at + 1..])
}
