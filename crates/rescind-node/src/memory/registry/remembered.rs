//! The registry's content, for a database that has lost it.

use std::{
    collections::HashMap,
    sync::{PoisonError, atomic::Ordering},
};

use rescind_base::model::{Highest, Remembered, RememberedClient};

use super::{KnownClient, Registry};

impl Registry {
    /// The registry's content. Keys and verifiers are not in the registry.
    pub fn remembered(&self) -> Remembered {
        let ends: HashMap<_, _> = self
            .credentials
            .pin()
            .values()
            .map(|known| (known.credential.id, known.credential.expires_at))
            .collect();
        let remembered = |known: &KnownClient| RememberedClient {
            status: known.status,
            suspended_until: known.suspended_until,
            generation: known.policy.generation,
            revision: known.policy.revision,
            allowlist: known.policy.allowlist.clone(),
            certificates: known.certificates.clone(),
            resources: known.resources.clone(),
            scopes: known.policy.scopes.clone(),
            enforces_allowlist: known.enforces_allowlist,
            introspect_lifetime: known.introspect_lifetime,
            credentials: known
                .policy
                .credentials
                .iter()
                .map(|id| (*id, ends.get(id).copied().flatten()))
                .collect(),
        };
        let mut pairs = vec![];
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            let refreshed = shard.old.iter().chain(&shard.young).filter(|(_, state)| state.pair > 1);
            pairs.extend(refreshed.map(|(id, state)| (state.client, *id, state.pair)));
        }
        Remembered {
            clients: self.clients.pin().iter().map(|(id, known)| (*id, remembered(known))).collect(),
            ended: self.feed.ended(),
            pairs,
            highest: Highest {
                client: self.highest_client.load(Ordering::Relaxed),
                credential: self.highest_credential.load(Ordering::Relaxed),
                session: self.highest_session.load(Ordering::Relaxed),
                ..Highest::default()
            },
            ..Remembered::default()
        }
    }
}
