//! How credentials are used, by hours; their last verifications; and which expiries were told of.

use rescind_base::{
    model::{ChangeOrigin, ClientId, Counted, CredentialId, Expiring, Hours, Last, Tally, UnixSeconds},
    telemetry::step,
};
use tracing::Instrument;

use super::{Result, Store, ask};

impl Store {
    /// Adds counts to those that were written before, and the last verifications where they are newer.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn add_usage(&self, counted: Vec<Counted>) -> Result<()> {
        ask!(self, add_usage(counted))
    }

    /// Returns a client's counts of those hours in which there was something to count, in their order. Client 0: all
    /// clients together. With a credential, those of this one alone.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn usage_of(
        &self,
        client: ClientId,
        credential: Option<CredentialId>,
        hours: Hours,
    ) -> Result<Vec<(u64, Tally)>> {
        ask!(self, usage_of(client, credential, hours))
    }

    /// Returns the last verification of each of a client's credentials that has one.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn last_verifications(&self, client: ClientId) -> Result<Vec<(CredentialId, Last)>> {
        ask!(self, last_verifications(client))
    }

    /// Deletes a batch of the counts before this hour, and of the last verifications of credentials that are gone. Returns
    /// whether no more remain.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn sweep_usage(&self, before: u64) -> Result<bool> {
        ask!(self, sweep_usage(before))
    }

    /// Notes that these expiries are told of, each with its event. Returns those that were not noted before, by any node.
    /// Notes of what expired before `over` are forgotten.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn note_expiries(
        &self,
        expiring: Vec<Expiring>,
        over: UnixSeconds,
        origin: ChangeOrigin,
    ) -> Result<Vec<Expiring>> {
        ask!(self, note_expiries(expiring, over, origin))
    }
}
