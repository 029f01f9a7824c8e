//! Short ways to write operations down.

use rescind_proofs::history::{Action, Checker, Operation, Pair, Report, Verdict};

pub(crate) const YES: Verdict = Verdict::Accepted(());
pub(crate) const NO: Verdict = Verdict::Refused;
pub(crate) const LOST: Verdict = Verdict::Unknown;

/// From begin to end.
pub(crate) type Time = (u64, u64);

pub(crate) fn operation((begin, end): Time, client: &str, action: Action) -> Operation {
    Operation { begin, end, client: client.into(), node: "a".into(), action }
}

pub(crate) fn pair(token: &str, generation: impl Into<Option<u64>>) -> Pair {
    Pair { token: token.into(), generation: generation.into() }
}

/// An accepted login of client `c`.
pub(crate) fn login(time: Time, gives: &str, generation: impl Into<Option<u64>>) -> Operation {
    operation(time, "c", Action::Login { verdict: Verdict::Accepted(pair(gives, generation)) })
}

/// An accepted refresh.
pub(crate) fn refresh(time: Time, token: &str, gives: &str) -> Operation {
    refreshed(time, token, Verdict::Accepted(pair(gives, None)))
}

pub(crate) fn refreshed(time: Time, token: &str, verdict: Verdict<Pair>) -> Operation {
    operation(time, "c", Action::Refresh { token: token.into(), verdict })
}

pub(crate) fn verify(time: Time, token: &str, verdict: Verdict) -> Operation {
    operation(time, "c", Action::Verify { token: token.into(), verdict })
}

pub(crate) fn logout(time: Time, token: &str, verdict: Verdict) -> Operation {
    operation(time, "c", Action::Logout { token: Some(token.into()), verdict })
}

/// A logout that an operator asked for.
pub(crate) fn operator(time: Time, verdict: Verdict) -> Operation {
    operation(time, "c", Action::Logout { token: None, verdict })
}

/// The end of one session.
pub(crate) fn revoke(time: Time, token: &str, verdict: Verdict) -> Operation {
    operation(time, "c", Action::Revoke { token: token.into(), verdict })
}

/// What was given since `begin` may be gone.
pub(crate) fn loss(time: Time) -> Operation {
    operation(time, "", Action::Loss)
}

/// The report on these operations, sorted by their ends.
pub(crate) fn report(operations: impl IntoIterator<Item = Operation>) -> Report {
    let mut operations: Vec<_> = operations.into_iter().collect();
    operations.sort_by_key(|operation| operation.end);
    let mut checker = Checker::default();
    for (line, operation) in (1..).zip(operations) {
        checker.observe(line, operation).unwrap();
    }
    checker.finish()
}
