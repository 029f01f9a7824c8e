//! A database that has lost committed changes: nodes detect the loss and repeat the changes.

use super::{
    Action, Fault, Protocol,
    action::NodeStep,
    state::{History, Node, Standing, State, Write},
    store::{Changed, Content, Known, Lost, Outcome, Server},
};

impl Protocol {
    /// The steps of a node that has no row on this server.
    pub(super) fn join_actions(
        &self,
        state: &State,
        index: usize,
        server: Server,
        actions: &mut Vec<Action>,
    ) {
        let node = &state.nodes[index];
        let mut may = |step| actions.push(Action::Node(index, step));
        // Changes that this node made here must be in memory before memory is compared with the database.
        let changing =
            self.answered_by(index).any(|write| matches!(state.writes[write], Write::Committed { .. }));
        if changing || !self.may_commit(state) {
            return;
        }
        if self.stands(node, state.store.at(server)) {
            if self.row_to_join(state, index, server).is_some() {
                may(NodeStep::Join { server });
            }
        } else if node.history.remembers {
            may(NodeStep::Repeat { server });
        } else {
            match node.standing {
                Standing::Waiting { since } if since >= self.scenario.terms.wait => {
                    may(NodeStep::End { server })
                }
                Standing::Waiting { .. } => {}
                _ => may(NodeStep::Wait),
            }
        }
    }

    /// A node may write its newest known change into its folder at any time. (Without kills this matters only
    /// for changes that the node is about to answer for.)
    pub(super) fn keep_actions(&self, state: &State, index: usize, may: &mut impl FnMut(NodeStep)) {
        let History { known, witness, .. } = state.nodes[index].history;
        let matters = self.scenario.crash || self.is_answering(state, index);
        if self.scenario.loses && matters && witness != known {
            may(NodeStep::Keep);
        }
    }

    fn is_answering(&self, state: &State, index: usize) -> bool {
        let mut writes = self.answered_by(index).map(|write| &state.writes[write]);
        writes.any(|write| !matches!(write, Write::Idle { .. } | Write::Answered))
    }

    /// Clears values that no step reads any more, so that equal states have one form.
    pub(super) fn settle_history(&self, state: &mut State) {
        if !self.scenario.loses {
            return;
        }
        for index in 0..self.scenario.nodes {
            let answering = self.is_answering(state, index);
            let served = state.told.served;
            let History { witness, knew, .. } = &mut state.nodes[index].history;
            if !self.scenario.crash && !answering {
                *witness = Known::default();
            }
            if *knew <= served {
                *knew = 0;
            }
        }
    }

    /// The changes that this node answers for.
    pub(super) fn answered_by(&self, index: usize) -> impl Iterator<Item = usize> {
        let answerers = self.scenario.answerers.iter().enumerate();
        answerers.filter(move |&(_, &answerer)| answerer == index).map(|(write, _)| write)
    }

    /// Whether a node may use a server's content.
    fn stands(&self, node: &Node, content: &Content) -> bool {
        let History { known, remembers, .. } = node.history;
        // A node that remembers checks whether it has more to repeat.
        let Lost { repeated, ended } = if remembers { Lost::default() } else { content.lost };
        let has = if self.has(Fault::NumbersAlone) { content.head >= known.seq } else { content.has(known) };
        self.has(Fault::TimelineAlone) || has || repeated >= known.seq || ended
    }

    pub(super) fn history_step(&self, state: &mut State, index: usize, step: NodeStep) {
        match step {
            NodeStep::Keep => {
                let History { known, witness, .. } = &mut state.nodes[index].history;
                *witness = *known;
            }
            NodeStep::Wait => state.nodes[index].standing = Standing::Waiting { since: 0 },
            NodeStep::Repeat { server } => {
                let memory = state.nodes[index].memory.clone();
                // The node knows the newest change that it committed here, but not every change before it.
                let known = state.nodes[index].history.known;
                let whole = if self.has(Fault::RepeatsMoreThanItKnows) { known.seq } else { memory.applied };
                let merges = !self.has(Fault::RepeatsWhatTheDatabaseHas);
                self.mend(state, index, server, |content| {
                    content.lost.repeated = content.lost.repeated.max(whole);
                    if !self.has(Fault::IdsGivenAgain) {
                        content.given = content.given.max(memory.given);
                    }
                    let policy = &mut content.clients[0];
                    // A session that was lost together with its end has no row, and its id is not given again.
                    let there = policy.is_there();
                    if let Some(remembered) = memory.clients[0].filter(|_| merges && there) {
                        policy.generation = policy.generation.max(remembered.generation);
                        policy.revision = policy.revision.max(remembered.revision);
                    }
                });
            }
            NodeStep::End { server } => self.mend(state, index, server, |content| content.lost.ended = true),
            _ => {}
        }
    }

    /// Repairs a database that has lost changes, and then waits for the propagation.
    fn mend(&self, state: &mut State, index: usize, server: Server, with: impl FnOnce(&mut Content)) {
        let known = state.nodes[index].history.known;
        let mut mended = Known::default();
        let outcome = self.commit(state, server, |content| {
            with(content);
            // Numbers continue after the highest known one.
            content.head = content.head.max(known.seq) + 1;
            let policy = &mut content.clients[0];
            policy.revision += u8::from(policy.is_there());
            let revision = policy.revision;
            content.changes[usize::from(content.head) - 1] =
                Some(Changed { client: 0, revision, mark: server });
            mended = content.newest();
        });
        if outcome != Outcome::Waits(0) {
            return;
        }
        self.arrive(state, index, server);
        let (head, ids) = (mended.seq, state.store.at(server).listed());
        let node = &mut state.nodes[index];
        node.history.known = mended;
        let awaited = !self.has(Fault::RepeatsWithoutWaiting);
        node.standing = if awaited { Standing::Settling { since: 0, head, ids } } else { Standing::Out };
    }

    /// Whether every node in `ids` has acknowledged the repair, or can answer no more.
    pub(super) fn is_settled(&self, state: &State, server: Server, since: u8, head: u8, ids: u8) -> bool {
        since >= self.scenario.terms.wait || state.store.at(server).acked(ids, head)
    }

    /// The node uses this server from now on. Records what the node knows.
    pub(super) fn arrive(&self, state: &mut State, index: usize, server: Server) {
        if !self.scenario.loses {
            return;
        }
        let answered = state.told.answered[index];
        let first = state.store.at(Server::First);
        let node = &mut state.nodes[index];
        let remembered = node.memory.clients[0].filter(|_| node.history.remembers);
        let remembered = remembered.map_or(0, |policy| policy.generation);
        // A node that remembers nothing has only its folder: the change there, and those before. In that case
        // only logouts change client 0.
        let Known { seq, mark } = node.history.witness;
        let reaches = if !node.history.remembers && mark == Server::First { seq } else { 0 };
        let of_it = |change: &&Changed| change.client == 0 && change.mark == Server::First;
        let changes = first.changes.iter().take(reaches.into());
        let witnessed = changes.flatten().filter(of_it).count() as u8;
        node.history.knew = node.history.knew.max(remembered).max(answered).max(witnessed);
        node.history.place = server;
    }

    /// The generation that a verification on this server must enforce, of the promised ones.
    ///
    /// On a database that went back, only what some process knew that serves or has served there is enforced.
    pub(super) fn binding(&self, state: &State, server: Server, promised: u8) -> u8 {
        if self.scenario.loses && server == Server::Second {
            promised.min(state.told.served)
        } else {
            promised
        }
    }

    /// A lease begins: from now on every verification on this server must enforce what this node knew.
    pub(super) fn serves(&self, state: &mut State, index: usize) {
        let node = &state.nodes[index];
        if self.scenario.loses && node.memory.server == Server::Second {
            let known = node.memory.clients[0].map_or(0, |policy| policy.generation);
            state.told.served = state.told.served.max(known).max(node.history.knew);
        }
    }
}
