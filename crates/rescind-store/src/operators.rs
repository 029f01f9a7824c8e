//! Operations for operators' questions, and for what ends by itself.

use rescind_base::{
    model::{ChangeOrigin, ClientId, CredentialId, CredentialUse, SessionId, SigningKeyRecord, UnixSeconds},
    secret::SealedSecrets,
    telemetry::step,
};
use tracing::Instrument;

use super::{Result, SessionPart, Store, ask};

impl Store {
    /// Replaces the sealed secrets by the same ones sealed under another master key: the store's own, these signing keys, and the
    /// secrets of these administrators' authenticators.
    /// # Errors
    /// Fails if the store is unavailable, or a server serves from it.
    pub async fn reseal(
        &self,
        secrets: SealedSecrets,
        keys: Vec<SigningKeyRecord>,
        authenticators: Vec<(u64, Vec<u8>)>,
        origin: ChangeOrigin,
    ) -> Result<()> {
        ask!(self, reseal(secrets, keys, authenticators, origin))
    }

    /// Looks at the newest `rows` sessions of all clients before `before`, and returns those of this client.
    ///
    /// There is no index by client, which every login would have to write. So all sessions of a client are found only by a
    /// walk over the whole table, in parts, between which changes go on.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn sessions_of(&self, client: ClientId, before: SessionId, rows: u64) -> Result<SessionPart> {
        ask!(self, sessions_of(client, before, rows))
    }

    /// Returns the client of a session.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn client_of_session(&self, session: SessionId) -> Result<Option<ClientId>> {
        ask!(self, client_of_session(session))
    }

    /// Returns the client of a credential, also of one that was revoked.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn client_of_credential(&self, api_key: &str) -> Result<Option<ClientId>> {
        ask!(self, client_of_credential(api_key))
    }

    /// Returns some of the suspended clients that are to be resumed at `now`.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn suspended_until(&self, now: UnixSeconds) -> Result<Vec<ClientId>> {
        ask!(self, suspended_until(now))
    }

    /// Returns some of the clients with credentials that ended before this time.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn with_ended_credentials(&self, before: UnixSeconds) -> Result<Vec<ClientId>> {
        ask!(self, with_ended_credentials(before))
    }

    /// Adds uses of credentials to those that were written before. Of each of these credentials only a number of
    /// addresses is kept, the newest.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn add_uses(&self, uses: Vec<CredentialUse>) -> Result<()> {
        ask!(self, add_uses(uses))
    }

    /// Returns the uses of a client's credentials, the newest first.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn uses_of(&self, client: ClientId) -> Result<Vec<CredentialUse>> {
        ask!(self, uses_of(client))
    }

    /// Returns when each client's credentials were used last, their tokens included, for clients of which that is known.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn last_uses(&self) -> Result<Vec<(ClientId, UnixSeconds)>> {
        ask!(self, last_uses())
    }

    /// Deletes, of the next credentials after `after`, the uses before this time but the last use of each; those
    /// beyond a number for each; and those of credentials that are gone. Returns the last credential that it looked
    /// at. `None`: there is none after `after`.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn sweep_uses(&self, after: CredentialId, before: UnixSeconds) -> Result<Option<CredentialId>> {
        ask!(self, sweep_uses(after, before))
    }
}
