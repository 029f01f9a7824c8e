//! LOGOUT, and changes that revoke nothing.

use super::{
    Action, Fault, Protocol,
    action::WriteStep,
    scenario::Asked,
    state::{History, Node, State, Write},
    store::{CHANGES, Content, Known, OPENED, Outcome, Server},
};

impl Protocol {
    pub(super) fn write_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (index, &asked) in self.scenario.writes.iter().enumerate() {
            let mut may = |step| actions.push(Action::Write(index, step));
            let answerer = self.scenario.answerers.get(index).map(|&node| &state.nodes[node]);
            // After its first step, an answerer uses one server only.
            let uses = |server: Server| answerer.is_none_or(|node| node.history.place == server);
            match state.writes[index] {
                Write::Idle { tries: 0 } | Write::Answered => {}
                Write::Idle { .. } => {
                    let joined = answerer.is_none_or(Node::has_joined);
                    let servers = state.store.servers().filter(|&server| joined && uses(server));
                    for server in servers.filter(|&server| self.may_begin(state, asked, server)) {
                        if self.has(Fault::SerialFeed) || self.has(Fault::NodesBeforeCommit) {
                            may(WriteStep::Begin { server });
                        } else if self.may_commit(state) {
                            may(WriteStep::Commit { server });
                        }
                    }
                }
                Write::Open { .. } => {
                    if self.may_commit(state) {
                        may(WriteStep::Commit { server: Server::First });
                    }
                }
                Write::Committed { wait, .. } => {
                    may(WriteStep::GiveUp);
                    if wait == 0 {
                        may(WriteStep::Confirm);
                    }
                }
                Write::Confirmed { server, .. } => {
                    let servers = self.servers_since(state, server).filter(|&server| uses(server));
                    servers.for_each(|server| may(WriteStep::List { server }));
                }
                Write::Listed { server, elapsed, head, ids, known } => {
                    let mut servers = self.servers_since(state, server).filter(|&server| uses(server));
                    let heard = servers.any(|on| state.store.at(on).acked(ids, head));
                    let here = uses(server) || self.has(Fault::AnswersOverPromotion);
                    if here && (heard || elapsed >= self.waits()) && self.is_kept(answerer, known) {
                        may(WriteStep::Answer);
                    }
                }
            }
        }
    }

    /// Whether the change is in the answerer's folder.
    fn is_kept(&self, answerer: Option<&Node>, known: Known) -> bool {
        let kept = answerer.is_none_or(|node| node.history.witness.seq >= known.seq);
        kept || self.has(Fault::AnswersBeforeKeeping)
    }

    /// How long a logout waits: W.
    fn waits(&self) -> u8 {
        let terms = &self.scenario.terms;
        if self.has(Fault::WaitWithoutDrift) { terms.wait - 2 * terms.term } else { terms.wait }
    }

    /// The servers whose rows are no older than a commit on `commit`.
    fn servers_since<'s>(&self, state: &'s State, commit: Server) -> impl Iterator<Item = Server> + use<'s> {
        let any = self.has(Fault::RowsOfAnyTimeline);
        state.store.servers().filter(move |&server| server >= commit || any)
    }

    /// Whether the token was issued, the feed has room, and the client's row is not locked.
    fn may_begin(&self, state: &State, asked: Asked, server: Server) -> bool {
        let content = state.store.at(server);
        let drawn = state.writes.iter().filter(|write| matches!(write, Write::Open { .. })).count();
        let room = usize::from(content.head) + drawn < CHANGES;
        let locked =
            state.writes.iter().zip(self.scenario.writes).any(|(write, other)| {
                matches!(write, Write::Open { .. }) && other.client() == asked.client()
            });
        let issued = match asked {
            Asked::Logout { client, generation } => {
                state.told.issued[client] & 1 << generation != 0
                    && content.clients[client].generation >= generation
                    && content.clients[client].is_there()
            }
            Asked::Touch { .. } => true,
            Asked::Open => state.store.promoted(),
        };
        room && !locked && issued
    }

    pub(super) fn write_step(&self, state: &mut State, index: usize, step: WriteStep) {
        let asked = self.scenario.writes[index];
        match (step, state.writes[index]) {
            (WriteStep::Begin { server }, Write::Idle { tries }) => {
                let drawn = state.writes.iter().filter_map(|write| match write {
                    Write::Open { seq, .. } => Some(*seq),
                    _ => None,
                });
                let content = state.store.at(server);
                let seq = drawn.max().unwrap_or(0).max(content.head) + 1;
                state.writes[index] = Write::Open { tries, seq, listed: content.listed() };
            }
            (WriteStep::Commit { server }, Write::Idle { tries }) => {
                self.commit_write(state, index, server, tries, None);
            }
            (WriteStep::Commit { server }, Write::Open { tries, seq, listed }) => {
                self.commit_write(state, index, server, tries, Some((seq, listed)));
            }
            (WriteStep::GiveUp, Write::Committed { tries, wait, server, listed, known }) => {
                state.writes[index] = if self.has(Fault::WarningTaken) && wait > 0 {
                    Write::Committed { tries, wait: 0, server, listed, known }
                } else {
                    Write::Idle { tries }
                };
            }
            (WriteStep::Confirm, Write::Committed { server, listed, known, .. }) => {
                if let Some(&answerer) = self.scenario.answerers.get(index) {
                    let policy = state.store.at(server).clients[asked.client()];
                    let given = state.store.at(server).given;
                    let node = &mut state.nodes[answerer];
                    node.memory.learn(asked.client(), policy);
                    node.memory.given = node.memory.given.max(given);
                    if node.history.known.seq < known.seq {
                        node.history.known = known;
                    }
                }
                state.writes[index] = match (asked, listed) {
                    (Asked::Touch { .. } | Asked::Open, _) => Write::Answered,
                    (_, Some(ids)) => {
                        Write::Listed { server, elapsed: 0, head: state.store.at(server).head, ids, known }
                    }
                    _ => Write::Confirmed { server, known },
                };
            }
            (WriteStep::List { server }, Write::Confirmed { known, .. }) => {
                let content = state.store.at(server);
                let (head, ids) = (content.head, content.listed());
                state.writes[index] = Write::Listed { server, elapsed: 0, head, ids, known };
            }
            (WriteStep::Answer, _) => {
                if let Asked::Logout { client, generation } = asked {
                    let promised = &mut state.told.promised[client];
                    *promised = (*promised).max(generation + 1);
                    if let Some(&answerer) = self.scenario.answerers.get(index) {
                        if self.scenario.crash {
                            state.told.answered[answerer] = generation + 1;
                        }
                        let History { knew, place, .. } = &mut state.nodes[answerer].history;
                        *knew = (*knew).max(generation + 1);
                        if *place == Server::Second {
                            state.told.served = state.told.served.max(generation + 1);
                        }
                    }
                }
                state.writes[index] = Write::Answered;
            }
            _ => {}
        }
    }

    /// The whole transaction, invisible before its commit. If the generation is higher already, only the
    /// commit is repeated; its confirmation also confirms the state that the transaction found.
    fn commit_write(
        &self,
        state: &mut State,
        index: usize,
        server: Server,
        tries: u8,
        open: Option<(u8, u8)>,
    ) {
        let asked = self.scenario.writes[index];
        let (client, logout) = (asked.client(), matches!(asked, Asked::Logout { .. }));
        let serial = self.has(Fault::SerialFeed);
        let loses = self.scenario.loses;
        let mark = if loses { server } else { Server::First };
        let mut known = Known::default();
        let transaction = |content: &mut Content| {
            match (asked, open) {
                (Asked::Logout { generation, .. }, _) if content.clients[client].generation > generation => {}
                (Asked::Open, _) => {
                    content.given += 1;
                    if content.given == 1 {
                        content.clients[0] = OPENED;
                    }
                }
                (_, Some((seq, _))) if serial => content.change_as(seq, client, logout, mark),
                _ => content.change(client, logout, mark),
            }
            known = if loses { content.newest() } else { known };
        };
        let listed = open.map(|(_, listed)| listed).filter(|_| self.has(Fault::NodesBeforeCommit));
        let tries = tries - 1;
        let found = state.store.at(server).clients[client].generation;
        if let Asked::Logout { generation, .. } = asked
            && found > generation
            && self.has(Fault::RetryWithoutCommit)
        {
            state.writes[index] = Write::Confirmed { server, known: Known::default() };
            return;
        }
        let outcome = self.commit(state, server, transaction);
        state.writes[index] = match outcome {
            Outcome::Waits(wait) => Write::Committed { tries, server, wait, listed, known },
            Outcome::Unconfirmed => Write::Idle { tries },
        };
        if state.told.first_tick && logout {
            state.told.raised_in_it[client] |= 1 << state.store.at(server).clients[client].generation;
        }
    }
}
