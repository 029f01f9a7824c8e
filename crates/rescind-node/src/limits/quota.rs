//! Limits a client's successes in any sixty seconds, counted by this process alone.
//!
//! A place is taken before anything is written, and stamped when the success is certain. A place that is not
//! stamped yet counts as taken. So sixty seconds never contain more stamps than there are places, however
//! long a success takes. A place that is dropped without a stamp becomes free.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rescind_base::{clock::Clock, model::ClientId};

const WINDOW: Duration = Duration::from_secs(60);
/// The retry time if all places are taken by successes that are not certain yet.
const SOON: Duration = Duration::from_secs(1);

/// The limit for one kind of success.
#[derive(Debug, Clone)]
pub struct Quota {
    /// 0 means no limit.
    per_minute: usize,
    clock: Clock,
    clients: Arc<Mutex<HashMap<ClientId, ClientWindow>>>,
}

/// A client's places.
#[derive(Debug, Default)]
struct ClientWindow {
    in_flight: usize,
    /// Oldest first.
    stamps: VecDeque<Duration>,
}

/// Permits one success. `None`: there is no limit.
#[derive(Debug)]
#[must_use = "a place that is dropped is free again"]
pub struct Permit(Option<(Quota, ClientId)>);

/// Every place is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverQuota {
    /// The time until a place may be free.
    pub retry_after: Duration,
}

impl Quota {
    /// Allows `per_minute` successes for each client; 0 means no limit.
    pub fn new(per_minute: usize, clock: Clock) -> Quota {
        Quota { per_minute, clock, clients: Arc::default() }
    }

    /// Takes a place for a known client that is about to succeed.
    ///
    /// # Errors
    ///
    /// Fails if every place is taken.
    pub fn take(&self, client: ClientId) -> Result<Permit, OverQuota> {
        if self.per_minute == 0 {
            return Ok(Permit(None));
        }
        let mut clients = self.lock();
        // Read under the lock, so that the stamps are in order.
        let now = self.clock.elapsed();
        let taken = clients.entry(client).or_default();
        taken.forget(now);
        if taken.in_flight + taken.stamps.len() >= self.per_minute {
            let free_at = taken.stamps.front().map_or(now + SOON, |&oldest| oldest + WINDOW);
            return Err(OverQuota { retry_after: free_at - now });
        }
        taken.in_flight += 1;
        Ok(Permit(Some((self.clone(), client))))
    }

    /// Removes the clients that hold no place.
    pub fn sweep(&self) {
        let mut clients = self.lock();
        let now = self.clock.elapsed();
        clients.retain(|_, taken| {
            taken.forget(now);
            taken.in_flight > 0 || !taken.stamps.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClientId, ClientWindow>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientWindow {
    fn forget(&mut self, now: Duration) {
        while self.stamps.front().is_some_and(|&stamp| stamp + WINDOW <= now) {
            self.stamps.pop_front();
        }
    }
}

impl Permit {
    /// Records that the success is certain.
    pub fn commit(mut self) {
        if let Some((quota, client)) = self.0.take() {
            let mut clients = quota.lock();
            let taken = clients.entry(client).or_default();
            taken.in_flight -= 1;
            taken.stamps.push_back(quota.clock.elapsed());
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((quota, client)) = self.0.take() {
            quota.lock().entry(client).or_default().in_flight -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quota(per_minute: usize) -> (Quota, Clock) {
        let clock = Clock::manual(1000);
        (Quota::new(per_minute, clock.clone()), clock)
    }

    fn refused(quota: &Quota, client: ClientId) -> u64 {
        quota.take(client).unwrap_err().retry_after.as_secs()
    }

    #[test]
    fn the_window_rolls() {
        let (quota, clock) = quota(2);
        quota.take(1).unwrap().commit();
        clock.advance(40);
        quota.take(1).unwrap().commit();
        assert_eq!(refused(&quota, 1), 20);
        clock.advance(19);
        assert_eq!(refused(&quota, 1), 1);
        clock.advance(1);
        quota.take(1).unwrap().commit();
        assert_eq!(refused(&quota, 1), 40);
        // Another client has its own places.
        quota.take(2).unwrap().commit();
    }

    #[test]
    fn a_place_that_is_not_stamped_is_free_again() {
        let (quota, _) = quota(1);
        let place = quota.take(1).unwrap();
        assert_eq!(refused(&quota, 1), 1);
        drop(place);
        quota.take(1).unwrap().commit();
        assert_eq!(refused(&quota, 1), 60);
    }

    #[test]
    fn what_took_long_counts_from_its_end() {
        let (quota, clock) = quota(1);
        let place = quota.take(1).unwrap();
        clock.advance(59);
        quota.sweep();
        place.commit();
        clock.advance(59);
        assert_eq!(refused(&quota, 1), 1);
    }

    #[test]
    fn zero_is_no_bound_and_takes_no_memory() {
        let (quota, _) = quota(0);
        for _ in 0..10_000 {
            quota.take(1).unwrap().commit();
        }
        assert!(quota.lock().is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let (quota, clock) = quota(3);
        for client in 0..1000 {
            for _ in 0..10 {
                if let Ok(place) = quota.take(client) {
                    place.commit();
                }
            }
        }
        assert!(quota.lock().values().all(|taken| taken.stamps.len() == 3 && taken.in_flight == 0));
        clock.advance(60);
        quota.sweep();
        assert!(quota.lock().is_empty());
    }

    #[test]
    fn of_many_at_once_as_many_as_there_are_places_succeed() {
        let (quota, _) = quota(10);
        let succeeded = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| (0..100).filter(|_| quota.take(1).map(Permit::commit).is_ok()).count())
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(succeeded, 10);
    }

    proptest! {
        /// Whatever overlaps, fails or takes long. A client that waits for `retry_after` always gets a place.
        #[test]
        fn no_minute_has_more_than_there_are_places(
            steps in prop::collection::vec((0u8..4, 0i64..30), 1..300)
        ) {
            let (quota, clock) = quota(4);
            let (mut in_flight, mut stamps) = (VecDeque::new(), Vec::new());
            for (step, seconds) in steps {
                match step {
                    0 | 1 => match quota.take(1) {
                        Ok(place) => in_flight.push_back(place),
                        Err(OverQuota { retry_after }) if in_flight.is_empty() => {
                            clock.advance(retry_after.as_secs().cast_signed());
                            in_flight.push_back(quota.take(1).unwrap());
                        }
                        Err(_) => {}
                    },
                    2 => if let Some(place) = in_flight.pop_front() {
                        place.commit();
                        stamps.push(clock.elapsed());
                    },
                    _ => drop(in_flight.pop_back()),
                }
                clock.advance(seconds);
                quota.sweep();
            }
            for first in &stamps {
                let minute = stamps.iter().filter(|&at| at >= first && *at < *first + WINDOW);
                prop_assert!(minute.count() <= 4);
            }
        }
    }
}
