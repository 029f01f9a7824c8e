//! Changes that a database has lost and a process still has in memory.

use std::collections::HashMap;

use ipnet::IpNet;
use rescind_verifier::{Allowlist, Scopes, follow::wire::EndedSession};

use crate::model::{
    CertificateNames, Client, ClientId, CredentialId, SessionId, SigningKeyRecord, Status, UnixSeconds,
    VerifierRecord,
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
    pub generation: u64,
    pub revision: u64,
    pub allowlist: Allowlist,
    pub certificates: CertificateNames,
    pub scopes: Scopes,
    pub enforces_allowlist: bool,
    /// The credentials that are not revoked, with their expiry.
    pub credentials: HashMap<CredentialId, Option<UnixSeconds>>,
}

impl Remembered {
    /// Restricts a client of a database to what memory allows. Of two different values the more restrictive is kept.
    pub fn narrow(&self, client: &mut Client, now: UnixSeconds) {
        let Some(known) = self.clients.get(&client.id) else { return };
        let before = client.clone();
        client.generation = client.generation.max(known.generation);
        client.status = client.status.max(known.status);
        client.scopes = client.scopes.intersection(&known.scopes);
        client.enforces_allowlist &= known.enforces_allowlist;
        let allowlist = common_addresses(&client.allowlist, &known.allowlist);
        let certificates = common_names(&client.certificates, &known.certificates);
        if (allowlist.is_none() || certificates.is_none()) && client.status == Status::Active {
            // Nothing is admitted by both, and an empty list would admit everybody.
            client.status = Status::Suspended;
            client.generation += 1;
        }
        client.allowlist = allowlist.unwrap_or_else(|| client.allowlist.clone());
        client.certificates = certificates.unwrap_or_else(|| client.certificates.clone());
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
    let inner = |a: &IpNet, b: &IpNet| match (a.contains(b), b.contains(a)) {
        (true, _) => Some(*b),
        (_, true) => Some(*a),
        _ => None,
    };
    let pairs = one.entries().iter().flat_map(|a| other.entries().iter().filter_map(move |b| inner(a, b)));
    Some(Allowlist::from_iter(pairs)).filter(|common| !common.is_empty())
}

/// Returns the names that both sets accept; `None` if there are none.
fn common_names(one: &CertificateNames, other: &CertificateNames) -> Option<CertificateNames> {
    if one.is_empty() || other.is_empty() {
        return Some(if one.is_empty() { other.clone() } else { one.clone() });
    }
    let common = one.iter().filter(|name| other.contains(name)).cloned();
    Some(CertificateNames::from_iter(common)).filter(|common| !common.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rescind_verifier::{Algorithm, parse_cidr};

    use super::*;
    use crate::{model::Credential, secret::SecretHash};

    const NOW: UnixSeconds = 500;

    fn client() -> Client {
        let credential = |id, expires_at| Credential {
            id,
            api_key: format!("rk_{id}"),
            secret_hash: SecretHash([0; 32]),
            created_at: 0,
            expires_at,
            revoked_at: None,
        };
        Client {
            id: 1,
            name: "one".into(),
            status: Status::Active,
            generation: 4,
            revision: 7,
            allowlist: list(&["10.0.0.0/8", "192.0.2.0/24"]),
            certificates: "dns:a.example dns:b.example".parse().unwrap(),
            scopes: "a b".parse().unwrap(),
            enforces_allowlist: true,
            created_at: 0,
            credentials: vec![credential(1, None), credential(2, Some(900)), credential(8, None)],
        }
    }

    fn list(entries: &[&str]) -> Allowlist {
        entries.iter().map(|entry| parse_cidr(entry).unwrap()).collect()
    }

    /// Returns memory of this client, with credentials 1 and 2 alone, of those up to 5.
    fn memory(client: &Client) -> Remembered {
        let live = client.credentials.iter().filter(|c| c.revoked_at.is_none() && c.id <= 5);
        let credentials = live.map(|c| (c.id, c.expires_at)).collect();
        let &Client { status, generation, revision, enforces_allowlist, .. } = client;
        let Client { allowlist, certificates, scopes, .. } = client.clone();
        let known = RememberedClient {
            status,
            generation,
            revision,
            allowlist,
            certificates,
            scopes,
            enforces_allowlist,
            credentials,
        };
        let highest = Highest { credential: 5, key: 3, verifier: 3, ..Highest::default() };
        Remembered { clients: [(1, known)].into(), highest, ..Remembered::default() }
    }

    fn narrowed(memory: &Remembered, mut client: Client) -> Client {
        memory.narrow(&mut client, NOW);
        client
    }

    #[test]
    fn what_is_as_it_is_remembered_stays_as_it_is() {
        assert_eq!(narrowed(&memory(&client()), client()), client());
        let other = Client { id: 2, ..client() };
        assert_eq!(narrowed(&memory(&client()), other.clone()), other);
    }

    // check 96
    #[test]
    fn of_two_that_differ_the_more_restrictive_stands() {
        let known = Client {
            status: Status::Suspended,
            generation: 6,
            revision: 9,
            allowlist: list(&["10.1.0.0/16", "192.0.0.0/16", "203.0.113.0/24"]),
            certificates: "dns:b.example dns:c.example".parse().unwrap(),
            scopes: "b c".parse().unwrap(),
            enforces_allowlist: false,
            ..client()
        };
        let mut memory = memory(&known);
        memory.clients.get_mut(&1).unwrap().credentials = [(1, Some(700)), (2, Some(950))].into();
        let after = narrowed(&memory, client());
        assert_eq!((after.status, after.generation, after.revision), (Status::Suspended, 6, 10));
        assert_eq!(after.allowlist, list(&["10.1.0.0/16", "192.0.2.0/24"]));
        assert!(!after.enforces_allowlist);
        assert_eq!((after.certificates.to_string(), after.scopes.as_str()), ("dns:b.example".into(), "b"));
        let ends: Vec<_> = after.credentials.iter().map(|c| c.expires_at).collect();
        assert_eq!(ends, [Some(700), Some(900), None]);
        assert!(after.credentials.iter().all(|c| c.revoked_at.is_none()));

        memory.clients.get_mut(&1).unwrap().credentials.remove(&2);
        let revoked = narrowed(&memory, client());
        let revoked: Vec<_> = revoked.credentials.iter().map(|c| c.revoked_at).collect();
        // The id of the last credential is higher than all that memory has met.
        assert_eq!(revoked, [None, Some(NOW), None]);
    }

    // check 96
    #[test]
    fn where_nothing_is_left_in_common_nobody_is_let_in() {
        let open = Client { allowlist: list(&[]), certificates: "".parse().unwrap(), ..client() };
        for (one, other) in [(client(), open.clone()), (open, client())] {
            let after = narrowed(&memory(&one), other);
            assert_eq!((after.status, after.generation), (Status::Active, 4));
            assert_eq!(
                (&after.allowlist, &after.certificates),
                (&client().allowlist, &client().certificates)
            );
        }
        for elsewhere in [
            Client { allowlist: list(&["198.51.100.0/24"]), ..client() },
            Client { certificates: "dns:z.example".parse().unwrap(), ..client() },
        ] {
            let after = narrowed(&memory(&elsewhere), client());
            assert_eq!((after.status, after.generation, after.revision), (Status::Suspended, 5, 8));
            assert!(!after.allowlist.is_empty() && !after.certificates.is_empty());
        }
    }

    #[test]
    fn keys_and_verifiers_that_were_met_and_are_gone_were_taken_back() {
        let memory = Remembered { keys: vec![1, 3], verifiers: vec![2], ..memory(&client()) };
        let key = |id| SigningKeyRecord {
            id,
            kid: String::new(),
            algorithm: Algorithm::Hs256,
            sealed: vec![],
            refresh_sealed: None,
            created_at: 0,
            signs_from: 0,
            retire_at: None,
        };
        let retired: Vec<_> = (1..=4).filter(|&id| memory.has_retired(&key(id))).collect();
        let verifier = |id| VerifierRecord {
            id,
            name: String::new(),
            token_hash: SecretHash([0; 32]),
            shares_hs256: false,
            created_at: 0,
        };
        let revoked: Vec<_> = (1..=4).filter(|&id| memory.has_revoked(&verifier(id))).collect();
        assert_eq!((retired, revoked), (vec![2], vec![1, 3]));
    }

    fn any_client() -> impl Strategy<Value = Client> {
        const NETWORKS: &[&str] =
            &["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "192.0.2.0/24", "2001:db8::/32"];
        const NAMES: &[&str] = &["dns:a.example", "dns:b.example", "uri:spiffe://c.example"];
        let some = |of: &'static [&'static str]| prop::sample::subsequence(of, 0..=of.len());
        (
            prop::sample::select(vec![Status::Active, Status::Suspended, Status::Deleted]),
            0u64..4,
            0u64..9,
            some(NETWORKS),
            some(NAMES),
            prop::collection::vec((any::<bool>(), prop::option::of(600u64..603)), 3),
        )
            .prop_map(|(status, generation, revision, allowlist, certificates, credentials)| {
                let mut client = Client {
                    status,
                    generation,
                    revision,
                    allowlist: list(&allowlist),
                    certificates: certificates.join(" ").parse().unwrap(),
                    ..client()
                };
                for (credential, (revoked, expires_at)) in client.credentials.iter_mut().zip(credentials) {
                    credential.expires_at = expires_at;
                    credential.revoked_at = revoked.then_some(1);
                }
                client
            })
    }

    /// Returns which of these addresses the client admits.
    fn lets_in(client: &Client) -> Vec<bool> {
        let addresses = ["10.0.0.1", "10.1.0.1", "10.1.2.1", "192.0.2.1", "2001:db8::1", "198.51.100.1"];
        let permits = |address: &str| client.permits(Some(address.parse().unwrap())).is_ok();
        addresses.iter().map(|address| client.status == Status::Active && permits(address)).collect()
    }

    proptest! {
        // check 96
        #[test]
        fn a_merge_lets_nobody_in_whom_one_of_the_two_does_not(
            stored in any_client(), one in any_client(), two in any_client(),
        ) {
            let (first, second) = (memory(&one), memory(&two));
            let after = narrowed(&first, stored.clone());
            for (i, lets_in) in lets_in(&after).into_iter().enumerate() {
                prop_assert!(!lets_in || (self::lets_in(&stored)[i] && self::lets_in(&one)[i]));
            }
            prop_assert!(after.generation >= stored.generation.max(one.generation));
            prop_assert!(after == stored || after.revision > stored.revision.max(one.revision));
            prop_assert!(after.certificates.is_empty() <= (stored.certificates.is_empty() && one.certificates.is_empty()));
            // A second merge changes nothing, and the order of merges does not decide who is admitted.
            prop_assert_eq!(&narrowed(&first, after.clone()), &after);
            let (forth, back) = (narrowed(&second, after), narrowed(&first, narrowed(&second, stored)));
            prop_assert_eq!(lets_in(&forth), lets_in(&back));
            let good = |client: &Client| -> Vec<_> {
                client.credentials.iter().map(|c| (c.revoked_at.is_some(), c.expires_at)).collect()
            };
            prop_assert_eq!(good(&forth), good(&back));
        }
    }
}
