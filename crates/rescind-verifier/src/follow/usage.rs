//! How often tokens were verified and refused, counted in memory until it is reported. The server counts in the same
//! way.
//!
//! A verification counts in a part of the present core, which holds the credentials that it met last, so that cores do
//! not wait for each other. A credential that has to make room there moves to a table that all cores share.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::available_parallelism,
};

use serde::{Deserialize, Serialize};

use super::{Shared, clock};
use crate::{Claims, ClientId, CredentialId, Denied, Kind, UnixSeconds, VerifiedToken};

const HOUR: UnixSeconds = 3600;
/// The credentials that one core's part holds. Credentials are numbered, so that few of them fall on one place.
const PLACES: u64 = 256;
/// The number of locks that the shared table is spread over.
const SHARDS: usize = 64;
/// The most credentials and hours that wait in a follower for a report.
const MOST_WAITING: usize = 16_384;
/// The most of them in one report, which is shorter than 64 KiB then: no server refuses that.
pub(super) const MOST_REPORTED: usize = 250;

/// One part for each core, each on cache lines of its own.
#[derive(Debug)]
pub struct PerCore<T>(Box<[Apart<T>]>);

/// Two cache lines, because processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

static PARTS: LazyLock<usize> = LazyLock::new(|| available_parallelism().map_or(1, usize::from));

thread_local! {
    /// This thread's part. There are about as many threads that answer requests as cores.
    static OWN: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Ordering::Relaxed) % *PARTS
    };
}

impl<T> PerCore<T> {
    /// Makes each part.
    pub fn new(make: impl Fn() -> T) -> PerCore<T> {
        PerCore((0..*PARTS).map(|_| Apart(make())).collect())
    }

    /// The part of the present thread. Other threads may have the same.
    pub fn own(&self) -> &T {
        // A thread that is ending has no values of its own any more.
        let own = OWN.try_with(|&own| own).unwrap_or_default();
        &self.0[own].0
    }

    /// Every part.
    pub fn parts(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|Apart(part)| part)
    }
}

/// What was counted of one credential within one hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The client. 0: all those for which there was no room.
    pub client: ClientId,
    /// The credential. 0: it is not known.
    pub credential: CredentialId,
    /// The hour, in hours since 1970.
    pub hour: u64,
    /// The counts.
    #[serde(flatten)]
    pub tally: Tally,
}

/// Counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Logins, which only the server sees.
    #[serde(skip)]
    pub logins: u64,
    /// Refreshes, which only the server sees.
    #[serde(skip)]
    pub refreshes: u64,
    /// Access tokens found valid.
    #[serde(default)]
    pub verifications: u64,
    /// Requests refused although their client was known.
    #[serde(default)]
    pub denials: u64,
    /// The last verification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
}

/// A verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// When it was.
    pub at: UnixSeconds,
    /// The caller's address. `None`: it was not known.
    pub from: Option<IpAddr>,
}

impl Tally {
    /// Adds the counts of another one.
    pub fn add(&mut self, other: &Tally) {
        let sum = |count: &mut u64, more| *count = count.saturating_add(more);
        sum(&mut self.logins, other.logins);
        sum(&mut self.refreshes, other.refreshes);
        sum(&mut self.verifications, other.verifications);
        sum(&mut self.denials, other.denials);
        self.last = [self.last, other.last].into_iter().flatten().max_by_key(|last| last.at);
    }

    /// Counts a verification.
    pub fn verified(&mut self, at: UnixSeconds, from: Option<IpAddr>) {
        self.verifications += 1;
        self.last = Some(Last { at, from });
    }
}

/// Counts that wait to be written or reported, in a bounded amount of memory.
#[derive(Debug)]
pub struct Counts {
    cores: PerCore<Mutex<Box<[Option<Counted>]>>>,
    shared: Box<[Mutex<Table>]>,
    most_in_shard: usize,
    /// The shard that is emptied first, so that each has its turn.
    next: AtomicUsize,
}

type Table = HashMap<(ClientId, CredentialId, u64), Tally>;

impl Counts {
    /// Counts of about `most` credentials and hours. What is beyond is counted for no client in particular.
    pub fn new(most: usize) -> Counts {
        Counts {
            cores: PerCore::new(|| Mutex::new((0..PLACES).map(|_| None).collect())),
            shared: (0..SHARDS).map(|_| Mutex::default()).collect(),
            most_in_shard: most.div_ceil(SHARDS),
            next: AtomicUsize::new(0),
        }
    }

    /// Counts what happened to a token or credential.
    pub fn count(
        &self,
        client: ClientId,
        credential: CredentialId,
        now: UnixSeconds,
        count: impl FnOnce(&mut Tally),
    ) {
        let hour = now / HOUR;
        let mut own = lock(self.cores.own());
        let place = &mut own[(credential % PLACES) as usize];
        if let Some(same) = place
            && (same.client, same.credential, same.hour) == (client, credential, hour)
        {
            return count(&mut same.tally);
        }
        let mut tally = Tally::default();
        count(&mut tally);
        let moved = place.replace(Counted { client, credential, hour, tally });
        drop(own);
        moved.into_iter().for_each(|moved| self.add(moved));
    }

    /// Adds what was counted before.
    pub fn add(&self, counted: Counted) {
        let Counted { client, credential, hour, tally } = counted;
        let mut shard = lock(&self.shared[(credential % SHARDS as u64) as usize]);
        let key = (client, credential, hour);
        let key =
            if shard.len() < self.most_in_shard || shard.contains_key(&key) { key } else { (0, 0, hour) };
        shard.entry(key).or_default().add(&tally);
    }

    /// Takes out the counts of so many credentials and hours at most.
    pub fn take(&self, most: usize) -> Vec<Counted> {
        for core in self.cores.parts() {
            let counted: Vec<_> = lock(core).iter_mut().filter_map(Option::take).collect();
            counted.into_iter().for_each(|counted| self.add(counted));
        }
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut taken = Vec::new();
        for shard in (0..SHARDS).map(|i| &self.shared[first.wrapping_add(i) % SHARDS]) {
            let mut shard = lock(shard);
            let some = shard.extract_if(|_, _| true).take(most - taken.len());
            taken.extend(some.map(|((client, credential, hour), tally)| Counted {
                client,
                credential,
                hour,
                tally,
            }));
            if shard.is_empty() {
                *shard = Table::default();
            }
        }
        taken
    }
}

impl Default for Counts {
    fn default() -> Counts {
        Counts::new(MOST_WAITING)
    }
}

/// Counts on their way to the server. If they do not arrive, they are counted again.
pub(super) struct Report<'c> {
    counts: &'c Counts,
    pub(super) counted: Vec<Counted>,
}

impl Counts {
    pub(super) fn report(&self) -> Report<'_> {
        Report { counts: self, counted: self.take(MOST_REPORTED) }
    }
}

impl Report<'_> {
    pub(super) fn arrived(mut self) {
        self.counted.clear();
    }
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        self.counted.drain(..).for_each(|counted| self.counts.add(counted));
    }
}

impl Shared {
    /// Decides about a token that a caller presents, and counts that.
    pub(super) fn presented(&self, token: &str, caller: Option<IpAddr>) -> Result<VerifiedToken, Denied> {
        let now = clock::wall();
        self.counted(token, caller, now, self.decide(token, caller, now))
    }

    /// Counts a verdict, and returns it.
    pub(super) fn counted(
        &self,
        token: &str,
        caller: Option<IpAddr>,
        now: UnixSeconds,
        verdict: Result<VerifiedToken, Denied>,
    ) -> Result<VerifiedToken, Denied> {
        match &verdict {
            Ok(token) => {
                let &Claims { client, credential, .. } = token.claims();
                self.counts.count(client, credential, now, |tally| tally.verified(now, caller));
            }
            Err(denied) => self.refused(token, *denied, now),
        }
        verdict
    }

    /// Counts a refused token whose client is known: the issuer has signed it.
    fn refused(&self, token: &str, denied: Denied, now: UnixSeconds) {
        if !denied.is_authentic() {
            return;
        }
        let confirmed = self.confirmed.load();
        let claims = confirmed
            .as_ref()
            .map(|confirmed| confirmed.verifier.authenticate_at_any_time(token, Kind::Access));
        if let Some(Ok(Claims { client, credential, .. })) = claims {
            self.counts.count(client, credential, now, |tally| tally.denials += 1);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = 1_000_000 * HOUR + 5;

    fn verify(counts: &Counts, client: ClientId, now: UnixSeconds) {
        counts.count(client, client, now, |tally| tally.verified(now, None));
    }

    fn sum(taken: &[Counted]) -> u64 {
        taken.iter().map(|counted| counted.tally.verifications).sum()
    }

    #[test]
    fn what_all_threads_count_is_taken_once() {
        let counts = Counts::new(1000);
        std::thread::scope(|scope| {
            for _ in 0..3 * *PARTS {
                scope.spawn(|| (0..3000).for_each(|i| verify(&counts, i % 300 + 1, NOW)));
            }
        });
        let taken = counts.take(usize::MAX);
        assert_eq!(taken.len(), 300);
        assert!(taken.iter().all(|counted| counted.tally.verifications == 30 * *PARTS as u64));
        assert_eq!(counts.take(usize::MAX), []);
    }

    #[test]
    fn an_hour_is_counted_apart_from_the_next() {
        let counts = Counts::new(1000);
        for now in [NOW, NOW + 1, NOW + HOUR, NOW] {
            verify(&counts, 7, now);
        }
        counts.count(7, 7, NOW, |tally| tally.denials += 1);
        let mut taken = counts.take(usize::MAX);
        taken.sort_by_key(|counted| counted.hour);
        let counted = |counted: &Counted| (counted.hour, counted.tally.verifications, counted.tally.denials);
        assert_eq!(taken.iter().map(counted).collect::<Vec<_>>(), [(1_000_000, 3, 1), (1_000_001, 1, 0)]);
        assert_eq!(taken[0].tally.last, Some(Last { at: NOW + 1, from: None }));
    }

    #[test]
    fn many_clients_take_no_more_room_and_none_is_left_out() {
        let counts = Counts::new(1024);
        for round in 0..2 {
            (1..=100_000).for_each(|client| verify(&counts, client, NOW + round));
        }
        let taken = counts.take(usize::MAX);
        assert!(taken.len() <= 1024 + SHARDS, "{}", taken.len());
        assert_eq!(sum(&taken), 200_000);
        let others = taken.iter().filter(|counted| counted.client == 0);
        assert!(others.map(|counted| counted.tally.verifications).sum::<u64>() > 190_000);
    }

    #[test]
    fn each_has_its_turn_in_reports_of_bounded_length() {
        let counts = Counts::new(100_000);
        let address = Some("2001:db8:1234:5678:9abc:def0:1234:5678".parse().unwrap());
        for client in 1..=1000 {
            let (client, now) = (u64::MAX - client, u64::MAX - client % 2);
            counts.count(client, client, now, |tally| {
                tally.verified(now, address);
                (tally.verifications, tally.denials) = (u64::MAX, u64::MAX);
            });
        }
        for _ in 0..4 {
            let report = counts.report();
            assert_eq!(report.counted.len(), MOST_REPORTED);
            let text = serde_json::to_string(&report.counted).unwrap();
            assert!(text.len() < 62_000, "{}", text.len());
            report.arrived();
        }
        assert!(counts.report().counted.is_empty());
    }

    #[test]
    fn a_report_that_does_not_arrive_is_counted_again() {
        let counts = Counts::new(1000);
        (0..10).for_each(|_| verify(&counts, 7, NOW));
        drop(counts.report());
        verify(&counts, 7, NOW);
        assert_eq!(sum(&counts.report().counted), 11);
    }
}
