//! The scenarios. Each is small enough for the checker to visit every state.

use super::{
    state::{FOLLOWER, OTHER},
    time::Terms,
};

/// A requested change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A logout with a token of this generation: raises the client's generation by one, unless it is already higher.
    Logout { client: usize, generation: u8 },
    /// A change that revokes nothing.
    Touch { client: usize },
    /// A login, whose session gets the next id. The session with the first id takes the place of client 0.
    Open,
}

impl Asked {
    pub(super) fn client(self) -> usize {
        match self {
            Asked::Logout { client, .. } | Asked::Touch { client } => client,
            Asked::Open => 0,
        }
    }
}

const LOGOUT: Asked = Asked::Logout { client: 0, generation: 0 };
const SECOND_LOGOUT: Asked = Asked::Logout { client: 0, generation: 1 };
const OTHER_LOGOUT: Asked = Asked::Logout { client: 1, generation: 0 };
const TOUCH: Asked = Asked::Touch { client: 0 };
const OTHER_TOUCH: Asked = Asked::Touch { client: 1 };

/// The bounds of one run.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub terms: Terms,
    /// Whether the real time since a snapshot is recorded, for Inv2.
    pub ages: bool,
    /// The processes, and how many of them serve from the beginning.
    pub nodes: usize,
    pub serving: usize,
    /// The number of rows, which bounds how often nodes may join.
    pub rows: usize,
    pub leave: bool,
    pub crash: bool,
    pub gc: bool,
    /// The requested changes, and how often each may be tried.
    pub writes: &'static [Asked],
    pub tries: u8,
    /// The nodes that answer for the changes. A node outside the model answers for the others.
    pub answerers: &'static [usize],
    /// The most commits that may wait for the stand-by; 0 if there is no stand-by.
    pub log: usize,
    pub fail_over: bool,
    /// Commits are answered before the stand-by has them, and the first server dies when the stand-by is promoted.
    pub loses: bool,
    /// Client 0 is a session that node 0 has opened on the first server. It is not loaded with the rest.
    pub ids: bool,
    /// Before the fail-over no node renews or verifies, and no node renews without need.
    pub quiet: bool,
    pub login: bool,
    pub refreshers: usize,
    /// Nodes may drop clients from memory, as they do sessions.
    pub forget: bool,
    /// A process with an attached exact verifier.
    pub follower: bool,
}

impl Scenario {
    /// One node and a logout, on exact clocks.
    const fn base(name: &'static str) -> Scenario {
        Scenario {
            name,
            terms: Terms::EXACT,
            ages: false,
            nodes: 1,
            serving: 1,
            rows: 1,
            leave: false,
            crash: false,
            gc: false,
            writes: &[LOGOUT],
            tries: 1,
            answerers: &[],
            log: 0,
            fail_over: false,
            loses: false,
            ids: false,
            quiet: false,
            login: false,
            refreshers: 0,
            forget: false,
            follower: false,
        }
    }

    /// Every clock may run fast or slow at any time.
    pub const fn clocks() -> Scenario {
        Scenario { terms: Terms::drifting(4), ages: true, gc: true, ..Scenario::base("clocks") }
    }

    /// Two nodes renew.
    pub const fn renewals() -> Scenario {
        Scenario { nodes: 2, serving: 2, rows: 2, ages: true, ..Scenario::base("renewals") }
    }

    /// Two clients change at once.
    pub const fn feed() -> Scenario {
        Scenario { writes: &[LOGOUT, OTHER_LOGOUT], ..Scenario::base("feed") }
    }

    /// Nodes join, leave and are killed.
    pub const fn membership() -> Scenario {
        Scenario { nodes: 2, rows: 2, leave: true, crash: true, gc: true, ..Scenario::base("membership") }
    }

    /// Commits wait for the stand-by.
    pub const fn replicated() -> Scenario {
        Scenario { ages: true, log: 2, ..Scenario::base("replicated") }
    }

    /// The stand-by is promoted and has every commit. A node that uses the old primary may join repeatedly.
    pub const fn fail_over() -> Scenario {
        Scenario { rows: 3, fail_over: true, ..Scenario::base("fail-over") }
    }

    /// Like `fail_over`; in addition nodes drop clients and ask the store.
    pub const fn questions() -> Scenario {
        Scenario { name: "questions", forget: true, login: true, ..Scenario::fail_over() }
    }

    /// The stand-by is promoted and lacks commits that were not answered.
    pub const fn lost_commits() -> Scenario {
        let writes = &[LOGOUT, TOUCH];
        Scenario { name: "lost commits", rows: 2, writes, tries: 2, log: 2, ..Scenario::fail_over() }
    }

    /// The stand-by is promoted and lacks commits that were answered.
    pub const fn lost_answers() -> Scenario {
        Scenario {
            name: "lost answers",
            terms: Terms::COARSE,
            nodes: 2,
            serving: 2,
            rows: 4,
            answerers: &[0],
            log: 2,
            loses: true,
            ..Scenario::fail_over()
        }
    }

    /// Like `lost_answers`; in addition nodes are killed and started again.
    pub const fn lost_memory() -> Scenario {
        Scenario { name: "lost answers and memory", crash: true, quiet: true, ..Scenario::lost_answers() }
    }

    /// Like `lost_memory`; in addition the other node makes another change, before or after.
    pub const fn lost_order() -> Scenario {
        let writes = &[LOGOUT, OTHER_TOUCH];
        Scenario { name: "lost answers, two changes", writes, answerers: &[1, 0], ..Scenario::lost_memory() }
    }

    /// A session was just opened. It is revoked, both changes are lost, and another session is opened.
    pub const fn lost_ids() -> Scenario {
        let base = Scenario::lost_answers();
        let writes = &[LOGOUT, Asked::Open];
        Scenario { name: "lost ids", ids: true, writes, answerers: &[0, 1], quiet: true, ..base }
    }

    /// Two callers hold the same refresh token.
    pub const fn sessions() -> Scenario {
        let none = Scenario { nodes: 0, serving: 0, rows: 0, ..Scenario::lost_commits() };
        Scenario { name: "sessions", writes: &[LOGOUT], refreshers: 2, tries: 3, ..none }
    }

    /// A node has an exact verifier attached.
    pub const fn attached() -> Scenario {
        Scenario { leave: true, follower: true, ages: true, ..Scenario::base("attached") }
    }

    /// The attached verifier may change to another node.
    pub const fn attached_to_two() -> Scenario {
        Scenario {
            name: "attached to two",
            terms: Terms::COARSE,
            nodes: 2,
            serving: 2,
            rows: 2,
            ages: false,
            leave: false,
            ..Scenario::attached()
        }
    }

    /// The scenarios of every run.
    pub fn quick() -> Vec<Scenario> {
        vec![
            Scenario::clocks(),
            Scenario::renewals(),
            Scenario::feed(),
            Scenario::membership(),
            Scenario::replicated(),
            Scenario::fail_over(),
            Scenario::questions(),
            Scenario::lost_commits(),
            Scenario::lost_answers(),
            Scenario::lost_memory(),
            Scenario::sessions(),
            Scenario::attached(),
        ]
    }

    /// Larger scenarios.
    pub fn long() -> Vec<Scenario> {
        let (renewals, membership) = (Scenario::renewals(), Scenario::membership());
        let (lost, attached) = (Scenario::lost_commits(), Scenario::attached());
        let logouts = &[LOGOUT, SECOND_LOGOUT];
        vec![
            Scenario { name: "renewals of three", nodes: 3, serving: 3, rows: 3, ages: false, ..renewals },
            Scenario { name: "feed, two generations", login: true, writes: logouts, ..Scenario::feed() },
            Scenario { name: "membership, rejoining", rows: 3, ..membership },
            Scenario { name: "lost commits, questions", forget: true, tries: 1, ..lost },
            Scenario { name: "attached, clocks", terms: Terms::drifting(2), leave: false, ..attached },
            Scenario { name: "attached, rejoining", rows: 2, crash: true, gc: true, ..attached },
            Scenario::attached_to_two(),
            Scenario { name: "fail-over of two", nodes: 2, serving: 2, rows: 4, ..Scenario::fail_over() },
            Scenario { name: "fail-over, attached", follower: true, leave: true, ..Scenario::fail_over() },
            Scenario { name: "lost commits, attached", follower: true, tries: 1, ..lost },
            Scenario { name: "attached, clocks 3", terms: Terms::drifting(3), ..attached },
            Scenario::lost_order(),
            Scenario::lost_ids(),
        ]
    }

    /// The clocks that may run fast or slow, one bit each.
    pub(super) fn clocks_looked_at(&self) -> u8 {
        let follower = if self.follower { 1 << FOLLOWER } else { 0 };
        ((1 << self.nodes) - 1) | follower | (1 << OTHER)
    }

    /// The places where tokens are verified.
    pub(super) fn verifiers(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.nodes).chain(self.follower.then_some(FOLLOWER))
    }

    pub(super) fn clients(&self) -> usize {
        self.writes.iter().map(|asked| asked.client() + 1).max().unwrap_or(1)
    }

    pub(super) fn logouts(&self) -> usize {
        self.writes.iter().filter(|asked| matches!(asked, Asked::Logout { .. })).count()
    }

    /// An age, limited to the values that Inv2 distinguishes.
    pub(super) fn age(&self, age: u8) -> u8 {
        if self.ages { age.min(self.terms.term + 1) } else { 0 }
    }
}
