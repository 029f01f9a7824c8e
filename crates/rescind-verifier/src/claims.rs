use std::{fmt, str};

use crate::{
    ClientId, CredentialId, Denied, Resources, Scopes, SessionId, UnixSeconds, resources::MAX_LENGTH,
};

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

/// The issuer, and the audience that its tokens have unless they name resources. Both are written into the payload
/// without escaping.
///
/// A verifier takes the tokens of this issuer that are for this audience: those whose `aud` is it, or has it in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    issuer: String,
    audience: String,
    any_audience: bool,
}

impl Profile {
    /// A profile of this `iss` and this `aud`. `None` if one of them is not visible ASCII characters other than `"`
    /// and `\`: 1 to 255 for the issuer, 1 to 1,024 for the audience, which may be any of [`Resources`].
    pub fn new(issuer: &str, audience: &str) -> Option<Profile> {
        let plain = |s: &str, most| (1..=most).contains(&s.len()) && s.bytes().all(is_plain);
        (plain(issuer, 255) && plain(audience, MAX_LENGTH)).then(|| Profile {
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            any_audience: false,
        })
    }

    /// The same profile for tokens of every audience. It is for the issuer's own use: an API that takes such tokens
    /// also takes those that were meant for another API.
    #[must_use]
    pub fn any_audience(self) -> Profile {
        Profile { any_audience: true, ..self }
    }

    /// The profile of the issuer's refresh tokens, whose audience is the issuer's own `/auth/refresh`.
    pub fn of_refresh_tokens(&self) -> Profile {
        let audience = format!("{}/auth/refresh", self.issuer.trim_end_matches('/'));
        Profile { issuer: self.issuer.clone(), audience, any_audience: false }
    }

    /// The `iss` of every token.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The `aud` of every token that names no resources.
    pub fn audience(&self) -> &str {
        &self.audience
    }
}

/// A token's claims. The payload is one exact text, with the members in this order, integers in plain
/// decimal, nothing escaped and no white space:
///
/// ```json
/// {"iss":"https://id.example","aud":"https://api.example","sub":"42","iat":1736942400,
///  "exp":1736946000,"sid":"7","cred":3,"gen":0,"pair":1,"client_id":"rk_…","jti":"7-1",
///  "scope":"orders:read orders:write"}
/// ```
///
/// `aud` is a list, sorted and without repetition, if there is more than one. `client_id` and `jti`, which is the session
/// and the pair, are left out of refresh tokens, and of the access tokens of keys that earlier versions have made.
/// `scope` is left out when it is empty. Any other text is refused as [`Denied::Malformed`], so a duplicate, missing,
/// unknown (`cnf`, `nbf`) or mistyped member needs no rule of its own.
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
    /// `aud`: the APIs that the token is for. Empty: the profile's audience alone.
    pub resources: Resources,
}

impl Claims {
    /// Returns the payload's JSON text. `client_id` is the API key, for a token with `client_id` and `jti` (RFC 9068 §2.2).
    pub fn write(&self, profile: &Profile, client_id: Option<&str>) -> String {
        let mut json = String::new();
        // A `String` takes every text.
        let _ = self.write_to(profile, client_id, &mut json);
        json
    }

    /// Writes the payload's JSON text.
    ///
    /// # Errors
    ///
    /// Fails if `out` does.
    pub fn write_to(
        &self,
        profile: &Profile,
        client_id: Option<&str>,
        out: &mut impl fmt::Write,
    ) -> fmt::Result {
        let Profile { issuer, audience, any_audience: _ } = profile;
        let Claims {
            client,
            issued_at,
            expires_at,
            session,
            credential,
            generation,
            pair,
            scopes,
            resources,
        } = self;
        let (open, audience, close) = match resources.as_json() {
            "" => ("", &**audience, ""),
            one if !one.contains('"') => ("", one, ""),
            several => ("[", several, "]"),
        };
        write!(
            out,
            r#"{{"iss":"{issuer}","aud":{open}"{audience}"{close},"sub":"{client}","iat":{issued_at},"exp":{expires_at},"sid":"{session}","cred":{credential},"gen":{generation},"pair":{pair}"#
        )?;
        if let Some(client_id) = client_id {
            write!(out, r#","client_id":"{client_id}","jti":"{session}-{pair}""#)?;
        }
        if !scopes.is_empty() {
            write!(out, r#","scope":"{scopes}""#)?;
        }
        out.write_char('}')
    }

    /// Reads a payload whose signature was checked before. `client_id` is not kept: it is the API key of the credential.
    ///
    /// # Errors
    ///
    /// - [`Denied::Malformed`]: the payload is not of the one form.
    /// - [`Denied::WrongIssuer`], [`Denied::WrongAudience`]: it is of another profile.
    pub fn read(payload: &[u8], profile: &Profile) -> Result<Claims, Denied> {
        let mut at = Cursor(payload);
        let of_issuer = at.literal(br#"{"iss":""#)?.is_plain_text(&profile.issuer)?;
        let resources = at.literal(br#"","aud":"#)?.resources(profile)?;
        let client = at.literal(br#","sub":""#)?.integer()?;
        let issued_at = at.literal(br#"","iat":"#)?.integer()?;
        let expires_at = at.literal(br#","exp":"#)?.integer()?;
        let session = at.literal(br#","sid":""#)?.integer()?;
        let credential = at.literal(br#"","cred":"#)?.integer()?;
        let generation = at.literal(br#","gen":"#)?.integer()?;
        let pair = at.literal(br#","pair":"#)?.integer()?;
        if let Ok(at) = at.literal(br#","client_id":""#) {
            at.plain_text()?;
            let of = (at.literal(br#"","jti":""#)?.integer()?, at.literal(b"-")?.integer()?);
            at.literal(b"\"")?;
            if of != (session, pair) {
                return Err(Denied::Malformed);
            }
        }
        let scopes = if at.0 == b"}" {
            Scopes::default()
        } else {
            let text = at.literal(br#","scope":""#)?.until_quote()?;
            at.literal(b"\"")?;
            Scopes::from_canonical(text).ok_or(Denied::Malformed)?
        };
        if at.0 != b"}" {
            return Err(Denied::Malformed);
        }
        if !of_issuer {
            return Err(Denied::WrongIssuer);
        }
        let resources = resources.ok_or(Denied::WrongAudience)?;
        Ok(Claims { client, issued_at, expires_at, session, credential, generation, pair, scopes, resources })
    }

    /// Whether the token is for this resource. `profile` is the one that the claims were read by.
    pub fn is_for(&self, resource: &str, profile: &Profile) -> bool {
        self.resources.names(resource, &profile.audience)
    }
}

/// What is left to read.
struct Cursor<'p>(&'p [u8]);

impl<'p> Cursor<'p> {
    fn literal<const N: usize>(&mut self, expected: &[u8; N]) -> Result<&mut Self, Denied> {
        match self.0.split_first_chunk() {
            Some((first, rest)) if first == expected => {
                self.0 = rest;
                Ok(self)
            }
            _ => Err(Denied::Malformed),
        }
    }

    fn until_quote(&mut self) -> Result<&'p str, Denied> {
        let end = self.0.iter().position(|&b| b == b'"').ok_or(Denied::Malformed)?;
        let (text, rest) = self.0.split_at(end);
        self.0 = rest;
        str::from_utf8(text).map_err(|_| Denied::Malformed)
    }

    /// Reads a plain text.
    fn plain_text(&mut self) -> Result<&'p str, Denied> {
        let text = self.until_quote()?;
        if text.is_empty() || !text.bytes().all(is_plain) { Err(Denied::Malformed) } else { Ok(text) }
    }

    /// Reads a plain text, and says whether it is this one.
    fn is_plain_text(&mut self, expected: &str) -> Result<bool, Denied> {
        // Nearly always it is, and then there is no need to look at each character.
        if let Some(rest) = self.0.strip_prefix(expected.as_bytes())
            && rest.first() == Some(&b'"')
        {
            self.0 = rest;
            return Ok(true);
        }
        self.plain_text().map(|_| false)
    }

    /// Reads `aud`. Empty: it is the profile's own audience. `None`: it is for others.
    fn resources(&mut self, profile: &Profile) -> Result<Option<Resources>, Denied> {
        let resources = if self.literal(b"[\"").is_ok() {
            let end = self.0.windows(2).position(|two| two == b"\"]").ok_or(Denied::Malformed)?;
            let (text, rest) = self.0.split_at(end);
            self.0 = rest;
            self.literal(b"\"]")?;
            let text = str::from_utf8(text).map_err(|_| Denied::Malformed)?;
            // A list of one would be a second text of the same token.
            Some(Resources::from_json(text).filter(|_| text.contains('"')).ok_or(Denied::Malformed)?)
        } else {
            let start = self.literal(b"\"")?.0;
            let own = self.is_plain_text(&profile.audience)?;
            let text = &start[..start.len() - self.0.len()];
            self.literal(b"\"")?;
            if own {
                return Ok(Some(Resources::default()));
            }
            str::from_utf8(text).ok().and_then(Resources::from_json)
        };
        let meant = |r: &Resources| profile.any_audience || r.contains(&profile.audience);
        Ok(resources.filter(meant))
    }

    fn integer(&mut self) -> Result<u64, Denied> {
        let (mut value, mut length) = (0, 0);
        for digit in self.0.iter().take(17).take_while(|b| b.is_ascii_digit()) {
            value = value * 10 + u64::from(digit - b'0');
            length += 1;
        }
        if length == 0 || value > MAX_INTEGER || (length > 1 && self.0[0] == b'0') {
            return Err(Denied::Malformed);
        }
        self.0 = &self.0[length..];
        Ok(value)
    }
}

fn is_plain(b: u8) -> bool {
    b.is_ascii_graphic() && b != b'"' && b != b'\\'
}

#[cfg(test)]
mod tests;
