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
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use hyper::Version;
    use proptest::prelude::*;

    use super::{
        super::{asked::Asked, conn_state::Slot},
        *,
    };
    use crate::{clock::Clock, http::BodyError};

    fn pool<G: Guest>(in_all: usize, per_network: usize, newcomers: Newcomers) -> Arc<Pool<G>> {
        let bounds = Bounds { in_all, per_network, aside: 2, newcomers };
        Pool::new(bounds, Places::default(), Random::seeded(1))
    }

    fn connections(in_all: usize, per_network: usize) -> (Arc<Pool<Slot>>, Clock) {
        (pool(in_all, per_network, Newcomers::OfOthers), Clock::manual(100))
    }

    fn from(last: u8) -> Option<IpAddr> {
        Some([192, 0, 2, last].into())
    }

    fn connection(last: u8, clock: &Clock) -> Slot {
        Slot::new(from(last), clock.clone())
    }

    /// A request over a connection of its own from this address.
    fn request(last: u8, clock: &Clock) -> Asked {
        Asked::new(&Arc::new(connection(last, clock)), Version::HTTP_11, clock.clone())
    }

    fn wait_for_its_body(admitted: &Admitted<Asked>) {
        admitted.guest.awaits(Waker::noop()).unwrap();
    }

    /// Whether it has been told to close since it was last asked.
    fn is_closed(admitted: &Admitted<Slot>) -> bool {
        pin!(admitted.guest.closed()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn has_made_room(admitted: &Admitted<Asked>) -> bool {
        matches!(admitted.guest.awaits(Waker::noop()), Err(BodyError::MadeRoom))
    }

    // check 55
    #[test]
    fn one_network_has_so_many_and_a_closed_one_makes_room() {
        let (pool, clock) = connections(10, 2);
        let mut open: Vec<_> = (0..2).map(|_| pool.admit(connection(1, &clock)).unwrap()).collect();
        assert!(pool.admit(connection(1, &clock)).is_err());
        assert!(pool.admit(connection(2, &clock)).is_ok());
        open.pop();
        assert!(pool.admit(connection(1, &clock)).is_ok());
    }

    // check 55
    #[test]
    fn when_full_whoever_holds_many_makes_room_with_the_idlest() {
        let (pool, clock) = connections(8, 8);
        let held: Vec<_> = (0..7)
            .map(|_| {
                clock.advance(1);
                pool.admit(connection(1, &clock)).unwrap()
            })
            .collect();
        let few = pool.admit(connection(2, &clock)).unwrap();
        let ask = |i: usize| Asked::new(&held[i].guest, Version::HTTP_11, clock.clone());
        // The first has just been used, and the second is being used.
        clock.advance(1);
        drop(ask(0));
        let _busy = ask(1);
        let open = pool.admit(connection(3, &clock)).unwrap();
        let evicted: Vec<_> = (0..7).filter(|&i| is_closed(&held[i])).collect();
        assert_eq!(evicted, [2]);
        assert!(!is_closed(&few) && !is_closed(&open));
        // Who holds most gets no more, and what the evicted one gives back is not its own.
        assert!(pool.admit(connection(1, &clock)).is_err());
        drop(held);
        let again: Vec<_> = (0..6).map(|_| pool.admit(connection(1, &clock)).unwrap()).collect();
        assert!(pool.lock().free.is_empty() && again.len() == 6);
    }

    // check 100
    #[test]
    fn a_connection_on_which_bodies_alone_are_waited_for_makes_room() {
        let (pool, clock) = connections(3, 3);
        let held: Vec<_> = (0..3).map(|_| pool.admit(connection(1, &clock)).unwrap()).collect();
        let ask = |i: usize| Asked::new(&held[i].guest, Version::HTTP_2, clock.clone());
        let asked: Vec<_> = [0, 0, 1, 2].map(ask).into();
        clock.advance(1);
        // Of the first one, one request's body is not waited for.
        for waiting in &asked[1..] {
            waiting.awaits(Waker::noop()).unwrap();
            clock.advance(1);
        }
        let newcomers: Vec<_> = (2..4).map(|last| pool.admit(connection(last, &clock)).unwrap()).collect();
        let _busy: Vec<_> =
            newcomers.iter().map(|new| Asked::new(&new.guest, Version::HTTP_2, clock.clone())).collect();
        assert!(!is_closed(&held[0]) && is_closed(&held[1]) && is_closed(&held[2]));
        assert!(pool.admit(connection(4, &clock)).is_err());
        // The first one waits for bodies alone, too, once the other request is over.
        drop(asked);
        assert!(pool.admit(connection(4, &clock)).is_ok());
        assert!(is_closed(&held[0]));
    }

    // check 100
    #[test]
    fn the_request_that_has_waited_longest_makes_room_and_none_that_is_worked_on() {
        let clock = Clock::manual(100);
        let pool = pool(4, 3, Newcomers::OfAnybody);
        let open: Vec<_> = (0..3).map(|_| pool.admit(request(1, &clock)).unwrap()).collect();
        // Nobody waits yet, and nobody has to go.
        assert!(pool.admit(request(1, &clock)).is_err());
        for i in [2, 1] {
            clock.advance(1);
            wait_for_its_body(&open[i]);
        }
        // Its own network's, if that has its share.
        let fourth = pool.admit(request(1, &clock)).unwrap();
        assert!(has_made_room(&open[2]) && !has_made_room(&open[1]));
        // That of whoever has most, if there is no place at all.
        let other = pool.admit(request(2, &clock)).unwrap();
        wait_for_its_body(&other);
        let another = pool.admit(request(2, &clock)).unwrap();
        assert!(has_made_room(&open[1]) && !has_made_room(&other));
        // The body of one has come, which is worked on again; the one that waits is of a network that
        // has no more than this one.
        wait_for_its_body(&fourth);
        fourth.guest.is_worked_on();
        assert!(pool.admit(request(1, &clock)).is_err());
        drop((open, fourth, other, another));
        let table = pool.lock();
        assert_eq!((table.free.len(), table.per_network.len(), pool.counts.taken.get()), (4, 0, 0));
    }

    // check 101
    #[test]
    fn whoever_is_set_aside_makes_room_for_nobody_and_takes_no_place_of_the_others() {
        let clock = Clock::manual(100);
        let pool = pool(2, 2, Newcomers::OfAnybody);
        let known: Vec<_> = (0..3)
            .map(|_| {
                let admitted = pool.admit(connection(1, &clock)).unwrap();
                admitted.set_aside();
                admitted
            })
            .collect();
        // There are two such places; the third stays among the others, and makes room.
        clock.advance(1);
        let others: Vec<_> = (0..9).map(|_| pool.admit(connection(1, &clock)).unwrap()).collect();
        assert_eq!(known.iter().map(is_closed).collect::<Vec<_>>(), [false, false, true]);
        // One that had to go is not set aside any more.
        known[2].set_aside();
        drop((known, others));
        let table = pool.lock();
        assert_eq!((table.free.len(), table.aside, pool.counts.taken.get()), (2, 0, 0));
    }

    // check 55
    #[test]
    fn who_is_counted_nowhere_is_never_evicted() {
        let (pool, clock) = connections(2, 1);
        let proxy = || Slot::new(None, clock.clone());
        let proxies: Vec<_> = (0..2).map(|_| pool.admit(proxy()).unwrap()).collect();
        assert!(pool.admit(proxy()).is_err() && pool.admit(connection(1, &clock)).is_err());
        assert!(!proxies.iter().any(is_closed));
    }

    proptest! {
        // check 55
        #[test]
        fn nobody_has_more_than_its_share_and_nothing_is_lost(turns in prop::collection::vec((0u8..6, any::<bool>()), 0..200)) {
            let (pool, clock) = connections(12, 5);
            let (mut open, mut evicted): (Vec<Admitted<Slot>>, Vec<Admitted<Slot>>) = (vec![], vec![]);
            for (who, comes) in turns {
                let network = if who == 0 { None } else { from(who) };
                if comes {
                    open.extend(pool.admit(Slot::new(network, clock.clone())));
                } else if !open.is_empty() {
                    open.remove(usize::from(who) % open.len());
                    evicted.pop();
                }
                evicted.extend(open.extract_if(.., |admitted| is_closed(admitted)));
                let still_open = (open.len() + evicted.len()) as i64;
                prop_assert_eq!(pool.counts.taken.get(), still_open);
                let table = pool.lock();
                prop_assert_eq!(table.places.iter().flatten().count(), open.len());
                prop_assert_eq!(table.free.len() + open.len(), 12);
                for who in 1..6 {
                    let count = open.iter().filter(|a| a.guest.network() == from(who)).count();
                    prop_assert_eq!(table.places_of(from(who)).len(), count);
                    prop_assert!(count <= 5);
                }
            }
        }
    }
}
