//! The rules once more, as definitions over the whole history: slow, and without a streaming checker's
//! ways to be wrong. Both are asked about histories of every kind, sound or not.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rescind_proofs::history::{Action, Operation, Verdict, Violation};

use crate::build::{login, logout, loss, operator, pair, refreshed, report, revoke, verify};

/// Kind, token, line.
type Found = BTreeSet<(&'static str, String, u64)>;

struct History<'h>(&'h [Operation]);

impl History<'_> {
    fn violations(&self) -> Found {
        let mut found = Found::new();
        for (at, operation) in self.0.iter().enumerate() {
            let Some(token) = presented(operation) else { continue };
            let line = at as u64 + 1;
            let revoked = self.revoked(token, operation.begin);
            match operation.verdict() {
                Verdict::Accepted(()) if revoked => {
                    found.insert(("revoked", token.into(), line));
                }
                Verdict::Refused if !revoked && !self.explained(at, token) => {
                    let known = found.iter().any(|(kind, other, _)| *kind == "live" && other == token);
                    if !known {
                        found.insert(("live", token.into(), line));
                    }
                }
                _ => {}
            }
            let consumes = |o: &Operation| matches!(&o.action, Action::Refresh { token: t, verdict: Verdict::Accepted(_) } if t == token);
            let consumes = |o: &Operation| consumes(o) && !self.may_be_lost(o);
            if consumes(operation) && self.0[..at].iter().any(consumes) {
                found.insert(("consumed", token.into(), line));
            }
        }
        found
    }

    /// Those that it may be lost to begin then.
    fn losses_of(&self, given: &Operation) -> impl Iterator<Item = u64> {
        let losses = self.0.iter().filter(|o| matches!(o.action, Action::Loss));
        losses.filter(|loss| loss.begin <= given.end && given.begin <= loss.end).map(|loss| loss.begin)
    }

    fn may_be_lost(&self, given: &Operation) -> bool {
        self.losses_of(given).next().is_some()
    }

    /// The accepted operations that the session of a token consists of.
    fn session(&self, token: &str) -> impl Iterator<Item = &Operation> {
        let login = self.login(token);
        self.0.iter().filter(move |o| match (&o.action, given(o)) {
            (Action::Refresh { token, .. }, Some(_)) => self.login(token) == login,
            (_, Some(pair)) => self.login(&pair.token) == login,
            (_, None) => false,
        })
    }

    fn revocations(&self, session_of: &str) -> impl Iterator<Item = &Operation> {
        let login = self.login(session_of);
        self.0
            .iter()
            .filter(move |o| matches!(&o.action, Action::Revoke { token, .. } if self.login(token) == login))
    }

    fn birth(&self, token: &str) -> &Operation {
        self.0.iter().find(|operation| given(operation).is_some_and(|pair| pair.token == token)).unwrap()
    }

    fn generation(&self, token: &str) -> Option<u64> {
        given(self.birth(token)).unwrap().generation
    }

    fn login(&self, token: &str) -> &Operation {
        match &self.birth(token).action {
            Action::Refresh { token, .. } => self.login(token),
            _ => self.birth(token),
        }
    }

    fn logouts(&self, wanted: Verdict) -> impl Iterator<Item = &Operation> {
        self.0.iter().filter(move |o| matches!(o.action, Action::Logout { verdict, .. } if verdict == wanted))
    }

    fn revoked(&self, token: &str, begin: u64) -> bool {
        let revoked = |o: &Operation| o.verdict() == Verdict::Accepted(()) && o.end < begin;
        self.revocations(token).any(revoked)
            || self.logouts(Verdict::Accepted(())).any(|logout| {
                let by_time = self.login(token).end < logout.begin;
                let by_generation = self
                    .generation(token)
                    .zip(self.taken_back(logout))
                    .is_some_and(|(g, newest)| g <= newest);
                logout.end < begin && (by_time || by_generation)
            })
    }

    /// The newest generation that this logout has certainly taken back.
    fn taken_back(&self, logout: &Operation) -> Option<u64> {
        let before = |operation: &&Operation| operation.end < logout.begin;
        let asked = presented(logout).and_then(|token| self.generation(token));
        let given = self.0.iter().filter(before).filter_map(|o| given(o)?.generation).max();
        let moved = self
            .logouts(Verdict::Accepted(()))
            .filter(before)
            .filter_map(|other| Some(self.taken_back(other)? + 1))
            .max();
        asked.max(given).max(moved)
    }

    fn explained(&self, at: usize, token: &str) -> bool {
        let refused = &self.0[at];
        let (login, generation) = (self.login(token), self.generation(token));
        let may_have = |logout: &Operation, ended: u64| {
            let asked = presented(logout).and_then(|token| self.generation(token));
            let spared = generation.zip(asked).is_some_and(|(generation, asked)| generation > asked);
            logout.begin <= refused.end && ended >= login.begin && !spared
        };
        let refreshes = |token: &str| {
            let mut begins: Vec<_> = self
                .0
                .iter()
                .filter(|o| matches!(&o.action, Action::Refresh { token: t, .. } if t == token))
                .map(|o| o.begin)
                .collect();
            begins.sort_unstable();
            begins
        };
        let mut of_session = self.0.iter().filter_map(given).filter(|pair| self.login(&pair.token) == login);
        let ends = |o: &Operation| o.verdict() != Verdict::Refused && o.begin <= refused.end;
        let lost = |o: &Operation| self.losses_of(o).any(|begin| begin <= refused.end);
        self.session(token).any(lost)
            || self.revocations(token).any(ends)
            || self.logouts(Verdict::Accepted(())).any(|logout| may_have(logout, logout.end))
            || self.logouts(Verdict::Unknown).any(|logout| may_have(logout, u64::MAX))
            || of_session
                .any(|pair| refreshes(&pair.token).get(1).is_some_and(|&second| second <= refused.end))
    }
}

fn presented(operation: &Operation) -> Option<&str> {
    match &operation.action {
        Action::Login { .. } | Action::Revoke { .. } | Action::Loss => None,
        Action::Logout { token, .. } => token.as_deref(),
        Action::Refresh { token, .. } | Action::Verify { token, .. } => Some(token),
    }
}

fn given(operation: &Operation) -> Option<&rescind_proofs::history::Pair> {
    match &operation.action {
        Action::Login { verdict: Verdict::Accepted(pair) }
        | Action::Refresh { verdict: Verdict::Accepted(pair), .. } => Some(pair),
        _ => None,
    }
}

/// A begin, a length, which operation, which token, which verdict, which generation.
type Step = (u64, u64, u8, u8, u8, Option<u64>);

/// Any history that a recorder could have written: only what is known can be presented.
fn history(steps: Vec<Step>) -> Vec<Operation> {
    let mut times: Vec<_> = steps.into_iter().map(|step| (step.0 + step.1, step)).collect();
    times.sort_by_key(|&(end, _)| end);
    let mut operations: Vec<Operation> = vec![];
    for (end, (begin, _, which, token, verdict, generation)) in times {
        let known = operations.iter().filter(|o| o.end <= begin).filter_map(given);
        let known: Vec<_> = known.map(|pair| pair.token.clone()).collect();
        let (time, name) = ((begin, end), format!("t{}", operations.len()));
        let verdict = [Verdict::Accepted(()), Verdict::Refused, Verdict::Unknown][usize::from(verdict % 3)];
        let token = (!known.is_empty()).then(|| known[usize::from(token) % known.len()].as_str());
        operations.push(match (which % 7, token) {
            (5, Some(token)) => revoke(time, token, verdict),
            (6, _) => loss(time),
            (0, Some(token)) => logout(time, token, verdict),
            (1, _) => operator(time, verdict),
            (2, Some(token)) => refreshed(time, token, verdict.map(|()| pair(&name, generation))),
            (3, Some(token)) => verify(time, token, verdict),
            _ => login(time, &name, generation),
        });
    }
    operations
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_checker_finds_what_the_definitions_say(
        steps in prop::collection::vec(
            (0..60_u64, 0..15_u64, any::<u8>(), any::<u8>(), any::<u8>(), prop::option::of(0..4_u64)),
            1..25,
        )
    ) {
        let history = history(steps);
        let found = report(history.clone()).violations.iter().map(|violation| match violation {
            Violation::RevokedAccepted { token, accepted, .. } => ("revoked", token.to_string(), accepted.line),
            Violation::ConsumedTwice { token, second, .. } => ("consumed", token.to_string(), second.line),
            Violation::LiveRefused { token, refused, .. } => ("live", token.to_string(), refused.line),
        }).collect::<Found>();
        prop_assert_eq!(found, History(&history).violations());
    }
}
