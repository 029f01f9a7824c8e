//! The report on a history.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    sync::Arc,
};

use serde::Serialize;

use super::operation::{Kind, Verdict};

/// The report on a history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Operations read.
    pub operations: u64,
    /// Clients named.
    pub clients: u64,
    /// Pairs given.
    pub pairs: u64,
    /// The verdicts, by kind of action.
    pub verdicts: BTreeMap<Kind, Counts>,
    /// How often a certainly revoked token was presented: the cases that test the promise.
    pub revoked_presented: u64,
    /// The broken promises.
    pub violations: Vec<Violation>,
}

/// The number of each verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "they are those of Verdict")]
pub struct Counts {
    pub accepted: u64,
    pub refused: u64,
    pub unknown: u64,
}

/// Operations that a correct service cannot have answered in this way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "violation", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the operations are named by their parts")]
pub enum Violation {
    /// A token was accepted after the answer of a logout that revoked it.
    RevokedAccepted { token: Arc<str>, client: Arc<str>, login: Seen, logout: Seen, accepted: Seen },
    /// Two refreshes returned a new pair for one token.
    ConsumedTwice { token: Arc<str>, client: Arc<str>, first: Seen, second: Seen },
    /// A token was refused that nothing can have revoked. Only its first refusal is reported.
    LiveRefused { token: Arc<str>, client: Arc<str>, login: Seen, refused: Seen },
}

/// An operation of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "they are those of Operation")]
pub struct Seen {
    /// The line in the history.
    pub line: u64,
    pub op: Kind,
    pub begin: u64,
    pub end: u64,
    pub node: Arc<str>,
}

impl Counts {
    pub(super) fn add(&mut self, verdict: Verdict) {
        *match verdict {
            Verdict::Accepted(()) => &mut self.accepted,
            Verdict::Refused => &mut self.refused,
            Verdict::Unknown => &mut self.unknown,
        } += 1;
    }
}

impl Violation {
    /// The token that the violation concerns.
    pub fn token(&self) -> &str {
        match self {
            Violation::RevokedAccepted { token, .. }
            | Violation::ConsumedTwice { token, .. }
            | Violation::LiveRefused { token, .. } => token,
        }
    }
}

impl Display for Violation {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Violation::RevokedAccepted { token, client, login, logout, accepted } => {
                writeln!(f, "accepted after logout: token {token} of client {client}")?;
                write!(
                    f,
                    "  session opened  {login}\n  logged out      {logout}\n  accepted        {accepted}"
                )
            }
            Violation::ConsumedTwice { token, client, first, second } => {
                writeln!(f, "refreshed twice: token {token} of client {client}")?;
                write!(f, "  first           {first}\n  again           {second}")
            }
            Violation::LiveRefused { token, client, login, refused } => {
                writeln!(f, "refused for no reason: token {token} of client {client}")?;
                write!(f, "  session opened  {login}\n  refused         {refused}")
            }
        }
    }
}

impl Display for Seen {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let Seen { line, op, begin, end, node } = self;
        write!(f, "line {line}: {op} on {node}, {begin} to {end}")
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        for violation in &self.violations {
            writeln!(f, "{violation}\n")?;
        }
        let Report { operations, clients, pairs, verdicts, revoked_presented, violations } = self;
        writeln!(f, "{operations} operations of {clients} clients with {pairs} pairs of tokens")?;
        for (kind, Counts { accepted, refused, unknown }) in verdicts {
            writeln!(f, "{:10}{accepted} accepted, {refused} refused, {unknown} unknown", kind.to_string())?;
        }
        writeln!(f, "{revoked_presented} times a revoked token was presented")?;
        write!(f, "{} violations", violations.len())
    }
}
