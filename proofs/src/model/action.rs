//! The steps of the model, and their text in a counterexample.

use std::fmt;

use super::{
    state::{FOLLOWER, OTHER},
    store::Server,
};

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// One tick of real time passes. The clocks in `fast`, one bit each, run fast.
    Tick {
        fast: u8,
    },
    /// The stand-by flushes the next commit.
    Flush,
    /// The stand-by shows the next commit that it has flushed. (Otherwise it shows each at once.)
    Show,
    /// The stand-by becomes primary; the old primary does not notice.
    Promote,
    Node(usize, NodeStep),
    Row(RowStep),
    Write(usize, WriteStep),
    Verify(VerifyStep),
    Session(SessionStep),
    Follower(FollowerStep),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeStep {
    Join { server: Server },
    Load { server: Server },
    Beat { server: Server },
    ReadClock,
    ReadHead { server: Server },
    CommitRenewal,
    GiveUp,
    Publish { server: Server },
    Extend,
    Leave,
    DeleteRow { server: Server },
    Crash,
    Forget { client: usize },
    Keep,
    Repeat { server: Server },
    Wait,
    End { server: Server },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowStep {
    Watch { id: usize, server: Server },
    Collect { id: usize, server: Server },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteStep {
    Begin { server: Server },
    Commit { server: Server },
    GiveUp,
    Confirm,
    List { server: Server },
    Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyStep {
    Begin { at: usize, client: usize, token: u8 },
    ReadDeadline,
    ReadState,
    Ask { server: Server },
    Learn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionStep {
    Login { server: Server },
    GiveUpLogin,
    Issue,
    Refresh { who: usize, pair: u8, server: Server },
    WritePair { who: usize, server: Server },
    GiveUpRefresh { who: usize },
    Consume { who: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowerStep {
    Attach { node: usize },
    Apply,
    Acknowledge,
    Ask,
    Record,
    Lend,
    Answer,
    Extend,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Server::First => "the first server",
            Server::Second => "the second server",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Tick { fast: 0 } => f.write_str("time passes"),
            Action::Tick { fast } => {
                write!(f, "time passes; fast runs the clock of")?;
                for clock in (0..=OTHER).filter(|clock| fast & 1 << clock != 0) {
                    match clock {
                        FOLLOWER => f.write_str(" the follower")?,
                        OTHER => f.write_str(" whoever answers")?,
                        node => write!(f, " node {node}")?,
                    }
                }
                Ok(())
            }
            Action::Flush => f.write_str("the stand-by flushes the next commit"),
            Action::Show => f.write_str("the stand-by shows the next commit that it has flushed"),
            Action::Promote => f.write_str("the stand-by is promoted; the first server does not notice"),
            Action::Node(node, step) => write!(f, "node {node} {step}"),
            Action::Row(step) => write!(f, "the collector {step}"),
            Action::Write(write, step) => write!(f, "change {write} {step}"),
            Action::Verify(step) => write!(f, "a verification {step}"),
            Action::Session(step) => step.fmt(f),
            Action::Follower(step) => write!(f, "the follower {step}"),
        }
    }
}

impl fmt::Display for NodeStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeStep::Join { server } => write!(f, "commits its row on {server}"),
            NodeStep::Load { server } => write!(f, "has its row confirmed, and loads from {server}"),
            NodeStep::Beat { server } => {
                write!(f, "is loading, and renews its row on {server} without a lease")
            }
            NodeStep::ReadClock => write!(f, "renews: reads t0"),
            NodeStep::ReadHead { server } => write!(f, "updates its row and reads the head on {server}"),
            NodeStep::CommitRenewal => write!(f, "commits the renewal"),
            NodeStep::GiveUp => write!(f, "waits no longer for the stand-by, and gets a warning"),
            NodeStep::Publish { server } => write!(
                f,
                "has the renewal confirmed, looks the changes up on {server}, and publishes its state"
            ),
            NodeStep::Extend => write!(f, "publishes its deadline"),
            NodeStep::Leave => write!(f, "shuts down: answers no more"),
            NodeStep::DeleteRow { server } => write!(f, "deletes its row on {server}"),
            NodeStep::Crash => write!(f, "is killed"),
            NodeStep::Forget { client } => write!(f, "forgets client {client}, for lack of memory"),
            NodeStep::Keep => write!(f, "writes into its folder what it knows"),
            NodeStep::Repeat { server } => write!(f, "repeats on {server} what that has lost"),
            NodeStep::Wait => write!(f, "remembers nothing of what the database has lost, and waits"),
            NodeStep::End { server } => write!(f, "ends every token on {server}"),
        }
    }
}

impl fmt::Display for RowStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RowStep::Watch { id, server } => write!(f, "sees the beat of row {id} on {server}"),
            RowStep::Collect { id, server } => write!(f, "deletes row {id} on {server}"),
        }
    }
}

impl fmt::Display for WriteStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteStep::Begin { server } => write!(f, "begins its transaction on {server}"),
            WriteStep::Commit { server } => write!(f, "is committed on {server}"),
            WriteStep::GiveUp => write!(f, "waits no longer for the stand-by, and gets a warning"),
            WriteStep::Confirm => write!(f, "has its commit confirmed"),
            WriteStep::List { server } => write!(f, "reads the head and the nodes' rows on {server}"),
            WriteStep::Answer => write!(f, "is answered 200"),
        }
    }
}

impl fmt::Display for VerifyStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VerifyStep::Begin { at: FOLLOWER, client, token } => {
                write!(f, "begins at the follower: client {client}'s token of generation {token}")
            }
            VerifyStep::Begin { at, client, token } => {
                write!(f, "begins at node {at}: client {client}'s token of generation {token}")
            }
            VerifyStep::ReadDeadline => write!(f, "reads the deadline"),
            VerifyStep::ReadState => write!(f, "reads the state"),
            VerifyStep::Ask { server } => write!(f, "is ahead of the state, and asks {server}"),
            VerifyStep::Learn => write!(f, "has its answer, which is remembered"),
        }
    }
}

impl fmt::Display for SessionStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SessionStep::Login { server } => write!(f, "a login is committed on {server}"),
            SessionStep::GiveUpLogin => write!(f, "the login waits no longer for the stand-by"),
            SessionStep::Issue => write!(f, "the login is confirmed and answered 200"),
            SessionStep::Refresh { who, pair, server } => {
                write!(f, "caller {who} refreshes pair {pair} on {server}")
            }
            SessionStep::WritePair { who, server } => {
                write!(f, "caller {who}'s next pair is written on {server}")
            }
            SessionStep::GiveUpRefresh { who } => write!(f, "caller {who} waits no longer for the stand-by"),
            SessionStep::Consume { who } => write!(f, "caller {who}'s refresh is confirmed and answered 200"),
        }
    }
}

impl fmt::Display for FollowerStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FollowerStep::Attach { node } => write!(f, "takes the state of node {node} for its own"),
            FollowerStep::Apply => write!(f, "applies what its node has published"),
            FollowerStep::Acknowledge => write!(f, "acknowledges"),
            FollowerStep::Ask => write!(f, "reads its clock and asks for a lease"),
            FollowerStep::Record => write!(f, "is recorded by its node"),
            FollowerStep::Lend => write!(f, "is lent what is left of its node's lease"),
            FollowerStep::Answer => write!(f, "is told its node's head"),
            FollowerStep::Extend => write!(f, "has applied that head, and extends its lease"),
        }
    }
}
