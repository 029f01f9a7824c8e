//! What tells one history of the changes from another.

use std::fmt;

/// 128 random bits: a history's name, or a change's mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark(pub u128);

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The newest change that somebody knows of, and with it all before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// In which history.
    pub history: Mark,
    /// Its number. 0: there was none yet.
    pub seq: u64,
    /// What no other change of this number has.
    pub mark: Mark,
}

/// How a database stands to a change that somebody knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The newest change there.
    pub head: Known,
    /// The mark of the change that has the number in question.
    pub(super) found: Option<Mark>,
    /// That change, or one before it, has not been trimmed.
    pub(super) reaches_back: bool,
    /// What was lost of the history in question has been repeated up to this change.
    pub(super) repeated: Option<u64>,
    /// Every token of that history was ended.
    pub(super) ended: bool,
}

/// Why a database may be believed by whoever knows of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has that change, and all before.
    Confirmed,
    /// It had lost it, and what it was has been done again.
    Repeated,
    /// It has lost it, and every token from before was ended.
    Ended,
}

impl Standing {
    /// For the log.
    pub fn text(self) -> &'static str {
        match self {
            Standing::Confirmed => "confirmed",
            Standing::Repeated => "what it had lost was repeated",
            Standing::Ended => "what it had lost is not known, and every token was ended",
        }
    }
}

impl Position {
    /// How it stands to `known`. `None`: it lacks what is known. To whoever `remembers` what that was it is
    /// not enough that nobody else did.
    pub fn standing(&self, known: &Known, remembers: bool) -> Option<Standing> {
        let trimmed = self.found.is_none() && !self.reaches_back;
        if known.seq == 0 || self.found == Some(known.mark) {
            Some(Standing::Confirmed)
        } else if self.repeated.is_some_and(|repeated| repeated >= known.seq) {
            Some(Standing::Repeated)
        } else if self.ended && !remembers {
            Some(Standing::Ended)
        } else if trimmed && self.head.history == known.history && self.head.seq >= known.seq {
            Some(Standing::Confirmed)
        } else {
            None
        }
    }
}

/// What was done again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repeated {
    pub clients: usize,
    /// Ended, or known to have been refreshed further.
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
    fn stands(position: Position, known: Known, remembers: Option<Standing>, restarted: Option<Standing>) {
        assert_eq!(position.standing(&known, true), remembers, "{position:?}");
        assert_eq!(position.standing(&known, false), restarted, "{position:?}");
    }

    // check 96
    #[test]
    fn a_database_is_believed_that_has_what_is_known_or_has_had_it_repeated() {
        let both = |standing| [Some(standing); 2];
        let [yes, also] = both(Standing::Confirmed);
        stands(BEHIND, KNOWN, None, None);
        // Another change of that number, whatever came after.
        let other = Known { seq: 99, ..BEHIND.head };
        stands(Position { head: other, found: Some(Mark(78)), ..BEHIND }, KNOWN, None, None);
        // It has the change, whatever its history is called by now.
        let renamed = Known { history: Mark(2), seq: 10, mark: Mark(77) };
        stands(Position { head: renamed, found: Some(Mark(77)), ..BEHIND }, KNOWN, yes, also);
        stands(BEHIND, Known { seq: 0, ..KNOWN }, yes, also);

        let [yes, also] = both(Standing::Repeated);
        stands(Position { repeated: Some(9), ..BEHIND }, KNOWN, None, None);
        stands(Position { repeated: Some(10), ..BEHIND }, KNOWN, yes, also);
        stands(Position { ended: true, ..BEHIND }, KNOWN, None, Some(Standing::Ended));
    }

    #[test]
    fn a_change_that_was_trimmed_is_believed_of_its_own_history_alone() {
        let later = Known { seq: 99, ..BEHIND.head };
        let trimmed = Position { head: later, reaches_back: false, ..BEHIND };
        stands(trimmed, KNOWN, Some(Standing::Confirmed), Some(Standing::Confirmed));
        let other = Known { history: Mark(2), ..later };
        stands(Position { head: other, ..trimmed }, KNOWN, None, None);
        stands(Position { head: BEHIND.head, ..trimmed }, KNOWN, None, None);
    }
}
