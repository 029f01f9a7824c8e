use std::str;

use crate::{ClientId, CredentialId, Denied, Scopes, SessionId, UnixSeconds};

/// The largest integer that every JSON reader keeps exactly (RFC 8259 §6).
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// The two kinds of tokens, which the header's `typ` tells apart (RFC 8725 §3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An access token is presented to APIs.
    Access,
    /// A refresh token is presented to `/auth/refresh` only.
    Refresh,
}

impl Kind {
    /// The value of the header's `typ`.
    pub fn typ(self) -> &'static str {
        match self {
            Kind::Access => "at+jwt",
            Kind::Refresh => "rt+jwt",
        }
    }
}

/// The two claims that all tokens of one kind of an issuer share. Both are written into the payload without
/// escaping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    issuer: String,
    audience: String,
}

impl Profile {
    /// A profile of this `iss` and this `aud`. `None` if one of them is not 1 to 255 visible ASCII characters
    /// other than `"` and `\`.
    pub fn new(issuer: &str, audience: &str) -> Option<Profile> {
        let plain = |s: &str| (1..=255).contains(&s.len()) && s.bytes().all(is_plain);
        (plain(issuer) && plain(audience))
            .then(|| Profile { issuer: issuer.to_owned(), audience: audience.to_owned() })
    }

    /// The profile of the issuer's refresh tokens, whose audience is the issuer's own `/auth/refresh`.
    pub fn of_refresh_tokens(&self) -> Profile {
        let audience = format!("{}/auth/refresh", self.issuer.trim_end_matches('/'));
        Profile { issuer: self.issuer.clone(), audience }
    }

    /// The `iss` of every token.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The `aud` of every token.
    pub fn audience(&self) -> &str {
        &self.audience
    }
}

/// A token's claims. The payload is one exact text, with the members in this order, integers in plain
/// decimal, nothing escaped and no white space:
///
/// ```json
/// {"iss":"https://id.example","aud":"https://api.example","sub":"42","iat":1736942400,
///  "exp":1736946000,"sid":"7","cred":3,"gen":0,"pair":1,"scope":"orders:read orders:write"}
/// ```
///
/// `scope` is left out when it is empty. Any other text is refused as [`Denied::Malformed`], so a duplicate,
/// missing, unknown (`cnf`, `nbf`) or mistyped member needs no rule of its own.
///
/// The fields are closed: another payload would be another format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `sub`: the client.
    pub client: ClientId,
    /// `iat`: when the token was issued.
    pub issued_at: UnixSeconds,
    /// `exp`: the first second at which the token is no longer valid.
    pub expires_at: UnixSeconds,
    /// `sid`: the session.
    pub session: SessionId,
    /// `cred`: the credential that opened the session.
    pub credential: CredentialId,
    /// `gen`: the client's generation when the session began.
    pub generation: u64,
    /// `pair`: 1 at login, one more at every refresh.
    pub pair: u64,
    /// `scope` (RFC 8693 §4.2): what the token was issued for.
    pub scopes: Scopes,
}

impl Claims {
    /// Writes the payload's JSON text.
    pub fn write(&self, profile: &Profile) -> String {
        let Profile { issuer, audience } = profile;
        let Claims { client, issued_at, expires_at, session, credential, generation, pair, scopes } = self;
        let mut json = format!(
            r#"{{"iss":"{issuer}","aud":"{audience}","sub":"{client}","iat":{issued_at},"exp":{expires_at},"sid":"{session}","cred":{credential},"gen":{generation},"pair":{pair}"#
        );
        if !scopes.is_empty() {
            json.push_str(r#","scope":""#);
            json.push_str(scopes.as_str());
            json.push('"');
        }
        json.push('}');
        json
    }

    /// Reads a payload whose signature was checked before.
    ///
    /// # Errors
    ///
    /// - [`Denied::Malformed`]: the payload is not of the one form.
    /// - [`Denied::WrongIssuer`], [`Denied::WrongAudience`]: it is of another profile.
    pub fn read(payload: &[u8], profile: &Profile) -> Result<Claims, Denied> {
        let mut at = Cursor(payload);
        let issuer = at.literal(br#"{"iss":""#)?.plain()?;
        let audience = at.literal(br#"","aud":""#)?.plain()?;
        let client = at.literal(br#"","sub":""#)?.integer()?;
        let issued_at = at.literal(br#"","iat":"#)?.integer()?;
        let expires_at = at.literal(br#","exp":"#)?.integer()?;
        let session = at.literal(br#","sid":""#)?.integer()?;
        let credential = at.literal(br#"","cred":"#)?.integer()?;
        let generation = at.literal(br#","gen":"#)?.integer()?;
        let pair = at.literal(br#","pair":"#)?.integer()?;
        let scopes = if at.0 == b"}" {
            Scopes::default()
        } else {
            let text = at.literal(br#","scope":""#)?.until_quote()?;
            at.literal(b"\"")?;
            let scopes: Scopes = text.parse().map_err(|_| Denied::Malformed)?;
            if scopes.is_empty() || scopes.as_str() != text {
                return Err(Denied::Malformed);
            }
            scopes
        };
        if at.0 != b"}" {
            return Err(Denied::Malformed);
        }
        if issuer != profile.issuer {
            return Err(Denied::WrongIssuer);
        }
        if audience != profile.audience {
            return Err(Denied::WrongAudience);
        }
        Ok(Claims { client, issued_at, expires_at, session, credential, generation, pair, scopes })
    }
}

/// What is left to read.
struct Cursor<'p>(&'p [u8]);

impl<'p> Cursor<'p> {
    fn literal(&mut self, expected: &[u8]) -> Result<&mut Self, Denied> {
        self.0 = self.0.strip_prefix(expected).ok_or(Denied::Malformed)?;
        Ok(self)
    }

    fn until_quote(&mut self) -> Result<&'p str, Denied> {
        let end = self.0.iter().position(|&b| b == b'"').ok_or(Denied::Malformed)?;
        let (text, rest) = self.0.split_at(end);
        self.0 = rest;
        str::from_utf8(text).map_err(|_| Denied::Malformed)
    }

    fn plain(&mut self) -> Result<&'p str, Denied> {
        let text = self.until_quote()?;
        if text.is_empty() || !text.bytes().all(is_plain) {
            return Err(Denied::Malformed);
        }
        Ok(text)
    }

    fn integer(&mut self) -> Result<u64, Denied> {
        let length = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(length);
        if length == 0 || length > 16 || (length > 1 && digits[0] == b'0') {
            return Err(Denied::Malformed);
        }
        let value = digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
        if value > MAX_INTEGER {
            return Err(Denied::Malformed);
        }
        self.0 = rest;
        Ok(value)
    }
}

fn is_plain(b: u8) -> bool {
    b.is_ascii_graphic() && b != b'"' && b != b'\\'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        Profile::new("https://id.example", "https://api.example").unwrap()
    }

    fn claims(scope: &str) -> Claims {
        Claims {
            client: 42,
            issued_at: 1_736_942_400,
            expires_at: 1_736_946_000,
            session: 7,
            credential: 3,
            generation: 0,
            pair: 1,
            scopes: scope.parse().unwrap(),
        }
    }

    #[test]
    fn the_profile_is_one_exact_text() {
        let text = claims("b a").write(&profile());
        assert_eq!(
            text,
            r#"{"iss":"https://id.example","aud":"https://api.example","sub":"42","iat":1736942400,"exp":1736946000,"sid":"7","cred":3,"gen":0,"pair":1,"scope":"a b"}"#
        );
        assert_eq!(Claims::read(text.as_bytes(), &profile()), Ok(claims("a b")));
        let bare = claims("").write(&profile());
        assert!(bare.ends_with(r#""pair":1}"#));
        assert_eq!(Claims::read(bare.as_bytes(), &profile()), Ok(claims("")));
    }

    // check 40, 44, 45, 47: one exact text leaves no room for any of them
    #[test]
    fn anything_else_is_malformed() {
        let good = claims("a").write(&profile());
        let with = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            good.replacen(from, to, 1)
        };
        for exp in [
            "\"1736946000\"",
            "1.0",
            "1e3",
            "-1",
            "9007199254740992",
            "9223372036854775808",
            "1e400",
            "null",
            "01",
            "",
        ] {
            let text = with("1736946000", exp);
            assert_eq!(Claims::read(text.as_bytes(), &profile()), Err(Denied::Malformed), "{text}");
        }
        for text in [
            with(r#","exp":1736946000"#, ""),
            with(r#""exp""#, r#""exp":1,"exp""#),
            with(r#","gen""#, r#","cnf":{"jkt":"x"},"gen""#),
            with(r#","gen""#, r#","nbf":99999999999,"gen""#),
            with(r#""scope":"a""#, r#""scope":"""#),
            with(r#""scope":"a""#, r#""scope":"a a""#),
            with(r#""scope":"a""#, r#""scope":"b a""#),
            with(r#""scope":"a""#, r#""scope":["a"]"#),
            with("{", "{ "),
            with("https://id", "https:\\u002f/id"),
            format!("{good} "),
            format!("{good}{good}"),
            String::new(),
        ] {
            assert_eq!(Claims::read(text.as_bytes(), &profile()), Err(Denied::Malformed), "{text}");
        }
        for cut in 0..good.len() {
            assert_eq!(Claims::read(&good.as_bytes()[..cut], &profile()), Err(Denied::Malformed));
        }
    }

    // check 46
    #[test]
    fn issuer_and_audience_are_exact() {
        let read = |text: String| Claims::read(text.as_bytes(), &profile()).unwrap_err();
        let other = |iss, aud| claims("").write(&Profile::new(iss, aud).unwrap());
        assert_eq!(read(other("https://id.example/", "https://api.example")), Denied::WrongIssuer);
        assert_eq!(read(other("https://id.example", "https://API.example")), Denied::WrongAudience);
        assert!(Profile::new("a\"b", "c").is_none());
        assert!(Profile::new("", "c").is_none());
    }
}
