//! What the protocol must not do: one way each in which it could have been built wrong.

use super::{
    properties::{INV1, INV2, INV3, INV4, INV5, INV6},
    scenario::Scenario,
    time::Terms,
};

/// A fault, seeded to see that the model would show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    // The twelve that the design names.
    /// A renewal reads the head, and writes nothing that would have to be replicated.
    ReadOnlyRenewal,
    /// A renewal counts its lease from the answer.
    T0AfterTheAnswer,
    /// A node acknowledges the head that it has read, and not what it has published.
    AckBeforePublish,
    /// Changes are numbered by a sequence: they commit out of order.
    SerialFeed,
    /// A logout lists the nodes in its own transaction, before it commits.
    NodesBeforeCommit,
    /// A row is deleted as soon as it was seen twice unchanged.
    EarlyGc,
    /// A commit whose wait for the stand-by was cancelled counts as confirmed.
    WarningTaken,
    /// Tokens are revoked by when they were issued, and not by their generation.
    IssueTime,
    /// A renewal reads the head from the stand-by.
    StandbyRead,
    /// A refresh reads the pair number, and writes the next one without comparing.
    BlindRefresh,
    /// A process that joins takes over the row of the one that had its name before.
    ReusedRow,
    /// A verification reads the deadline after the state.
    StateBeforeDeadline,

    // What else it must not do, as the model has taught.
    /// A node goes on with its memory over a fail-over, as long as neither timeline nor head fall.
    MemoryOverFailOver,
    /// A renewal looks up its changes on any server that says it is primary.
    LookupOfAnyTimeline,
    /// A verification asks any server that says it is primary.
    AskOfAnyTimeline,
    /// A logout reads the nodes' rows on any server that says it is primary.
    RowsOfAnyTimeline,
    /// A logout that is tried again and finds its generation raised takes that for confirmed.
    RetryWithoutCommit,
    /// An orderly shutdown deletes the row while a renewal is on its way.
    LeaveWhileRenewing,
    /// An orderly shutdown deletes the row while leases lent to attached verifiers run.
    LeaveWhileLent,
    /// An attached verifier keeps its lease when it takes its state from another node.
    LeaseOverFeeds,
    /// A verification reads the deadline over one memory and decides on another, that was loaded since.
    StateOfAnotherLease,
    /// A logout waits for D alone, as if no clock ran fast.
    WaitWithoutDrift,
    /// The margin is no wider than Inv1 needs it, D·ρ(1+ρ)/2.
    ThinMargin,

    // What must not be done about a database that has lost what was answered.
    /// A node that meets a later timeline takes it for a fail-over that has lost nothing.
    TimelineAlone,
    /// A node looks whether the database has the number that it knows, and not whether it has that change.
    NumbersAlone,
    /// A node takes what the database has for what is to be repeated.
    RepeatsWhatTheDatabaseHas,
    /// A node says that it has repeated every change up to its own last one, and knows some of these alone.
    RepeatsMoreThanItKnows,
    /// A node repeats what it knows, and serves before the others have that.
    RepeatsWithoutWaiting,
    /// A logout is answered as if no other server had taken over since the nodes were listed.
    AnswersOverPromotion,
    /// What is repeated does not keep the ids of lost sessions from being given again.
    IdsGivenAgain,
    /// A logout is answered before it is known in the folder of whoever answers.
    AnswersBeforeKeeping,
}

impl Fault {
    /// All of them.
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

    /// The invariant that it breaks.
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

    /// A scenario that shows it, and in which nothing is broken without it.
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
