//! When credentials were created, and when they expire.

use std::sync::Arc;

use rescind_base::model::{Credential, UnixSeconds};

use super::{KnownCredential, Registry};

/// When the oldest credential was created, and when the next expires that none has replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CredentialTimes {
    pub oldest: Option<UnixSeconds>,
    pub next_expiry: Option<UnixSeconds>,
}

impl Registry {
    /// The times of the credentials that may be used now.
    pub fn credential_times(&self, now: UnixSeconds) -> CredentialTimes {
        let mut times = CredentialTimes::default();
        for (_, known) in self.credentials.pin().iter().filter(|(_, known)| known.credential.is_good(now)) {
            let Credential { created_at, expires_at, replaced_at, .. } = known.credential;
            times.oldest = times.oldest.into_iter().chain([created_at]).min();
            // The end of a replaced one is what its rotation asked for.
            let expires_at = expires_at.filter(|_| replaced_at.is_none());
            times.next_expiry = times.next_expiry.into_iter().chain(expires_at).min();
        }
        times
    }

    /// The credentials that may be used at `now` and expire within so many seconds. The end of a replaced one is what its
    /// rotation asked for, so it is left out.
    pub fn expiring(&self, now: UnixSeconds, within: u64) -> Vec<Arc<KnownCredential>> {
        let expires = |credential: &Credential| {
            let until = credential.expires_at.filter(|_| credential.replaced_at.is_none());
            credential.is_good(now) && until.is_some_and(|until| until <= now.saturating_add(within))
        };
        let credentials = self.credentials.pin();
        credentials.values().filter(|known| expires(&known.credential)).cloned().collect()
    }
}
