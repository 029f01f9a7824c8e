//! PostgreSQL, as far as the protocol leans on it: a primary, and one synchronous stand-by that may be promoted.

/// Clients of the model.
pub(super) const CLIENTS: usize = 2;
/// Changes that the feed has room for.
pub(super) const CHANGES: usize = 6;
/// Node rows that there may ever be.
pub(super) const ROWS: usize = 5;

/// What one server shows at one place of its log.
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
    /// The one session whose refreshing is looked at.
    pub session: Session,
    /// So many ids of sessions have been given.
    pub given: u8,
    /// `lost`: what is known to be missing of the first server's history.
    pub lost: Lost,
}

/// What was done about a history of which something was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lost {
    /// Every change up to this one was done again, from somebody's memory.
    pub repeated: u8,
    /// Nobody remembered: every token from before was ended.
    pub ended: bool,
}

/// A row of `change`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Changed {
    pub client: u8,
    pub revision: u8,
    /// Where it was committed: no other change of its number has the same. (Only told where commits are lost.)
    pub mark: Server,
}

/// The newest change that a process knows of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Known {
    pub seq: u8,
    pub mark: Server,
}

/// A client's row, and what a node remembers of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Counts the changes; tells newer from older. 0: it is not there.
    pub revision: u8,
    /// Raised by logout.
    pub generation: u8,
}

/// A client as it was made, or a session in its place as it was opened.
pub(super) const OPENED: Policy = Policy { revision: 1, generation: 0 };

impl Policy {
    pub fn is_there(self) -> bool {
        self.revision > 0
    }
}

/// A place for a node's row. Ids are given in order and never again.
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

/// A session of client 0, born under generation 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Session {
    pub pair: u8,
    pub ended: bool,
}

impl Content {
    /// Records that a client has changed, as the next of all changes.
    pub fn change(&mut self, client: usize, logout: bool, mark: Server) {
        self.change_as(self.head + 1, client, logout, mark);
    }

    /// The same under a number that was drawn before, as a sequence would give it.
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

    /// The newest up to this number.
    pub fn known(&self, seq: u8) -> Known {
        let changes = self.changes.iter().take(usize::from(seq)).enumerate();
        let newest = changes.filter_map(|(at, change)| Some((at, change.as_ref()?))).next_back();
        newest.map_or_else(Known::default, |(at, change)| Known { seq: at as u8 + 1, mark: change.mark })
    }

    /// It has this change, and so every one before.
    pub fn has(&self, known: Known) -> bool {
        known.seq == 0 || self.known(known.seq) == known
    }

    /// The ids of all rows that are there, one bit each.
    pub fn listed(&self) -> u8 {
        let present = (0..ROWS).filter(|&id| matches!(self.rows[id], Row::Present { .. }));
        present.fold(0, |ids, id| ids | 1 << id)
    }

    /// Every one of these ids has acknowledged this much, or is gone.
    pub fn acked(&self, ids: u8, head: u8) -> bool {
        (0..ROWS)
            .filter(|id| ids & 1 << id != 0)
            .all(|id| !matches!(self.rows[id], Row::Present { acked, .. } if acked < head))
    }
}

/// The server that was primary from the beginning, and the stand-by that may be promoted: the two timelines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Server {
    #[default]
    First,
    Second,
}

/// Both servers. A commit is visible on the first as soon as it is in its log, and may be answered when the stand-by
/// has flushed it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// The first server's content: last as it is now, and before that as it was after each commit since the one that
    /// the stand-by shows.
    log: Vec<Content>,
    /// So many of those has the stand-by flushed and does not show yet.
    unshown: u8,
    /// The second server's content, once it was promoted.
    promoted: Option<Content>,
    /// Commits do not wait for the stand-by, and the first server is dead when that is promoted.
    loses: bool,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It waits until the stand-by has flushed so many more.
    Waits(u8),
    /// Nobody will ever replicate it: the server has been replaced and does not know.
    Unconfirmed,
}

impl Store {
    pub fn new(content: Content, loses: bool) -> Store {
        Store { log: vec![content], unshown: 0, promoted: None, loses }
    }

    pub fn promoted(&self) -> bool {
        self.promoted.is_some()
    }

    /// The servers that say they are primary. The first never notices that it was replaced, unless it is dead.
    pub fn servers(&self) -> impl Iterator<Item = Server> + use<> {
        let first = !(self.loses && self.promoted());
        [first.then_some(Server::First), self.promoted().then_some(Server::Second)].into_iter().flatten()
    }

    /// What a server shows; before the fail-over, the second is not there to be asked.
    pub fn at(&self, server: Server) -> &Content {
        match (server, &self.promoted) {
            (Server::Second, Some(content)) => content,
            _ => &self.log[self.log.len() - 1],
        }
    }

    /// What the stand-by shows, or the server that it has become.
    pub fn standby(&self) -> &Content {
        self.promoted.as_ref().unwrap_or(&self.log[0])
    }

    /// What every future primary has.
    pub fn durable(&self) -> &Content {
        self.promoted.as_ref().unwrap_or(&self.log[usize::from(self.unshown)])
    }

    /// Commits that the stand-by has not flushed.
    pub fn unflushed(&self) -> usize {
        if self.promoted() { 0 } else { self.log.len() - 1 - usize::from(self.unshown) }
    }

    /// Commits that it has flushed and does not show.
    pub fn unshown(&self) -> u8 {
        self.unshown
    }

    /// Runs a transaction on a server up to its local commit. `replicated` is false where no stand-by is modelled.
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

    /// The stand-by flushes one commit more, and shows it at once unless it lags.
    pub fn flush(&mut self, lags: bool) {
        self.unshown += 1;
        if !lags {
            self.show();
        }
    }

    /// The stand-by shows one commit more.
    pub fn show(&mut self) {
        self.unshown -= 1;
        self.log.remove(0);
    }

    /// The stand-by becomes primary, with what it has flushed.
    pub fn promote(&mut self) {
        self.promoted = Some(self.durable().clone());
        self.log.drain(..self.log.len() - 1);
        self.unshown = 0;
        if self.loses {
            // Nobody will look at these again.
            self.log[0].rows = Default::default();
        }
    }

    /// Every content that there is, for what must treat all alike.
    pub fn contents(&self) -> impl Iterator<Item = &Content> {
        self.log.iter().chain(&self.promoted)
    }

    pub fn contents_mut(&mut self) -> impl Iterator<Item = &mut Content> {
        self.log.iter_mut().chain(&mut self.promoted)
    }
}
