//! Everything that the protocol remembers, at one moment.

use super::store::{CLIENTS, Content, Known, Policy, ROWS, Server, Store};

/// Nodes of the model.
pub(super) const NODES: usize = 3;
/// Where a verification runs that runs in the attached verifier.
pub(super) const FOLLOWER: usize = NODES;
/// The clock of the node that answers logouts and collects rows: none of those above.
pub(super) const OTHER: usize = FOLLOWER + 1;
/// Changes that somebody may ask for.
pub(super) const WRITES: usize = 4;
/// Generations that tokens may be of.
pub(super) const GENERATIONS: u8 = 3;
/// Callers that refresh.
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

/// What callers were told: the protocol does not read it, the invariants do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Told {
    /// The generation that a 200 has promised, by client.
    pub promised: [u8; CLIENTS],
    /// The generations that tokens were issued under, one bit each, by client.
    pub issued: [u8; CLIENTS],
    /// How often a refresh with this pair number was answered 200.
    pub consumed: [u8; 2],
    /// The generation of client 0 that this node has promised. (Only kept where commits are lost.)
    pub answered: [u8; NODES],
    /// The newest generation of client 0 that a process knew of which serves, or has served, on the second server.
    pub served: u8,
    /// No tick has passed since the first tokens were issued. (Only kept where times of issue are compared.)
    pub first_tick: bool,
    /// Generations raised within that first tick, one bit each, by client.
    pub raised_in_it: [u8; CLIENTS],
}

/// Invariants that a single step has broken; those that can be seen in a state are not kept here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Broken {
    /// Inv1: a token was accepted that a 200 had revoked before the verification began.
    pub revoked_accepted: bool,
    /// Inv2: a token was accepted on state older than D.
    pub stale_accepted: bool,
    /// Inv4: a node's applied number has fallen.
    pub applied_fell: bool,
}

/// A process that verifies and renews.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub standing: Standing,
    /// Its row.
    pub id: u8,
    pub memory: Memory,
    /// What is left until its deadline, on its own clock. It answers while this is not 0.
    pub lease: u8,
    /// Ticks of real time since the snapshot that its memory is as new as.
    pub age: u8,
    pub renewal: Renewal,
    /// The exact verifier that it has recorded, if any.
    pub attached: Option<Attached>,
    /// Where commits may be lost.
    pub history: History,
}

/// What a node knows of the database's history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// The newest change that it has committed itself or applied.
    pub known: Known,
    /// The same in its folder, for the process that comes after it.
    pub witness: Known,
    /// Its memory is of before.
    pub remembers: bool,
    /// The server that it uses.
    pub place: Server,
    /// The generation of client 0 that it knew of when it came there. The protocol does not read it.
    pub knew: u8,
}

/// How far a node is with being one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It has no row that it would call its own.
    Out,
    /// The database lacks what its folder knows of, and it remembers nothing: it waits for somebody who does.
    Waiting { since: u8 },
    /// It has repeated or ended what the database had lost, and waits until these ids have that.
    Settling { since: u8, head: u8, ids: u8 },
    /// Its row's commit waits for so many to be flushed.
    Joining { wait: u8 },
    /// It has loaded its state, and renews.
    Joined,
    /// It answers no more, and waits until what it has lent has run out.
    Leaving { lent: u8 },
}

/// A memory, and what is left of the lease over it.
#[derive(Clone, Copy, Debug)]
pub struct Verifier<'s> {
    /// The row that the lease is of.
    pub id: u8,
    pub memory: &'s Memory,
    pub lease: u8,
    pub age: u8,
}

/// What is known of clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Memory {
    /// Where it was loaded.
    pub server: Server,
    /// The number of the last change in it.
    pub applied: u8,
    /// `None` is forgotten, as a session may be.
    pub clients: [Option<Policy>; CLIENTS],
    /// So many ids of sessions are known to have been given.
    pub given: u8,
    /// The keys are new: no token from before stands.
    pub ended: bool,
}

/// A renewal, step by step. `since` is what its node's clock has gone since t0, `age` what real time has since the
/// head was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Renewal {
    Idle,
    /// t0 has been read.
    Sent {
        since: u8,
    },
    /// The row is updated and the head read, in a transaction that is open.
    Read {
        since: u8,
        age: u8,
        server: Server,
        head: u8,
    },
    /// Committed; the answer waits for so many to be flushed.
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
    /// What it has acknowledged.
    pub heard: u8,
    /// What the node's clock has gone since a change was last published to it, up to W.
    pub published: u8,
}

/// A process that embeds the follower, and follows one node at a time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Follower {
    /// The node and its row's id: a feed is of one incarnation.
    pub feed: Option<(usize, u8)>,
    pub memory: Memory,
    /// What is left until its deadline, on its own clock.
    pub lease: u8,
    pub age: u8,
    pub question: Question,
}

/// A follower's asking for a lease, step by step. `since` is what its clock has gone since before it asked.
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
    /// The node has read its own deadline, and lends this much of it.
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

/// A change that somebody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// Not begun, or answered 503; it may be tried so many times.
    Idle { tries: u8 },
    /// Its transaction is open. (Only seeded faults do something in it that others could see.)
    Open { tries: u8, seq: u8, listed: u8 },
    /// Committed; the answer waits for so many to be flushed. `known` is the change, where commits may be lost.
    Committed { tries: u8, server: Server, wait: u8, listed: Option<u8>, known: Known },
    /// The nodes are to be listed.
    Confirmed { server: Server, known: Known },
    /// t1 has been read and these ids were listed, and the clock has gone so far since: waits until they have
    /// acknowledged this head.
    Listed { server: Server, elapsed: u8, head: u8, ids: u8, known: Known },
    /// 200.
    Answered,
}

/// A login of client 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Login {
    Idle,
    Committed { wait: u8, generation: u8 },
}

/// Somebody who holds refresh tokens of the one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refresher {
    Idle {
        tries: u8,
    },
    /// The pair was read and found good; it is not written yet. (Only where the two are apart.)
    Read {
        tries: u8,
        pair: u8,
        required: u8,
    },
    /// The pair is consumed; the answer waits for so many to be flushed.
    Committed {
        tries: u8,
        pair: u8,
        required: u8,
        wait: u8,
    },
}

/// The verification of a token, step by step. There is one at a time: any two that run at once do so without hearing of
/// each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Verification {
    /// A node, or `FOLLOWER`.
    pub at: usize,
    pub client: usize,
    /// The token's generation.
    pub token: u8,
    /// What was promised when it began.
    pub required: u8,
    pub step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Begun,
    /// The deadline was read, over the memory of this row, and is to come.
    InTime {
        id: u8,
    },
    /// The state was read, and is so old. (Only where the deadline is read after it.)
    StateRead {
        accepts: bool,
        age: u8,
    },
    /// The token is ahead of that memory.
    Ahead {
        id: u8,
    },
    /// The store has answered, asked when so much had been applied.
    Answered {
        id: u8,
        policy: Policy,
        applied: u8,
    },
}

/// One node watching another's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Watch {
    pub id: usize,
    pub beat: u8,
    /// What the watcher's clock has gone since it saw this beat.
    pub since: u8,
}

impl Memory {
    /// What a node loads.
    pub fn load(server: Server, content: &Content, ids: bool) -> Memory {
        // Of sessions, those that have ended.
        let known = |policy: &Policy| !ids || policy.generation > 0;
        let clients = content.clients.map(|policy| Some(policy).filter(known));
        let Content { head: applied, given, lost, .. } = *content;
        Memory { server, applied, clients, given, ended: lost.ended }
    }

    fn empty() -> Memory {
        Memory { server: Server::First, applied: 0, clients: [None; CLIENTS], given: 0, ended: false }
    }

    /// Takes over a client, unless it is not there, or what is known is as new.
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

    /// A process that is started in the place of this one.
    pub fn started_again(&self) -> Node {
        let witness = self.history.witness;
        Node { history: History { known: witness, witness, ..History::default() }, ..Node::out() }
    }

    /// It has no row any more, and remembers.
    pub fn fenced(&self) -> Node {
        let history = History { remembers: true, ..self.history };
        Node { memory: self.memory.clone(), history, ..Node::out() }
    }

    /// Its memory may be used: it has been loaded and not been given up.
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
    /// What a verification finds at a node, or at the follower.
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

    /// Whatever waits for commits to be flushed.
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
