//! Histories and marks: how a process finds out whether a database has lost changes.

use std::fmt;

/// 128 random bits: the identity of a history or of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark(pub u128);

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The newest change that a process knows of. The process then knows of all earlier changes too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// The history that the change is part of.
    pub history: Mark,
    /// The change's number. 0: there was no change yet.
    pub seq: u64,
    /// The change's mark, which no other change with this number has.
    pub mark: Mark,
}

/// Whether a database has a change that a process knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The newest change in the database.
    pub head: Known,
    /// The mark of the database's change with the same number.
    pub(super) found: Option<Mark>,
    /// The database has a change with that number or a lower one: the number was not trimmed.
    pub(super) reaches_back: bool,
    /// The lost changes of the known change's history were repeated up to this number.
    pub(super) repeated: Option<u64>,
    /// Every token of that history was revoked.
    pub(super) ended: bool,
}

/// Why a process that knows of a change may use a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryStatus {
    /// The database has that change, and all earlier ones.
    Confirmed,
    /// The database had lost the change, and a process has repeated it.
    Repeated,
    /// The database has lost the change, and every earlier token was revoked.
    Ended,
}

impl HistoryStatus {
    /// The text for the log.
    pub fn text(self) -> &'static str {
        match self {
            HistoryStatus::Confirmed => "confirmed",
            HistoryStatus::Repeated => "what it had lost was repeated",
            HistoryStatus::Ended => "what it had lost is not known, and every token was ended",
        }
    }
}

impl Position {
    /// Returns why the database may be used, or `None` if it lacks `known`. A process that `remembers` the lost
    /// changes repeats them, even if all tokens were revoked because no other process remembered.
    pub fn standing(&self, known: &Known, remembers: bool) -> Option<HistoryStatus> {
        let trimmed = self.found.is_none() && !self.reaches_back;
        if known.seq == 0 || self.found == Some(known.mark) {
            Some(HistoryStatus::Confirmed)
        } else if self.repeated.is_some_and(|repeated| repeated >= known.seq) {
            Some(HistoryStatus::Repeated)
        } else if self.ended && !remembers {
            Some(HistoryStatus::Ended)
        } else if trimmed && self.head.history == known.history && self.head.seq >= known.seq {
            Some(HistoryStatus::Confirmed)
        } else {
            None
        }
    }
}

/// How much was repeated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repeated {
    pub clients: usize,
    /// Sessions that were ended, or moved on to a newer pair.
    pub sessions: usize,
    pub keys: usize,
    pub verifiers: usize,
}

impl fmt::Display for Repeated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Repeated { clients, sessions, keys, verifiers } = self;
        write!(f, "{clients} clients, {sessions} sessions, {keys} signing keys, {verifiers} verifiers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Known = Known { history: Mark(1), seq: 10, mark: Mark(77) };
    const BEHIND: Position = Position {
        head: Known { history: Mark(1), seq: 9, mark: Mark(5) },
        found: None,
        reaches_back: true,
        repeated: None,
        ended: false,
    };

    #[track_caller]
    fn stands(
        position: Position,
        known: Known,
        remembers: Option<HistoryStatus>,
        restarted: Option<HistoryStatus>,
    ) {
        assert_eq!(position.standing(&known, true), remembers, "{position:?}");
        assert_eq!(position.standing(&known, false), restarted, "{position:?}");
    }

    // check 96
    #[test]
    fn a_database_is_believed_that_has_what_is_known_or_has_had_it_repeated() {
        let both = |standing| [Some(standing); 2];
        let [yes, also] = both(HistoryStatus::Confirmed);
        stands(BEHIND, KNOWN, None, None);
        // The database has another change with that number, and later ones.
        let other = Known { seq: 99, ..BEHIND.head };
        stands(Position { head: other, found: Some(Mark(78)), ..BEHIND }, KNOWN, None, None);
        // The database has the change, under the name of a new history.
        let renamed = Known { history: Mark(2), seq: 10, mark: Mark(77) };
        stands(Position { head: renamed, found: Some(Mark(77)), ..BEHIND }, KNOWN, yes, also);
        stands(BEHIND, Known { seq: 0, ..KNOWN }, yes, also);

        let [yes, also] = both(HistoryStatus::Repeated);
        stands(Position { repeated: Some(9), ..BEHIND }, KNOWN, None, None);
        stands(Position { repeated: Some(10), ..BEHIND }, KNOWN, yes, also);
        stands(Position { ended: true, ..BEHIND }, KNOWN, None, Some(HistoryStatus::Ended));
    }

    #[test]
    fn a_change_that_was_trimmed_is_believed_of_its_own_history_alone() {
        let later = Known { seq: 99, ..BEHIND.head };
        let trimmed = Position { head: later, reaches_back: false, ..BEHIND };
        stands(trimmed, KNOWN, Some(HistoryStatus::Confirmed), Some(HistoryStatus::Confirmed));
        let other = Known { history: Mark(2), ..later };
        stands(Position { head: other, ..trimmed }, KNOWN, None, None);
        stands(Position { head: BEHIND.head, ..trimmed }, KNOWN, None, None);
    }
}
