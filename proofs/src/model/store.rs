//! PostgreSQL as the protocol needs it: a primary, and one synchronous stand-by that may be promoted.

/// The clients of the model.
pub(super) const CLIENTS: usize = 2;
/// The number of changes that the feed has room for.
pub(super) const CHANGES: usize = 6;
/// The number of node rows.
pub(super) const ROWS: usize = 5;

/// The content of one server at one position of its log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Content {
    /// `head`: the number of the last change.
    pub head: u8,
    /// `change`: which client changed, and to which revision.
    pub changes: [Option<Changed>; CHANGES],
    /// The clients' rows.
    pub clients: [Policy; CLIENTS],
    /// `node`, by id.
    pub rows: [Row; ROWS],
    /// The one session that is refreshed in the model.
    pub session: Session,
    /// How many session ids have been given.
    pub given: u8,
    /// `lost`: the known loss of the first server's history.
    pub lost: Lost,
}

/// The repair of a history that has lost changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lost {
    /// Every change up to this one was repeated, from a node's memory.
    pub repeated: u8,
    /// No node remembered: every earlier token was revoked.
    pub ended: bool,
}

/// A row of `change`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Changed {
    pub client: u8,
    pub revision: u8,
    /// The committing server, which is unique for this number. (Used only if commits can be lost.)
    pub mark: Server,
}

/// The newest change that a process knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Known {
    pub seq: u8,
    pub mark: Server,
}

/// A client's row, and a node's copy of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Counts the changes, and so distinguishes newer from older. 0: there is no row.
    pub revision: u8,
    /// Raised by a logout.
    pub generation: u8,
}

/// A client after its creation, or the session in its place after its login.
pub(super) const OPENED: Policy = Policy { revision: 1, generation: 0 };

impl Policy {
    pub fn is_there(self) -> bool {
        self.revision > 0
    }
}

/// The state of a node's row. Ids are given in order and never again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Row {
    #[default]
    Never,
    Present {
        acked: u8,
        beat: u8,
    },
    Gone,
}

/// A session of client 0 with generation 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Session {
    pub pair: u8,
    pub ended: bool,
}

impl Content {
    /// Records a change of a client, with the next number.
    pub fn change(&mut self, client: usize, logout: bool, mark: Server) {
        self.change_as(self.head + 1, client, logout, mark);
    }

    /// Records a change with a number that was drawn before, as from a sequence.
    pub fn change_as(&mut self, seq: u8, client: usize, logout: bool, mark: Server) {
        let policy = &mut self.clients[client];
        policy.revision += 1;
        policy.generation += u8::from(logout);
        let revision = policy.revision;
        self.changes[usize::from(seq) - 1] = Some(Changed { client: client as u8, revision, mark });
        self.head = self.head.max(seq);
    }

    /// The newest change.
    pub fn newest(&self) -> Known {
        self.known(self.head)
    }

    /// The newest change up to this number.
    pub fn known(&self, seq: u8) -> Known {
        let changes = self.changes.iter().take(usize::from(seq)).enumerate();
        let newest = changes.filter_map(|(at, change)| Some((at, change.as_ref()?))).next_back();
        newest.map_or_else(Known::default, |(at, change)| Known { seq: at as u8 + 1, mark: change.mark })
    }

    /// Whether the content has this change, and so every change before.
    pub fn has(&self, known: Known) -> bool {
        known.seq == 0 || self.known(known.seq) == known
    }

    /// The ids of all present rows, one bit each.
    pub fn listed(&self) -> u8 {
        let present = (0..ROWS).filter(|&id| matches!(self.rows[id], Row::Present { .. }));
        present.fold(0, |ids, id| ids | 1 << id)
    }

    /// Whether every one of these ids has acknowledged `head`, or has no row.
    pub fn acked(&self, ids: u8, head: u8) -> bool {
        (0..ROWS)
            .filter(|id| ids & 1 << id != 0)
            .all(|id| !matches!(self.rows[id], Row::Present { acked, .. } if acked < head))
    }
}

/// The first primary, and the stand-by that may be promoted: the two timelines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Server {
    #[default]
    First,
    Second,
}

/// Both servers. A commit is visible on the first as soon as it is in the log. It may be answered when the
/// stand-by has flushed it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// The first server's content after each commit, from the one that the stand-by shows to the newest.
    log: Vec<Content>,
    /// How many of these the stand-by has flushed and does not show yet.
    unshown: u8,
    /// The second server's content after its promotion.
    promoted: Option<Content>,
    /// Commits do not wait for the stand-by, and the first server dies when the stand-by is promoted.
    loses: bool,
}

/// The result of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The commit waits until the stand-by has flushed this many more commits.
    Waits(u8),
    /// The commit will never be replicated: the server was replaced, and does not know it.
    Unconfirmed,
}

impl Store {
    pub fn new(content: Content, loses: bool) -> Store {
        Store { log: vec![content], unshown: 0, promoted: None, loses }
    }

    pub fn promoted(&self) -> bool {
        self.promoted.is_some()
    }

    /// The servers that report to be primary. The first never notices that it was replaced, unless it is dead.
    pub fn servers(&self) -> impl Iterator<Item = Server> + use<> {
        let first = !(self.loses && self.promoted());
        [first.then_some(Server::First), self.promoted().then_some(Server::Second)].into_iter().flatten()
    }

    /// A server's content. Before the fail-over the second server cannot be asked.
    pub fn at(&self, server: Server) -> &Content {
        match (server, &self.promoted) {
            (Server::Second, Some(content)) => content,
            _ => &self.log[self.log.len() - 1],
        }
    }

    /// The content that the stand-by shows, or has after its promotion.
    pub fn standby(&self) -> &Content {
        self.promoted.as_ref().unwrap_or(&self.log[0])
    }

    /// The content that every future primary has.
    pub fn durable(&self) -> &Content {
        self.promoted.as_ref().unwrap_or(&self.log[usize::from(self.unshown)])
    }

    /// The number of commits that the stand-by has not flushed.
    pub fn unflushed(&self) -> usize {
        if self.promoted() { 0 } else { self.log.len() - 1 - usize::from(self.unshown) }
    }

    /// The number of commits that the stand-by has flushed and does not show.
    pub fn unshown(&self) -> u8 {
        self.unshown
    }

    /// Runs a transaction on a server up to its local commit. `replicated` is false if no stand-by is modelled.
    pub fn commit(
        &mut self,
        server: Server,
        replicated: bool,
        transaction: impl FnOnce(&mut Content),
    ) -> Outcome {
        match (server, &mut self.promoted) {
            (Server::Second, Some(content)) => {
                transaction(content);
                Outcome::Waits(0)
            }
            (_, Some(_)) => {
                let last = self.log.len() - 1;
                transaction(&mut self.log[last]);
                Outcome::Unconfirmed
            }
            (_, None) if replicated => {
                let mut content = self.at(server).clone();
                transaction(&mut content);
                self.log.push(content);
                Outcome::Waits(if self.loses { 0 } else { self.unflushed() as u8 })
            }
            (_, None) => {
                transaction(&mut self.log[0]);
                Outcome::Waits(0)
            }
        }
    }

    /// The stand-by flushes one more commit, and shows it at once unless it lags.
    pub fn flush(&mut self, lags: bool) {
        self.unshown += 1;
        if !lags {
            self.show();
        }
    }

    /// The stand-by shows one more commit.
    pub fn show(&mut self) {
        self.unshown -= 1;
        self.log.remove(0);
    }

    /// The stand-by becomes primary, with the commits that it has flushed.
    pub fn promote(&mut self) {
        self.promoted = Some(self.durable().clone());
        self.log.drain(..self.log.len() - 1);
        self.unshown = 0;
        if self.loses {
            // No step reads these rows again.
            self.log[0].rows = Default::default();
        }
    }

    /// All contents, for code that treats them alike.
    pub fn contents(&self) -> impl Iterator<Item = &Content> {
        self.log.iter().chain(&self.promoted)
    }

    pub fn contents_mut(&mut self) -> impl Iterator<Item = &mut Content> {
        self.log.iter_mut().chain(&mut self.promoted)
    }
}
