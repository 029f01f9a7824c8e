//! VERIFY: reads the deadline first, then the state, and asks the store only if the token is ahead of memory.

use super::{
    Action, Fault, Protocol,
    action::VerifyStep,
    state::{FOLLOWER, GENERATIONS, Memory, State, Step, Verification, Verifier},
    store::{Policy, Server},
};

/// Memory's verdict on a token.
enum Verdict {
    Accept,
    Refuse,
    /// The token is ahead of memory, so the store must be asked.
    Ahead,
}

impl Protocol {
    pub(super) fn verify_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let mut may = |step| actions.push(Action::Verify(step));
        let Some(verification) = &state.verification else {
            for at in self.scenario.verifiers() {
                for client in 0..self.scenario.clients() {
                    let tokens = (0..GENERATIONS).filter(|&token| self.matters(state, at, client, token));
                    tokens.for_each(|token| may(VerifyStep::Begin { at, client, token }));
                }
            }
            return;
        };
        match verification.step {
            Step::Begun if self.has(Fault::StateBeforeDeadline) => may(VerifyStep::ReadState),
            Step::Begun | Step::StateRead { .. } => may(VerifyStep::ReadDeadline),
            Step::InTime { .. } => may(VerifyStep::ReadState),
            Step::Ahead { .. } => {
                let asker = state.verifier(verification.at).map(|verifier| verifier.memory.server);
                for server in state.store.servers() {
                    if asker == Some(server) || self.has(Fault::AskOfAnyTimeline) {
                        may(VerifyStep::Ask { server });
                    }
                }
            }
            Step::Answered { .. } => may(VerifyStep::Learn),
        }
    }

    /// Whether verifying this token can break an invariant or change memory. Without a lease nothing is accepted,
    /// and a token that no 200 has revoked may be accepted. Memory learns only from a token ahead of it.
    fn matters(&self, state: &State, at: usize, client: usize, token: u8) -> bool {
        let Some(Verifier { memory, lease, .. }) = state.verifier(at) else { return false };
        if self.scenario.quiet && !state.store.promoted() {
            return false;
        }
        let leased = lease > 0 || self.has(Fault::StateBeforeDeadline);
        let ahead = memory.clients[client].is_none_or(|known| known.generation < token);
        let teaches = ahead || self.scenario.forget;
        let issued = state.told.issued[client] & 1 << token != 0;
        issued && leased && (token < state.told.promised[client] || teaches)
    }

    pub(super) fn verify_step(&self, state: &mut State, step: VerifyStep) {
        if let VerifyStep::Begin { at, client, token } = step {
            let server = state.verifier(at).map_or(Server::First, |verifier| verifier.memory.server);
            let required = self.binding(state, server, state.told.promised[client]);
            state.verification = Some(Verification { at, client, token, required, step: Step::Begun });
            return;
        }
        let Some(verification) = state.verification.take() else { return };
        let Verification { at, client, token, step: done, .. } = verification;
        // Without the lease of the step before, the token is refused.
        let Some(Verifier { id, memory, lease, age }) = state.verifier(at) else { return };
        let known = memory.clients[client];
        if memory.ended && !matches!(step, VerifyStep::ReadDeadline) {
            // The token's key is no longer valid.
            return;
        }
        let next = match (step, done) {
            (VerifyStep::ReadDeadline, Step::Begun) => (lease > 0).then_some(Step::InTime { id }),
            (VerifyStep::ReadDeadline, Step::StateRead { accepts, age }) => {
                if accepts && lease > 0 {
                    self.accept(state, &verification);
                    state.broken.stale_accepted |= age > self.scenario.terms.term;
                }
                None
            }
            (VerifyStep::ReadState, Step::Begun) => {
                let accepts = matches!(self.verdict(state, client, token, known), Verdict::Accept);
                Some(Step::StateRead { accepts, age })
            }
            (VerifyStep::ReadState, Step::InTime { id: leased })
                if id == leased || self.has(Fault::StateOfAnotherLease) =>
            {
                match self.verdict(state, client, token, known) {
                    Verdict::Accept => {
                        self.accept(state, &verification);
                        None
                    }
                    Verdict::Ahead if at != FOLLOWER => Some(Step::Ahead { id }),
                    Verdict::Ahead | Verdict::Refuse => None,
                }
            }
            (VerifyStep::Ask { server }, Step::Ahead { id: leased }) if id == leased => {
                let policy = state.store.at(server).clients[client];
                Some(Step::Answered { id, policy, applied: memory.applied })
            }
            // There is no such session.
            (VerifyStep::Learn, Step::Answered { policy, .. }) if !policy.is_there() => None,
            (VerifyStep::Learn, Step::Answered { id: asker, policy, applied }) => {
                if id == asker {
                    learn(&mut state.nodes[at].memory, client, policy, applied);
                }
                if matches!(self.verdict(state, client, token, Some(policy)), Verdict::Accept) {
                    self.accept(state, &verification);
                }
                None
            }
            _ => None,
        };
        state.verification = next.map(|step| Verification { step, ..verification });
    }

    fn verdict(&self, state: &State, client: usize, token: u8, known: Option<Policy>) -> Verdict {
        let Some(Policy { generation, .. }) = known else { return Verdict::Ahead };
        let raised_in_its_tick = state.told.raised_in_it[client] & 1 << generation != 0;
        if token == generation || self.has(Fault::IssueTime) && token < generation && raised_in_its_tick {
            Verdict::Accept
        } else if token < generation {
            Verdict::Refuse
        } else {
            Verdict::Ahead
        }
    }

    fn accept(&self, state: &mut State, verification: &Verification) {
        state.broken.revoked_accepted |= verification.token < verification.required;
    }
}

/// Takes over the store's answer: always if the client is in memory and older there; otherwise only if
/// nothing was applied since the request.
fn learn(memory: &mut Memory, client: usize, policy: Policy, applied: u8) {
    if memory.applied == applied || memory.clients[client].is_some() {
        memory.learn(client, policy);
    }
}
