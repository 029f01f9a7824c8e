//! Tells of what expires soon: in the log and the audit log, once for each number of days.

use std::{collections::BTreeSet, sync::PoisonError};

use rescind_base::model::{Actor, Expiring, FIRST_NOTICE, ManagementToken, Subject, UnixSeconds};
use rescind_store::StoreError;
use tracing::warn;

use super::App;

/// The most notices in one write.
const NOTICES: usize = 100;
/// How long notices are remembered after the expiry, in seconds.
const KEPT: u64 = 86_400;

/// For how long the certificate in force is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub from: UnixSeconds,
    pub until: UnixSeconds,
}

impl App {
    /// Notes which certificate is in force.
    pub fn certificate_in_force(&self, validity: Validity) {
        self.metrics.certificate_expires(validity.until);
        *self.certificate.lock().unwrap_or_else(PoisonError::into_inner) = Some(validity);
    }

    /// Tells of what expires soon, unless that was told before, here or by another node.
    pub(super) async fn tell_expiries(&self, now: UnixSeconds) -> Result<(), StoreError> {
        let due = self.due_notices(now).await?;
        let new: Vec<_> =
            due.difference(&self.told.lock().unwrap_or_else(PoisonError::into_inner)).cloned().collect();
        for some in new.chunks(NOTICES) {
            let origin = self.audit.origin(Actor::Service, None);
            let first = self.store.note_expiries(some.to_vec(), now.saturating_sub(KEPT), origin).await?;
            first.iter().for_each(log);
        }
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = due;
        Ok(())
    }

    async fn due_notices(&self, now: UnixSeconds) -> Result<BTreeSet<Expiring>, StoreError> {
        let credentials = self.memory.registry.expiring(now, FIRST_NOTICE).into_iter().filter_map(|known| {
            let (id, api_key) = (known.credential.id, known.credential.api_key.clone());
            let subject = Subject::Credential { id, client: known.client, api_key };
            Expiring::due(subject, known.credential.created_at, known.credential.expires_at?, now)
        });
        let tokens = self.store.management_tokens().await?;
        let tokens =
            tokens.into_iter().filter_map(|ManagementToken { id, name, created_at, expires_at, .. }| {
                Expiring::due(Subject::ManagementToken { id, name }, created_at, expires_at?, now)
            });
        let certificate = *self.certificate.lock().unwrap_or_else(PoisonError::into_inner);
        let certificate = certificate
            .and_then(|Validity { from, until }| Expiring::due(Subject::Certificate, from, until, now));
        Ok(credentials.chain(tokens).chain(certificate).collect())
    }
}

fn log(expiring: &Expiring) {
    let when = expiring.when();
    match &expiring.subject {
        Subject::Credential { client, api_key, .. } => {
            warn!(client, credential = api_key, "a credential expires {when}");
        }
        Subject::ManagementToken { id, name } => warn!(id, name, "a management token expires {when}"),
        Subject::Certificate => warn!("the certificate in force expires {when}"),
    }
}
