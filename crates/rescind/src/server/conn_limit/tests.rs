use std::{
    pin::pin,
    task::{Context, Waker},
};

use hyper::Version;
use proptest::prelude::*;
use rescind_base::clock::Clock;

use super::{
    super::{asked::Asked, conn_state::ConnState},
    *,
};
use crate::http::BodyError;

fn pool<G: Holder>(in_all: usize, per_network: usize, newcomers: Newcomers) -> Arc<ConnLimit<G>> {
    let bounds = Bounds { in_all, per_network, aside: 2, newcomers };
    ConnLimit::new(bounds, Occupancy::default(), Random::seeded(1))
}

fn connections(in_all: usize, per_network: usize) -> (Arc<ConnLimit<ConnState>>, Clock) {
    (pool(in_all, per_network, Newcomers::OfOthers), Clock::manual(100))
}

fn from(last: u8) -> Option<IpAddr> {
    Some([192, 0, 2, last].into())
}

fn connection(last: u8, clock: &Clock) -> ConnState {
    ConnState::new(from(last), clock.clone())
}

/// A request over a connection of its own from this address.
fn request(last: u8, clock: &Clock) -> Asked {
    Asked::new(&Arc::new(connection(last, clock)), Version::HTTP_11, clock.clone())
}

fn wait_for_its_body(permit: &ConnPermit<Asked>) {
    permit.holder.awaits(Waker::noop()).unwrap();
}

/// Whether the connection had to close since the last call.
fn is_closed(permit: &ConnPermit<ConnState>) -> bool {
    pin!(permit.holder.closed()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

fn has_made_room(permit: &ConnPermit<Asked>) -> bool {
    matches!(permit.holder.awaits(Waker::noop()), Err(BodyError::MadeRoom))
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
    let ask = |i: usize| Asked::new(&held[i].holder, Version::HTTP_11, clock.clone());
    // The first connection has just been used, and the second is busy.
    clock.advance(1);
    drop(ask(0));
    let _busy = ask(1);
    let open = pool.admit(connection(3, &clock)).unwrap();
    let evicted: Vec<_> = (0..7).filter(|&i| is_closed(&held[i])).collect();
    assert_eq!(evicted, [2]);
    assert!(!is_closed(&few) && !is_closed(&open));
    // The network with most places gets no more. The evicted holder does not free the place that it lost.
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
    let ask = |i: usize| Asked::new(&held[i].holder, Version::HTTP_2, clock.clone());
    let asked: Vec<_> = [0, 0, 1, 2].map(ask).into();
    clock.advance(1);
    // One request of the first connection does not wait for its body.
    for waiting in &asked[1..] {
        waiting.awaits(Waker::noop()).unwrap();
        clock.advance(1);
    }
    let newcomers: Vec<_> = (2..4).map(|last| pool.admit(connection(last, &clock)).unwrap()).collect();
    let _busy: Vec<_> =
        newcomers.iter().map(|new| Asked::new(&new.holder, Version::HTTP_2, clock.clone())).collect();
    assert!(!is_closed(&held[0]) && is_closed(&held[1]) && is_closed(&held[2]));
    assert!(pool.admit(connection(4, &clock)).is_err());
    // When that request has ended, the first connection too only waits for bodies.
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
    // No holder waits yet, so no holder makes room.
    assert!(pool.admit(request(1, &clock)).is_err());
    for i in [2, 1] {
        clock.advance(1);
        wait_for_its_body(&open[i]);
    }
    // If the network has its whole share, a holder of the same network makes room.
    let fourth = pool.admit(request(1, &clock)).unwrap();
    assert!(has_made_room(&open[2]) && !has_made_room(&open[1]));
    // If no place is free, a holder of the network with most places makes room.
    let other = pool.admit(request(2, &clock)).unwrap();
    wait_for_its_body(&other);
    let another = pool.admit(request(2, &clock)).unwrap();
    assert!(has_made_room(&open[1]) && !has_made_room(&other));
    // One body has arrived, so its request is worked on again. The request that still waits is of a network that has no
    // more places than the newcomer's.
    wait_for_its_body(&fourth);
    fourth.holder.is_worked_on();
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
            let permit = pool.admit(connection(1, &clock)).unwrap();
            permit.set_aside();
            permit
        })
        .collect();
    // Only two places are aside. The third holder stays among the others and makes room.
    clock.advance(1);
    let others: Vec<_> = (0..9).map(|_| pool.admit(connection(1, &clock)).unwrap()).collect();
    assert_eq!(known.iter().map(is_closed).collect::<Vec<_>>(), [false, false, true]);
    // A holder that made room is not set aside any more.
    known[2].set_aside();
    drop((known, others));
    let table = pool.lock();
    assert_eq!((table.free.len(), table.aside, pool.counts.taken.get()), (2, 0, 0));
}

// check 55
#[test]
fn who_is_counted_nowhere_is_never_evicted() {
    let (pool, clock) = connections(2, 1);
    let proxy = || ConnState::new(None, clock.clone());
    let proxies: Vec<_> = (0..2).map(|_| pool.admit(proxy()).unwrap()).collect();
    assert!(pool.admit(proxy()).is_err() && pool.admit(connection(1, &clock)).is_err());
    assert!(!proxies.iter().any(is_closed));
}

proptest! {
    // check 55
    #[test]
    fn nobody_has_more_than_its_share_and_nothing_is_lost(turns in prop::collection::vec((0u8..6, any::<bool>()), 0..200)) {
        let (pool, clock) = connections(12, 5);
        let (mut open, mut evicted): (Vec<ConnPermit<ConnState>>, Vec<ConnPermit<ConnState>>) = (vec![], vec![]);
        for (who, comes) in turns {
            let network = if who == 0 { None } else { from(who) };
            if comes {
                open.extend(pool.admit(ConnState::new(network, clock.clone())));
            } else if !open.is_empty() {
                open.remove(usize::from(who) % open.len());
                evicted.pop();
            }
            evicted.extend(open.extract_if(.., |permit| is_closed(permit)));
            let still_open = (open.len() + evicted.len()) as i64;
            prop_assert_eq!(pool.counts.taken.get(), still_open);
            let table = pool.lock();
            prop_assert_eq!(table.places.iter().flatten().count(), open.len());
            prop_assert_eq!(table.free.len() + open.len(), 12);
            for who in 1..6 {
                let count = open.iter().filter(|a| a.holder.network() == from(who)).count();
                prop_assert_eq!(table.places_of(from(who)).len(), count);
                prop_assert!(count <= 5);
            }
        }
    }
}
