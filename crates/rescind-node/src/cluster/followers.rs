//! The exact verifiers attached to this process. Its changes wait for their acknowledgements.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rescind_base::clock::Clock;
use thiserror::Error;
use tokio::{sync::watch, time::timeout};

use super::Terms;

/// The most followers that may share one verifier token.
const MAX_PER_VERIFIER: usize = 1000;

/// One process of a verifier.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FollowerId {
    /// The verifier whose token the process uses.
    pub verifier: u64,
    /// The name that the process gives itself.
    pub name: String,
}

/// The exact followers whose leases may still run.
///
/// A follower that requests a lease is recorded first. The server then reads the head for its answer, and the
/// lease is valid once the follower has applied that head. So a change is either in that head, or is
/// published later, when the follower is recorded here.
#[derive(Debug)]
pub struct ExactFollowers {
    clock: Clock,
    terms: Terms,
    followers: Mutex<HashMap<FollowerId, Follower>>,
    /// The last change that all followers have acknowledged.
    floor: watch::Sender<u64>,
}

/// A follower that is attached now.
#[derive(Debug, Clone)]
pub struct Attached {
    pub id: FollowerId,
    /// The last change that it has acknowledged.
    pub acked: u64,
    /// When its lease has surely ended, on the boot clock.
    pub until: Duration,
}

impl Attached {
    /// How many changes up to `head` it has not acknowledged.
    pub fn lag(&self, head: u64) -> u64 {
        head.saturating_sub(self.acked)
    }
}

#[derive(Debug)]
struct Follower {
    acked: u64,
    /// When the follower's lease has surely ended, on the boot clock.
    until: Duration,
    /// The longest term that the follower can have been lent.
    term: Duration,
}

/// How many followers were attached at the end of the wait, and how many of them had acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The attached followers.
    pub followers: usize,
    /// Those that acknowledged. The leases of the others have ended.
    pub acknowledged: usize,
}

/// Too many followers share a verifier token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{MAX_PER_VERIFIER} exact followers share this verifier's token: give others one of their own")]
pub struct TooMany;

impl ExactFollowers {
    /// No followers yet.
    pub fn new(clock: Clock, terms: Terms) -> ExactFollowers {
        ExactFollowers { clock, terms, followers: Mutex::default(), floor: watch::Sender::new(u64::MAX) }
    }

    /// Records one placeholder, which acknowledges nothing, for the followers of earlier processes: their
    /// leases may last for `term`.
    pub fn assume_predecessors(&self, term: Duration) {
        let former = FollowerId { verifier: 0, name: String::new() };
        let until = self.clock.elapsed() + term;
        let mut followers = self.lock();
        followers.insert(former, Follower { acked: 0, until, term });
        self.publish(&followers);
    }

    /// Records that a follower has applied the change `acked` and is about to be lent a lease.
    ///
    /// # Errors
    ///
    /// Fails if too many followers share the verifier's token.
    pub fn renew(&self, id: FollowerId, acked: u64) -> Result<(), TooMany> {
        let mut followers = self.current();
        let sharing = |followers: &HashMap<FollowerId, _>| {
            followers.keys().filter(|other| other.verifier == id.verifier).count()
        };
        if !followers.contains_key(&id) && sharing(&followers) >= MAX_PER_VERIFIER {
            return Err(TooMany);
        }
        // The follower sent its request before this moment, for at most the term.
        let term = self.terms.lease;
        let until = self.clock.elapsed() + term;
        let follower = followers.entry(id).or_insert(Follower { acked, until, term });
        // A later request may arrive before an earlier one.
        *follower = Follower { acked: follower.acked.max(acked), until: follower.until.max(until), term };
        self.publish(&followers);
        Ok(())
    }

    /// Removes a follower, which decides nothing any more.
    pub fn leave(&self, id: &FollowerId) {
        let mut followers = self.current();
        followers.remove(id);
        self.publish(&followers);
    }

    /// Waits for every follower that does not have the published change `seq` yet: until it acknowledges, or
    /// its current lease ends. Waits at most one lease term. Neither a new follower nor a renewal extends the
    /// wait: a lease granted from now on is valid only once `seq` is applied.
    pub async fn settled(&self, seq: u64) -> Outcome {
        let mut floor = self.floor.subscribe();
        let now = self.clock.elapsed();
        let behind = self.current().values().filter(|f| f.acked < seq).map(|f| f.until).max();
        if let Some(until) = behind {
            let acknowledged = async { drop(floor.wait_for(|&floor| floor >= seq).await) };
            let _ = timeout(until.saturating_sub(now), acknowledged).await;
        }
        let followers = self.lock();
        let acknowledged = followers.values().filter(|f| f.acked >= seq).count();
        Outcome { followers: followers.len(), acknowledged }
    }

    /// How many followers are attached.
    pub fn count(&self) -> usize {
        self.current().len()
    }

    /// The attached followers by their names, without the placeholder for those of earlier processes.
    pub fn attached(&self) -> Vec<Attached> {
        let followers = self.current();
        let known = followers.iter().filter(|(id, _)| id.verifier != 0);
        let view = |(id, follower): (&FollowerId, &Follower)| Attached {
            id: id.clone(),
            acked: follower.acked,
            until: follower.until,
        };
        let mut attached: Vec<_> = known.map(view).collect();
        attached.sort_unstable_by(|a, b| (a.id.verifier, &a.id.name).cmp(&(b.id.verifier, &b.id.name)));
        attached
    }

    /// The longest lease that may be lent now.
    pub fn longest(&self) -> Duration {
        self.current().values().map(|follower| follower.term).max().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<FollowerId, Follower>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The followers whose leases may still run. Removes the others.
    fn current(&self) -> MutexGuard<'_, HashMap<FollowerId, Follower>> {
        let mut followers = self.lock();
        let now = self.clock.elapsed();
        followers.retain(|_, follower| follower.until > now);
        followers
    }

    fn publish(&self, followers: &HashMap<FollowerId, Follower>) {
        let floor = followers.values().map(|follower| follower.acked).min().unwrap_or(u64::MAX);
        self.floor.send_if_modified(|known| mem::replace(known, floor) != floor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attached(clock: &Clock, lease: Duration) -> ExactFollowers {
        ExactFollowers::new(clock.clone(), Terms { lease, clock_drift: 0.1, margin: Duration::ZERO })
    }

    fn id(verifier: u64, name: impl ToString) -> FollowerId {
        FollowerId { verifier, name: name.to_string() }
    }

    /// The outcome without waiting for the end of a lease.
    async fn at_once(attached: &ExactFollowers, seq: u64) -> (usize, usize) {
        let settled = timeout(Duration::from_secs(20), attached.settled(seq)).await;
        let Outcome { followers, acknowledged } = settled.expect("nobody to wait for");
        (followers, acknowledged)
    }

    const LONG: Duration = Duration::from_secs(3600);
    const BRIEF: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn every_follower_is_waited_for_until_it_has_acknowledged_or_left() {
        let clock = Clock::manual(100);
        let attached = attached(&clock, LONG);
        assert_eq!(at_once(&attached, 1).await, (0, 0));
        for name in ["a", "b", "c"] {
            attached.renew(id(1, name), 5).unwrap();
        }
        assert_eq!(at_once(&attached, 5).await, (3, 3));
        let acknowledge = async {
            attached.renew(id(1, "a"), 6).unwrap();
            attached.renew(id(1, "b"), 7).unwrap();
            // A follower of the same name with another token.
            attached.leave(&id(2, "c"));
            attached.leave(&id(1, "c"));
        };
        let (settled, ()) = tokio::join!(biased; at_once(&attached, 6), acknowledge);
        assert_eq!(settled, (2, 2));
        let shown = attached.attached().into_iter().map(|a| (a.lag(7), a.id.name)).collect::<Vec<_>>();
        assert_eq!(shown, [(1, "a".into()), (0, "b".into())]);
        // A late request lowers no acknowledgement.
        attached.renew(id(1, "a"), 0).unwrap();
        assert_eq!(at_once(&attached, 6).await, (2, 2));
    }

    #[tokio::test]
    async fn nobody_is_waited_for_longer_than_the_lease_may_run() {
        let clock = Clock::manual(100);
        let brief = attached(&clock, BRIEF);
        brief.renew(id(1, "silent"), 5).unwrap();
        assert_eq!(brief.settled(6).await, Outcome { followers: 1, acknowledged: 0 });
        let long = attached(&clock, LONG);
        long.renew(id(1, "silent"), 5).unwrap();
        clock.advance(3599);
        assert!(timeout(BRIEF, long.settled(6)).await.is_err());
        clock.advance(1);
        assert_eq!(at_once(&long, 6).await, (0, 0));
    }

    #[tokio::test]
    async fn the_followers_of_the_process_before_are_waited_for() {
        let clock = Clock::manual(100);
        let attached = attached(&clock, LONG / 2);
        assert_eq!(attached.longest(), Duration::ZERO);
        attached.assume_predecessors(LONG);
        attached.renew(id(1, "known"), 6).unwrap();
        assert!(timeout(BRIEF, attached.settled(6)).await.is_err());
        clock.advance(3599);
        attached.renew(id(1, "known"), 6).unwrap();
        assert_eq!(attached.longest(), LONG);
        clock.advance(1);
        assert_eq!(at_once(&attached, 6).await, (1, 1));
        assert_eq!(attached.longest(), LONG / 2);
    }

    #[test]
    fn a_token_is_good_for_so_many_followers() {
        let clock = Clock::manual(100);
        let attached = attached(&clock, Duration::from_secs(3));
        for name in 0..MAX_PER_VERIFIER {
            attached.renew(id(1, name), 0).unwrap();
        }
        assert_eq!(attached.renew(id(1, "more"), 0), Err(TooMany));
        attached.renew(id(1, 0), 0).unwrap();
        attached.renew(id(2, "more"), 0).unwrap();
        attached.leave(&id(1, 0));
        attached.renew(id(1, "more"), 0).unwrap();
        clock.advance(3);
        attached.renew(id(1, "still more"), 0).unwrap();
    }
}
