//! LOGIN and REFRESH: one transaction each, under the lock of the client's row.

use super::{
    Action, Fault, Protocol,
    action::SessionStep,
    state::{Login, Refresher, State},
    store::{Outcome, Server},
};

impl Protocol {
    pub(super) fn session_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let mut may = |step| actions.push(Action::Session(step));
        if self.scenario.login {
            match state.login {
                Login::Idle => {
                    for server in state.store.servers().filter(|_| self.may_commit(state)) {
                        let generation = state.store.at(server).clients[0].generation;
                        if state.told.issued[0] & 1 << generation == 0 {
                            may(SessionStep::Login { server });
                        }
                    }
                }
                Login::Committed { wait, .. } => {
                    may(SessionStep::GiveUpLogin);
                    if wait == 0 {
                        may(SessionStep::Issue);
                    }
                }
            }
        }
        for (who, refresher) in state.refreshers.iter().enumerate().take(self.scenario.refreshers) {
            match *refresher {
                Refresher::Idle { tries: 0 } => {}
                Refresher::Idle { .. } => {
                    for server in state.store.servers().filter(|_| self.may_commit(state)) {
                        may(SessionStep::Refresh { who, pair: 0, server });
                        if state.told.consumed[0] > 0 {
                            may(SessionStep::Refresh { who, pair: 1, server });
                        }
                    }
                }
                Refresher::Read { .. } => {
                    if self.may_commit(state) {
                        may(SessionStep::WritePair { who, server: Server::First });
                    }
                }
                Refresher::Committed { wait, .. } => {
                    may(SessionStep::GiveUpRefresh { who });
                    if wait == 0 {
                        may(SessionStep::Consume { who });
                    }
                }
            }
        }
    }

    pub(super) fn session_step(&self, state: &mut State, step: SessionStep) {
        match step {
            SessionStep::Login { server } => {
                // The generation is read in the transaction that stores the session.
                let generation = state.store.at(server).clients[0].generation;
                if let Outcome::Waits(wait) = self.commit(state, server, |_| {}) {
                    state.login = Login::Committed { wait, generation };
                }
            }
            SessionStep::GiveUpLogin => state.login = Login::Idle,
            SessionStep::Issue => {
                if let Login::Committed { generation, .. } = state.login {
                    state.told.issued[0] |= 1 << generation;
                }
                state.login = Login::Idle;
            }
            SessionStep::Refresh { who, pair, server } => self.refresh(state, who, pair, server),
            SessionStep::WritePair { who, server } => {
                if let Refresher::Read { tries, pair, required } = state.refreshers[who] {
                    let outcome = self.commit(state, server, |content| content.session.pair = pair + 1);
                    state.refreshers[who] = consumed(outcome, tries, pair, required);
                }
            }
            SessionStep::GiveUpRefresh { who } => {
                if let Refresher::Committed { tries, .. } = state.refreshers[who] {
                    state.refreshers[who] = Refresher::Idle { tries };
                }
            }
            SessionStep::Consume { who } => {
                if let Refresher::Committed { tries, pair, required, .. } = state.refreshers[who] {
                    let times = &mut state.told.consumed[usize::from(pair)];
                    *times = 2.min(*times + 1);
                    // The session and all of its pairs have generation 0.
                    state.broken.revoked_accepted |= required > 0;
                    state.refreshers[who] = Refresher::Idle { tries };
                }
            }
        }
    }

    /// Compare-and-swap on the pair number. A number that was consumed before ends the session.
    fn refresh(&self, state: &mut State, who: usize, pair: u8, server: Server) {
        let Refresher::Idle { tries } = state.refreshers[who] else { return };
        let (tries, required) = (tries - 1, state.told.promised[0]);
        let content = state.store.at(server);
        let session = content.session;
        state.refreshers[who] = if session.ended || content.clients[0].generation > 0 || pair > session.pair {
            Refresher::Idle { tries }
        } else if pair < session.pair {
            self.commit(state, server, |content| content.session.ended = true);
            Refresher::Idle { tries }
        } else if self.has(Fault::BlindRefresh) {
            Refresher::Read { tries, pair, required }
        } else {
            let outcome = self.commit(state, server, |content| content.session.pair = pair + 1);
            consumed(outcome, tries, pair, required)
        };
    }
}

fn consumed(outcome: Outcome, tries: u8, pair: u8, required: u8) -> Refresher {
    match outcome {
        Outcome::Waits(wait) => Refresher::Committed { tries, pair, required, wait },
        Outcome::Unconfirmed => Refresher::Idle { tries },
    }
}
