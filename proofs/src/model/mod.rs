//! A model of the cluster's protocol: all steps of nodes, PostgreSQL, clocks and callers, in every order.
//!
//! No step is forced: a tick may pass between any two steps. So every process may pause anywhere for any time,
//! and every message may be late. The [`Scenario`] bounds the numbers of nodes, logouts, rows, and commits that
//! wait for the stand-by. Within these bounds the checker visits every state.
//!
//! - `store`: contents of the primary and of the stand-by. `state`: all other state.
//! - `node`: JOIN, RENEW, LEAVE. `row`: GC. `write`: LOGOUT. `verify`: VERIFY. `session`: LOGIN, REFRESH.
//!   `history`: a database that went back. `follower`: attached exact verifiers. `time`: fast and slow clocks.
//! - `fault`: seeded faults. `properties`: the invariants. `scenario`: the bounds of each run.

mod action;
mod check;
mod fault;
mod follower;
mod history;
mod node;
mod properties;
mod row;
mod scenario;
mod session;
mod state;
mod store;
mod time;
mod verify;
mod write;

use std::array;

use stateright::{Model, Property};

pub use action::Action;
pub use check::{Figures, check, listing, shortest, way};
pub use fault::Fault;
pub use properties::{INV1, INV2, INV3, INV4, INV5, INV6};
pub use scenario::{Asked, Scenario};
pub use state::State;

use state::{Broken, Follower, Login, Memory, Node, Refresher, Renewal, Standing, Told, Write};
use store::{Content, OPENED, Outcome, Row, Server, Store};

/// The protocol within one scenario, with at most one fault.
#[derive(Clone, Debug)]
pub struct Protocol {
    pub scenario: Scenario,
    pub fault: Option<Fault>,
}

impl Protocol {
    /// The protocol without a fault.
    pub fn sound(scenario: Scenario) -> Protocol {
        Protocol { scenario, fault: None }
    }

    /// The protocol with one fault.
    pub fn with(fault: Fault) -> Protocol {
        Protocol { scenario: fault.scenario(), fault: Some(fault) }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Runs a transaction up to its local commit.
    fn commit(&self, state: &mut State, server: Server, transaction: impl FnOnce(&mut Content)) -> Outcome {
        state.store.commit(server, self.scenario.log > 0, transaction)
    }

    /// Whether the log has room for one more commit.
    fn may_commit(&self, state: &State) -> bool {
        self.scenario.log == 0 || state.store.unflushed() < self.scenario.log
    }

    /// The steps of the stand-by itself, and the fail-over.
    fn store_actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.store.unflushed() > 0 {
            actions.push(Action::Flush);
        }
        if state.store.unshown() > 0 {
            actions.push(Action::Show);
        }
        if self.scenario.fail_over && !state.store.promoted() {
            actions.push(Action::Promote);
        }
    }

    fn flush(&self, state: &mut State) {
        state.store.flush(self.has(Fault::StandbyRead));
        for wait in state.waits_mut() {
            *wait = wait.saturating_sub(1);
        }
    }

    /// A commit that the stand-by has not flushed will never be confirmed, so its process stops waiting.
    fn promote(&self, state: &mut State) {
        state.store.promote();
        if self.scenario.loses {
            // Connections to the first server break.
            for node in &mut state.nodes {
                match node.standing {
                    Standing::Joining { .. } => *node = Node { standing: Standing::Out, ..node.clone() },
                    Standing::Settling { .. } => node.standing = Standing::Out,
                    _ => {}
                }
                if let Renewal::Read { .. } | Renewal::Committed { .. } = node.renewal {
                    node.renewal = Renewal::Idle;
                }
            }
        }
        for node in &mut state.nodes {
            match (node.standing, node.renewal) {
                (Standing::Joining { wait: 1.. }, _) => *node = Node::out(),
                (_, Renewal::Committed { wait: 1.., .. }) => node.renewal = Renewal::Idle,
                _ => {}
            }
        }
        for write in &mut state.writes {
            if let Write::Committed { tries, wait: 1.., .. } = *write {
                *write = Write::Idle { tries };
            }
        }
        if let Login::Committed { wait: 1.., .. } = state.login {
            state.login = Login::Idle;
        }
        for refresher in &mut state.refreshers {
            if let Refresher::Committed { tries, wait: 1.., .. } = *refresher {
                *refresher = Refresher::Idle { tries };
            }
        }
    }

    /// Brings states that no step can distinguish into one form.
    fn settle(&self, state: &mut State) {
        for node in &mut state.nodes {
            // This lease would end before it begins. Another renewal may do everything that this one may.
            if let Renewal::Sent { since } | Renewal::Applied { since } = node.renewal
                && since == self.scenario.terms.lasts
            {
                node.renewal = Renewal::Idle;
            }
            if !matches!(node.renewal, Renewal::Applied { .. }) && node.lease == 0 {
                node.age = 0;
            }
        }
        if state.follower.lease == 0 {
            state.follower.age = 0;
        }
        row::settle(state);
        self.settle_history(state);
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let scenario = &self.scenario;
        let mut content = Content::default();
        if !scenario.ids {
            content.clients = [OPENED; store::CLIENTS];
        }
        content.rows[..scenario.serving].fill(Row::Present { acked: 0, beat: 0 });
        let mut nodes = array::from_fn(|id| match id {
            id if id < scenario.serving => Node {
                standing: Standing::Joined,
                id: id as u8,
                memory: Memory::load(Server::First, &content, scenario.ids),
                lease: scenario.terms.lasts,
                ..Node::out()
            },
            _ => Node::out(),
        });
        let told =
            Told { issued: [1; store::CLIENTS], first_tick: self.has(Fault::IssueTime), ..Told::default() };
        let mut store = Store::new(content, scenario.loses);
        if scenario.ids {
            store.commit(Server::First, true, |content| {
                content.given = 1;
                content.clients[0] = OPENED;
            });
            nodes[0].memory.given = 1;
        }
        vec![State {
            store,
            nodes,
            follower: Follower::detached(),
            writes: [Write::Idle { tries: scenario.tries }; state::WRITES],
            login: Login::Idle,
            refreshers: [Refresher::Idle { tries: scenario.tries }; state::REFRESHERS],
            verification: None,
            watch: None,
            told,
            broken: Broken::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.time_actions(actions);
        self.store_actions(state, actions);
        self.node_actions(state, actions);
        self.row_actions(state, actions);
        self.write_actions(state, actions);
        self.verify_actions(state, actions);
        self.session_actions(state, actions);
        self.follower_actions(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick { fast } => self.tick(&mut state, fast),
            Action::Flush => self.flush(&mut state),
            Action::Show => state.store.show(),
            Action::Promote => self.promote(&mut state),
            Action::Node(node, step) => self.node_step(&mut state, node, step),
            Action::Row(step) => self.row_step(&mut state, step),
            Action::Write(write, step) => self.write_step(&mut state, write, step),
            Action::Verify(step) => self.verify_step(&mut state, step),
            Action::Session(step) => self.session_step(&mut state, step),
            Action::Follower(step) => self.follower_step(&mut state, step),
        }
        self.settle(&mut state);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        properties::properties(&self.scenario)
    }
}
