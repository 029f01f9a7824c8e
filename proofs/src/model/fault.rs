//! Seeded faults. Each is one way to build the protocol wrong.

use super::{
    properties::{INV1, INV2, INV3, INV4, INV5, INV6},
    scenario::Scenario,
    time::Terms,
};

/// A fault, seeded to check that the model detects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    // The twelve faults that the design names.
    /// A renewal reads the head, and makes no replicated write.
    ReadOnlyRenewal,
    /// A renewal counts its lease from the answer.
    T0AfterTheAnswer,
    /// A node acknowledges the head that it has read, not the changes that it has published.
    AckBeforePublish,
    /// Changes are numbered by a sequence, so they commit out of order.
    SerialFeed,
    /// A logout lists the nodes in its own transaction, before the commit.
    NodesBeforeCommit,
    /// A row is deleted as soon as it was seen twice unchanged.
    EarlyGc,
    /// A commit whose wait for the stand-by was cancelled counts as confirmed.
    WarningTaken,
    /// Tokens are revoked by their time of issue, not by their generation.
    IssueTime,
    /// A renewal reads the head from the stand-by.
    StandbyRead,
    /// A refresh reads the pair number, and writes the next one without comparing.
    BlindRefresh,
    /// A joining process takes over the row of the earlier one with its name.
    ReusedRow,
    /// A verification reads the deadline after the state.
    StateBeforeDeadline,

    // Further faults, found with the model.
    /// A node keeps its memory after a fail-over, as long as neither timeline nor head decreases.
    MemoryOverFailOver,
    /// A renewal looks up its changes on any server that reports to be primary.
    LookupOfAnyTimeline,
    /// A verification asks any server that reports to be primary.
    AskOfAnyTimeline,
    /// A logout reads the nodes' rows on any server that reports to be primary.
    RowsOfAnyTimeline,
    /// A repeated logout that finds its generation raised counts as confirmed.
    RetryWithoutCommit,
    /// An orderly shutdown deletes the row while a renewal is open.
    LeaveWhileRenewing,
    /// An orderly shutdown deletes the row while leases lent to attached verifiers run.
    LeaveWhileLent,
    /// An attached verifier keeps its lease when it copies its state from another node.
    LeaseOverFeeds,
    /// A verification reads the deadline over one memory and decides on another, loaded since.
    StateOfAnotherLease,
    /// A logout waits for D only, as if no clock ran fast.
    WaitWithoutDrift,
    /// The margin is only as wide as Inv1 needs, D·ρ(1+ρ)/2.
    ThinMargin,

    // Faults in the repair of a database that has lost answered changes.
    /// A node treats a later timeline as a fail-over without loss.
    TimelineAlone,
    /// A node checks whether the database has the known number, not whether it has that change.
    NumbersAlone,
    /// A node repeats the database's own content instead of its memory.
    RepeatsWhatTheDatabaseHas,
    /// A node declares every change up to its newest known one repeated, though its memory lacks some.
    RepeatsMoreThanItKnows,
    /// A node repeats the changes, and serves before the others have them.
    RepeatsWithoutWaiting,
    /// A logout is answered although another server has taken over since the nodes were listed.
    AnswersOverPromotion,
    /// The repair lets the ids of lost sessions be given again.
    IdsGivenAgain,
    /// A logout is answered before the change is in the answerer's folder.
    AnswersBeforeKeeping,
}

impl Fault {
    /// All faults.
    pub const ALL: [Fault; 31] = [
        Fault::ReadOnlyRenewal,
        Fault::T0AfterTheAnswer,
        Fault::AckBeforePublish,
        Fault::SerialFeed,
        Fault::NodesBeforeCommit,
        Fault::EarlyGc,
        Fault::WarningTaken,
        Fault::IssueTime,
        Fault::StandbyRead,
        Fault::BlindRefresh,
        Fault::ReusedRow,
        Fault::StateBeforeDeadline,
        Fault::MemoryOverFailOver,
        Fault::LookupOfAnyTimeline,
        Fault::AskOfAnyTimeline,
        Fault::RowsOfAnyTimeline,
        Fault::RetryWithoutCommit,
        Fault::LeaveWhileRenewing,
        Fault::LeaveWhileLent,
        Fault::LeaseOverFeeds,
        Fault::StateOfAnotherLease,
        Fault::WaitWithoutDrift,
        Fault::ThinMargin,
        Fault::TimelineAlone,
        Fault::NumbersAlone,
        Fault::RepeatsWhatTheDatabaseHas,
        Fault::RepeatsMoreThanItKnows,
        Fault::RepeatsWithoutWaiting,
        Fault::AnswersOverPromotion,
        Fault::IdsGivenAgain,
        Fault::AnswersBeforeKeeping,
    ];

    /// The invariant that the fault breaks.
    pub fn breaks(self) -> &'static str {
        match self {
            Fault::T0AfterTheAnswer | Fault::ThinMargin => INV2,
            Fault::WarningTaken | Fault::RetryWithoutCommit => INV3,
            Fault::SerialFeed => INV4,
            Fault::NodesBeforeCommit | Fault::EarlyGc | Fault::LeaveWhileRenewing => INV5,
            Fault::BlindRefresh => INV6,
            _ => INV1,
        }
    }

    /// A scenario that shows the fault. Without the fault nothing is broken in it.
    pub fn scenario(self) -> Scenario {
        match self {
            Fault::T0AfterTheAnswer
            | Fault::AckBeforePublish
            | Fault::IssueTime
            | Fault::StateBeforeDeadline => Scenario::renewals(),
            Fault::SerialFeed => Scenario::feed(),
            Fault::NodesBeforeCommit | Fault::EarlyGc | Fault::ReusedRow | Fault::LeaveWhileRenewing => {
                Scenario::membership()
            }
            Fault::StandbyRead => Scenario::replicated(),
            Fault::ReadOnlyRenewal
            | Fault::LookupOfAnyTimeline
            | Fault::RowsOfAnyTimeline
            | Fault::StateOfAnotherLease => Scenario::fail_over(),
            Fault::AskOfAnyTimeline => Scenario::questions(),
            Fault::WarningTaken | Fault::MemoryOverFailOver | Fault::RetryWithoutCommit => {
                Scenario::lost_commits()
            }
            Fault::BlindRefresh => Scenario::sessions(),
            Fault::LeaveWhileLent => Scenario::attached(),
            Fault::LeaseOverFeeds => Scenario::attached_to_two(),
            Fault::TimelineAlone
            | Fault::RepeatsWhatTheDatabaseHas
            | Fault::RepeatsWithoutWaiting
            | Fault::AnswersOverPromotion => Scenario::lost_answers(),
            Fault::NumbersAlone | Fault::RepeatsMoreThanItKnows => Scenario::lost_order(),
            Fault::IdsGivenAgain => Scenario::lost_ids(),
            Fault::AnswersBeforeKeeping => Scenario::lost_memory(),
            Fault::WaitWithoutDrift => Scenario::clocks(),
            Fault::ThinMargin => {
                let terms = Terms { lasts: 27 - 6, wait: 36 + 6, ..Terms::drifting(9) };
                Scenario { terms, ..Scenario::clocks() }
            }
        }
    }
}
