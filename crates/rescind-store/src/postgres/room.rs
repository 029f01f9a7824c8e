//! How many connections of the pool may be in use: no more than the database has room for.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rescind_base::clock::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{info, warn};

/// A start has so many connections open before it has a lease.
const FOR_A_START: usize = 3;
/// How long no seat is added after one was given up.
const PAUSE: Duration = Duration::from_secs(5);

/// The pool's seats. Whoever uses a connection has one.
#[derive(Debug)]
pub(super) struct Room {
    free: Arc<Semaphore>,
    seats: Arc<Mutex<Seats>>,
    pool_size: usize,
    /// How many connections this user may have in the database at once. 0: not known yet.
    slots: AtomicUsize,
}

#[derive(Debug)]
struct Seats {
    /// Those that there are, free or taken.
    all: usize,
    /// As many as there may be.
    most: usize,
    /// When one was last given up or added after that.
    full_at: Option<Duration>,
}

/// The right to use one connection of the pool.
#[derive(Debug)]
pub(super) struct Seat {
    permit: Option<OwnedSemaphorePermit>,
    seats: Arc<Mutex<Seats>>,
}

impl Room {
    pub(super) fn new(pool_size: usize) -> Room {
        let seats = Seats { all: pool_size, most: pool_size, full_at: None };
        Room {
            free: Arc::new(Semaphore::new(pool_size)),
            seats: Arc::new(Mutex::new(seats)),
            pool_size,
            slots: AtomicUsize::new(0),
        }
    }

    /// Resolves when a connection may be used. Those who wait are served in their order.
    pub(super) async fn seat(&self) -> Seat {
        // It is never closed.
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        Seat { permit, seats: Arc::clone(&self.seats) }
    }

    /// Notes how many connections the database has for this user.
    pub(super) fn set_slots(&self, slots: usize) {
        self.slots.store(slots, Ordering::Relaxed);
    }

    /// Divides the connections among so many nodes, each with one more for its lease. Returns the most that the pool may
    /// have.
    pub(super) fn share(&self, nodes: usize) -> usize {
        let slots = self.slots.load(Ordering::Relaxed);
        let share = (slots.saturating_sub(FOR_A_START) / nodes.max(1)).saturating_sub(1).max(1);
        let most = if slots == 0 { self.pool_size } else { share.min(self.pool_size) };
        let mut seats = locked(&self.seats);
        if seats.most != most {
            let pool_size = self.pool_size;
            match most < pool_size {
                true => warn!(
                    slots,
                    nodes,
                    pool_size,
                    uses = most,
                    "the database has too few connections for every node's pool: raise max_connections, or the limit of the \
                     role or database, or lower database.pool_size"
                ),
                false => {
                    info!(slots, nodes, "the database has enough connections for every node's pool again")
                }
            }
            seats.most = most;
        }
        if seats.all > most {
            seats.all -= self.free.forget_permits(seats.all - most);
        }
        let now = Clock::System.elapsed();
        let more = match seats.full_at {
            Some(at) if now.saturating_sub(at) < PAUSE => 0,
            // One after the other: the database may still be full.
            Some(_) => 1.min(most.saturating_sub(seats.all)),
            None => most.saturating_sub(seats.all),
        };
        seats.all += more;
        self.free.add_permits(more);
        if more > 0 && seats.full_at.is_some() {
            seats.full_at = Some(now).filter(|_| seats.all < most);
        }
        most
    }
}

impl Seat {
    /// Removes this seat: the database has no room for one more connection.
    pub(super) fn give_up(mut self) {
        let mut seats = locked(&self.seats);
        seats.full_at = Some(Clock::System.elapsed());
        if seats.all > 1 {
            seats.all -= 1;
            if let Some(permit) = self.permit.take() {
                permit.forget();
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = locked(&self.seats);
        if seats.all > seats.most
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
            seats.all -= 1;
        }
    }
}

fn locked(seats: &Mutex<Seats>) -> MutexGuard<'_, Seats> {
    seats.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nodes_share_what_the_database_has() {
        let room = Room::new(16);
        assert_eq!(room.share(1), 16);
        room.set_slots(17);
        let taken = room.seat().await;
        // With two leases and room for one start these are 17.
        assert_eq!(room.share(2), 6);
        assert_eq!((room.free.available_permits(), locked(&room.seats).all), (5, 6));
        drop(taken);
        assert_eq!((room.share(3), room.share(40)), (3, 1));
        assert_eq!(room.free.available_permits(), 1);
        room.set_slots(300);
        assert_eq!((room.share(3), room.free.available_permits()), (16, 16));
    }

    #[tokio::test]
    async fn seats_that_are_taken_go_when_they_are_given_back() {
        let room = Room::new(4);
        let taken = [room.seat().await, room.seat().await, room.seat().await, room.seat().await];
        room.set_slots(7);
        assert_eq!(room.share(1), 3);
        room.set_slots(6);
        assert_eq!(room.share(1), 2);
        drop(taken);
        assert_eq!((room.free.available_permits(), locked(&room.seats).all), (2, 2));
    }

    #[tokio::test]
    async fn what_is_given_up_comes_back_later_but_one_is_left() {
        let room = Room::new(2);
        for _ in 0..3 {
            room.seat().await.give_up();
        }
        assert_eq!((room.share(1), room.free.available_permits()), (2, 1));
        locked(&room.seats).full_at = Some(Duration::ZERO);
        assert_eq!((room.share(1), room.free.available_permits()), (2, 2));
        assert_eq!(locked(&room.seats).full_at, None);
    }
}
