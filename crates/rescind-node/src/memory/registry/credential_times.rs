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
            times.oldest = times.oldest.into_iter().chain([known.credential.created_at]).min();
            times.next_expiry = times.next_expiry.into_iter().chain(expiry(&known.credential)).min();
        }
        times
    }

    /// The credentials that may be used at `now` and expire within so many seconds, but those that were replaced.
    pub fn expiring(&self, now: UnixSeconds, within: u64) -> Vec<Arc<KnownCredential>> {
        let expires = |credential: &Credential| {
            credential.is_good(now)
                && expiry(credential).is_some_and(|until| until <= now.saturating_add(within))
        };
        let credentials = self.credentials.pin();
        credentials.values().filter(|known| expires(&known.credential)).cloned().collect()
    }
}

/// When a credential expires that none has replaced. The end of a replaced one is what its rotation asked for.
fn expiry(credential: &Credential) -> Option<UnixSeconds> {
    credential.expires_at.filter(|_| credential.replaced_at.is_none())
}
