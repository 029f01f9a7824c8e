//! Cases about the exact text: base64url, segments, lengths, and the payload's bytes (RFC 7515, RFC 7519).

use data_encoding::BASE64;
use rescind_verifier::{Claims, Denied, Kind, MAX_TOKEN_LENGTH, Profile};

use super::{
    API_KEY, AUDIENCE, ISSUER, NOW, claims,
    format::Case,
    keys::{CURRENT, RETIRED, base64url},
    payload, with, written,
};

const SCOPES: &str = "orders:read orders:write";

pub(super) fn cases() -> Vec<Case> {
    [encodings(), segments(), lengths(), members(), times(), parties()].concat()
}

fn plain() -> String {
    CURRENT.header(Kind::Access)
}

/// Signed, with another payload.
fn signed(payload: impl AsRef<[u8]>) -> String {
    CURRENT.mint(plain(), payload)
}

fn malformed(name: impl Into<String>, payload: impl AsRef<[u8]>) -> Case {
    Case::denied(name, signed(payload), Denied::Malformed)
}

/// The tag is made over the text as presented, so a lenient decoder would accept all of these.
fn encodings() -> Vec<Case> {
    // Both of the characters in which the alphabets differ are in it.
    let scopes = ">>>> ????".parse().unwrap();
    let text = written(&Claims { scopes, ..claims() });
    let (header, good) = (base64url(plain()), base64url(&text));
    let standard = BASE64.encode(text.as_bytes());
    assert!(standard.contains('+') && standard.contains('/'));
    // Of a payload with one byte over a multiple of three, the last digit has four bits to spare.
    let mut over = claims();
    while written(&over).len() % 3 != 1 {
        over.pair *= 10;
    }
    let spare = base64url(written(&over));
    let spare = format!("{}{}", &spare[..spare.len() - 1], successor(&spare));

    let mut cases =
        vec![Case::stands("- and _ in the payload", CURRENT.sign(&format!("{header}.{good}")), "")];
    for (name, payload) in [
        ("standard alphabet", good.replace('-', "+").replace('_', "/")),
        ("standard alphabet and padding", standard),
        ("padding", format!("{good}=")),
        ("white space before", format!(" {good}")),
        ("line feed after", format!("{good}\n")),
        ("line feed inside", with(&good, "-", "-\n")),
        ("NUL after", format!("{good}\0")),
        ("percent encoding", with(&good, "-", "%2D")),
        ("byte order mark before", format!("\u{feff}{good}")),
        ("one digit too many", format!("{good}A")),
        ("non-zero spare bits", spare),
        ("nothing", String::new()),
    ] {
        let token = CURRENT.sign(&format!("{header}.{payload}"));
        cases.push(Case::denied(format!("payload: {name}"), token, Denied::Malformed));
    }
    for (name, header) in [
        ("padding", format!("{header}=")),
        ("white space before", format!(" {header}")),
        ("line feed after", format!("{header}\n")),
        ("nothing", String::new()),
    ] {
        let token = CURRENT.sign(&format!("{header}.{good}"));
        cases.push(Case::denied(format!("header: {name}"), token, Denied::UnknownKey));
    }
    let token = signed(payload());
    let changed = format!("{}{}", &token[..token.len() - 1], successor(&token));
    cases.push(Case::denied("signature: non-zero spare bits", changed, Denied::Malformed));
    cases.push(Case::denied("signature: padding", format!("{token}="), Denied::Malformed));
    cases.push(Case::denied("signature: line feed after", format!("{token}\n"), Denied::Malformed));
    cases.push(Case::denied("white space before the token", format!(" {token}"), Denied::UnknownKey));
    cases.push(Case::denied("scheme before the token", format!("Bearer {token}"), Denied::UnknownKey));
    cases.push(Case::denied("quotes around the token", format!("\"{token}\""), Denied::Malformed));
    cases.into_iter().map(|case| case.check(41)).collect()
}

/// The base64url digit after the last digit of `text`. The two differ only in a spare bit, because the last
/// digit has spare bits, all zero.
fn successor(text: &str) -> char {
    let alphabet: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['-', '_']).collect();
    let last = text.chars().last().unwrap();
    let index = alphabet.iter().position(|&c| c == last).unwrap();
    assert_eq!(index % 4, 0, "{last} has no bits to spare");
    alphabet[index + 1]
}

fn segments() -> Vec<Case> {
    let token = signed(payload());
    let [header, body, tag] = token.split('.').collect::<Vec<&str>>().try_into().unwrap();
    let json = format!(r#"{{"protected":"{header}","payload":"{body}","signature":"{tag}"}}"#);
    let cases = [
        ("nothing at all", String::new(), Denied::Malformed),
        ("two dots", "..".to_owned(), Denied::Malformed),
        ("one segment, signed", CURRENT.sign(header), Denied::Malformed),
        ("two segments", format!("{header}.{body}"), Denied::Malformed),
        ("an empty signature", format!("{header}.{body}."), Denied::Malformed),
        ("an empty payload, not signed", format!("{header}..{tag}"), Denied::BadSignature),
        ("four segments, signed", CURRENT.sign(&format!("{header}.{body}.{body}")), Denied::Malformed),
        ("five segments, signed", CURRENT.sign(&format!("{header}.{body}.{body}.{body}")), Denied::Malformed),
        ("a dot after", format!("{token}."), Denied::Malformed),
        ("a dot before", format!(".{token}"), Denied::UnknownKey),
        ("JSON serialisation", json, Denied::Malformed),
    ];
    cases.into_iter().map(|(name, token, denied)| Case::denied(name, token, denied).check(41)).collect()
}

fn lengths() -> Vec<Case> {
    let of_length = |length: usize| {
        let head = format!("{}.", base64url(plain()));
        RETIRED.sign(&format!("{head}{}", "A".repeat(length - head.len() - 44)))
    };
    let scopes: Vec<String> = (100..228).map(|n| format!("scope{n}")).collect();
    let longest = Claims { scopes: scopes.join(" ")[..1024].parse().unwrap(), ..claims() };
    let longer = with(&written(&longest), "scope100 ", "ascope scope100 ");
    let giant = |case: Case| case.advisory("CVE-2025-61920").advisory("CVE-2025-30204");
    let cases = [
        Case::denied("as long as can be, forged", of_length(MAX_TOKEN_LENGTH), Denied::BadSignature),
        Case::denied("too long by one, forged", of_length(MAX_TOKEN_LENGTH + 1), Denied::Malformed),
        giant(Case::denied("10000 dots", ".".repeat(10_000), Denied::Malformed)),
        giant(Case::denied("10000 digits", "A".repeat(10_000), Denied::Malformed)),
        Case::stands("scopes of 1024 characters", signed(written(&longest)), ""),
        malformed("scopes of more than 1024 characters", longer),
    ];
    cases.into_iter().map(|case| case.check(43)).collect()
}

/// The payload's members: each once, in order, of its type, and no others.
fn members() -> Vec<Case> {
    let text = payload();
    let mut cases = Vec::new();
    for name in ["iss", "aud", "sub", "iat", "exp", "sid", "cred", "gen", "pair", "client_id", "jti", "scope"]
    {
        // No value here holds a comma.
        let start = text.find(&format!(r#""{name}":"#)).unwrap();
        let end = start + text[start..].find([',', '}']).unwrap();
        let member = &text[start..end];
        let twice = format!("{},{}", &text[..end], &text[start..]);
        cases.push(malformed(format!("{name} twice"), twice).check(40));
        cases.push(
            malformed(format!("{name} twice, apart"), with(&text, "}", &format!(",{member}}}"))).check(40),
        );
        let (_, value) = member.split_once(':').unwrap();
        let retyped = match value.strip_prefix('"') {
            Some(text) => text.trim_end_matches('"').parse().map_or("[]".to_owned(), |n: u64| n.to_string()),
            None => format!("\"{value}\""),
        };
        cases.push(malformed(
            format!("{name} of another type"),
            with(&text, member, &format!(r#""{name}":{retyped}"#)),
        ));
        if name != "scope" {
            let (rest, comma) = (with(&text, member, ""), if name == "iss" { "{," } else { ",," });
            cases.push(malformed(format!("{name} missing"), with(&rest, comma, &comma[..1])));
        }
    }
    for (name, payload) in [
        ("white space", with(&text, "{", "{ ")),
        ("line feed after", format!("{text}\n")),
        ("another order", with(&text, r#""gen":5,"pair":2"#, r#""pair":2,"gen":5"#)),
        ("an escape", with(&text, "orders:read", "orders\\u003aread")),
        ("an unknown member", with(&text, "}", r#","admin":true}"#)),
        ("client_id with a space", with(&text, API_KEY, "rk 0")),
        ("empty client_id", with(&text, API_KEY, "")),
        ("jti of another session", with(&text, r#""7-2""#, r#""8-2""#)),
        ("jti of another pair", with(&text, r#""7-2""#, r#""7-1""#)),
        ("jti with a leading zero", with(&text, r#""7-2""#, r#""7-02""#)),
        ("empty scope", with(&text, SCOPES, "")),
        ("scopes in another order", with(&text, SCOPES, "orders:write orders:read")),
        ("a scope twice", with(&text, SCOPES, "orders:read orders:read")),
        ("a space before the scopes", with(&text, SCOPES, " orders:read orders:write")),
        ("two spaces between scopes", with(&text, SCOPES, "orders:read  orders:write")),
        ("scope with a character outside ASCII", with(&text, SCOPES, "ä")),
        ("array", format!("[{text}]")),
        ("nothing", String::new()),
        ("null", "null".to_owned()),
        ("all of it twice", format!("{text}{text}")),
    ] {
        cases.push(malformed(format!("content: {name}"), payload));
    }
    cases.push(malformed("content: invalid UTF-8", [text.as_bytes(), b"\xff"].concat()));
    for cnf in [r#"{"jkt":"x"}"#, "null", r#""x""#] {
        cases.push(malformed(format!("cnf {cnf}"), with(&text, "}", &format!(",\"cnf\":{cnf}}}"))).check(47));
    }
    cases
}

fn times() -> Vec<Case> {
    let expiring = |expires_at| signed(written(&Claims { expires_at, ..claims() }));
    let mut cases = vec![
        Case::denied("exp one second ago", expiring(NOW - 1), Denied::Expired).check(44),
        Case::denied("exp now", expiring(NOW), Denied::Expired).check(44),
        Case::stands("exp in one second", expiring(NOW + 1), SCOPES).check(44),
        Case::stands("exp 2^53 - 1", expiring((1 << 53) - 1), SCOPES).check(44),
        Case::denied("exp 0", expiring(0), Denied::Expired).check(44),
    ];
    let exp = format!(r#""exp":{}"#, claims().expires_at);
    for value in [
        "\"1736946000\"",
        "1736946000.0",
        "1.736946e9",
        "-1",
        "+1736946000",
        "01736946000",
        "9007199254740992",
        "9223372036854775808",
        "1e400",
        "null",
        "true",
        "[1736946000]",
        "",
    ] {
        let text = with(&payload(), &exp, &format!(r#""exp":{value}"#));
        let case = malformed(format!("exp {value}"), text).check(44);
        cases.push(if value.starts_with('"') { case.advisory("CVE-2026-25537") } else { case });
    }
    let issued = |issued_at| signed(written(&Claims { issued_at, ..claims() }));
    cases.extend([
        Case::stands("iat 60 seconds ahead", issued(NOW + 60), SCOPES).check(45),
        Case::denied("iat 61 seconds ahead", issued(NOW + 61), Denied::NotYetValid).check(45),
        Case::denied("iat 2^53 - 1", issued((1 << 53) - 1), Denied::NotYetValid).check(45),
        malformed("nbf in the future", with(&payload(), "}", r#","nbf":4000000000}"#)).check(45),
        malformed("nbf in the past", with(&payload(), "}", r#","nbf":1}"#)).check(45),
    ]);
    cases
}

fn parties() -> Vec<Case> {
    let of = |issuer: &str, audience: &str| {
        signed(claims().write(&Profile::new(issuer, audience).unwrap(), Some(API_KEY)))
    };
    let mut cases = Vec::new();
    for issuer in
        ["https://id.example/", "https://ID.example", "https://id.example.evil", "https://id.exampl"]
    {
        cases.push(Case::denied(format!("iss {issuer}"), of(issuer, AUDIENCE), Denied::WrongIssuer));
    }
    for audience in ["https://api.example/", "https://API.example", "https://api.example.evil", "*"] {
        cases.push(Case::denied(format!("aud {audience}"), of(ISSUER, audience), Denied::WrongAudience));
    }
    cases.push(Case::denied("iss and aud changed over", of(AUDIENCE, ISSUER), Denied::WrongIssuer));
    for (name, value) in [("iss", ISSUER), ("aud", AUDIENCE)] {
        let quoted = format!("\"{value}\"");
        for other in
            [format!("[{quoted}]"), format!("[{quoted},\"x\"]"), "\"\"".to_owned(), "null".to_owned()]
        {
            cases.push(malformed(format!("{name} {other}"), with(&payload(), &quoted, &other)));
        }
    }
    cases.extend(lists());
    cases.into_iter().map(|case| case.check(46)).collect()
}

/// `aud` as a list.
fn lists() -> Vec<Case> {
    let with_list = |list: &str| signed(with(&payload(), &format!("\"{AUDIENCE}\""), list));
    let long = |length: usize| format!(r#"["{AUDIENCE}","urn:{}"]"#, "a".repeat(length - AUDIENCE.len() - 7));
    let mut cases = vec![
        Case::stands("aud is a list of two", with_list(&format!(r#"["{AUDIENCE}","urn:orders"]"#)), SCOPES),
        Case::stands(
            "aud is a list of three",
            with_list(&format!(r#"["a:b","{AUDIENCE}","urn:x"]"#)),
            SCOPES,
        ),
        Case::stands("aud is a list of 1024 characters", with_list(&long(1024)), SCOPES),
        Case::denied("aud is a list of others", with_list(r#"["urn:a","urn:b"]"#), Denied::WrongAudience),
    ];
    for (name, list) in [
        ("is a list of more than 1024 characters", long(1025)),
        ("is a list in another order", format!(r#"["urn:orders","{AUDIENCE}"]"#)),
        ("is a list with a repetition", format!(r#"["{AUDIENCE}","{AUDIENCE}"]"#)),
        ("is a list with white space", format!(r#"["{AUDIENCE}", "urn:orders"]"#)),
        ("is a list with a relative URI", format!(r#"["/orders","{AUDIENCE}"]"#)),
        ("is a list with a fragment", format!(r#"["{AUDIENCE}","urn:orders#a"]"#)),
        ("is a list with a number", format!(r#"["{AUDIENCE}",7]"#)),
        ("is an empty list", "[]".to_owned()),
        ("is a list that does not end", format!(r#"["{AUDIENCE}","urn:orders""#)),
    ] {
        cases.push(Case::denied(format!("aud {name}"), with_list(&list), Denied::Malformed));
    }
    cases
}
