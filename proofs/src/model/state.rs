//! The state of the model at one moment.

use super::store::{CLIENTS, Content, Known, Policy, ROWS, Server, Store};

/// The nodes of the model.
pub(super) const NODES: usize = 3;
/// The place of a verification in the attached verifier.
pub(super) const FOLLOWER: usize = NODES;
/// The clock of the node that answers logouts and collects rows. It is none of the nodes above.
pub(super) const OTHER: usize = FOLLOWER + 1;
/// The most changes that can be requested.
pub(super) const WRITES: usize = 4;
/// The most generations that tokens can have.
pub(super) const GENERATIONS: u8 = 3;
/// The callers that refresh.
pub(super) const REFRESHERS: usize = 2;

/// One moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub store: Store,
    pub nodes: [Node; NODES],
    pub follower: Follower,
    pub writes: [Write; WRITES],
    pub login: Login,
    pub refreshers: [Refresher; REFRESHERS],
    pub verification: Option<Verification>,
    pub watch: Option<Watch>,
    pub told: Told,
    pub broken: Broken,
}

/// The answers that callers got. The invariants read this; the protocol does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Told {
    /// The generation that a 200 has promised, by client.
    pub promised: [u8; CLIENTS],
    /// The generations that tokens were issued under, one bit each, by client.
    pub issued: [u8; CLIENTS],
    /// How often a refresh with this pair number was answered 200.
    pub consumed: [u8; 2],
    /// The generation of client 0 that this node has promised. (Kept only if commits can be lost.)
    pub answered: [u8; NODES],
    /// The newest generation of client 0 known to any process that serves, or has served, on the second server.
    pub served: u8,
    /// No tick has passed since the first tokens were issued. (Kept only if times of issue are compared.)
    pub first_tick: bool,
    /// The generations raised within that first tick, one bit each, by client.
    pub raised_in_it: [u8; CLIENTS],
}

/// Invariants that a single step has broken. Those visible in a state itself are not kept here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Broken {
    /// Inv1: a token was accepted that a 200 had revoked before the verification began.
    pub revoked_accepted: bool,
    /// Inv2: a token was accepted on state older than D.
    pub stale_accepted: bool,
    /// Inv4: a node's applied number has decreased.
    pub applied_fell: bool,
}

/// A process that verifies and renews.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub standing: Standing,
    /// The id of the node's row.
    pub id: u8,
    pub memory: Memory,
    /// The time until the node's deadline, on its own clock. The node answers while this is not 0.
    pub lease: u8,
    /// Ticks of real time since the snapshot that the memory is as new as.
    pub age: u8,
    pub renewal: Renewal,
    /// The exact verifier that the node has recorded, if any.
    pub attached: Option<Attached>,
    /// Used if commits can be lost.
    pub history: History,
}

/// A node's knowledge of the database's history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// The newest change that the node has committed or applied.
    pub known: Known,
    /// The newest change in its folder, for the next process.
    pub witness: Known,
    /// The memory was loaded before the node lost its row.
    pub remembers: bool,
    /// The server that the node uses.
    pub place: Server,
    /// The generation of client 0 that the node knew when it came to `place`. The protocol does not read it.
    pub knew: u8,
}

/// The phase of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// The node has no row.
    Out,
    /// The database lacks the change in the node's folder. The node remembers nothing, and waits for one that does.
    Waiting { since: u8 },
    /// The node has repeated or ended the lost changes, and waits until these ids have acknowledged that.
    Settling { since: u8, head: u8, ids: u8 },
    /// The commit of the node's row waits until `wait` more commits are flushed.
    Joining { wait: u8 },
    /// The node has loaded its state, and renews.
    Joined,
    /// The node answers no more, and waits until the lease that it has lent has ended.
    Leaving { lent: u8 },
}

/// A memory, and the rest of the lease over it.
#[derive(Clone, Copy, Debug)]
pub struct Verifier<'s> {
    /// The row that has the lease.
    pub id: u8,
    pub memory: &'s Memory,
    pub lease: u8,
    pub age: u8,
}

/// A process's knowledge of clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Memory {
    /// The server that memory was loaded from.
    pub server: Server,
    /// The number of the last change in memory.
    pub applied: u8,
    /// `None`: dropped, as memory may drop a session.
    pub clients: [Option<Policy>; CLIENTS],
    /// How many session ids are known to have been given.
    pub given: u8,
    /// The keys are new, so every earlier token is invalid.
    pub ended: bool,
}

/// A renewal, step by step. `since`: time on the node's clock since t0; `age`: real time since the head was
/// read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Renewal {
    Idle,
    /// t0 has been read.
    Sent {
        since: u8,
    },
    /// The row is updated and the head read, in an open transaction.
    Read {
        since: u8,
        age: u8,
        server: Server,
        head: u8,
    },
    /// Committed; the answer waits until `wait` more commits are flushed.
    Committed {
        since: u8,
        age: u8,
        server: Server,
        head: u8,
        wait: u8,
    },
    /// Every change up to the head is published in memory; the deadline is not.
    Applied {
        since: u8,
    },
}

/// An exact verifier, as its node has recorded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attached {
    /// The last change that the verifier has acknowledged.
    pub heard: u8,
    /// Time on the node's clock since a change was last published to the verifier, up to W.
    pub published: u8,
}

/// A process that embeds the follower, and follows one node at a time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Follower {
    /// The node and its row's id, because a feed belongs to one row.
    pub feed: Option<(usize, u8)>,
    pub memory: Memory,
    /// The time until the follower's deadline, on its own clock.
    pub lease: u8,
    pub age: u8,
    pub question: Question,
}

/// A follower's request for a lease, step by step. `since`: time on its clock since before the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    Idle,
    Asked {
        since: u8,
    },
    /// The node has recorded the follower.
    Recorded {
        since: u8,
    },
    /// The node has read its own deadline, and lends `lent` of the rest.
    Lent {
        since: u8,
        lent: u8,
    },
    /// The node has read its feed's head and answered.
    Answered {
        since: u8,
        lent: u8,
        head: u8,
        age: u8,
    },
}

/// A requested change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// Not begun, or answered 503. It may be tried `tries` times.
    Idle { tries: u8 },
    /// The transaction is open. (Only seeded faults do something in it that other steps can see.)
    Open { tries: u8, seq: u8, listed: u8 },
    /// Committed; waits until `wait` more commits are flushed. `known`: the change, if commits can be lost.
    Committed { tries: u8, server: Server, wait: u8, listed: Option<u8>, known: Known },
    /// The nodes must be listed next.
    Confirmed { server: Server, known: Known },
    /// t1 has been read and `ids` were listed. The change waits until they have acknowledged `head`;
    /// `elapsed`: time on the clock since t1.
    Listed { server: Server, elapsed: u8, head: u8, ids: u8, known: Known },
    /// Answered 200.
    Answered,
}

/// A login of client 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Login {
    Idle,
    Committed { wait: u8, generation: u8 },
}

/// A caller that holds refresh tokens of the one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refresher {
    Idle {
        tries: u8,
    },
    /// The pair was read and is valid, but the next one is not written. (Only if these steps are separate.)
    Read {
        tries: u8,
        pair: u8,
        required: u8,
    },
    /// The pair is consumed; the answer waits until `wait` more commits are flushed.
    Committed {
        tries: u8,
        pair: u8,
        required: u8,
        wait: u8,
    },
}

/// The verification of a token, step by step. There is one at a time: simultaneous ones do not affect each
/// other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Verification {
    /// A node, or `FOLLOWER`.
    pub at: usize,
    pub client: usize,
    /// The token's generation.
    pub token: u8,
    /// The generation that had been promised when the verification began.
    pub required: u8,
    pub step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Begun,
    /// The deadline over this row's memory was read, and has not passed.
    InTime {
        id: u8,
    },
    /// State of this age was read. (Only if the deadline is read after the state.)
    StateRead {
        accepts: bool,
        age: u8,
    },
    /// The token is ahead of this row's memory.
    Ahead {
        id: u8,
    },
    /// The store has answered a request made when memory had applied `applied`.
    Answered {
        id: u8,
        policy: Policy,
        applied: u8,
    },
}

/// One node's watch over another's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Watch {
    pub id: usize,
    pub beat: u8,
    /// Time on the watcher's clock since it saw this beat.
    pub since: u8,
}

impl Memory {
    /// The memory that a node loads.
    pub fn load(server: Server, content: &Content, ids: bool) -> Memory {
        // Only ended sessions are loaded.
        let known = |policy: &Policy| !ids || policy.generation > 0;
        let clients = content.clients.map(|policy| Some(policy).filter(known));
        let Content { head: applied, given, lost, .. } = *content;
        Memory { server, applied, clients, given, ended: lost.ended }
    }

    fn empty() -> Memory {
        Memory { server: Server::First, applied: 0, clients: [None; CLIENTS], given: 0, ended: false }
    }

    /// Takes over a client that exists and is newer than memory's.
    pub fn learn(&mut self, client: usize, policy: Policy) {
        if policy.revision > self.clients[client].map_or(0, |known| known.revision) {
            self.clients[client] = Some(policy);
        }
    }
}

impl Node {
    pub fn out() -> Node {
        Node {
            standing: Standing::Out,
            id: ROWS as u8,
            memory: Memory::empty(),
            lease: 0,
            age: 0,
            renewal: Renewal::Idle,
            attached: None,
            history: History::default(),
        }
    }

    /// The process that is started in the place of this one.
    pub fn started_again(&self) -> Node {
        let witness = self.history.witness;
        Node { history: History { known: witness, witness, ..History::default() }, ..Node::out() }
    }

    /// The node without its row, but with its memory.
    pub fn fenced(&self) -> Node {
        let history = History { remembers: true, ..self.history };
        Node { memory: self.memory.clone(), history, ..Node::out() }
    }

    /// Whether the node's memory may be used: it was loaded, and the node still has its row.
    pub fn has_joined(&self) -> bool {
        self.standing == Standing::Joined
    }
}

impl Follower {
    pub fn detached() -> Follower {
        Follower { feed: None, memory: Memory::empty(), lease: 0, age: 0, question: Question::Idle }
    }
}

impl State {
    /// The memory and lease that a verification finds at a node, or at the follower.
    pub fn verifier(&self, at: usize) -> Option<Verifier<'_>> {
        if at == FOLLOWER {
            let Follower { feed, memory, lease, age, .. } = &self.follower;
            feed.map(|(_, id)| Verifier { id, memory, lease: *lease, age: *age })
        } else {
            let Node { id, memory, lease, age, .. } = &self.nodes[at];
            let verifier = Verifier { id: *id, memory, lease: *lease, age: *age };
            self.nodes[at].has_joined().then_some(verifier)
        }
    }

    /// The counts of all steps that wait for commits to be flushed.
    pub fn waits_mut(&mut self) -> impl Iterator<Item = &mut u8> {
        let joins = self.nodes.iter_mut().filter_map(|node| match (&mut node.standing, &mut node.renewal) {
            (Standing::Joining { wait }, _) | (_, Renewal::Committed { wait, .. }) => Some(wait),
            _ => None,
        });
        let writes = self.writes.iter_mut().filter_map(|write| match write {
            Write::Committed { wait, .. } => Some(wait),
            _ => None,
        });
        let logins = Some(&mut self.login).into_iter().filter_map(|login| match login {
            Login::Committed { wait, .. } => Some(wait),
            Login::Idle => None,
        });
        let refreshes = self.refreshers.iter_mut().filter_map(|refresher| match refresher {
            Refresher::Committed { wait, .. } => Some(wait),
            _ => None,
        });
        joins.chain(writes).chain(logins).chain(refreshes)
    }
}
