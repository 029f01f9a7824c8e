//! The complete list of reasons for which this crate refuses tokens that `jsonwebtoken` accepts.

use std::{fmt, iter};

use data_encoding::BASE64URL_NOPAD;
use rescind_verifier::{Algorithm, Claims, Kind, MAX_TOKEN_LENGTH, Resources, Scopes};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;

use super::keys::{KEYS, TestKey};
use crate::fixture::{base64url, profile};

/// The largest integer that every JSON reader keeps exactly (RFC 8259 §6).
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// A token is counted under the first difference that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Difference {
    TooLong,
    RepeatedName,
    CriticalHeader,
    OtherType,
    UnknownHeader,
    HeaderSpelling,
    UnknownClaim,
    MissingClaim,
    ListOfNames,
    OtherValue,
    ScopeForm,
    PayloadSpelling,
    FromTheFuture,
    LastSecond,
    TwinSignature,
}

impl Difference {
    pub(super) const ALL: [Difference; 15] = [
        Difference::TooLong,
        Difference::RepeatedName,
        Difference::CriticalHeader,
        Difference::OtherType,
        Difference::UnknownHeader,
        Difference::HeaderSpelling,
        Difference::UnknownClaim,
        Difference::MissingClaim,
        Difference::ListOfNames,
        Difference::OtherValue,
        Difference::ScopeForm,
        Difference::PayloadSpelling,
        Difference::FromTheFuture,
        Difference::LastSecond,
        Difference::TwinSignature,
    ];
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Difference::TooLong => "longer than a token of the issuer's can be",
            Difference::RepeatedName => "a name twice in one object (RFC 7515 §4, RFC 7519 §4)",
            Difference::CriticalHeader => "crit, which nobody here understands (RFC 7515 §4.1.11)",
            Difference::OtherType => "another typ or none: another kind of token (RFC 8725 §3.11)",
            Difference::UnknownHeader => {
                "a header that the issuer does not write: jwk, jku, b64 (RFC 8725 §3.10)"
            }
            Difference::HeaderSpelling => "header: order, white space, escapes",
            Difference::UnknownClaim => "a claim that the issuer does not write: nbf, cnf",
            Difference::MissingClaim => "a claim of the issuer's own is missing",
            Difference::ListOfNames => {
                "iss as a list, or aud as one that is no sorted set of several resources"
            }
            Difference::OtherValue => {
                "a claim of another type, or a number that is no plain integer below 2^53"
            }
            Difference::ScopeForm => "scope that is no sorted set (RFC 6749 §3.3)",
            Difference::PayloadSpelling => "payload: order, white space, escapes",
            Difference::FromTheFuture => "iat more than a minute ahead",
            Difference::LastSecond => "the very second of exp (RFC 7519 §4.1.4: on or after)",
            Difference::TwinSignature => "ES256: the other s, which anybody can make of a signature",
        })
    }
}

/// The claims and the `client_id` for which the issuer would write exactly this text. `None`: there are none.
pub(super) fn issued(token: &str) -> Option<(Kind, Claims, Option<String>)> {
    let (text, _) = token.rsplit_once('.')?;
    let (header, payload) = parts(text)?;
    let header: Value = serde_json::from_slice(&header).ok()?;
    let payload: Value = serde_json::from_slice(&payload).ok()?;
    let key = key(&header["kid"])?;
    let kind = [Kind::Access, Kind::Refresh].into_iter().find(|kind| header["typ"] == kind.typ())?;
    let (claims, client_id) = (claims(&payload)?, client_id(&payload)?);
    let payload = claims.write(&profile(), client_id.as_deref());
    let own = format!("{}.{}", base64url(key.header(kind)), base64url(payload));
    (own == text && key.sign(text) == token).then_some((kind, claims, client_id))
}

/// Why this crate refuses a token that `jsonwebtoken` accepts. `None`: there is no known reason.
pub(super) fn explain(token: &str, now: u64) -> Option<Difference> {
    let (text, signature) = token.rsplit_once('.')?;
    let (header, payload) = parts(text)?;
    let headers: Members = serde_json::from_slice(&header).ok()?;
    let members: Members = serde_json::from_slice(&payload).ok()?;
    let (typ, key) = (headers.value("typ"), key(headers.value("kid"))?);
    let kind = [Kind::Access, Kind::Refresh].into_iter().find(|kind| typ == kind.typ());
    let whole = members.object();
    let claims = claims(&whole);

    let reasons = [
        (Difference::TooLong, token.len() > MAX_TOKEN_LENGTH),
        (Difference::RepeatedName, headers.repeats() || members.repeats()),
        (Difference::CriticalHeader, !headers.value("crit").is_null()),
        (Difference::OtherType, kind.is_none()),
        (Difference::UnknownHeader, headers.has_other_than(&["alg", "typ", "kid"])),
        (Difference::HeaderSpelling, kind.is_some_and(|kind| key.header(kind).as_bytes() != header)),
        (
            Difference::UnknownClaim,
            members.has_other_than(&[&NAMES[..], &["client_id", "jti", "scope"]].concat()),
        ),
        (Difference::MissingClaim, {
            let half = whole.get("client_id").is_none() != whole.get("jti").is_none();
            half || NAMES.iter().any(|name| whole.get(name).is_none())
        }),
        (
            Difference::ListOfNames,
            whole["iss"].is_array() || (whole["aud"].is_array() && resources(&whole).is_none()),
        ),
        (
            Difference::OtherValue,
            numbers(&whole).is_none()
                || client_id(&whole).is_none()
                || whole.get("scope").is_some_and(|s| !s.is_string()),
        ),
        (Difference::ScopeForm, whole.get("scope").is_some_and(|scope| !is_written(scope))),
        (
            Difference::PayloadSpelling,
            claims.as_ref().is_some_and(|claims| {
                let client_id = client_id(&whole).flatten();
                claims.write(&profile(), client_id.as_deref()).as_bytes() != payload
            }),
        ),
        (Difference::FromTheFuture, claims.as_ref().is_some_and(|claims| claims.issued_at > now + 60)),
        (Difference::LastSecond, claims.as_ref().is_some_and(|claims| claims.expires_at == now)),
        (
            Difference::TwinSignature,
            key.algorithm == Algorithm::Es256 && base64url(key.signature(text)) != signature,
        ),
    ];
    reasons.into_iter().find_map(|(difference, holds)| holds.then_some(difference))
}

/// The claims of every token.
const NAMES: [&str; 9] = ["iss", "aud", "sub", "iat", "exp", "sid", "cred", "gen", "pair"];

fn parts(text: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let (header, payload) = text.split_once('.')?;
    Some((BASE64URL_NOPAD.decode(header.as_bytes()).ok()?, BASE64URL_NOPAD.decode(payload.as_bytes()).ok()?))
}

fn key(id: &Value) -> Option<TestKey> {
    KEYS.into_iter().find(|key| id == key.id)
}

/// `sub`, `iat`, `exp`, `sid`, `cred`, `gen` and `pair`, as a general reader of JSON reads them.
fn numbers(payload: &Value) -> Option<[u64; 7]> {
    let number = |name: &str| payload[name].as_u64().filter(|&n| n <= MAX_INTEGER);
    let text = |name: &str| {
        let text = payload[name].as_str()?;
        text.parse().ok().filter(|n: &u64| *n <= MAX_INTEGER && n.to_string() == text)
    };
    Some([
        text("sub")?,
        number("iat")?,
        number("exp")?,
        text("sid")?,
        number("cred")?,
        number("gen")?,
        number("pair")?,
    ])
}

fn claims(payload: &Value) -> Option<Claims> {
    let [client, issued_at, expires_at, session, credential, generation, pair] = numbers(payload)?;
    let scopes = match payload.get("scope") {
        None => Scopes::default(),
        Some(scope) => scope.as_str().filter(|_| is_written(scope))?.parse().ok()?,
    };
    let resources = resources(payload)?;
    Some(Claims { client, issued_at, expires_at, session, credential, generation, pair, scopes, resources })
}

/// `aud`, if it is the audience of the profile alone, or a list as the issuer writes it.
fn resources(payload: &Value) -> Option<Resources> {
    let names = match &payload["aud"] {
        Value::Array(names) => names.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?,
        aud => return (aud == profile().audience()).then(Resources::default),
    };
    let resources = Resources::new(names.iter().copied()).ok()?;
    let meant = names.contains(&profile().audience());
    (meant && names.len() > 1 && resources.iter().eq(names)).then_some(resources)
}

/// `client_id`, beside the `jti` that belongs to the session and pair. `None`: they are not as the issuer writes them.
/// `Some(None)`: neither is there.
fn client_id(payload: &Value) -> Option<Option<String>> {
    let [.., session, _, _, pair] = numbers(payload)?;
    match (payload.get("client_id"), payload.get("jti")) {
        (None, None) => Some(None),
        (Some(Value::String(id)), Some(jti)) => {
            let plain = !id.is_empty() && id.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
            (plain && *jti == format!("{session}-{pair}")).then(|| Some(id.clone()))
        }
        _ => None,
    }
}

/// Whether the issuer would write this for `scope`.
fn is_written(scope: &Value) -> bool {
    let Some(text) = scope.as_str() else { return false };
    !text.is_empty() && text.parse::<Scopes>().is_ok_and(|scopes| scopes.as_str() == text)
}

/// A JSON object's members, every one of them.
struct Members(Vec<(String, Value)>);

impl Members {
    /// Null if the member is missing.
    fn value(&self, name: &str) -> &Value {
        self.0.iter().find(|(n, _)| n == name).map_or(&Value::Null, |(_, value)| value)
    }

    fn repeats(&self) -> bool {
        self.0.iter().enumerate().any(|(i, (name, _))| self.0[..i].iter().any(|(other, _)| other == name))
    }

    fn has_other_than(&self, known: &[&str]) -> bool {
        self.0.iter().any(|(name, _)| !known.contains(&name.as_str()))
    }

    fn object(&self) -> Value {
        Value::Object(self.0.iter().cloned().collect())
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        struct EveryMember;

        impl<'de> Visitor<'de> for EveryMember {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                iter::from_fn(|| map.next_entry().transpose()).collect::<Result<_, _>>().map(Members)
            }
        }

        deserializer.deserialize_map(EveryMember)
    }
}
