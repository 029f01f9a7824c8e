//! Refused requests that will be explained, in a fixed amount of memory until they are written.
//!
//! Nobody can fill it: each client has a share, and so has each network of callers who have proved nothing, who together
//! have no more than a part. If there is no room, whoever has most makes room.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use rescind_base::model::{Check, ClientId, Denial, MissedAllowlist};
use rescind_verifier::{ClientPolicy, IpNet, nat64};

/// How many are kept between two writes.
const ALL: usize = 512;
/// How many of one client are, of one network without a known client, and of all such networks together.
const OF_CLIENT: usize = 32;
const OF_NETWORK: usize = 8;
const OF_STRANGERS: usize = 128;
/// For how many clients and checks it is counted how many were left out.
const COUNTS: usize = 1024;
/// How many of the nearest entries of an allowlist are shown.
const NEAREST: usize = 3;

/// Whose share of the room a denial takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The client has proved its identity.
    Client(ClientId),
    /// A network that counts as one source.
    Network(IpAddr),
}

impl Owner {
    fn client(self) -> Option<ClientId> {
        match self {
            Owner::Client(client) => Some(client),
            Owner::Network(_) => None,
        }
    }
}

/// A policy whose allowlist does not have an address. A list may be long, so not the request but the writer looks for the
/// nearest entries.
pub type Missed = (Arc<ClientPolicy>, IpAddr);

/// A denial, and what the writer needs to finish it.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) owner: Owner,
    pub(super) check: Check,
    pub(super) denial: Denial,
    pub(super) missed: Option<Missed>,
}

/// The denials since the last write.
#[derive(Debug, Default)]
pub(super) struct Denials {
    waiting: VecDeque<Waiting>,
    /// How many places each owner has taken.
    taken: HashMap<Owner, usize>,
    all: usize,
    strangers: usize,
    left_out: HashMap<(Option<ClientId>, Check), u64>,
}

/// How many denials were kept, and how many were not, since the start.
#[derive(Debug, Default)]
pub struct DenialCounts {
    pub(super) kept: AtomicU64,
    pub(super) left_out: AtomicU64,
}

impl DenialCounts {
    pub fn kept(&self) -> u64 {
        self.kept.load(Relaxed)
    }

    pub fn left_out(&self) -> u64 {
        self.left_out.load(Relaxed)
    }
}

impl Denials {
    /// Takes a place for a denial, which must be put there. `false`: there is none, and the denial is only counted.
    pub(super) fn take_place(&mut self, owner: Owner, check: Check, counts: &DenialCounts) -> bool {
        let has = self.taken.get(&owner).copied().unwrap_or(0);
        let has_share = match owner {
            Owner::Client(_) => has < OF_CLIENT,
            Owner::Network(_) => has < OF_NETWORK && self.strangers < OF_STRANGERS,
        };
        if !has_share || (self.all >= ALL && !self.make_room(has, counts)) {
            self.leave_out(owner, check, counts);
            return false;
        }
        self.all += 1;
        self.strangers += usize::from(owner.client().is_none());
        *self.taken.entry(owner).or_default() += 1;
        true
    }

    pub(super) fn put(&mut self, waiting: Waiting) {
        self.waiting.push_back(waiting);
    }

    /// Removes the newest denial of whoever has most, if that is more than somebody with `has` would then have.
    fn make_room(&mut self, has: usize, counts: &DenialCounts) -> bool {
        let most = self.taken.iter().max_by_key(|&(_, taken)| *taken);
        let Some(owner) = most.filter(|&(_, taken)| *taken > has + 1).map(|(&owner, _)| owner) else {
            return false;
        };
        let Some(at) = self.waiting.iter().rposition(|waiting| waiting.owner == owner) else { return false };
        let Some(removed) = self.waiting.remove(at) else { return false };
        self.all -= 1;
        self.strangers -= usize::from(owner.client().is_none());
        self.taken.entry(owner).and_modify(|taken| *taken -= 1);
        self.leave_out(owner, removed.check, counts);
        true
    }

    fn leave_out(&mut self, owner: Owner, check: Check, counts: &DenialCounts) {
        counts.left_out.fetch_add(1, Relaxed);
        let has_room = self.left_out.len() < COUNTS;
        match self.left_out.entry((owner.client(), check)) {
            Entry::Occupied(mut known) => *known.get_mut() += 1,
            Entry::Vacant(new) if has_room => drop(new.insert(1)),
            Entry::Vacant(_) => {}
        }
    }

    /// The denials as they are written, each with how many like it were left out.
    pub(super) fn finished(&self) -> Vec<Denial> {
        let finish = |Waiting { owner, check, denial, missed }: &Waiting| {
            let mut denial = denial.clone();
            denial.details.not_kept = self.left_out.get(&(owner.client(), *check)).copied().unwrap_or(0);
            denial.details.allowlist = missed.as_ref().map(|(policy, address)| missed_by(policy, *address));
            denial
        };
        self.waiting.iter().map(finish).collect()
    }

    /// Puts denials back that could not be written, as far as there is room.
    pub(super) fn put_back(&mut self, before: Denials, counts: &DenialCounts) {
        for waiting in before.waiting {
            if self.take_place(waiting.owner, waiting.check, counts) {
                self.put(waiting);
            }
        }
        for (of, count) in before.left_out {
            if self.left_out.len() < COUNTS {
                *self.left_out.entry(of).or_default() += count;
            }
        }
    }
}

/// The entries of an allowlist that are nearest to an address.
fn missed_by(policy: &ClientPolicy, address: IpAddr) -> MissedAllowlist {
    let entries = policy.allowlist.entries();
    let address = nat64(address).unwrap_or(address.to_canonical());
    let mut near: Vec<_> =
        entries.iter().filter_map(|entry| Some((common_bits(entry, address)?, entry))).collect();
    // Of equally near entries the smallest network is first.
    near.sort_by_key(|&(bits, entry)| std::cmp::Reverse((bits, entry.prefix_len())));
    let nearest = near.iter().take(NEAREST).map(|(_, entry)| entry.to_string()).collect();
    MissedAllowlist { entries: entries.len(), nearest }
}

/// How many leading bits an entry's network and an address have in common. `None`: they are of different kinds.
fn common_bits(entry: &IpNet, address: IpAddr) -> Option<u32> {
    let differing = match (entry.network(), address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => (network.to_bits() ^ address.to_bits()).leading_zeros(),
        (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits() ^ address.to_bits()).leading_zeros(),
        _ => return None,
    };
    Some(differing.min(entry.prefix_len().into()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rescind_base::model::DenialDetails;
    use rescind_verifier::{Allowlist, Denied};

    use super::*;

    const CHECK: Check = Check::Token(Denied::Revoked);

    fn waiting(owner: Owner, n: u64) -> Waiting {
        let denial = Denial {
            id: 0,
            request: n.to_string(),
            at: n,
            node: "node".into(),
            operation: "verify".into(),
            reason: CHECK.name().into(),
            status: 401,
            client: owner.client(),
            proven: owner.client().is_some(),
            address: None,
            details: DenialDetails::default(),
        };
        Waiting { owner, check: CHECK, denial, missed: None }
    }

    /// Denies `times` requests of this owner. Returns how many are kept.
    fn flood(denials: &mut Denials, counts: &DenialCounts, owner: Owner, times: u64) -> usize {
        for n in 0..times {
            if denials.take_place(owner, CHECK, counts) {
                denials.put(waiting(owner, n));
            }
        }
        denials.taken.get(&owner).copied().unwrap_or(0)
    }

    fn network(n: u32) -> Owner {
        Owner::Network(Ipv4Addr::from(n).into())
    }

    // check 102
    #[test]
    fn a_flood_takes_no_more_than_its_share_and_is_counted() {
        let (mut denials, counts) = (Denials::default(), DenialCounts::default());
        assert_eq!(flood(&mut denials, &counts, Owner::Client(1), 1_000_000), OF_CLIENT);
        for n in 0..10_000 {
            flood(&mut denials, &counts, network(n), 100);
        }
        assert_eq!(denials.strangers, OF_STRANGERS);
        assert_eq!(flood(&mut denials, &counts, Owner::Client(2), 3), 3);
        let kept = OF_CLIENT + OF_STRANGERS + 3;
        assert_eq!(denials.waiting.len(), kept);
        assert_eq!(counts.left_out(), 2_000_003 - kept as u64);
        let finished = denials.finished();
        let not_kept = |client| {
            let of_client: Vec<_> = finished.iter().filter(|denial| denial.client == client).collect();
            assert!(of_client.iter().all(|denial| denial.details.not_kept == of_client[0].details.not_kept));
            of_client[0].details.not_kept
        };
        assert_eq!(not_kept(Some(1)), 1_000_000 - OF_CLIENT as u64);
        assert_eq!(not_kept(None), 1_000_000 - OF_STRANGERS as u64);
        assert_eq!(not_kept(Some(2)), 0);
    }

    // check 102
    #[test]
    fn whoever_has_most_makes_room_for_whoever_has_less() {
        let (mut denials, counts) = (Denials::default(), DenialCounts::default());
        let noisy = (ALL / OF_CLIENT) as u64;
        for client in 0..noisy {
            assert_eq!(flood(&mut denials, &counts, Owner::Client(client), 1000), OF_CLIENT);
        }
        assert_eq!(denials.all, ALL);
        // The first denial of everybody else is kept, and nobody pushes out one who has few.
        for client in 100..300 {
            assert_eq!(flood(&mut denials, &counts, Owner::Client(client), 1), 1, "{client}");
        }
        for client in 0..noisy {
            flood(&mut denials, &counts, Owner::Client(client), 1000);
        }
        for client in 100..300 {
            assert_eq!(denials.taken[&Owner::Client(client)], 1);
        }
        assert_eq!((denials.all, denials.waiting.len()), (ALL, ALL));
        assert!((0..noisy).all(|client| denials.taken[&Owner::Client(client)] >= ALL / 2 / OF_CLIENT));
    }

    #[test]
    fn what_could_not_be_written_goes_where_there_is_room() {
        let (mut before, counts) = (Denials::default(), DenialCounts::default());
        flood(&mut before, &counts, Owner::Client(1), 40);
        let mut since = Denials::default();
        flood(&mut since, &counts, Owner::Client(1), 20);
        since.put_back(before, &counts);
        assert_eq!(since.waiting.len(), OF_CLIENT);
        // Left out were 8 before, and 20 of those that were put back.
        assert_eq!((counts.left_out(), since.finished()[0].details.not_kept), (28, 28));
    }

    #[test]
    fn the_nearest_entries_share_the_most_bits_with_the_address() {
        let mut policy = ClientPolicy::new("c");
        let entries = ["10.0.0.0/8", "192.0.2.0/25", "192.0.2.128/26", "192.0.0.0/16", "2001:db8::/32"];
        policy.allowlist = Allowlist::from_iter(entries.map(|entry| entry.parse().unwrap()));
        let missed = |address: &str| missed_by(&policy, address.parse().unwrap());
        let near = missed("192.0.2.200");
        assert_eq!(near.entries, 5);
        assert_eq!(near.nearest, ["192.0.2.128/26", "192.0.2.0/25", "192.0.0.0/16"]);
        assert_eq!(missed("::ffff:192.0.2.200").nearest, near.nearest);
        assert_eq!(missed("64:ff9b::192.0.2.200").nearest, near.nearest);
        assert_eq!(missed("2001:db9::1").nearest, ["2001:db8::/32"]);
    }
}
