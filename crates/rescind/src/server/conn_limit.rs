//! Who has a place, and who goes when there are too many: connections, and requests under way.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{random::Random, telemetry::metrics::Places};

/// So many places, taken at random, are looked at for the one that makes room: whoever holds a fifth of
/// all is missed once in a thousand times.
const SAMPLE: usize = 32;

/// Whoever may have a place.
pub(super) trait Guest {
    /// Whose share it counts for; `None` counts for nobody's.
    fn network(&self) -> Option<IpAddr>;
    /// Since when nothing is done for it, if nothing is.
    fn waits_since(&self) -> Option<Duration>;
    /// Another one has its place.
    fn make_room(&self);
}

/// How many places there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) in_all: usize,
    pub(super) per_network: usize,
    /// Places beside those, for guests that were set aside.
    pub(super) aside: usize,
    pub(super) newcomers: Newcomers,
}

impl Bounds {
    /// So many, whoever has them.
    pub(super) const fn of_anybody(in_all: usize) -> Bounds {
        Bounds { in_all, per_network: in_all, aside: 0, newcomers: Newcomers::OfAnybody }
    }
}

/// For whom those that wait make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Newcomers {
    /// For whoever has fewer places than they have.
    OfOthers,
    /// For their own network's next, too.
    OfAnybody,
}

/// Guests of one kind.
#[derive(Debug)]
pub(super) struct Pool<G> {
    bounds: Bounds,
    random: Random,
    table: Mutex<Table<G>>,
    counts: Places,
}

#[derive(Debug)]
struct Table<G> {
    places: Box<[Option<Taken<G>>]>,
    free: Vec<usize>,
    /// The places that each network has.
    per_network: HashMap<IpAddr, Vec<usize>>,
    aside: usize,
}

#[derive(Debug)]
struct Taken<G> {
    guest: Arc<G>,
    /// Where the place stands among its network's.
    nth: usize,
}

/// A guest's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Admitted<G: Guest> {
    pub(super) guest: Arc<G>,
    pool: Arc<Pool<G>>,
    place: usize,
    is_aside: AtomicBool,
}

/// There is no place for another guest.
#[derive(Debug)]
pub(super) struct Full;

impl<G: Guest> Pool<G> {
    pub(super) fn new(bounds: Bounds, counts: Places, random: Random) -> Arc<Pool<G>> {
        let table = Table {
            places: (0..bounds.in_all).map(|_| None).collect(),
            free: (0..bounds.in_all).rev().collect(),
            per_network: HashMap::new(),
            aside: 0,
        };
        Arc::new(Pool { bounds, random, table: Mutex::new(table), counts })
    }

    /// A place for a guest.
    ///
    /// If there is none left, the one that has waited longest makes room, of the network that has most.
    /// So whoever holds many loses them to those who hold few.
    pub(super) fn admit(self: &Arc<Pool<G>>, guest: G) -> Result<Admitted<G>, Full> {
        let guest = Arc::new(guest);
        let found = self.find_place(&guest);
        match found {
            Ok(_) => _ = self.counts.taken.inc(),
            Err(Full) => _ = self.counts.turned_away.inc(),
        }
        Ok(Admitted { guest, place: found?, pool: Arc::clone(self), is_aside: AtomicBool::new(false) })
    }

    fn find_place(&self, guest: &Arc<G>) -> Result<usize, Full> {
        let mut table = self.lock();
        let network = guest.network();
        let own = table.places_of(network).len();
        let of_own = self.bounds.newcomers == Newcomers::OfAnybody;
        let place = if own >= self.bounds.per_network {
            let its_own = sample(&self.random, own).map(|i| table.places_of(network)[i]);
            table.longest_waiting(its_own, |_, _| of_own)?
        } else if let Some(place) = table.free.pop() {
            place
        } else {
            let any = sample(&self.random, table.places.len());
            table.longest_waiting(any, |of, taken| (of_own && of == network) || taken > own)?
        };
        let evicted = table.leave(place);
        table.take(place, guest);
        drop(table);
        if let Some(evicted) = evicted {
            evicted.make_room();
            self.counts.turned_away.inc();
        }
        Ok(place)
    }

    /// How many guests were refused or had to go for want of a place so far.
    pub(super) fn turned_away(&self) -> u64 {
        self.counts.turned_away.get()
    }

    /// The network that has most places, if any has one.
    pub(super) fn most_from(&self) -> Option<IpAddr> {
        let table = self.lock();
        table.per_network.iter().max_by_key(|(_, places)| places.len()).map(|(network, _)| *network)
    }

    fn lock(&self) -> MutexGuard<'_, Table<G>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So many as are looked at of that many, at random.
fn sample(random: &Random, of: usize) -> impl Iterator<Item = usize> {
    let bytes = random.bytes::<{ SAMPLE * 4 }>();
    let all = of <= SAMPLE;
    (0..of.min(SAMPLE)).map(move |i| {
        let four = bytes.as_chunks::<4>().0[i];
        if all { i } else { u32::from_le_bytes(four) as usize % of }
    })
}

impl<G: Guest> Table<G> {
    fn places_of(&self, network: Option<IpAddr>) -> &[usize] {
        network.and_then(|network| self.per_network.get(&network)).map_or(&[], Vec::as_slice)
    }

    /// Among these places, that of the guest that has waited longest of the network that has most. Of a
    /// network and what it has, `may_go` tells whether any of its guests has to go.
    fn longest_waiting(
        &self,
        places: impl Iterator<Item = usize>,
        may_go: impl Fn(Option<IpAddr>, usize) -> bool,
    ) -> Result<usize, Full> {
        let candidates = places.filter_map(|place| {
            let Taken { guest, .. } = self.places[place].as_ref()?;
            let network = guest.network();
            let taken = self.places_of(network).len();
            let since = guest.waits_since().filter(|_| may_go(network, taken))?;
            Some((taken, Reverse(since), place))
        });
        candidates.max().map(|(.., place)| place).ok_or(Full)
    }

    /// Gives a place that is nobody's to a guest.
    fn take(&mut self, place: usize, guest: &Arc<G>) {
        let mut nth = 0;
        if let Some(network) = guest.network() {
            let places = self.per_network.entry(network).or_default();
            nth = places.len();
            places.push(place);
        }
        self.places[place] = Some(Taken { guest: Arc::clone(guest), nth });
    }

    /// Makes a place nobody's.
    fn leave(&mut self, place: usize) -> Option<Arc<G>> {
        let Taken { guest, nth } = self.places[place].take()?;
        if let Some(network) = guest.network()
            && let Some(places) = self.per_network.get_mut(&network)
        {
            places.swap_remove(nth);
            match places.get(nth) {
                Some(&moved) => _ = self.places[moved].as_mut().map(|moved| moved.nth = nth),
                None if places.is_empty() => _ = self.per_network.remove(&network),
                None => {}
            }
        }
        Some(guest)
    }

    /// Gives a guest's place back, if it still is its own.
    fn give_back(&mut self, place: usize, guest: &Arc<G>) -> bool {
        let is_its_own = self.places[place].as_ref().is_some_and(|taken| Arc::ptr_eq(&taken.guest, guest));
        if is_its_own {
            self.leave(place);
            self.free.push(place);
        }
        is_its_own
    }
}

impl<G: Guest> Admitted<G> {
    /// Goes over to one of the places that nobody has to leave, while there are any.
    pub(super) fn set_aside(&self) {
        let mut table = self.pool.lock();
        if !self.is_aside.load(Ordering::Relaxed)
            && table.aside < self.pool.bounds.aside
            && table.give_back(self.place, &self.guest)
        {
            table.aside += 1;
            self.is_aside.store(true, Ordering::Relaxed);
        }
    }
}

impl<G: Guest> Drop for Admitted<G> {
    fn drop(&mut self) {
        self.pool.counts.taken.dec();
        let mut table = self.pool.lock();
        if *self.is_aside.get_mut() {
            table.aside -= 1;
        } else {
            table.give_back(self.place, &self.guest);
        }
    }
}

#[cfg(test)]
mod tests;
