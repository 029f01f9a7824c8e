//! Limits of connections and of requests under way, and which of them makes room when a limit is reached.

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

use rescind_base::{random::Random, telemetry::metrics::Occupancy};

/// The number of random places among which the one that makes room is chosen. A network with a fifth of all
/// places is missed once in a thousand times.
const SAMPLE: usize = 32;

/// A connection or a request that may have a place.
pub(super) trait Holder {
    /// The network whose share the holder counts for. `None`: no network's.
    fn network(&self) -> Option<IpAddr>;
    /// The time since which the holder only waits. `None`: the service is working on it.
    fn waits_since(&self) -> Option<Duration>;
    /// Called when another holder has taken the place.
    fn make_room(&self);
}

/// How many places there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) in_all: usize,
    pub(super) per_network: usize,
    /// Additional places, for holders that were set aside.
    pub(super) aside: usize,
    pub(super) newcomers: Newcomers,
}

impl Bounds {
    /// `in_all` places without a limit per network.
    pub(super) const fn of_anybody(in_all: usize) -> Bounds {
        Bounds { in_all, per_network: in_all, aside: 0, newcomers: Newcomers::OfAnybody }
    }
}

/// For which newcomers a waiting holder makes room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Newcomers {
    /// For newcomers of networks with fewer places than the waiting holder's network.
    OfOthers,
    /// For newcomers of the waiting holder's own network, too.
    OfAnybody,
}

/// The places for holders of one kind.
#[derive(Debug)]
pub(super) struct ConnLimit<G> {
    bounds: Bounds,
    random: Random,
    table: Mutex<Table<G>>,
    counts: Occupancy,
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
    holder: Arc<G>,
    /// The index of the place in its network's list.
    nth: usize,
}

/// A holder's place. Dropping it frees the place.
#[derive(Debug)]
pub(super) struct ConnPermit<G: Holder> {
    pub(super) holder: Arc<G>,
    pool: Arc<ConnLimit<G>>,
    place: usize,
    is_aside: AtomicBool,
}

/// There is no place for another holder.
#[derive(Debug)]
pub(super) struct Full;

impl<G: Holder> ConnLimit<G> {
    pub(super) fn new(bounds: Bounds, counts: Occupancy, random: Random) -> Arc<ConnLimit<G>> {
        let table = Table {
            places: (0..bounds.in_all).map(|_| None).collect(),
            free: (0..bounds.in_all).rev().collect(),
            per_network: HashMap::new(),
            aside: 0,
        };
        Arc::new(ConnLimit { bounds, random, table: Mutex::new(table), counts })
    }

    /// Gives a holder a place.
    ///
    /// If no place is free, a waiting holder makes room: of the network with most places, the one that has waited
    /// longest. So a network with many places loses them to networks with few.
    pub(super) fn admit(self: &Arc<ConnLimit<G>>, holder: G) -> Result<ConnPermit<G>, Full> {
        let holder = Arc::new(holder);
        let found = self.find_place(&holder);
        match found {
            Ok(_) => _ = self.counts.taken.inc(),
            Err(Full) => _ = self.counts.turned_away.inc(),
        }
        Ok(ConnPermit { holder, place: found?, pool: Arc::clone(self), is_aside: AtomicBool::new(false) })
    }

    fn find_place(&self, holder: &Arc<G>) -> Result<usize, Full> {
        let mut table = self.lock();
        let network = holder.network();
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
        table.take(place, holder);
        drop(table);
        if let Some(evicted) = evicted {
            evicted.make_room();
            self.counts.turned_away.inc();
        }
        Ok(place)
    }

    /// Returns how many holders were refused or had to make room so far.
    pub(super) fn turned_away(&self) -> u64 {
        self.counts.turned_away.get()
    }

    /// Returns the network that has most places, if any has one.
    pub(super) fn most_from(&self) -> Option<IpAddr> {
        let table = self.lock();
        table.per_network.iter().max_by_key(|(_, places)| places.len()).map(|(network, _)| *network)
    }

    fn lock(&self) -> MutexGuard<'_, Table<G>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns up to `SAMPLE` indices below `of`: all of them, or random ones.
fn sample(random: &Random, of: usize) -> impl Iterator<Item = usize> {
    let bytes = random.bytes::<{ SAMPLE * 4 }>();
    let all = of <= SAMPLE;
    (0..of.min(SAMPLE)).map(move |i| {
        let four = bytes.as_chunks::<4>().0[i];
        if all { i } else { u32::from_le_bytes(four) as usize % of }
    })
}

impl<G: Holder> Table<G> {
    fn places_of(&self, network: Option<IpAddr>) -> &[usize] {
        network.and_then(|network| self.per_network.get(&network)).map_or(&[], Vec::as_slice)
    }

    /// Chooses among these places: of the network with most places, the holder that has waited longest. `may_go` gets a
    /// network and its number of places, and returns whether a holder of that network may be chosen.
    fn longest_waiting(
        &self,
        places: impl Iterator<Item = usize>,
        may_go: impl Fn(Option<IpAddr>, usize) -> bool,
    ) -> Result<usize, Full> {
        let candidates = places.filter_map(|place| {
            let Taken { holder, .. } = self.places[place].as_ref()?;
            let network = holder.network();
            let taken = self.places_of(network).len();
            let since = holder.waits_since().filter(|_| may_go(network, taken))?;
            Some((taken, Reverse(since), place))
        });
        candidates.max().map(|(.., place)| place).ok_or(Full)
    }

    /// Gives a free place to a holder.
    fn take(&mut self, place: usize, holder: &Arc<G>) {
        let mut nth = 0;
        if let Some(network) = holder.network() {
            let places = self.per_network.entry(network).or_default();
            nth = places.len();
            places.push(place);
        }
        self.places[place] = Some(Taken { holder: Arc::clone(holder), nth });
    }

    /// Takes the holder out of a place.
    fn leave(&mut self, place: usize) -> Option<Arc<G>> {
        let Taken { holder, nth } = self.places[place].take()?;
        if let Some(network) = holder.network()
            && let Some(places) = self.per_network.get_mut(&network)
        {
            places.swap_remove(nth);
            match places.get(nth) {
                Some(&moved) => _ = self.places[moved].as_mut().map(|moved| moved.nth = nth),
                None if places.is_empty() => _ = self.per_network.remove(&network),
                None => {}
            }
        }
        Some(holder)
    }

    /// Frees a holder's place, if the holder still has it.
    fn give_back(&mut self, place: usize, holder: &Arc<G>) -> bool {
        let is_its_own = self.places[place].as_ref().is_some_and(|taken| Arc::ptr_eq(&taken.holder, holder));
        if is_its_own {
            self.leave(place);
            self.free.push(place);
        }
        is_its_own
    }
}

impl<G: Holder> ConnPermit<G> {
    /// Moves the holder to a place aside, which it never has to leave, if one is free.
    pub(super) fn set_aside(&self) {
        let mut table = self.pool.lock();
        if !self.is_aside.load(Ordering::Relaxed)
            && table.aside < self.pool.bounds.aside
            && table.give_back(self.place, &self.holder)
        {
            table.aside += 1;
            self.is_aside.store(true, Ordering::Relaxed);
        }
    }
}

impl<G: Holder> Drop for ConnPermit<G> {
    fn drop(&mut self) {
        self.pool.counts.taken.dec();
        let mut table = self.pool.lock();
        if *self.is_aside.get_mut() {
            table.aside -= 1;
        } else {
            table.give_back(self.place, &self.holder);
        }
    }
}

#[cfg(test)]
mod tests;
