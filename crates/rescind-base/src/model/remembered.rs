//! Changes that a database has lost and a process still has in memory.

use std::collections::HashMap;

use ipnet::IpNet;
use rescind_verifier::{Allowlist, Resources, Scopes, follow::wire::EndedSession};

use crate::model::{
    CertificateNames, Client, ClientId, CredentialId, SessionId, SigningKeyRecord, Status, Suspension,
    UnixSeconds, VerifierRecord,
};

/// All that a process has in memory about revocations. A merge into a database's data only makes that more
/// restrictive. So several processes may merge one after the other, in any order and more than once.
#[derive(Debug, Default)]
pub struct Remembered {
    /// Every client, deleted ones included.
    pub clients: HashMap<ClientId, RememberedClient>,
    /// Sessions that ended before they expired, and would not have expired yet.
    pub ended: Vec<EndedSession>,
    /// The newest pair of each refreshed session that is in memory.
    pub pairs: Vec<(ClientId, SessionId, u64)>,
    /// Ids of the signing keys that are valid.
    pub keys: Vec<u64>,
    /// Ids of the verifiers that may follow the feed.
    pub verifiers: Vec<u64>,
    /// The highest ids that the process has met.
    pub highest: Highest,
}

/// The highest ids that a process has met. Data with a lower id that is not in memory was revoked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Highest {
    pub client: ClientId,
    pub credential: CredentialId,
    pub verifier: u64,
    pub key: u64,
    pub session: SessionId,
}

/// A client as a process has it in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RememberedClient {
    pub status: Status,
    /// When a suspended client is resumed. `None`: an operator resumes it.
    pub suspended_until: Option<UnixSeconds>,
    pub generation: u64,
    pub revision: u64,
    pub allowlist: Allowlist,
    pub certificates: CertificateNames,
    pub scopes: Scopes,
    pub resources: Resources,
    pub enforces_allowlist: bool,
    pub introspect_lifetime: Option<u64>,
    /// The credentials that are not revoked, with their expiry.
    pub credentials: HashMap<CredentialId, Option<UnixSeconds>>,
}

impl Remembered {
    /// Restricts a client of a database to what memory allows. Of two different values the more restrictive is kept.
    pub fn narrow(&self, client: &mut Client, now: UnixSeconds) {
        let Some(known) = self.clients.get(&client.id) else { return };
        let before = client.clone();
        client.generation = client.generation.max(known.generation);
        client.scopes = client.scopes.intersection(&known.scopes);
        client.enforces_allowlist &= known.enforces_allowlist;
        let lifetimes = [client.introspect_lifetime, known.introspect_lifetime];
        client.introspect_lifetime = lifetimes.into_iter().flatten().min();
        let allowlist = common_addresses(&client.allowlist, &known.allowlist);
        let certificates = common_names(&client.certificates, &known.certificates);
        let resources = common_resources(&client.resources, &known.resources);
        let disjoint = allowlist.is_none() || certificates.is_none() || resources.is_none();
        client.suspension.until = match (client.status, known.status) {
            // It would be active again with what one of the two admits.
            _ if disjoint => None,
            (Status::Suspended, Status::Suspended) => {
                client.suspension.until.zip(known.suspended_until).map(|(one, other)| one.max(other))
            }
            (_, Status::Suspended) => known.suspended_until,
            _ => client.suspension.until,
        };
        client.status = client.status.max(known.status);
        if disjoint && client.status == Status::Active {
            // Nothing is admitted by both, and an empty list would admit everybody, or tokens for another API.
            client.status = Status::Suspended;
            client.revoke_tokens(now);
        }
        if client.status == Status::Deleted {
            client.suspension = Suspension::default();
        }
        client.allowlist = allowlist.unwrap_or_else(|| client.allowlist.clone());
        client.certificates = certificates.unwrap_or_else(|| client.certificates.clone());
        client.resources = resources.unwrap_or_else(|| client.resources.clone());
        for credential in &mut client.credentials {
            match known.credentials.get(&credential.id) {
                Some(&Some(until)) => {
                    credential.expires_at = Some(credential.expires_at.map_or(until, |at| at.min(until)));
                }
                Some(None) => {}
                None if credential.id > self.highest.credential => {}
                None => _ = credential.revoked_at.get_or_insert(now),
            }
        }
        if *client != before {
            client.revision = client.revision.max(known.revision) + 1;
        }
    }

    /// Returns whether this key of a database was retired.
    pub fn has_retired(&self, key: &SigningKeyRecord) -> bool {
        key.id <= self.highest.key && !self.keys.contains(&key.id)
    }

    /// Returns whether this verifier of a database was revoked.
    pub fn has_revoked(&self, verifier: &VerifierRecord) -> bool {
        verifier.id <= self.highest.verifier && !self.verifiers.contains(&verifier.id)
    }
}

/// Returns the addresses that both lists admit; `None` if there are none.
fn common_addresses(one: &Allowlist, other: &Allowlist) -> Option<Allowlist> {
    if one.is_empty() || other.is_empty() {
        return Some(if one.is_empty() { other.clone() } else { one.clone() });
    }
    if one == other {
        return Some(one.clone());
    }
    let common = entries_within(one, other).chain(entries_within(other, one));
    Some(Allowlist::from_iter(common)).filter(|common| !common.is_empty())
}

/// Returns the entries of `one` that lie within an entry of `other`.
fn entries_within<'a>(one: &'a Allowlist, other: &Allowlist) -> impl Iterator<Item = IpNet> + use<'a> {
    // Two networks are apart, or one is within the other. So of the outermost networks, in order, only the last one
    // that does not come after an entry can contain it.
    let mut outermost: Vec<IpNet> = vec![];
    for entry in other.entries() {
        if outermost.last().is_none_or(|last| !last.contains(entry)) {
            outermost.push(*entry);
        }
    }
    let is_within = move |entry: &IpNet| {
        let after = outermost.partition_point(|network| network <= entry);
        after.checked_sub(1).is_some_and(|at| outermost[at].contains(entry))
    };
    one.entries().iter().copied().filter(is_within)
}

/// Returns the names that both sets accept; `None` if there are none.
fn common_names(one: &CertificateNames, other: &CertificateNames) -> Option<CertificateNames> {
    if one.is_empty() || other.is_empty() {
        return Some(if one.is_empty() { other.clone() } else { one.clone() });
    }
    let common = one.iter().filter(|name| other.contains(name)).cloned();
    Some(CertificateNames::from_iter(common)).filter(|common| !common.is_empty())
}

/// Returns the resources that both sets have; `None` if there are none. An empty set has the default audience, which no
/// other set is known to have.
fn common_resources(one: &Resources, other: &Resources) -> Option<Resources> {
    if one == other {
        return Some(one.clone());
    }
    let common = Resources::new(one.iter().filter(|resource| other.contains(resource))).ok();
    common.filter(|common| !common.is_empty())
}

#[cfg(test)]
mod tests;
