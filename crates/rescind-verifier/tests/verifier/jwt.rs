//! RFC 7515, 7519 and 8725: tokens that must be refused although their signature may be valid. "Signed"
//! below means signed with the right key, so that only the rule under test can refuse the token.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use hmac::{Hmac, KeyInit, Mac};
use rescind_verifier::{Claims, Denied, Key, KeyError, Kind, MAX_TOKEN_LENGTH, Profile, UnixSeconds};
use sha2::{Sha384, Sha512};

use crate::fixture::{
    HEADER, KEY, NOW, STRANGER, Scene, Signer, authenticate, base64url, claims, payload, profile, token,
    verifier_of, with,
};

/// The reason for which a signed token of this header is refused.
fn header_denied(header: impl AsRef<[u8]>) -> Denied {
    authenticate(&KEY.mint(header, payload())).unwrap_err()
}

/// The reason for which a signed token of this payload is refused.
fn payload_denied(payload: impl AsRef<[u8]>) -> Denied {
    authenticate(&KEY.mint(HEADER, payload)).unwrap_err()
}

/// The valid token from which every test below makes an invalid one.
#[test]
fn the_fixture_writes_what_the_issuer_writes() {
    assert_eq!(KEY.mint(HEADER, payload()), token());
    assert_eq!(authenticate(&token()), Ok(claims()));
}

// check 34
#[test]
fn the_algorithm_is_the_keys() {
    for alg in [
        r#""none""#,
        r#""None""#,
        r#""nOnE""#,
        r#""NONE""#,
        r#""""#,
        r#""hs256""#,
        r#""HS384""#,
        r#""HS512""#,
        r#""RS256""#,
        r#""ES256""#,
        r#""EdDSA""#,
        r#""dir""#,
        r#"["HS256"]"#,
        r#"{"HS256":1}"#,
        "null",
        "256",
        "true",
    ] {
        let header = with(HEADER, r#""HS256""#, alg);
        assert_eq!(header_denied(&header), Denied::UnknownKey, "{header}");
        let unsigned = format!("{}.{}", base64url(&header), base64url(payload()));
        assert_eq!(authenticate(&format!("{unsigned}.")), Err(Denied::Malformed), "{header}");
        assert_eq!(authenticate(&unsigned), Err(Denied::Malformed), "{header}");
    }
    assert_eq!(header_denied(with(HEADER, r#""alg":"HS256","#, "")), Denied::UnknownKey);

    // With the tag that such a header asks for.
    let signed = |alg: &str| format!("{}.{}", base64url(with(HEADER, "HS256", alg)), base64url(payload()));
    let (hs384, hs512) = (signed("HS384"), signed("HS512"));
    let tag384 =
        Hmac::<Sha384>::new_from_slice(&KEY.secret).unwrap().chain_update(&hs384).finalize().into_bytes();
    let tag512 =
        Hmac::<Sha512>::new_from_slice(&KEY.secret).unwrap().chain_update(&hs512).finalize().into_bytes();
    assert_eq!(authenticate(&format!("{hs384}.{}", base64url(tag384))), Err(Denied::Malformed));
    // As long as an Ed25519 signature, so that only the header gives it away.
    assert_eq!(authenticate(&format!("{hs512}.{}", base64url(tag512))), Err(Denied::UnknownKey));
}

// check 35
#[test]
fn keys_under_256_bits_are_refused() {
    for length in [0, 1, 16, 31] {
        assert_eq!(Key::hs256("k1", &vec![1; length]).unwrap_err(), KeyError::TooShort);
    }
    for length in [32, 64, 65, 1024] {
        assert!(Key::hs256("k1", &vec![1; length]).is_ok());
    }
}

// check 36, CVE-2026-27962: a key that the token brings along is never trusted, nor looked at
#[test]
fn keys_in_the_header_are_not_read() {
    let jwk = format!(r#"{{"kty":"oct","alg":"HS256","kid":"k1","k":"{}"}}"#, base64url(STRANGER.secret));
    for member in [
        format!(r#""jwk":{jwk}"#),
        r#""jku":"https://evil.example/keys""#.to_owned(),
        r#""x5u":"https://evil.example/cert""#.to_owned(),
        r#""x5c":["MIIB"]"#.to_owned(),
        r#""x5t":"AAAA""#.to_owned(),
    ] {
        for header in [with(HEADER, "}", &format!(",{member}}}")), with(HEADER, r#""kid":"k1""#, &member)] {
            for signer in [KEY, STRANGER] {
                let denied = authenticate(&signer.mint(&header, payload()));
                assert_eq!(denied, Err(Denied::UnknownKey), "{header}");
            }
        }
    }
}

// check 37
#[test]
fn a_key_id_is_compared_and_nothing_else() {
    for kid in [
        "../../../../dev/null",
        "/etc/passwd",
        "k1' OR '1'='1",
        "k1; DROP TABLE keys",
        "k1\\u0000",
        "k1\0",
        "\\u006b1",
        "",
        "k",
        "k11",
        "K1",
        "k1 ",
        "k2",
    ] {
        let header = with(HEADER, r#""k1""#, &format!(r#""{kid}""#));
        assert_eq!(header_denied(&header), Denied::UnknownKey, "{header:?}");
    }
    for kid in ["null", "1", r#"["k1"]"#, r#"{"k1":"k1"}"#] {
        assert_eq!(header_denied(with(HEADER, r#""k1""#, kid)), Denied::UnknownKey);
    }
    assert_eq!(header_denied(with(HEADER, r#","kid":"k1""#, "")), Denied::UnknownKey);
    assert_eq!(header_denied(with(HEADER, "k1", &"k".repeat(1 << 20))), Denied::Malformed);
}

/// A key id whose characters could be mistaken for the text around it is refused when the key is made.
// check 37
#[test]
fn a_key_id_needs_no_escaping() {
    for id in ["", "a.b", "a/b", "a\"b", "a b", "a\0", "ä", &"k".repeat(65)] {
        assert_eq!(Key::hs256(id, &KEY.secret).unwrap_err(), KeyError::BadId, "{id:?}");
    }
    for id in ["k", "2025-01_A", &"k".repeat(64)] {
        assert!(Key::hs256(id, &KEY.secret).is_ok(), "{id:?}");
    }
}

// check 38, CVE-2026-32597: an unknown `crit` is not ignored
#[test]
fn critical_extensions_are_refused() {
    for member in [
        r#""crit":["exp"]"#,
        r#""crit":["unknown"],"unknown":1"#,
        r#""crit":["b64"],"b64":true"#,
        r#""crit":["b64"],"b64":false"#,
        r#""b64":false"#,
        r#""crit":[]"#,
        r#""crit":null"#,
        r#""zip":"DEF""#,
    ] {
        let header = with(HEADER, "}", &format!(",{member}}}"));
        assert_eq!(header_denied(&header), Denied::UnknownKey, "{header}");
    }
    // RFC 7797: the payload as it is, not encoded.
    let header = with(HEADER, "}", r#","b64":false,"crit":["b64"]}"#);
    let token = KEY.sign(&format!("{}.{}", base64url(header), payload()));
    assert_eq!(authenticate(&token), Err(Denied::UnknownKey));
    let token = KEY.sign(&format!("{}.{}", base64url(HEADER), payload()));
    assert_eq!(authenticate(&token), Err(Denied::Malformed));
}

// check 39, 92
#[test]
fn each_kind_is_refused_for_the_other() {
    let verifier = verifier_of(&[KEY]);
    for (kind, other) in [(Kind::Access, Kind::Refresh), (Kind::Refresh, Kind::Access)] {
        let token = KEY.issue(kind, &claims(), &profile());
        assert_eq!(verifier.authenticate(&token, kind, NOW), Ok(claims()));
        assert_eq!(verifier.authenticate(&token, other, NOW), Err(Denied::WrongKind));
    }
    assert_eq!(Scene::denied(|scene| scene.kind = Kind::Refresh), Denied::WrongKind);
    // Whoever has the key of one kind has not that of the other.
    let keys = KEY.keys().map(|key| rescind_verifier::Verifier::new([key].into_iter().collect(), profile()));
    for (verifier, other) in keys.iter().zip([Kind::Refresh, Kind::Access]) {
        let token = KEY.issue(other, &claims(), &profile());
        for kind in [Kind::Access, Kind::Refresh] {
            assert_eq!(verifier.authenticate(&token, kind, NOW), Err(Denied::UnknownKey));
        }
    }

    for typ in ["JWT", "jwt", "at+JWT", "AT+JWT", "application/at+jwt", "at jwt", ""] {
        assert_eq!(header_denied(with(HEADER, "at+jwt", typ)), Denied::UnknownKey, "{typ}");
    }
    assert_eq!(header_denied(with(HEADER, r#""typ":"at+jwt","#, "")), Denied::UnknownKey);
}

// check 40
#[test]
fn duplicate_names_are_refused() {
    for (from, to) in [
        (r#""alg""#, r#""alg":"none","alg""#),
        (r#""typ""#, r#""typ":"rt+jwt","typ""#),
        (r#""kid""#, r#""kid":"k1","kid""#),
        ("}", r#","kid":"k1"}"#),
    ] {
        let header = with(HEADER, from, to);
        assert_eq!(header_denied(&header), Denied::UnknownKey, "{header}");
    }
    for name in ["iss", "aud", "sub", "iat", "exp", "sid", "cred", "gen", "pair", "scope"] {
        let (start, end) = member(name);
        let text = payload();
        let twice = format!("{},{}", &text[..end], &text[start..]);
        assert_eq!(payload_denied(&twice), Denied::Malformed, "{twice}");
        let at_the_end = with(&text, "}", &format!(",{}}}", &text[start..end]));
        assert_eq!(payload_denied(&at_the_end), Denied::Malformed, "{at_the_end}");
    }
}

/// Where a member of the payload begins and ends. No value of the fixture holds a comma.
fn member(name: &str) -> (usize, usize) {
    let text = payload();
    let start = text.find(&format!(r#""{name}":"#)).unwrap();
    (start, start + text[start..].find([',', '}']).unwrap())
}

// check 41
#[test]
fn only_the_one_base64url_form_is_read() {
    // The tag is made over the text as presented, so a lenient decoder would take all of these. The
    // scopes put both of the characters that the alphabets differ in into the payload.
    let scopes = ">>>> ????".parse().unwrap();
    let payload = Claims { scopes, ..claims() }.write(&profile(), None);
    let (header, good) = (base64url(HEADER), base64url(&payload));
    let signed = |payload: &str| authenticate(&KEY.sign(&format!("{header}.{payload}")));
    signed(&good).unwrap();

    let standard = BASE64.encode(payload.as_bytes());
    assert!(standard.contains('+') && standard.contains('/'));
    for payload in [
        good.replace('-', "+"),
        good.replace('_', "/"),
        standard,
        format!("{good}="),
        format!("{good}=="),
        format!(" {good}"),
        format!("{good} "),
        format!("{good}\n"),
        format!("{good}\r\n"),
        format!("{good}\0"),
        with(&good, "-", "-\n"),
        with(&good, "-", "%2D"),
        format!("\u{feff}{good}"),
        format!("{good}A"),
        String::new(),
    ] {
        assert_eq!(signed(&payload), Err(Denied::Malformed), "{payload:?}");
    }
    for header in [format!("{header}="), format!(" {header}"), format!("{header}\n"), String::new()] {
        let token = KEY.sign(&format!("{header}.{good}"));
        assert_eq!(authenticate(&token), Err(Denied::UnknownKey), "{header:?}");
    }
    let token = KEY.sign(&format!("{header}.{good}"));
    for token in [
        format!("{token}="),
        format!("{token} "),
        format!("{token}\n"),
        format!("{token}\0"),
        format!("Bearer {token}"),
        format!(" {token}"),
        format!("\u{feff}{token}"),
        format!("\"{token}\""),
    ] {
        assert!(authenticate(&token).is_err(), "{token:?}");
    }
}

// check 41
#[test]
fn spare_bits_are_zero() {
    // The tag is 43 characters: the last one has two bits to spare.
    let token = token();
    let last = token.chars().last().unwrap();
    for (spare, other) in spellings(last, 4).into_iter().enumerate().skip(1) {
        let token = format!("{}{other}", &token[..token.len() - 1]);
        assert_eq!(authenticate(&token), Err(Denied::Malformed), "spare bits {spare}");
    }
    // One or two bytes over a multiple of three leave four or two bits to spare.
    for (pair, remainder) in [(2, 1), (20, 2)] {
        let mut text = Claims { pair, ..claims() }.write(&profile(), None);
        while text.len() % 3 != remainder {
            text = with(&text, "orders:write", "orders:writes");
        }
        let encoded = base64url(&text);
        let (rest, last) = encoded.split_at(encoded.len() - 1);
        let count = if remainder == 1 { 16 } else { 4 };
        for (spare, other) in spellings(last.chars().next().unwrap(), count).into_iter().enumerate() {
            let outcome = authenticate(&KEY.sign(&format!("{}.{rest}{other}", base64url(HEADER))));
            if spare == 0 {
                assert_eq!(outcome.unwrap().pair, pair);
            } else {
                assert_eq!(outcome, Err(Denied::Malformed), "spare bits {spare}");
            }
        }
    }
}

/// The characters that differ from `last` only in `count` low values, `last` first.
fn spellings(last: char, count: usize) -> Vec<char> {
    let alphabet: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['-', '_']).collect();
    let index = alphabet.iter().position(|&c| c == last).unwrap();
    assert_eq!(index % count, 0, "{last} has spare bits set already");
    alphabet[index..index + count].to_vec()
}

// check 41
#[test]
fn there_are_three_segments_in_compact_form() {
    let token = token();
    let [header, payload, tag] = segments(&token);
    for token in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        header.to_owned(),
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!("{header}..{tag}"),
        format!(".{payload}.{tag}"),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{tag}"),
        format!("{header}.{payload}.{payload}.{tag}"),
        format!("{header}..{payload}.{tag}"),
        format!("{header}.{payload}.{payload}.{payload}.{tag}"),
        format!(r#"{{"protected":"{header}","payload":"{payload}","signature":"{tag}"}}"#),
        format!(r#"{{"payload":"{payload}","signatures":[{{"protected":"{header}","signature":"{tag}"}}]}}"#),
    ] {
        assert!(authenticate(&token).is_err(), "{token}");
    }
    // Signed, so that the number of segments alone can refuse them.
    for signed in [
        header.to_owned(),
        format!("{header}.{payload}.{payload}"),
        format!("{header}.{payload}.{payload}.{payload}"),
    ] {
        assert_eq!(authenticate(&KEY.sign(&signed)), Err(Denied::Malformed), "{signed}");
    }
}

fn segments(token: &str) -> [&str; 3] {
    let segments: Vec<&str> = token.split('.').collect();
    segments.try_into().unwrap()
}

// check 42, CVE-2026-27840: a truncated token is no token
#[test]
fn every_strict_prefix_is_refused() {
    let token = token();
    for length in 0..token.len() {
        assert!(authenticate(&token[..length]).is_err(), "{length} of {}", token.len());
    }
    assert_eq!(authenticate(&token), Ok(claims()));
}

// check 42
#[test]
fn every_one_bit_flip_is_refused() {
    for kind in [Kind::Access, Kind::Refresh] {
        let token = KEY.issue(kind, &claims(), &profile());
        let verifier = verifier_of(&[KEY]);
        for bit in 0..token.len() * 8 {
            let mut bytes = token.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match String::from_utf8(bytes) {
                Ok(flipped) => {
                    for kind in [Kind::Access, Kind::Refresh] {
                        assert!(verifier.authenticate(&flipped, kind, NOW).is_err(), "bit {bit}");
                    }
                }
                // The high bit of an ASCII byte: a text cannot even hold it.
                Err(_) => assert_eq!(bit % 8, 7),
            }
        }
    }
}

// check 43, CVE-2025-61920, CVE-2025-30204: size and the number of dots cost nothing
#[test]
fn giant_tokens_are_refused_unread() {
    const GIANT: usize = 64 << 20;
    for token in
        [".".repeat(GIANT), "A".repeat(GIANT), "e30.".repeat(GIANT / 4), "\u{1F980}".repeat(GIANT / 4)]
    {
        assert_eq!(authenticate(&token), Err(Denied::Malformed));
    }
    // Too long by one, with nothing else wrong about its form: the key is not even looked for.
    let long = |length: usize| {
        let head = format!("{}.", base64url(HEADER));
        STRANGER.sign(&format!("{head}{}", "A".repeat(length - head.len() - 44)))
    };
    assert_eq!(long(MAX_TOKEN_LENGTH).len(), MAX_TOKEN_LENGTH);
    assert_eq!(authenticate(&long(MAX_TOKEN_LENGTH)), Err(Denied::BadSignature));
    assert_eq!(authenticate(&long(MAX_TOKEN_LENGTH + 1)), Err(Denied::Malformed));
}

/// The fixed buffer has room for the payload of any token that is short enough: this one is read as
/// far as its issuer.
// check 43
#[test]
fn the_longest_payload_fits() {
    let of_issuer =
        |length: usize| KEY.mint(HEADER, with(&payload(), "https://id.example", &"i".repeat(length)));
    let fits =
        (0..MAX_TOKEN_LENGTH).take_while(|&length| of_issuer(length).len() <= MAX_TOKEN_LENGTH).count() - 1;
    assert!(of_issuer(fits).len() + 2 > MAX_TOKEN_LENGTH);
    assert_eq!(authenticate(&of_issuer(fits)), Err(Denied::WrongIssuer));
    assert_eq!(authenticate(&of_issuer(fits + 1)), Err(Denied::Malformed));
}

/// Tokens as the version before this one has written them, with the keys that it signed them with.
const OF_THE_VERSION_BEFORE: [(&str, &str, &str); 3] = [
    (
        "HS256",
        "Hs5vb0-ndtjICpvwNLbn3NLxMQzFp8_IrLkilOt015w",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6ImF0K2p3dCIsImtpZCI6ImN1cnJlbnQifQ.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJhdWQiOiJodHRwczovL2FwaS5leGFtcGxlIiwic3ViIjoiNDIiLCJpYXQiOjE3MzY5NDI0MDAsImV4cCI6MTczNjk0NjAwMCwic2lkIjoiNyIsImNyZWQiOjMsImdlbiI6NSwicGFpciI6Miwic2NvcGUiOiJvcmRlcnM6cmVhZCBvcmRlcnM6d3JpdGUifQ.DsTb4rXJhDSvkP-3AbGgVWNjnTpFdXb8crnExwVb6G4",
    ),
    (
        "EdDSA",
        "pwchbxBsyRcakC4tRt7MBXzELqyn2r1f6OW0oJ-Bq6Q",
        "eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCIsImtpZCI6ImVkIn0.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJhdWQiOiJodHRwczovL2FwaS5leGFtcGxlIiwic3ViIjoiNDIiLCJpYXQiOjE3MzY5NDI0MDAsImV4cCI6MTczNjk0NjAwMCwic2lkIjoiNyIsImNyZWQiOjMsImdlbiI6NSwicGFpciI6Miwic2NvcGUiOiJvcmRlcnM6cmVhZCBvcmRlcnM6d3JpdGUifQ.nBKZ_fMvmojEox5_5OwLh3TCGMmVa_ONXR9BBC_hadyCKpHcGCKBVFNvXyS7enCrFCPYr3y26BoCtM_DmH6DCQ",
    ),
    (
        "ES256",
        "BEjep_ONlvhIhFoWw0Br__E1658ngoSD4DFCxyNxvYpelr-U6BTriVjgMVal7AHyq5btCg9x4-F9eIxAdhrOk4E",
        "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCIsImtpZCI6ImVzIn0.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJhdWQiOiJodHRwczovL2FwaS5leGFtcGxlIiwic3ViIjoiNDIiLCJpYXQiOjE3MzY5NDI0MDAsImV4cCI6MTczNjk0NjAwMCwic2lkIjoiNyIsImNyZWQiOjMsImdlbiI6NSwicGFpciI6Miwic2NvcGUiOiJvcmRlcnM6cmVhZCBvcmRlcnM6d3JpdGUifQ.zAQsaPtbvUpmBf_pCFOxw4xn8Lptm6JFFUZWhhDsYihsfHO8CtfShlswX10kafX8Sn-_GzF2sQoBNntJGkvLZA",
    ),
];

#[test]
fn a_token_of_the_version_before_is_good_until_it_expires() {
    for (algorithm, key, token) in OF_THE_VERSION_BEFORE {
        let bytes = BASE64URL_NOPAD.decode(key.as_bytes()).unwrap();
        let key = match algorithm {
            "HS256" => Key::hs256("current", &bytes),
            "EdDSA" => Key::eddsa("ed", bytes.as_slice().try_into().unwrap()),
            _ => Key::es256("es", &bytes),
        };
        let verifier = rescind_verifier::Verifier::new([key.unwrap()].into_iter().collect(), profile());
        let read = |now| verifier.authenticate(token, Kind::Access, now);
        assert_eq!(read(NOW + 3599), Ok(claims()), "{algorithm}");
        assert_eq!(read(NOW + 3600), Err(Denied::Expired), "{algorithm}");
    }
}

// check 43
#[test]
fn the_longest_token_of_an_issuer_is_read() {
    const MAX: u64 = (1 << 53) - 1;
    let resources =
        ["x:0", "x:"].map(|prefix| format!("{prefix}{}", "a".repeat((1024 - 3) / 2 - prefix.len())));
    let profile = Profile::new(&"i".repeat(255), "a").unwrap().any_audience();
    let claims = Claims {
        client: MAX,
        issued_at: MAX - 1,
        expires_at: MAX,
        session: MAX,
        credential: MAX,
        generation: MAX,
        pair: MAX,
        scopes: "s".repeat(1024).parse().unwrap(),
        resources: resources.join(" ").parse().unwrap(),
    };
    let id = "k".repeat(64);
    let key = Key::hs256(&id, &KEY.secret).unwrap();
    let header = rescind_verifier::header_segment(rescind_verifier::Algorithm::Hs256, &id, Kind::Access);
    let api_key = format!("rk_{}", "k".repeat(64));
    let token = KEY.sign(&format!("{header}.{}", base64url(claims.write(&profile, Some(&api_key)))));
    assert!(token.len() < MAX_TOKEN_LENGTH, "{}", token.len());
    let verifier = rescind_verifier::Verifier::new([key].into_iter().collect(), profile);
    assert_eq!(verifier.authenticate(&token, Kind::Access, MAX - 1), Ok(claims));
}

fn expiring_at(expires_at: UnixSeconds) -> Result<UnixSeconds, Denied> {
    let token = KEY.issue(Kind::Access, &Claims { expires_at, ..claims() }, &profile());
    authenticate(&token).map(|claims| claims.expires_at)
}

// check 44
#[test]
fn a_token_is_good_until_the_second_of_its_expiry() {
    assert_eq!(expiring_at(NOW - 1), Err(Denied::Expired));
    assert_eq!(expiring_at(NOW), Err(Denied::Expired));
    assert_eq!(expiring_at(NOW + 1), Ok(NOW + 1));
    assert_eq!(expiring_at(0), Err(Denied::Expired));
    assert_eq!(expiring_at((1 << 53) - 1), Ok((1 << 53) - 1));
}

// check 44, CVE-2026-25537: an `exp` of a wrong type is not an absent one, and neither means "for ever"
#[test]
fn an_expiry_of_any_other_form_is_malformed() {
    let good = format!(r#""exp":{}"#, NOW + 3600);
    for exp in [
        format!("\"{}\"", NOW + 3600),
        format!("{}.0", NOW + 3600),
        format!("{}.5", NOW + 3600),
        format!("0{}", NOW + 3600),
        format!("+{}", NOW + 3600),
        format!("[{}]", NOW + 3600),
        format!("{{\"\":{}}}", NOW + 3600),
        format!(" {}", NOW + 3600),
        format!("{} ", NOW + 3600),
        "2e9".to_owned(),
        "-1".to_owned(),
        "-0".to_owned(),
        (1u64 << 53).to_string(),
        (1u64 << 63).to_string(),
        u64::MAX.to_string(),
        "18446744073709551616".to_owned(),
        "1e400".to_owned(),
        "9".repeat(400),
        "null".to_owned(),
        "true".to_owned(),
        "Infinity".to_owned(),
        "NaN".to_owned(),
        "\"\"".to_owned(),
        String::new(),
    ] {
        let payload = with(&payload(), &good, &format!(r#""exp":{exp}"#));
        assert_eq!(payload_denied(&payload), Denied::Malformed, "{payload}");
    }
    assert_eq!(payload_denied(with(&payload(), &format!("{good},"), "")), Denied::Malformed);
    for name in ["Exp", "EXP", "exp ", "ex\\u0070"] {
        assert_eq!(payload_denied(with(&payload(), "exp", name)), Denied::Malformed, "{name}");
    }
}

// check 45
#[test]
fn a_token_from_the_future_is_refused() {
    let issued_at = |issued_at| {
        let token = KEY.issue(Kind::Access, &Claims { issued_at, ..claims() }, &profile());
        authenticate(&token).map(|claims| claims.issued_at)
    };
    assert_eq!(issued_at(NOW - 1), Ok(NOW - 1));
    assert_eq!(issued_at(NOW), Ok(NOW));
    // What the clocks of two nodes may differ by, and no more.
    assert_eq!(issued_at(NOW + 60), Ok(NOW + 60));
    assert_eq!(issued_at(NOW + 61), Err(Denied::NotYetValid));
    assert_eq!(issued_at((1 << 53) - 1), Err(Denied::NotYetValid));

    for nbf in [0, NOW, NOW + 61, u64::MAX] {
        for place in [r#","exp""#, r#","sid""#, r#","scope""#] {
            let payload = with(&payload(), place, &format!(r#","nbf":{nbf}{place}"#));
            assert_eq!(payload_denied(&payload), Denied::Malformed, "{payload}");
        }
    }
}

/// No clock, however wrong, makes the arithmetic wrap.
// check 45
#[test]
fn extreme_clocks_are_refused_not_wrapped() {
    let at = |now| verifier_of(&[KEY]).authenticate(&token(), Kind::Access, now);
    assert_eq!(at(0), Err(Denied::NotYetValid));
    assert_eq!(at(NOW - 61), Err(Denied::NotYetValid));
    assert_eq!(at(NOW - 60), Ok(claims()));
    assert_eq!(at(u64::MAX), Err(Denied::Expired));
}

// check 46
#[test]
fn issuer_and_audience_are_exact() {
    let issued = |issuer: &str, audience: &str| {
        let profile = Profile::new(issuer, audience).unwrap();
        authenticate(&KEY.issue(Kind::Access, &claims(), &profile)).unwrap_err()
    };
    let (issuer, audience) = ("https://id.example", "https://api.example");
    for other in [
        "https://id.example/",
        "https://ID.example",
        "http://id.example",
        "https://id.exampl",
        "id.example",
        "*",
    ] {
        assert_eq!(issued(other, audience), Denied::WrongIssuer, "{other}");
    }
    for other in
        ["https://api.example/", "https://API.example", "https://api.example.evil", "https://id.example", "*"]
    {
        assert_eq!(issued(issuer, other), Denied::WrongAudience, "{other}");
    }
    assert_eq!(issued(audience, issuer), Denied::WrongIssuer);

    for (name, value) in [("iss", issuer), ("aud", audience)] {
        let good = format!(r#""{name}":"{value}""#);
        for other in [
            format!(r#"["{value}"]"#),
            // Not in order, which a list of resources is.
            format!(r#"["{value}","https://a.example"]"#),
            format!(r#"" {value}""#),
            format!(r#""{value}\u0000""#),
            with(&format!("\"{value}\""), "//", r"\/\/"),
            r#""""#.to_owned(),
            "null".to_owned(),
            "1".to_owned(),
            "true".to_owned(),
            "[]".to_owned(),
        ] {
            let payload = with(&payload(), &good, &format!(r#""{name}":{other}"#));
            assert_eq!(payload_denied(&payload), Denied::Malformed, "{payload}");
        }
        assert_eq!(payload_denied(with(&payload(), &format!("{good},"), "")), Denied::Malformed);
    }
}

// check 47
#[test]
fn a_confirmation_claim_is_refused_not_ignored() {
    for cnf in [
        r#"{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}"#,
        r#"{"x5t#S256":"bwcK0esc"}"#,
        "{}",
        "null",
    ] {
        for place in [r#"}"#, r#","sid""#, r#","scope""#] {
            let payload = with(&payload(), place, &format!(r#","cnf":{cnf}{place}"#));
            assert_eq!(payload_denied(&payload), Denied::Malformed, "{payload}");
        }
    }
    for unknown in [r#","jti":"1"}"#, r#","act":{"sub":"1"}}"#, r#","":0}"#, ",}", "}}", "} ", "}\n", "}\0"] {
        assert_eq!(payload_denied(with(&payload(), "}", unknown)), Denied::Malformed, "{unknown}");
    }
}

// check 48
#[test]
fn an_old_key_verifies_until_it_is_retired() {
    const OLD: Signer = KEY;
    const NEW: Signer = STRANGER;
    let issue = |signer: &Signer| signer.issue(Kind::Access, &claims(), &profile());
    let with_keys =
        |keys: &[Signer], token: &str| verifier_of(keys).authenticate(token, Kind::Access, NOW).map(drop);

    let (old, new) = (issue(&OLD), issue(&NEW));
    assert_eq!(with_keys(&[OLD], &old), Ok(()));
    assert_eq!(with_keys(&[OLD], &new), Err(Denied::UnknownKey));
    for both in [[OLD, NEW], [NEW, OLD]] {
        assert_eq!(with_keys(&both, &old), Ok(()));
        assert_eq!(with_keys(&both, &new), Ok(()));
        // A key is good for its own id only.
        for (id, secret) in [(OLD.id, NEW.secret), (NEW.id, OLD.secret)] {
            assert_eq!(with_keys(&both, &issue(&Signer { id, secret })), Err(Denied::BadSignature));
        }
    }
    assert_eq!(with_keys(&[NEW], &old), Err(Denied::UnknownKey));
    assert_eq!(with_keys(&[NEW], &new), Ok(()));
    assert_eq!(with_keys(&[], &new), Err(Denied::UnknownKey));
}
