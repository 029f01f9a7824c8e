use std::{net::IpAddr, ops::Deref, sync::Arc};

use crate::{Claims, ClientPolicy, Denied, KeySet, Kind, Profile, Scopes, State, UnixSeconds};

/// How far in the future a token may have been issued, in seconds: the difference that the clocks of two
/// nodes may have. Expiry has no such leeway.
pub const MAX_CLOCK_DIFFERENCE: UnixSeconds = 60;

/// The keys and the profile that tokens are checked against, by the [rules](crate) of the crate.
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

    /// Checks rules 1 to 6, for which the token's text is enough. The claims that are returned are the
    /// issuer's: they do not say whether the token was revoked since.
    ///
    /// # Errors
    ///
    /// The first rule that the token breaks.
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

    /// Checks the same rules but for the times (rule 6). This is for revoking a token: an expired token still
    /// names its session, whose other tokens may be valid.
    ///
    /// # Errors
    ///
    /// The first rule that the token breaks.
    pub fn authenticate_at_any_time(&self, token: &str, kind: Kind) -> Result<Claims, Denied> {
        let (actual, payload) = self.keys.open(token)?;
        if actual != kind {
            return Err(Denied::WrongKind);
        }
        Claims::read(payload.as_bytes(), &self.profile)
    }

    /// Checks rules 1 to 7, for an access token. The caller's address is not checked yet.
    ///
    /// # Errors
    ///
    /// The first rule that the token breaks.
    pub fn stand(&self, token: &str, now: UnixSeconds, state: &impl State) -> Result<StandingToken, Denied> {
        StandingToken::decide(self.authenticate(token, Kind::Access, now)?, state)
    }

    /// Checks all the rules, for an access token. `caller` is the caller's address, `None` if that is not
    /// known. `now` is the time, by which the token must not have expired.
    ///
    /// # Errors
    ///
    /// The first rule that the token breaks.
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

/// An access token that keeps every rule but the last: its caller's address was not checked. Only a
/// [`Verifier`] makes one.
#[derive(Debug, Clone)]
pub struct StandingToken {
    claims: Claims,
    client: Arc<ClientPolicy>,
}

impl StandingToken {
    /// Checks rule 7, for an access token that keeps the rules before.
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

    /// A token that the issuer's introspection has reported as active.
    #[cfg(feature = "follow")]
    pub(crate) fn told(claims: Claims, client: Arc<ClientPolicy>) -> StandingToken {
        StandingToken { claims, client }
    }

    /// Checks rule 8: the caller's address.
    ///
    /// # Errors
    ///
    /// [`Denied::AddressNotAllowed`]: the address is not known, or not on the client's allowlist.
    pub fn presented_by(self, caller: Option<IpAddr>) -> Result<VerifiedToken, Denied> {
        self.client.permits(caller)?;
        Ok(VerifiedToken(self))
    }

    /// The token's claims.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The token's scopes that its client still has.
    pub fn scopes(&self) -> Scopes {
        self.claims.scopes.intersection(&self.client.scopes)
    }

    /// Checks that the token has all the scopes of `needed`.
    ///
    /// # Errors
    ///
    /// [`Denied::ScopeMissing`]: it lacks one.
    pub fn require(&self, needed: &Scopes) -> Result<(), Denied> {
        let scopes = self.scopes();
        if needed.iter().all(|scope| scopes.contains(scope)) { Ok(()) } else { Err(Denied::ScopeMissing) }
    }

    /// The token's client, as it was known when the token was checked.
    pub fn client(&self) -> &ClientPolicy {
        &self.client
    }
}

/// An access token that kept every rule when it was checked. Only a [`Verifier`] makes one.
#[derive(Debug, Clone)]
pub struct VerifiedToken(StandingToken);

impl Deref for VerifiedToken {
    type Target = StandingToken;

    fn deref(&self) -> &StandingToken {
        &self.0
    }
}
