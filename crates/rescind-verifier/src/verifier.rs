use std::{net::IpAddr, ops::Deref, sync::Arc};

use crate::{Claims, ClientPolicy, Denied, KeySet, Kind, Profile, Scopes, State, UnixSeconds};

/// How far in the future a token may have been issued: what the clocks of two nodes may differ by,
/// in seconds. Expiry has no such leeway.
pub const MAX_CLOCK_DIFFERENCE: UnixSeconds = 60;

/// The keys and the profile that tokens are checked against. See the crate's rules.
#[derive(Debug, Clone)]
pub struct Verifier {
    keys: KeySet,
    profile: Profile,
}

impl Verifier {
    /// A verifier of tokens signed with one of `keys` and written in `profile`.
    pub fn new(keys: KeySet, profile: Profile) -> Verifier {
        Verifier { keys, profile }
    }

    /// Rules 1 to 6: what the token's text alone decides. The claims are the issuer's own words,
    /// and say nothing of whether the token was revoked since.
    pub fn authenticate(&self, token: &str, kind: Kind, now: UnixSeconds) -> Result<Claims, Denied> {
        let claims = self.authenticate_at_any_time(token, kind)?;
        if claims.issued_at > now.saturating_add(MAX_CLOCK_DIFFERENCE) {
            return Err(Denied::NotYetValid);
        }
        if now >= claims.expires_at {
            return Err(Denied::Expired);
        }
        Ok(claims)
    }

    /// The same without a look at the times, for whoever takes a token back: it may be the only word of a
    /// session that others still have good tokens of.
    pub fn authenticate_at_any_time(&self, token: &str, kind: Kind) -> Result<Claims, Denied> {
        let (actual, payload) = self.keys.open(token)?;
        if actual != kind {
            return Err(Denied::WrongKind);
        }
        Claims::read(payload.as_bytes(), &self.profile)
    }

    /// Rules 1 to 7, for an access token: it stands, for a caller whose address is on its client's
    /// allowlist.
    pub fn stand(&self, token: &str, now: UnixSeconds, state: &impl State) -> Result<StandingToken, Denied> {
        StandingToken::decide(self.authenticate(token, Kind::Access, now)?, state)
    }

    /// All the rules, for an access token. `caller` is the caller's address, `None` if it could not
    /// be told.
    pub fn verify(
        &self,
        token: &str,
        caller: Option<IpAddr>,
        now: UnixSeconds,
        state: &impl State,
    ) -> Result<VerifiedToken, Denied> {
        self.stand(token, now, state)?.presented_by(caller)
    }
}

/// An access token that keeps every rule but the last: who may present it is not decided. Only a
/// [`Verifier`] makes one.
#[derive(Debug, Clone)]
pub struct StandingToken {
    claims: Claims,
    client: Arc<ClientPolicy>,
}

impl StandingToken {
    /// Rule 7, of an access token that keeps those before.
    pub(crate) fn decide(claims: Claims, state: &impl State) -> Result<StandingToken, Denied> {
        let client = state.client(claims.client).ok_or(Denied::NotKnown)?;
        client.stands_behind(&claims)?;
        let session = state.session(claims.session).ok_or(Denied::NotKnown)?;
        if session.client != claims.client || claims.pair > session.pair {
            return Err(Denied::NotKnown);
        }
        if session.ended {
            return Err(Denied::Revoked);
        }
        Ok(StandingToken { claims, client })
    }

    /// One whose issuer told that it stands.
    #[cfg(feature = "follow")]
    pub(crate) fn told(claims: Claims, client: Arc<ClientPolicy>) -> StandingToken {
        StandingToken { claims, client }
    }

    /// Rule 8.
    pub fn presented_by(self, caller: Option<IpAddr>) -> Result<VerifiedToken, Denied> {
        self.client.permits(caller)?;
        Ok(VerifiedToken(self))
    }

    /// What the token says.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// What it may do: what it was issued for, as far as its client may still do that.
    pub fn scopes(&self) -> Scopes {
        self.claims.scopes.intersection(&self.client.scopes)
    }

    /// Whether it may do all of `needed`.
    pub fn require(&self, needed: &Scopes) -> Result<(), Denied> {
        let scopes = self.scopes();
        if needed.iter().all(|scope| scopes.contains(scope)) { Ok(()) } else { Err(Denied::ScopeMissing) }
    }

    /// Its client, as known when the token was checked.
    pub fn client(&self) -> &ClientPolicy {
        &self.client
    }
}

/// An access token that stood when it was checked, presented by a caller who may. Only a
/// [`Verifier`] makes one.
#[derive(Debug, Clone)]
pub struct VerifiedToken(StandingToken);

impl Deref for VerifiedToken {
    type Target = StandingToken;

    fn deref(&self) -> &StandingToken {
        &self.0
    }
}
