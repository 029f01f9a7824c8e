//! The keys that verify what the signing keys have signed.

use rescind_verifier::{CACHED_TOKENS, ClientId, Denied, Key, Kind, Profile, Refused, Verifier};

/// The keys that verify the tokens of one signing key.
#[derive(Clone)]
pub(super) struct Verification {
    /// For what the key itself signs: access tokens, and refresh tokens if it has no refresh key.
    pub(super) own: Vec<Key>,
    pub(super) refresh: Option<Key>,
}

/// The same for several signing keys.
pub(super) struct Verifiers {
    own: Verifier,
    refresh: Verifier,
}

impl Verifiers {
    pub(super) fn new<'k>(
        keys: impl Iterator<Item = &'k Verification> + Clone,
        profile: &Profile,
    ) -> Verifiers {
        let own = keys.clone().flat_map(|key| &key.own).cloned().collect();
        let refresh = keys.filter_map(|key| key.refresh.clone()).collect();
        Verifiers {
            own: Verifier::new(own, profile.clone().any_audience()),
            refresh: Verifier::new(refresh, profile.of_refresh_tokens()),
        }
    }

    /// These verifiers, with a cache for access tokens. A refresh token seldom comes twice.
    pub(super) fn cached(self) -> Verifiers {
        Verifiers { own: self.own.with_token_cache(CACHED_TOKENS), ..self }
    }

    /// The answer of the verifier that has the key which the token names.
    pub(super) fn ask<T, E: Into<Refused>>(
        &self,
        ask: impl Fn(&Verifier) -> Result<T, E>,
    ) -> Result<T, Refused> {
        match ask(&self.own).map_err(E::into) {
            Err(refused) if refused.reason == Denied::UnknownKey => ask(&self.refresh).map_err(E::into),
            answer => answer,
        }
    }

    /// The client of a token of any kind, expired or not.
    pub(super) fn client_of(&self, token: &str) -> Option<ClientId> {
        let read = |kind| self.ask(|verifier| verifier.authenticate_at_any_time(token, kind));
        Some(read(Kind::Access).or_else(|_| read(Kind::Refresh)).ok()?.client)
    }
}
