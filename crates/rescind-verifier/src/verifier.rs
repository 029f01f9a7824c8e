use std::{net::IpAddr, ops::Deref, sync::Arc};

use crate::{
    Claims, ClientPolicy, Denied, KeySet, Kind, MAX_TOKEN_LENGTH, Profile, Scopes, State, UnixSeconds,
    keys::decode, token_cache::TokenCache,
};

/// How far in the future a token may have been issued, in seconds: the difference that the clocks of two
/// nodes may have. Expiry has no such leeway.
pub const MAX_CLOCK_DIFFERENCE: UnixSeconds = 60;

/// How many tokens a process usually caches ([`Verifier::with_token_cache`]). They take 7 MB, and at most 14 MB.
pub const CACHED_TOKENS: usize = 8192;

/// The room for a payload that is no longer than most are, and for the longest payload, in bytes.
const USUAL_PAYLOAD: usize = 512;
const LONGEST_PAYLOAD: usize = MAX_TOKEN_LENGTH / 4 * 3;

/// The keys and the profile that tokens are checked against, by the [rules](crate) of the crate.
///
/// A clone shares the [cache](Verifier::with_token_cache), if there is one.
#[derive(Debug, Clone)]
pub struct Verifier {
    keys: KeySet,
    profile: Profile,
    /// Made together with `keys`, so that no token outlives its key there.
    cache: Option<Arc<TokenCache>>,
}

impl Verifier {
    /// A verifier of tokens signed with one of `keys` and written in `profile`.
    pub fn new(keys: KeySet, profile: Profile) -> Verifier {
        Verifier { keys, profile, cache: None }
    }

    /// This verifier, with a cache of about this many tokens: of a token in it, rules 1 to 5 are not checked
    /// again. They depend on the token's text and on the verifier alone. All other rules are always checked.
    ///
    /// The cache takes about 0.8 kB for each token, at most 1.7 kB, and none for a token longer than 1,024
    /// bytes.
    #[must_use]
    pub fn with_token_cache(self, tokens: usize) -> Verifier {
        Verifier { cache: Some(Arc::new(TokenCache::new(tokens))), ..self }
    }

    /// Checks rules 1 to 6, for which the token's text is enough. The claims that are returned are the
    /// issuer's: they do not say whether the token was revoked since.
    ///
    /// # Errors
    ///
    /// The first rule that the token breaks.
    pub fn authenticate(&self, token: &str, kind: Kind, now: UnixSeconds) -> Result<Claims, Denied> {
        self.authenticate_explained(token, kind, now).map_err(|refused| refused.reason)
    }

    /// Like [`Verifier::authenticate`], and returns the claims of a token that is refused by its times alone.
    ///
    /// # Errors
    ///
    /// The first rule that the token breaks.
    pub fn authenticate_explained(
        &self,
        token: &str,
        kind: Kind,
        now: UnixSeconds,
    ) -> Result<Claims, Refused> {
        let claims = self.authenticate_at_any_time(token, kind)?;
        if claims.issued_at > now.saturating_add(MAX_CLOCK_DIFFERENCE) {
            return Err(Refused::of(claims, Denied::NotYetValid));
        }
        if now >= claims.expires_at {
            return Err(Refused::of(claims, Denied::Expired));
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
        let Some((cache, tag)) = self.cache.as_ref().and_then(|cache| Some((cache, cache.tag(token)?)))
        else {
            return self.read(token, kind);
        };
        if let Some(claims) = cache.find(tag, token, kind) {
            return Ok(claims);
        }
        let claims = self.read(token, kind)?;
        cache.put(tag, token, kind, &claims);
        Ok(claims)
    }

    /// Checks rules 1 to 5.
    fn read(&self, token: &str, kind: Kind) -> Result<Claims, Denied> {
        let (actual, payload) = self.keys.open(token)?;
        // Only the buffer that is used is cleared.
        let (mut usual, mut longest);
        let buffer: &mut [u8] = if payload.len() <= USUAL_PAYLOAD / 3 * 4 {
            usual = [0; USUAL_PAYLOAD];
            &mut usual
        } else {
            longest = [0; LONGEST_PAYLOAD];
            &mut longest
        };
        let payload = decode(payload, buffer)?;
        if actual != kind {
            return Err(Denied::WrongKind);
        }
        Claims::read(payload, &self.profile)
    }

    /// Checks rules 1 to 7, for an access token. The caller's address is not checked yet.
    ///
    /// # Errors
    ///
    /// The first rule that the token breaks.
    pub fn stand(&self, token: &str, now: UnixSeconds, state: &impl State) -> Result<StandingToken, Denied> {
        self.stand_explained(token, now, state).map_err(|refused| refused.reason)
    }

    /// Like [`Verifier::stand`], and returns the claims of a token that is refused by rule 6 or 7.
    ///
    /// # Errors
    ///
    /// The first rule that the token breaks.
    pub fn stand_explained(
        &self,
        token: &str,
        now: UnixSeconds,
        state: &impl State,
    ) -> Result<StandingToken, Refused> {
        let claims = self.authenticate_explained(token, Kind::Access, now)?;
        match StandingToken::client_of(&claims, state) {
            Ok(client) => Ok(StandingToken { claims, client }),
            Err(reason) => Err(Refused::of(claims, reason)),
        }
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

/// A token that was refused, and what it proves all the same.
///
/// Later versions may add fields.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// The first rule that the token breaks.
    pub reason: Denied,
    /// The token's claims, if it keeps rules 1 to 5: then its issuer wrote them.
    pub claims: Option<Box<Claims>>,
}

impl Refused {
    fn of(claims: Claims, reason: Denied) -> Refused {
        Refused { reason, claims: Some(Box::new(claims)) }
    }
}

/// A token whose claims prove nothing.
impl From<Denied> for Refused {
    fn from(reason: Denied) -> Refused {
        Refused { reason, claims: None }
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
    #[cfg(feature = "follow")]
    pub(crate) fn decide(claims: Claims, state: &impl State) -> Result<StandingToken, Denied> {
        let client = StandingToken::client_of(&claims, state)?;
        Ok(StandingToken { claims, client })
    }

    /// Checks rule 7, and returns the client.
    fn client_of(claims: &Claims, state: &impl State) -> Result<Arc<ClientPolicy>, Denied> {
        let client = state.client(claims.client).ok_or(Denied::NotKnown)?;
        client.stands_behind(claims)?;
        let session = state.session(claims.session).ok_or(Denied::NotKnown)?;
        if session.client != claims.client || claims.pair > session.pair {
            return Err(Denied::NotKnown);
        }
        if session.ended {
            return Err(Denied::Revoked);
        }
        Ok(client)
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
        self.presented_by_explained(caller).map_err(|refused| refused.reason)
    }

    /// Like [`StandingToken::presented_by`], and returns the claims of a token that is refused.
    ///
    /// # Errors
    ///
    /// [`Denied::AddressNotAllowed`]: the address is not known, or not on the client's allowlist.
    pub fn presented_by_explained(self, caller: Option<IpAddr>) -> Result<VerifiedToken, Refused> {
        match self.client.permits(caller) {
            Ok(()) => Ok(VerifiedToken(self)),
            Err(reason) => Err(Refused::of(self.claims, reason)),
        }
    }

    /// The token's claims.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The token's scopes that its client still has.
    pub fn scopes(&self) -> Scopes {
        self.claims.scopes.intersection(&self.client.scopes)
    }

    /// Whether the token has a scope that its client still has.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.claims.scopes.contains(scope) && self.client.scopes.contains(scope)
    }

    /// Checks that the token has all the scopes of `needed`.
    ///
    /// # Errors
    ///
    /// [`Denied::ScopeMissing`]: it lacks one.
    pub fn require(&self, needed: &Scopes) -> Result<(), Denied> {
        if needed.iter().all(|scope| self.has_scope(scope)) { Ok(()) } else { Err(Denied::ScopeMissing) }
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
