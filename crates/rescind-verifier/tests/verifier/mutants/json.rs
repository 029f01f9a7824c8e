//! Mutations of a JSON object's text.

use super::random::Random;

const VALUES: &[&str] = &[
    "0",
    "7",
    "-1",
    "-0",
    "01",
    "+1",
    "0x10",
    "1.5",
    "1e3",
    "1E+3",
    "1e400",
    "NaN",
    "1736942400",
    "1736946000",
    "4102444799",
    "4102444800",
    "4102444801",
    "4102444800.0",
    "4102444800.4",
    "4.1024448e9",
    "4102444800000",
    "9007199254740991",
    "9007199254740992",
    "18446744073709551615",
    "18446744073709551616",
    "null",
    "true",
    "false",
    "[]",
    "{}",
    "\"\"",
    "\"7\"",
    "\"07\"",
    "\"+7\"",
    "\"-7\"",
    "\"7 \"",
    "\"42\"",
    "\"4102444800\"",
    "\"a\"",
    "\"a b\"",
    "\"b a\"",
    "\"a  b\"",
    "\"a a\"",
    "\" a\"",
    "\"\\u0061\"",
    "\"a\\/b\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\u{e4}\"",
    "\"https://id.example\"",
    "\"https:\\/\\/id.example\"",
    "\"https://id.example/\"",
    "\"https://api.example\"",
    "\"https://API.example\"",
    "[\"https://id.example\"]",
    "[\"https://api.example\"]",
    "[\"https://evil.example\",\"https://api.example\"]",
    "{\"https://api.example\":1}",
    "\"HS256\"",
    "\"hs256\"",
    "\"HS384\"",
    "\"EdDSA\"",
    "\"ES256\"",
    "\"none\"",
    "[\"HS256\"]",
    "\"at+jwt\"",
    "\"rt+jwt\"",
    "\"AT+JWT\"",
    "\"application/at+jwt\"",
    "\"JWT\"",
    "\"h1\"",
    "\"h2\"",
    "\"ed\"",
    "\"es\"",
    "\"../h1\"",
    "\"H1\"",
    "[\"h1\"]",
];

const MEMBERS: &[&str] = &[
    r#""nbf":0"#,
    r#""nbf":4102444800"#,
    r#""nbf":"x""#,
    r#""jti":"1""#,
    r#""cnf":{"jkt":"x"}"#,
    r#""cnf":{}"#,
    r#""act":{"sub":"1"}"#,
    r#""crit":["b64"]"#,
    r#""crit":["exp"]"#,
    r#""crit":[]"#,
    r#""b64":false"#,
    r#""b64":true"#,
    r#""jwk":{"kty":"oct","k":"AAAA"}"#,
    r#""jwk":null"#,
    r#""jku":"https://evil.example/keys""#,
    r#""x5u":"https://evil.example/cert""#,
    r#""x5c":["MIIB"]"#,
    r#""zip":"DEF""#,
    r#""cty":"JWT""#,
    r#""enc":"A256GCM""#,
    r#""exp":4102444800"#,
    r#""\u0065xp":4102444801"#,
    r#""Exp":4102444800"#,
    r#""exp":null"#,
    r#""alg":"none""#,
    r#""alg":"HS256""#,
    r#""ALG":"none""#,
    r#""typ":"at+jwt""#,
    r#""kid":"h1""#,
    r#""sub":"1""#,
    r#""iss":"https://id.example""#,
    r#""aud":"https://api.example""#,
    r#""gen":0"#,
    r#""pair":1"#,
    r#""scope":"admin""#,
    r#""scope":"""#,
    r#""scp":["admin"]"#,
    r#""x":1"#,
    r#""x":[{"x":{}}]"#,
    r#""__proto__":{}"#,
    r#""":0"#,
    "",
];

/// Bytes with a meaning in JSON, and bytes that must have none.
const BYTES: &[u8] = b"\"\\{}[],:.+-=_/ 0123456789eE\t\n\r\0\x7f\x80\xc0\xff";

/// The text with one or two things changed.
pub(super) fn changed(object: &str, random: &mut Random) -> Vec<u8> {
    let mut text = object.as_bytes().to_vec();
    for _ in 0..=random.below(2) {
        text = match (random.below(5), str::from_utf8(&text)) {
            (0, _) | (_, Err(_)) => bytes_changed(text, random),
            (1, Ok(text)) => respelled(text, random),
            (_, Ok(text)) => members_changed(text, random).into_bytes(),
        };
    }
    text
}

fn bytes_changed(mut text: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let at = random.below(text.len().max(1));
    match random.below(6) {
        _ if text.is_empty() => {}
        0 => text.truncate(at),
        1 => text[at] = random.pick(BYTES),
        2 => text.insert(at, random.pick(BYTES)),
        3 => text[at] ^= 1 << random.below(8),
        // Another digit for a digit: what is left is often a good payload still.
        4 => {
            let digits: Vec<usize> = (0..text.len()).filter(|&i| text[i].is_ascii_digit()).collect();
            if !digits.is_empty() {
                text[random.pick(&digits)] = b'0' + random.below(10) as u8;
            }
        }
        _ => drop(text.remove(at)),
    }
    text
}

/// Another text of the same value, for a general reader of JSON in most cases.
fn respelled(text: &str, random: &mut Random) -> Vec<u8> {
    let bytes = text.as_bytes();
    let at = random.below(bytes.len().max(1));
    let white = random.pick(&[" ", "\t", "\n", "\r\n", "\u{a0}", "\u{feff}", "\0", "/**/"]);
    let white = white.repeat(random.pick(&[1, 1, 1, 2, 5000]));
    match random.below(4) {
        0 => [white.as_bytes(), bytes].concat(),
        1 => [bytes, white.as_bytes()].concat(),
        2 => match bytes.iter().skip(at).position(|b| b",:{}".contains(b)) {
            Some(next) => [&bytes[..at + next], white.as_bytes(), &bytes[at + next..]].concat(),
            None => bytes.to_vec(),
        },
        _ => match bytes.iter().skip(at).position(u8::is_ascii_alphabetic) {
            Some(next) => {
                let (before, rest) = bytes.split_at(at + next);
                [before, format!("\\u{:04x}", rest[0]).as_bytes(), &rest[1..]].concat()
            }
            None => bytes.to_vec(),
        },
    }
}

fn members_changed(object: &str, random: &mut Random) -> String {
    // Once a value holds a comma this tears it apart, which is a mutation too.
    let mut members: Vec<String> = object.trim_matches(['{', '}']).split(',').map(str::to_owned).collect();
    let (at, to) = (random.below(members.len()), random.below(members.len()));
    match random.below(7) {
        0 => drop(members.remove(at)),
        1 => members.insert(to, members[at].clone()),
        2 => members.swap(at, to),
        3 => members.insert(to, random.pick(MEMBERS).to_owned()),
        4 => {
            let (name, value) = members[at].split_once(':').unwrap_or_default();
            let case =
                if random.below(2) == 0 { name.to_ascii_uppercase() } else { name.replacen('"', "\" ", 1) };
            members[at] = format!("{case}:{value}");
        }
        _ => {
            let name = members[at].split(':').next().unwrap_or_default();
            members[at] = format!("{name}:{}", random.pick(VALUES));
        }
    }
    format!("{{{}}}", members.join(","))
}
