//! JOIN, RENEW and LEAVE.

use super::{
    Action, Fault, Protocol,
    action::NodeStep,
    state::{History, Memory, Node, Renewal, Standing, State, Write},
    store::{CLIENTS, Content, Outcome, ROWS, Row, Server},
};

impl Protocol {
    pub(super) fn node_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (index, node) in state.nodes.iter().enumerate().take(self.scenario.nodes) {
            let mut may = |step| actions.push(Action::Node(index, step));
            match node.standing {
                Standing::Out | Standing::Waiting { .. } if self.scenario.loses => {
                    let server = state.store.servers().last().unwrap_or(Server::First);
                    self.join_actions(state, index, server, actions);
                }
                Standing::Settling { since, head, ids } => {
                    let server = state.store.servers().last().unwrap_or(Server::First);
                    let settled = self.is_settled(state, server, since, head, ids);
                    if settled && self.may_commit(state) && self.row_to_join(state, index, server).is_some() {
                        may(NodeStep::Join { server });
                    }
                }
                Standing::Waiting { .. } => {}
                Standing::Out => {
                    let server = state.store.servers().last().unwrap_or(Server::First);
                    if self.row_to_join(state, index, server).is_some() && self.may_commit(state) {
                        may(NodeStep::Join { server });
                    }
                }
                Standing::Joining { wait } => {
                    if wait == 0 {
                        state.store.servers().for_each(|server| may(NodeStep::Load { server }));
                        if self.scenario.gc && self.may_commit(state) {
                            state.store.servers().for_each(|server| may(NodeStep::Beat { server }));
                        }
                    } else {
                        may(NodeStep::GiveUp);
                    }
                }
                Standing::Joined => {
                    self.renewal_actions(state, node, &mut may);
                    if self.scenario.leave && !self.has(Fault::LeaveWhileRenewing) {
                        may(NodeStep::Leave);
                    } else if self.scenario.leave && self.may_commit(state) {
                        may(NodeStep::DeleteRow { server: Server::First });
                    }
                    if self.scenario.crash && (!self.scenario.quiet || state.store.promoted()) {
                        may(NodeStep::Crash);
                    }
                    self.keep_actions(state, index, &mut may);
                    if self.scenario.forget {
                        let known = (0..CLIENTS).filter(|&client| node.memory.clients[client].is_some());
                        known.for_each(|client| may(NodeStep::Forget { client }));
                    }
                }
                Standing::Leaving { lent } => {
                    if (lent == 0 || self.has(Fault::LeaveWhileLent)) && self.may_commit(state) {
                        state.store.servers().for_each(|server| may(NodeStep::DeleteRow { server }));
                    }
                }
            }
        }
    }

    fn renewal_actions(&self, state: &State, node: &Node, may: &mut impl FnMut(NodeStep)) {
        match node.renewal {
            Renewal::Idle if self.scenario.quiet && self.is_idle(state, node) => {}
            Renewal::Idle => may(NodeStep::ReadClock),
            Renewal::Sent { .. } => {
                state.store.servers().for_each(|server| may(NodeStep::ReadHead { server }))
            }
            Renewal::Read { .. } => {
                if self.may_commit(state) {
                    may(NodeStep::CommitRenewal);
                }
            }
            Renewal::Committed { wait, server, .. } => {
                may(NodeStep::GiveUp);
                if wait == 0 {
                    may(NodeStep::Publish { server });
                    if self.has(Fault::LookupOfAnyTimeline) {
                        let others = state.store.servers().filter(|&other| other != server);
                        others.for_each(|server| may(NodeStep::Publish { server }));
                    }
                }
            }
            Renewal::Applied { .. } => may(NodeStep::Extend),
        }
    }

    /// Whether a renewal would change nothing.
    fn is_idle(&self, state: &State, node: &Node) -> bool {
        let content = state.store.at(node.memory.server);
        let row = content.rows[usize::from(node.id)];
        let applied = node.memory.applied;
        let told = matches!(row, Row::Present { acked, .. } if acked == applied && applied == content.head);
        let current = state.store.servers().any(|server| server == node.memory.server);
        !state.store.promoted() || current && told && node.lease == self.scenario.terms.lasts
    }

    /// The row that a node would join with.
    pub(super) fn row_to_join(&self, state: &State, index: usize, server: Server) -> Option<usize> {
        let content = state.store.at(server);
        if self.has(Fault::ReusedRow) && index + 1 == self.scenario.nodes {
            // The last node was started in the place of the one before it, and has its name.
            let before = usize::from(state.nodes[index - 1].id);
            return (before < ROWS).then_some(before);
        }
        (0..self.scenario.rows).find(|&id| content.rows[id] == Row::Never)
    }

    pub(super) fn node_step(&self, state: &mut State, index: usize, step: NodeStep) {
        match step {
            NodeStep::Join { server } => self.join(state, index, server),
            NodeStep::Load { server } => {
                let content = state.store.at(server);
                let (memory, known) = (Memory::load(server, content, self.scenario.ids), content.newest());
                let node = &mut state.nodes[index];
                let mut history = node.history;
                if self.scenario.loses {
                    history = History { known, remembers: true, ..history };
                }
                *node = Node { standing: Standing::Joined, id: node.id, memory, history, ..Node::out() };
            }
            NodeStep::Beat { server } => {
                let id = usize::from(state.nodes[index].id);
                self.commit(state, server, |content| {
                    if let Row::Present { beat, .. } = &mut content.rows[id] {
                        *beat += 1;
                    }
                });
            }
            NodeStep::ReadClock => state.nodes[index].renewal = Renewal::Sent { since: 0 },
            NodeStep::ReadHead { server } => self.read_head(state, index, server),
            NodeStep::CommitRenewal => self.commit_renewal(state, index),
            NodeStep::GiveUp => self.give_up(&mut state.nodes[index]),
            NodeStep::Publish { server } => self.publish(state, index, server),
            NodeStep::Extend => {
                let node = &mut state.nodes[index];
                if let Renewal::Applied { since } = node.renewal {
                    node.lease = self.scenario.terms.lasts - since;
                    node.renewal = Renewal::Idle;
                }
                self.serves(state, index);
            }
            NodeStep::Leave => {
                let node = &mut state.nodes[index];
                let lent = if node.attached.is_some() { node.lease } else { 0 };
                *node = Node { standing: Standing::Leaving { lent }, id: node.id, ..Node::out() };
            }
            NodeStep::DeleteRow { server } => {
                let node = &mut state.nodes[index];
                let id = usize::from(node.id);
                if node.has_joined() {
                    // The node did not stop renewing.
                    node.lease = 0;
                } else {
                    *node = Node::out();
                }
                self.commit(state, server, |content| content.rows[id] = Row::Gone);
            }
            NodeStep::Crash => {
                for write in self.answered_by(index) {
                    if !matches!(state.writes[write], Write::Idle { .. } | Write::Answered) {
                        state.writes[write] = Write::Idle { tries: 0 };
                    }
                }
                state.nodes[index] = state.nodes[index].started_again();
            }
            NodeStep::Keep | NodeStep::Repeat { .. } | NodeStep::Wait | NodeStep::End { .. } => {
                self.history_step(state, index, step);
            }
            NodeStep::Forget { client } => state.nodes[index].memory.clients[client] = None,
        }
    }

    fn join(&self, state: &mut State, index: usize, server: Server) {
        let Some(id) = self.row_to_join(state, index, server) else { return };
        let insert = |content: &mut Content| {
            if content.rows[id] == Row::Never {
                content.rows[id] = Row::Present { acked: 0, beat: 0 };
            }
        };
        if let Outcome::Waits(wait) = self.commit(state, server, insert) {
            self.arrive(state, index, server);
            let Node { memory, history, .. } = state.nodes[index].clone();
            let joining = Node { standing: Standing::Joining { wait }, id: id as u8, history, ..Node::out() };
            // The old memory is kept until the new server's state is loaded.
            state.nodes[index] = if history.remembers { Node { memory, ..joining } } else { joining };
        }
    }

    /// The renewal's statements: the update of the node's own row, then the read of the head.
    fn read_head(&self, state: &mut State, index: usize, server: Server) {
        let node = &mut state.nodes[index];
        let Renewal::Sent { since } = node.renewal else { return };
        let content = state.store.at(server);
        let shown = if self.has(Fault::StandbyRead) { state.store.standby() } else { content };
        let same_timeline = if self.has(Fault::MemoryOverFailOver) {
            node.memory.server <= server && node.memory.applied <= shown.head
        } else {
            node.memory.server == server
        };
        let row = content.rows[usize::from(node.id)];
        if !same_timeline || !matches!(row, Row::Present { .. }) {
            // The node has lost its row. It stops, deletes nothing, and may join anew.
            *node = if self.scenario.loses { node.fenced() } else { Node::out() };
            return;
        }
        node.renewal = Renewal::Read { since, age: 0, server, head: shown.head };
    }

    fn commit_renewal(&self, state: &mut State, index: usize) {
        let node = &state.nodes[index];
        let Renewal::Read { since, age, server, head } = node.renewal else { return };
        let (id, applied) = (usize::from(node.id), self.acknowledges(node, head));
        let counts_beats = self.scenario.gc;
        let update = |content: &mut Content| {
            if let Row::Present { acked, beat } = &mut content.rows[id] {
                *acked = applied.max(*acked);
                *beat += u8::from(counts_beats);
            }
        };
        let outcome = if self.has(Fault::ReadOnlyRenewal) {
            Outcome::Waits(0)
        } else {
            self.commit(state, server, update)
        };
        state.nodes[index].renewal = match outcome {
            Outcome::Waits(wait) => Renewal::Committed { since, age, server, head, wait },
            Outcome::Unconfirmed => Renewal::Idle,
        };
    }

    /// The last change that a node may acknowledge: both it and its exact verifier have it.
    fn acknowledges(&self, node: &Node, head: u8) -> u8 {
        if self.has(Fault::AckBeforePublish) {
            return head;
        }
        match node.attached {
            Some(attached) if attached.published < self.scenario.terms.wait => {
                node.memory.applied.min(attached.heard)
            }
            _ => node.memory.applied,
        }
    }

    /// The node stops waiting for an answer; the commit is not undone.
    fn give_up(&self, node: &mut Node) {
        let taken = self.has(Fault::WarningTaken);
        match (&mut node.standing, &mut node.renewal) {
            (Standing::Joining { wait }, _) | (_, Renewal::Committed { wait, .. }) if taken => *wait = 0,
            (Standing::Joining { .. }, _) => *node = Node { standing: Standing::Out, ..node.clone() },
            (_, renewal) => *renewal = Renewal::Idle,
        }
    }

    /// Reads the present row of each client changed up to the head, and publishes all in memory.
    fn publish(&self, state: &mut State, index: usize, asked: Server) {
        let content = state.store.at(asked).clone();
        let node = &mut state.nodes[index];
        let Renewal::Committed { since, age, server, head, .. } = node.renewal else { return };
        let applied = node.memory.applied;
        let ahead = content.changes.iter().take(usize::from(head)).skip(usize::from(applied));
        for client in ahead.flatten().map(|changed| usize::from(changed.client)) {
            node.memory.learn(client, content.clients[client]);
        }
        if head != applied
            && let Some(attached) = &mut node.attached
        {
            attached.published = 0;
        }
        state.broken.applied_fell |= head < applied;
        node.memory.applied = head;
        node.memory.server = server;
        node.memory.ended |= content.lost.ended;
        if self.scenario.loses && node.history.known.seq < head {
            node.history.known = content.known(head);
        }
        node.age = age;
        let since = if self.has(Fault::T0AfterTheAnswer) { 0 } else { since };
        node.renewal = Renewal::Applied { since };
    }
}
