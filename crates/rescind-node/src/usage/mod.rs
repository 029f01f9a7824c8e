//! How clients are used: counted in memory, and written in batches every few seconds. So no caller waits for the store,
//! and none can fill it.
//!
//! A login and a refresh are counted by address too (`uses.rs`). Followers report what they have verified.

mod uses;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rescind_base::{
    clock::Clock,
    model::{ClientId, Counted, CredentialId, CredentialUse, HOUR, Last, Tally},
};
use rescind_store::Store;
use rescind_verifier::{Claims, follow::usage::Counts};
use tracing::warn;

use crate::audit::in_current_request;
use uses::Uses;

/// How often the counts are written.
pub const WRITE_EVERY: Duration = Duration::from_secs(10);
/// What other nodes and followers have counted is known after this time, in seconds. A follower reports every 5 seconds
/// at least.
pub const LAG: u64 = WRITE_EVERY.as_secs() + 5;
/// How long the counts are kept, in hours.
pub const KEPT: u64 = 30 * 24;
/// The most credentials and hours that wait to be written, 20 MB of them.
const MOST_WAITING: usize = 1 << 17;
/// The most rows in one write.
const ROWS: usize = 1000;

/// What this process has counted since the last write.
#[derive(Debug)]
pub struct Usage {
    clock: Clock,
    counts: Counts,
    uses: Mutex<Uses>,
    /// Held by the one who writes.
    writing: tokio::sync::Mutex<()>,
}

impl Usage {
    /// Nothing yet.
    pub fn new(clock: Clock) -> Usage {
        Usage {
            clock,
            counts: Counts::new(MOST_WAITING),
            uses: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// Counts a login.
    pub fn logged_in(&self, client: ClientId, credential: CredentialId, address: Option<IpAddr>) {
        self.used(client, credential, address, |tally| tally.logins += 1);
    }

    /// Counts a refresh.
    pub fn refreshed(&self, client: ClientId, credential: CredentialId, address: Option<IpAddr>) {
        self.used(client, credential, address, |tally| tally.refreshes += 1);
    }

    fn used(
        &self,
        client: ClientId,
        credential: CredentialId,
        address: Option<IpAddr>,
        count: impl FnOnce(&mut Tally),
    ) {
        let at = self.clock.now();
        self.counts.count(client, credential, at, count);
        self.uses().add(CredentialUse { credential, address, at, times: 1 });
    }

    /// Counts a verification of an access token.
    pub fn verified(&self, &Claims { client, credential, .. }: &Claims, address: Option<IpAddr>) {
        let now = self.clock.now();
        self.counts
            .count(client, credential, now, |tally| tally.verified(now, address.map(|a| a.to_canonical())));
    }

    /// Counts a request that was refused to this client.
    pub fn denied(&self, client: ClientId, credential: Option<CredentialId>) {
        let credential = credential.unwrap_or_default();
        self.counts.count(client, credential, self.clock.now(), |tally| tally.denials += 1);
    }

    /// Adds what a follower has counted of a client and credential that there are. Its clock may differ, and its numbers
    /// must not be more than the store can add up. Returns the number of verifications.
    pub fn reported(&self, counted: Counted) -> u64 {
        let now = self.clock.now();
        let hour = counted.hour.min(now / HOUR);
        if hour + KEPT < now / HOUR {
            return 0;
        }
        let most = |count: u64| count.min(u32::MAX.into());
        let Tally { verifications, denials, last, .. } = counted.tally;
        let tally = Tally {
            verifications: most(verifications),
            denials: most(denials),
            last: last
                .map(|Last { at, from }| Last { at: at.min(now), from: from.map(|a| a.to_canonical()) }),
            ..Tally::default()
        };
        let reported = tally.verifications;
        self.counts.add(Counted { hour, tally, ..counted });
        reported
    }

    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was counted until now. If the store is unavailable, it is kept for the next call.
    pub async fn write(self: &Arc<Usage>, store: &Arc<Store>) {
        let (usage, store) = (Arc::clone(self), Arc::clone(store));
        let write = async move {
            let _writing = usage.writing.lock().await;
            usage.write_uses(&store).await;
            usage.write_counts(&store).await;
        };
        // In a task of its own, so that a caller who disconnects does not lose what was counted.
        if let Err(error) = tokio::spawn(in_current_request(write)).await {
            warn!(%error, "what was counted of the use of clients was lost");
        }
    }

    async fn write_uses(&self, store: &Store) {
        let used = self.uses().take();
        if !used.is_empty() && store.add_uses(used.clone()).await.is_err() {
            let mut uses = self.uses();
            used.into_iter().for_each(|used| uses.add(used));
        }
    }

    async fn write_counts(&self, store: &Store) {
        let mut counted = self.counts.take(usize::MAX);
        // In the order of the rows, so that no two nodes wait for each other, and neighbours are written together.
        counted.sort_unstable_by_key(|counted| (counted.hour, counted.client, counted.credential));
        let mut left = counted.as_slice();
        while !left.is_empty() {
            let (some, after) = left.split_at(left.len().min(ROWS));
            if let Err(error) = store.add_usage(with_totals(some)).await {
                warn!(%error, "what was counted of the use of clients could not be written; it is kept for later");
                left.iter().for_each(|counted| self.counts.add(counted.clone()));
                return;
            }
            left = after;
        }
    }
}

/// Adds the rows of client 0: each hour's counts of all clients together.
fn with_totals(counted: &[Counted]) -> Vec<Counted> {
    let mut rows: Vec<Counted> = Vec::with_capacity(counted.len() + 1);
    for hour in counted.chunk_by(|one, next| one.hour == next.hour) {
        let mut total = Tally::default();
        hour.iter().for_each(|counted| total.add(&counted.tally));
        rows.extend(hour.first().map(|first| Counted {
            client: 0,
            credential: 0,
            hour: first.hour,
            tally: total,
        }));
        rows.extend(hour.iter().filter(|counted| counted.client != 0).cloned());
    }
    rows
}
