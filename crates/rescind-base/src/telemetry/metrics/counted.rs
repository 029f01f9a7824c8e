//! What the counters have counted so far, for the trends.

use rescind_verifier::Denied;

use super::{
    Metrics, Outcome, Route,
    histogram::Durations,
    labels::{Answer, Label},
};

/// What a process has counted since its start, or between two readings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    pub logins: u64,
    pub logins_refused: u64,
    pub verifications: u64,
    /// Access tokens refused, in the order of [`Denied::ALL`].
    pub denials: Vec<u64>,
    /// The store's commits.
    pub commits: Durations,
}

impl Counted {
    /// What was counted after `earlier`.
    pub fn since(&self, earlier: &Counted) -> Counted {
        let denials = self.denials.iter().zip(&earlier.denials);
        Counted {
            logins: self.logins - earlier.logins,
            logins_refused: self.logins_refused - earlier.logins_refused,
            verifications: self.verifications - earlier.verifications,
            denials: denials.map(|(now, before)| now - before).collect(),
            commits: self.commits.since(&earlier.commits),
        }
    }

    /// The reasons for which access tokens were refused, and how many each.
    pub fn by_reason(&self) -> impl Iterator<Item = (Denied, u64)> {
        Denied::ALL.iter().copied().zip(self.denials.iter().copied()).filter(|&(_, count)| count > 0)
    }
}

impl Metrics {
    /// What was counted so far.
    pub fn counted(&self) -> Counted {
        let logins = |wanted: fn(&Outcome) -> bool| {
            Outcome::ALL
                .iter()
                .filter(|outcome| wanted(outcome))
                .map(|&outcome| self.logins[outcome].get())
                .sum()
        };
        let verifications = &self.requests[Route::Verify];
        Counted {
            logins: logins(|outcome| *outcome == Outcome::Granted),
            logins_refused: logins(|outcome| *outcome != Outcome::Granted),
            verifications: Answer::ALL.iter().map(|&answer| verifications[answer].get()).sum(),
            denials: Denied::ALL.iter().map(|&reason| self.denials[reason].get()).collect(),
            commits: self.commits.durations(),
        }
    }
}
