use proptest::prelude::*;
use rescind_verifier::{Algorithm, parse_cidr};

use super::*;
use crate::{model::Credential, secret::SecretHash};

const NOW: UnixSeconds = 500;

fn client() -> Client {
    let credential = |id, expires_at| Credential {
        id,
        api_key: format!("rk_{id}"),
        secret_hash: SecretHash { bytes: [0; 32], pepper: 1 },
        created_at: 0,
        expires_at,
        revoked_at: None,
        replaced_at: None,
        note: None,
    };
    Client {
        id: 1,
        name: "one".into(),
        suspension: Suspension::default(),
        status: Status::Active,
        generation: 4,
        tokens_revoked_at: None,
        revision: 7,
        allowlist: list(&["10.0.0.0/8", "192.0.2.0/24"]),
        certificates: "dns:a.example dns:b.example".parse().unwrap(),
        scopes: "a b".parse().unwrap(),
        resources: "urn:a urn:b".parse().unwrap(),
        enforces_allowlist: true,
        introspect_lifetime: Some(5),
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
    let &Client { status, generation, revision, enforces_allowlist, introspect_lifetime, .. } = client;
    let Client { allowlist, certificates, scopes, resources, .. } = client.clone();
    let known = RememberedClient {
        status,
        suspended_until: client.suspension.until,
        generation,
        revision,
        allowlist,
        certificates,
        scopes,
        resources,
        enforces_allowlist,
        introspect_lifetime,
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
        resources: "urn:b urn:c".parse().unwrap(),
        enforces_allowlist: false,
        introspect_lifetime: Some(2),
        ..client()
    };
    let mut memory = memory(&known);
    memory.clients.get_mut(&1).unwrap().credentials = [(1, Some(700)), (2, Some(950))].into();
    let after = narrowed(&memory, client());
    assert_eq!((after.status, after.generation, after.revision), (Status::Suspended, 6, 10));
    assert_eq!(after.allowlist, list(&["10.1.0.0/16", "192.0.2.0/24"]));
    assert!(!after.enforces_allowlist);
    assert_eq!(after.introspect_lifetime, Some(2));
    assert_eq!((after.certificates.to_string(), after.scopes.as_str()), ("dns:b.example".into(), "b"));
    assert_eq!(after.resources.to_string(), "urn:b");
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
        assert_eq!((&after.allowlist, &after.certificates), (&client().allowlist, &client().certificates));
    }
    for elsewhere in [
        Client { allowlist: list(&["198.51.100.0/24"]), ..client() },
        Client { certificates: "dns:z.example".parse().unwrap(), ..client() },
        Client { resources: "urn:z".parse().unwrap(), ..client() },
        Client { resources: Resources::default(), ..client() },
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
        rfc9068: false,
        created_at: 0,
        signs_from: 0,
        retire_at: None,
    };
    let retired: Vec<_> = (1..=4).filter(|&id| memory.has_retired(&key(id))).collect();
    let verifier = |id| VerifierRecord {
        id,
        name: String::new(),
        token_hash: SecretHash { bytes: [0; 32], pepper: 1 },
        shares_hs256: false,
        created_at: 0,
    };
    let revoked: Vec<_> = (1..=4).filter(|&id| memory.has_revoked(&verifier(id))).collect();
    assert_eq!((retired, revoked), (vec![2], vec![1, 3]));
}

const RESOURCES: &[&str] = &["urn:a", "urn:b", "urn:c"];

fn any_client() -> impl Strategy<Value = Client> {
    const NETWORKS: &[&str] = &["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "192.0.2.0/24", "2001:db8::/32"];
    const NAMES: &[&str] = &["dns:a.example", "dns:b.example", "uri:spiffe://c.example"];
    let some = |of: &'static [&'static str]| prop::sample::subsequence(of, 0..=of.len());
    (
        prop::sample::select(vec![Status::Active, Status::Suspended, Status::Deleted]),
        prop::option::of(600u64..603),
        0u64..4,
        0u64..9,
        some(NETWORKS),
        some(NAMES),
        some(RESOURCES),
        prop::collection::vec((any::<bool>(), prop::option::of(600u64..603)), 3),
    )
        .prop_map(
            |(status, until, generation, revision, allowlist, certificates, resources, credentials)| {
                let until = until.filter(|_| status == Status::Suspended);
                let mut client = Client {
                    status,
                    suspension: Suspension { until, reason: None },
                    generation,
                    revision,
                    allowlist: list(&allowlist),
                    certificates: certificates.join(" ").parse().unwrap(),
                    resources: resources.join(" ").parse().unwrap(),
                    ..client()
                };
                for (credential, (revoked, expires_at)) in client.credentials.iter_mut().zip(credentials) {
                    credential.expires_at = expires_at;
                    credential.revoked_at = revoked.then_some(1);
                }
                client
            },
        )
}

/// Returns which of these addresses the client admits, and which resources its tokens may be for. A client that is
/// suspended is taken as it is then.
fn lets_in(client: &Client, then: UnixSeconds) -> Vec<bool> {
    let addresses = ["10.0.0.1", "10.1.0.1", "10.1.2.1", "192.0.2.1", "2001:db8::1", "198.51.100.1"];
    let permits = |address: &str| client.permits(Some(address.parse().unwrap())).is_ok();
    let for_resources = RESOURCES.iter().chain(&["default"]).map(|r| client.resources.names(r, "default"));
    let may = addresses.iter().map(|address| permits(address)).chain(for_resources);
    let is_active = match client.status {
        Status::Active => true,
        Status::Suspended => client.suspension.until.is_some_and(|until| until <= then),
        Status::Deleted => false,
    };
    may.map(|may| may && is_active).collect()
}

proptest! {
    // check 96
    #[test]
    fn a_merge_lets_nobody_in_whom_one_of_the_two_does_not(
        stored in any_client(), one in any_client(), two in any_client(),
    ) {
        let (first, second) = (memory(&one), memory(&two));
        let after = narrowed(&first, stored.clone());
        for then in 599..604 {
            for (i, lets_in) in lets_in(&after, then).into_iter().enumerate() {
                prop_assert!(!lets_in || (self::lets_in(&stored, then)[i] && self::lets_in(&one, then)[i]));
            }
        }
        prop_assert!(after.generation >= stored.generation.max(one.generation));
        prop_assert!(after == stored || after.revision > stored.revision.max(one.revision));
        prop_assert!(after.certificates.is_empty() <= (stored.certificates.is_empty() && one.certificates.is_empty()));
        // A second merge changes nothing, and the order of merges does not decide who is admitted.
        prop_assert_eq!(&narrowed(&first, after.clone()), &after);
        let (forth, back) = (narrowed(&second, after), narrowed(&first, narrowed(&second, stored)));
        for then in 599..604 {
            prop_assert_eq!(lets_in(&forth, then), lets_in(&back, then));
        }
        let good = |client: &Client| -> Vec<_> {
            client.credentials.iter().map(|c| (c.revoked_at.is_some(), c.expires_at)).collect()
        };
        prop_assert_eq!(good(&forth), good(&back));
    }

    #[test]
    fn common_addresses_are_those_of_every_pair(
        one in prop::collection::vec((any::<bool>(), 0u8..4, 0u8..=5), 0..12),
        other in prop::collection::vec((any::<bool>(), 0u8..4, 0u8..=5), 0..12),
    ) {
        let network = |(v6, bits, prefix): (bool, u8, u8)| -> IpNet {
            let address: std::net::IpAddr =
                if v6 { [u16::from(bits) << 11, 0, 0, 0, 0, 0, 0, 0].into() } else { [bits << 3, 0, 0, 0].into() };
            IpNet::new(address, prefix + 3).unwrap().trunc()
        };
        let [one, other] = [one, other].map(|list| list.into_iter().map(network).collect::<Allowlist>());
        prop_assume!(!one.is_empty() && !other.is_empty());
        let pairs = one.entries().iter().flat_map(|a| other.entries().iter().map(move |b| (a, b)));
        let inner = pairs.filter_map(|(a, b)| match (a.contains(b), b.contains(a)) {
            (true, _) => Some(*b),
            (_, true) => Some(*a),
            _ => None,
        });
        let inner = Some(Allowlist::from_iter(inner)).filter(|inner| !inner.is_empty());
        prop_assert_eq!(common_addresses(&one, &other), inner);
    }
}
