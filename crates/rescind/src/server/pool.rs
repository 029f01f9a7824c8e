//! The connections that are open, and which of them goes when there are too many.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::slot::Slot;
use crate::{clock::Clock, metrics::Connections, random::Random};

/// So many, taken at random, are looked at for the one that makes room: whoever holds a fifth of all
/// is missed once in a thousand times.
const SAMPLE: usize = 32;

/// Bounds for a pool's connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) in_all: usize,
    pub(super) per_network: usize,
    /// For a head, a handshake, and an answer's next byte.
    pub(super) request: Duration,
    /// For a connection on which nothing is asked.
    pub(super) idle: Duration,
}

/// One listener's connections.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) bounds: Bounds,
    clock: Clock,
    random: Random,
    table: Mutex<Table>,
    connections: Connections,
}

#[derive(Debug)]
struct Table {
    slots: Box<[Option<Arc<Slot>>]>,
    free: Vec<usize>,
    per_network: HashMap<IpAddr, usize>,
}

/// A connection's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) slot: Arc<Slot>,
    pool: Arc<Pool>,
    place: usize,
}

/// There is no place for another connection.
#[derive(Debug)]
pub(super) struct Full;

impl Pool {
    pub(super) fn new(bounds: Bounds, connections: Connections, clock: Clock, random: Random) -> Arc<Pool> {
        let table = Table {
            slots: vec![None; bounds.in_all].into(),
            free: (0..bounds.in_all).rev().collect(),
            per_network: HashMap::new(),
        };
        Arc::new(Pool { bounds, clock, random, table: Mutex::new(table), connections })
    }

    /// A place for a connection from this network; `None` is one of which any number may be open and
    /// none has to go.
    ///
    /// If there is no place left, the idlest connection of a network that has more of them than this
    /// one makes room. So whoever holds many loses them to those who hold few.
    pub(super) fn admit(self: &Arc<Pool>, network: Option<IpAddr>) -> Result<Admitted, Full> {
        let admitted = self.find_place(network);
        match &admitted {
            Ok(_) => _ = self.connections.open.inc(),
            Err(Full) => _ = self.connections.turned_away.inc(),
        }
        admitted
    }

    fn find_place(self: &Arc<Pool>, network: Option<IpAddr>) -> Result<Admitted, Full> {
        let mut table = self.lock();
        let own = table.open_from(network);
        if own >= self.bounds.per_network {
            return Err(Full);
        }
        let place = match table.free.pop() {
            Some(place) => place,
            None => table.idlest_of_many(own, &self.random).ok_or(Full)?,
        };
        if let Some(network) = network {
            *table.per_network.entry(network).or_default() += 1;
        }
        let slot = Arc::new(Slot::new(network, self.clock.clone()));
        if let Some(evicted) = table.slots[place].replace(Arc::clone(&slot)) {
            table.forget(evicted.network);
            evicted.close();
            self.connections.turned_away.inc();
        }
        drop(table);
        Ok(Admitted { slot, pool: Arc::clone(self), place })
    }

    /// How many connections were refused or closed for want of a place so far.
    pub(super) fn turned_away(&self) -> u64 {
        self.connections.turned_away.get()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn open_from(&self, network: Option<IpAddr>) -> usize {
        network.and_then(|network| self.per_network.get(&network)).copied().unwrap_or(0)
    }

    /// Among some taken at random, the place of the idlest of the network that has most, and more
    /// than `own`.
    fn idlest_of_many(&self, own: usize, random: &Random) -> Option<usize> {
        let bytes = random.bytes::<{ SAMPLE * 4 }>();
        let (numbers, _) = bytes.as_chunks::<4>();
        let places = numbers.iter().map(|&four| u32::from_le_bytes(four) as usize % self.slots.len());
        let candidates = places.filter_map(|place| {
            let slot = self.slots[place].as_ref()?;
            let open = self.open_from(slot.network);
            let since = slot.idle_since().filter(|_| open > own)?;
            Some((open, Reverse(since), place))
        });
        candidates.max().map(|(.., place)| place)
    }

    fn forget(&mut self, network: Option<IpAddr>) {
        if let Some(network) = network
            && let Some(open) = self.per_network.get_mut(&network)
        {
            *open -= 1;
            if *open == 0 {
                self.per_network.remove(&network);
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.pool.connections.open.dec();
        let mut table = self.pool.lock();
        // Another one may have it by now.
        let place = &mut table.slots[self.place];
        if place.as_ref().is_some_and(|slot| Arc::ptr_eq(slot, &self.slot)) {
            *place = None;
            table.free.push(self.place);
            table.forget(self.slot.network);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use hyper::Version;
    use proptest::prelude::*;

    use super::*;

    fn pool(in_all: usize, per_network: usize) -> (Arc<Pool>, Clock) {
        let clock = Clock::manual(100);
        let span = Duration::from_secs(10);
        let bounds = Bounds { in_all, per_network, request: span, idle: span };
        (Pool::new(bounds, Connections::default(), clock.clone(), Random::seeded(1)), clock)
    }

    fn from(last: u8) -> Option<IpAddr> {
        Some([192, 0, 2, last].into())
    }

    /// Whether it has been told to close since it was last asked.
    fn is_closed(admitted: &Admitted) -> bool {
        pin!(admitted.slot.closed()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    // check 55
    #[test]
    fn one_network_has_so_many_and_a_closed_one_makes_room() {
        let (pool, _) = pool(10, 2);
        let mut open: Vec<_> = (0..2).map(|_| pool.admit(from(1)).unwrap()).collect();
        assert!(pool.admit(from(1)).is_err());
        assert!(pool.admit(from(2)).is_ok());
        open.pop();
        assert!(pool.admit(from(1)).is_ok());
    }

    // check 55
    #[test]
    fn when_full_whoever_holds_many_makes_room_with_the_idlest() {
        let (pool, clock) = pool(8, 8);
        let held: Vec<_> = (0..7)
            .map(|_| {
                clock.advance(1);
                pool.admit(from(1)).unwrap()
            })
            .collect();
        let few = pool.admit(from(2)).unwrap();
        // The first has just been used, and the second is being used.
        clock.advance(1);
        drop(held[0].slot.begin(Version::HTTP_11));
        let _busy = held[1].slot.begin(Version::HTTP_11);
        let open = pool.admit(from(3)).unwrap();
        let evicted: Vec<_> = (0..7).filter(|&i| is_closed(&held[i])).collect();
        assert_eq!(evicted, [2]);
        assert!(!is_closed(&few) && !is_closed(&open));
        // Who holds most gets no more, and what the evicted one gives back is not its own.
        assert!(pool.admit(from(1)).is_err());
        drop(held);
        let again: Vec<_> = (0..6).map(|_| pool.admit(from(1)).unwrap()).collect();
        assert!(pool.lock().free.is_empty() && again.len() == 6);
    }

    // check 55
    #[test]
    fn who_is_counted_nowhere_is_never_evicted() {
        let (pool, _) = pool(2, 1);
        let proxies: Vec<_> = (0..2).map(|_| pool.admit(None).unwrap()).collect();
        assert!(pool.admit(None).is_err() && pool.admit(from(1)).is_err());
        assert!(!proxies.iter().any(is_closed));
    }

    proptest! {
        // check 55
        #[test]
        fn nobody_has_more_than_its_share_and_nothing_is_lost(turns in prop::collection::vec((0u8..6, any::<bool>()), 0..200)) {
            let (pool, _) = pool(12, 5);
            let (mut open, mut evicted): (Vec<Admitted>, Vec<Admitted>) = (vec![], vec![]);
            for (who, comes) in turns {
                let network = if who == 0 { None } else { from(who) };
                if comes {
                    open.extend(pool.admit(network));
                } else if !open.is_empty() {
                    open.remove(usize::from(who) % open.len());
                    evicted.pop();
                }
                evicted.extend(open.extract_if(.., |admitted| is_closed(admitted)));
                let still_open = (open.len() + evicted.len()) as i64;
                prop_assert_eq!(pool.connections.open.get(), still_open);
                let table = pool.lock();
                prop_assert_eq!(table.slots.iter().flatten().count(), open.len());
                prop_assert_eq!(table.free.len() + open.len(), 12);
                for who in 1..6 {
                    let count = open.iter().filter(|a| a.slot.network == from(who)).count();
                    prop_assert_eq!(table.open_from(from(who)), count);
                    prop_assert!(count <= 5);
                }
            }
        }
    }
}
