//! Histories of a service that keeps its word, asked by many at once: nothing is reported. With one
//! answer changed: it is.

use proptest::{prelude::*, sample::Index};
use rescind_proofs::history::{Action, Operation, Verdict, Violation};

use crate::build::{login, logout, loss, operator, pair, refreshed, report, revoke, verify};

/// One after the other, as the service did them. Their callers saw them overlap.
#[derive(Debug, Clone)]
struct Step {
    what: u8,
    token: Index,
    /// How long before it was done its caller had asked, and how long after it was told.
    early: u64,
    late: u64,
    /// No answer arrives. Its caller has given up by then, perhaps before it was done.
    lost: bool,
    /// Nothing was done either.
    dropped: bool,
}

#[derive(Debug, Clone, Copy)]
struct Rules {
    /// The generations are told.
    generations: bool,
    /// A refresh token used again ends access tokens too.
    on_reuse_all: bool,
}

struct Service {
    rules: Rules,
    generation: u64,
    sessions: Vec<Session>,
    pairs: Vec<Given>,
    history: Vec<Operation>,
    /// Its sessions as they were after each step.
    backups: Vec<(u64, Vec<Session>)>,
}

#[derive(Clone)]
struct Session {
    generation: u64,
    newest: usize,
    reused: bool,
    ended: bool,
}

struct Given {
    session: usize,
    /// When its holder could use it.
    from: u64,
}

fn step() -> impl Strategy<Value = Step> {
    (0..22_u8, any::<Index>(), 0..400_u64, 0..400_u64, prop::bool::weighted(0.1), any::<bool>()).prop_map(
        |(what, token, early, late, lost, dropped)| Step { what, token, early, late, lost, dropped },
    )
}

fn rules() -> impl Strategy<Value = Rules> {
    (any::<bool>(), any::<bool>()).prop_map(|(generations, on_reuse_all)| Rules { generations, on_reuse_all })
}

impl Service {
    fn history(rules: Rules, steps: &[Step]) -> Vec<Operation> {
        let (sessions, pairs, history, backups) = (vec![], vec![], vec![], vec![]);
        let mut service = Service { rules, generation: 0, sessions, pairs, history, backups };
        for (done, step) in (1..).map(|i| 1000 + 100 * i).zip(steps) {
            service.step(done, step);
            service.backups.push((done, service.sessions.clone()));
        }
        service.history.sort_by_key(|operation| operation.end);
        service.history
    }

    fn step(&mut self, done: u64, step: &Step) {
        let held: Vec<_> = (0..self.pairs.len()).filter(|&pair| self.pairs[pair].from < done).collect();
        let token = (!held.is_empty()).then(|| held[step.token.index(held.len())]);
        let begin = (done - step.early).max(token.map_or(0, |token| self.pairs[token].from + 1));
        let end = if step.lost { begin + step.late } else { done + step.late };
        let (time, nothing_done) = ((begin, end), step.lost && step.dropped);
        let name = |pair: usize| format!("t{pair}");
        let operation = match (step.what, token) {
            (0..2, Some(token)) => {
                let live = self.live(token);
                if live && !nothing_done {
                    self.generation += 1;
                }
                logout(time, &name(token), answer(live, step))
            }
            (2, _) => {
                if !nothing_done {
                    self.generation += 1;
                }
                operator(time, answer(true, step))
            }
            (3..7, Some(token)) => {
                let accepted = !nothing_done && self.refresh(token);
                let session = self.pairs[token].session;
                let verdict = answer(accepted, step).map(|()| self.give(session, end));
                refreshed(time, &name(token), verdict)
            }
            (7..15, Some(token)) => verify(time, &name(token), answer(self.live(token), step)),
            (20, Some(token)) => {
                self.sessions[self.pairs[token].session].ended |= !nothing_done;
                revoke(time, &name(token), answer(true, step))
            }
            (21, _) if !self.backups.is_empty() => loss((self.restore(step.token), done)),
            _ if step.lost => return,
            _ => {
                let generation = self.generation;
                self.sessions.push(Session { generation, newest: 0, reused: false, ended: false });
                let given = self.give(self.sessions.len() - 1, end);
                login(time, &given.token, given.generation)
            }
        };
        self.history.push(operation);
    }

    fn live(&self, pair: usize) -> bool {
        let session = &self.sessions[self.pairs[pair].session];
        session.generation == self.generation
            && !session.ended
            && !(session.reused && self.rules.on_reuse_all)
    }

    /// Whether the next pair is given for this one.
    fn refresh(&mut self, pair: usize) -> bool {
        let current = self.generation;
        let session = &mut self.sessions[self.pairs[pair].session];
        if session.generation != current || session.reused || session.ended {
            return false;
        }
        session.reused = session.newest != pair;
        // If the answer is lost, so is the pair.
        session.newest = usize::MAX;
        !session.reused
    }

    /// Goes back to a backup, but for what has ended since; to which moment.
    fn restore(&mut self, which: Index) -> u64 {
        let (saved, sessions) = &self.backups[which.index(self.backups.len())];
        for (id, session) in self.sessions.iter_mut().enumerate() {
            match sessions.get(id) {
                Some(before) => *session = Session { ended: session.ended, ..before.clone() },
                None => session.ended = true,
            }
        }
        *saved
    }

    fn give(&mut self, session: usize, from: u64) -> rescind_proofs::history::Pair {
        let id = self.pairs.len();
        self.pairs.push(Given { session, from });
        let Session { generation, newest, .. } = &mut self.sessions[session];
        *newest = id;
        pair(&format!("t{id}"), self.rules.generations.then_some(*generation))
    }
}

fn answer(yes: bool, step: &Step) -> Verdict {
    match (step.lost, yes) {
        (true, _) => Verdict::Unknown,
        (false, true) => Verdict::Accepted(()),
        (false, false) => Verdict::Refused,
    }
}

/// The end of the login that a token descends from.
fn opened(history: &[Operation], token: &str) -> (u64, u64) {
    let gives = |operation: &&Operation| {
        matches!(&operation.action, Action::Login { verdict: Verdict::Accepted(pair) }
            | Action::Refresh { verdict: Verdict::Accepted(pair), .. } if pair.token == token)
    };
    let birth = history.iter().find(gives).unwrap();
    match &birth.action {
        Action::Refresh { token, .. } => opened(history, token),
        _ => (birth.begin, birth.end),
    }
}

fn is_logout(operation: &&Operation) -> bool {
    matches!(operation.action, Action::Logout { verdict: Verdict::Accepted(()) | Verdict::Unknown, .. })
}

/// Verifications that were refused, long after a logout that was answered.
fn refused_after_logout(history: &[Operation]) -> Vec<usize> {
    let refused = |at: &usize| {
        let operation = &history[*at];
        let Action::Verify { token, verdict: Verdict::Refused } = &operation.action else { return false };
        let opened = opened(history, token).1;
        history.iter().filter(is_logout).any(|logout| {
            logout.verdict() == Verdict::Accepted(()) && opened < logout.begin && logout.end < operation.begin
        })
    };
    (0..history.len()).filter(refused).collect()
}

/// Verifications that were accepted, with no logout anywhere near.
fn accepted_in_peace(history: &[Operation]) -> Vec<usize> {
    let accepted = |at: &usize| {
        let operation = &history[*at];
        let Action::Verify { token, verdict: Verdict::Accepted(()) } = &operation.action else {
            return false;
        };
        let opened = opened(history, token).0;
        let refreshes = |o: &Operation| matches!(o.action, Action::Refresh { .. });
        !history.iter().any(refreshes)
            && history.iter().filter(is_logout).all(|logout| {
                logout.begin > operation.end
                    || logout.end < opened && logout.verdict() == Verdict::Accepted(())
            })
    };
    (0..history.len()).filter(accepted).collect()
}

fn flipped(history: &[Operation], at: usize) -> Vec<Operation> {
    let mut history = history.to_vec();
    if let Action::Verify { verdict, .. } = &mut history[at].action {
        *verdict = if *verdict == Verdict::Refused { Verdict::Accepted(()) } else { Verdict::Refused };
    }
    history
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_service_that_keeps_its_word_is_not_accused(
        rules in rules(), steps in prop::collection::vec(step(), 1..150),
    ) {
        prop_assert_eq!(report(Service::history(rules, &steps)).violations, []);
    }

    #[test]
    fn one_acceptance_too_many_is_found(
        rules in rules(), steps in prop::collection::vec(step(), 60..150), which: Index,
    ) {
        let history = Service::history(rules, &steps);
        let candidates = refused_after_logout(&history);
        prop_assume!(!candidates.is_empty());
        let at = candidates[which.index(candidates.len())];
        let violations = report(flipped(&history, at)).violations;
        prop_assert_eq!(violations.len(), 1);
        let line = at as u64 + 1;
        let Violation::RevokedAccepted { accepted, .. } = &violations[0] else { panic!("{violations:?}") };
        prop_assert_eq!(accepted.line, line);
    }

    #[test]
    fn one_refusal_too_many_is_found(
        rules in rules(), steps in prop::collection::vec(step(), 60..150), which: Index,
    ) {
        // Neither refreshes nor operators, whose lost answers would explain much, nor what excuses a session.
        let steps: Vec<_> = steps.into_iter().filter(|s| matches!(s.what, 0..2 | 7..20) && !s.lost).collect();
        let history = Service::history(rules, &steps);
        let candidates = accepted_in_peace(&history);
        prop_assume!(!candidates.is_empty());
        let at = candidates[which.index(candidates.len())];
        let violations = report(flipped(&history, at)).violations;
        prop_assert_eq!(violations.len(), 1);
        let line = at as u64 + 1;
        let Violation::LiveRefused { refused, .. } = &violations[0] else { panic!("{violations:?}") };
        prop_assert_eq!(refused.line, line);
    }
}
