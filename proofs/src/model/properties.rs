//! The invariants of the design, and the states that must be reachable, so that the invariants do not hold trivially.

use stateright::Property;

use super::{
    Protocol, Scenario,
    scenario::Asked,
    state::{FOLLOWER, State, Verifier, Write},
    store::{CLIENTS, Server},
};

pub const INV1: &str = "Inv1: what is accepted after a 200 is of the new generation";
pub const INV2: &str = "Inv2: what is accepted is decided on state younger than D";
pub const INV3: &str = "Inv3: what was answered 200 is durable on every future primary";
pub const INV4: &str = "Inv4: what is applied never falls and never skips";
pub const INV5: &str = "Inv5: every serving node is visible to every logout that must wait for it";
pub const INV6: &str = "Inv6: a pair number is consumed at most once";

pub(super) fn properties(scenario: &Scenario) -> Vec<Property<Protocol>> {
    let mut all = vec![
        Property::always(INV1, |_, state: &State| !state.broken.revoked_accepted),
        Property::always(INV2, decides_on_young_state),
        Property::always(INV3, is_durable),
        Property::always(INV4, skips_nothing),
        Property::always(INV5, sees_every_node),
        Property::always(INV6, |_, state: &State| state.told.consumed.iter().all(|&times| times <= 1)),
    ];
    let mut must = |applies: bool, name, condition| {
        if applies {
            all.push(Property::sometimes(name, condition));
        }
    };
    let (nodes, logouts) = (scenario.nodes > 0, scenario.logouts());
    must(logouts > 0, "a logout is answered", |_, state| state.told.promised != [0; CLIENTS]);
    must(logouts > 0 && nodes && !scenario.quiet, "acknowledgements come before W", acknowledged_in_time);
    must(nodes, "a token is accepted", |_, state| accepts(state, 0).is_some());
    must(nodes && scenario.login, "a token of the new generation is accepted", |_, state| {
        accepts(state, 1).is_some()
    });
    must(nodes && scenario.fail_over, "a token is accepted after the fail-over", |_, state| {
        accepts(state, 0) == Some(Server::Second)
    });
    must(scenario.rows > scenario.serving, "a node that has joined serves", |protocol, state| {
        let new = state.nodes.iter().filter(|node| usize::from(node.id) >= protocol.scenario.serving);
        new.into_iter().any(|node| node.has_joined() && node.lease > 0)
    });
    must(scenario.gc, "a row is collected after W", |protocol, state| {
        state.watch.is_some_and(|seen| seen.since > protocol.scenario.terms.wait)
    });
    must(scenario.loses, "what was lost is repeated, and binds", |_, state| {
        let (first, second) = (state.store.at(Server::First), state.store.durable());
        let repeated = !second.has(first.newest()) && second.clients[0].generation > 0;
        repeated && state.told.promised[0] > 0 && state.told.served > 0
    });
    must(scenario.loses && scenario.crash, "every token is ended", |_, state| {
        state.store.durable().lost.ended
    });
    must(scenario.refreshers > 0, "both pairs are consumed", |_, state| state.told.consumed == [1, 1]);
    must(scenario.follower, "a verifier outlives its logout", |_, state| {
        let follower = &state.follower;
        follower.lease > 0 && follower.memory.clients[0].is_some_and(|policy| policy.generation > 0)
    });
    all
}

fn decides_on_young_state(protocol: &Protocol, state: &State) -> bool {
    let term = protocol.scenario.terms.term;
    let nodes = state.nodes.iter().all(|node| node.lease == 0 || node.age <= term);
    let follower = state.follower.lease == 0 || state.follower.age <= term;
    nodes && follower && !state.broken.stale_accepted
}

fn is_durable(protocol: &Protocol, state: &State) -> bool {
    let durable = state.store.durable();
    if protocol.scenario.loses {
        let binding = state.told.promised[0].min(state.told.served);
        let gone = !durable.clients[0].is_there();
        let holds = durable.clients[0].generation >= binding || durable.lost.ended || gone;
        return holds || !state.store.promoted();
    }
    let mut promised = state.told.promised.iter().zip(&durable.clients);
    let consumed = state.told.consumed.iter().filter(|&&times| times > 0).count();
    promised.all(|(&promised, client)| client.generation >= promised)
        && usize::from(durable.session.pair) >= consumed
}

/// Memory has every change up to its applied number.
fn skips_nothing(_: &Protocol, state: &State) -> bool {
    !state.broken.applied_fell
        && state.nodes.iter().filter(|node| node.has_joined()).all(|node| {
            let changes = &state.store.at(node.memory.server).changes;
            changes[..usize::from(node.memory.applied)].iter().flatten().all(|change| {
                node.memory.clients[usize::from(change.client)]
                    .is_none_or(|known| known.revision >= change.revision)
            })
        })
}

fn sees_every_node(protocol: &Protocol, state: &State) -> bool {
    let asked = protocol.scenario.writes.iter();
    asked.zip(&state.writes).all(|(asked, write)| match (*asked, *write) {
        (Asked::Logout { client, generation }, Write::Listed { ids, server, .. }) => {
            // On a database that went back, a verification must enforce only what was repeated there.
            let apart = |on: Server| protocol.scenario.loses && on != server;
            serving_without(state, client, generation + 1).all(|(id, on)| ids & 1 << id != 0 || apart(on))
        }
        _ => true,
    })
}

/// The rows and servers of processes that may accept the client's tokens older than this generation. For a
/// follower, the row is that of the node that has lent the lease.
fn serving_without(state: &State, client: usize, generation: u8) -> impl Iterator<Item = (u8, Server)> {
    (0..=FOLLOWER).filter_map(|at| state.verifier(at)).filter_map(
        move |Verifier { id, memory, lease, .. }| {
            let lacks = memory.clients[client].is_some_and(|known| known.generation < generation);
            (lacks && lease > 0).then_some((id, memory.server))
        },
    )
}

/// Whether a logout may be answered before W has passed, and at least one node had to acknowledge it.
fn acknowledged_in_time(protocol: &Protocol, state: &State) -> bool {
    state.writes.iter().any(|write| match *write {
        Write::Listed { server, elapsed, head, ids, .. } => {
            ids != 0 && elapsed < protocol.scenario.terms.wait && state.store.at(server).acked(ids, head)
        }
        _ => false,
    })
}

/// The timeline on which a process would accept a token of this generation or a newer one.
fn accepts(state: &State, generation: u8) -> Option<Server> {
    let verifiers = (0..=FOLLOWER).filter_map(|at| state.verifier(at)).filter(|verifier| verifier.lease > 0);
    let accepting = verifiers.filter(|verifier| {
        verifier.memory.clients[0].is_some_and(|known| {
            known.generation >= generation && state.told.issued[0] & 1 << known.generation != 0
        })
    });
    accepting.map(|verifier| verifier.memory.server).max()
}
