//! What is looked at together. Each scenario is small enough to be visited whole.

use super::{
    state::{FOLLOWER, OTHER},
    time::Terms,
};

/// A change that somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// By the holder of a token of this generation: raises it by one, if it is still that.
    Logout { client: usize, generation: u8 },
    /// Something that takes no token back.
    Touch { client: usize },
    /// A login, whose session is given the next id. The one with the first id is looked at in client 0's place.
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

/// What there is, and what may happen.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub terms: Terms,
    /// Whether real time since a snapshot is kept, for Inv2.
    pub ages: bool,
    /// Processes, and how many of them serve from the beginning.
    pub nodes: usize,
    pub serving: usize,
    /// Rows that there may ever be: how often somebody may join.
    pub rows: usize,
    pub leave: bool,
    pub crash: bool,
    pub gc: bool,
    /// What is asked for, and how often each may be tried.
    pub writes: &'static [Asked],
    pub tries: u8,
    /// The nodes that answer for them; those without one are answered for by a node that is not modelled.
    pub answerers: &'static [usize],
    /// Commits that may be on their way to the stand-by; 0 where there is none.
    pub log: usize,
    pub fail_over: bool,
    /// Commits are answered before the stand-by has them, and the first server dies when that is promoted.
    pub loses: bool,
    /// Client 0 is a session, which node 0 has opened on the first server, and which is not loaded with the rest.
    pub ids: bool,
    /// Nobody renews a lease before the fail-over, nor verifies anything; and nobody renews one in vain.
    pub quiet: bool,
    pub login: bool,
    pub refreshers: usize,
    /// Nodes may forget clients, as they do sessions.
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

    /// Nodes come, go and are killed.
    pub const fn membership() -> Scenario {
        Scenario { nodes: 2, rows: 2, leave: true, crash: true, gc: true, ..Scenario::base("membership") }
    }

    /// Commits wait for the stand-by.
    pub const fn replicated() -> Scenario {
        Scenario { ages: true, log: 2, ..Scenario::base("replicated") }
    }

    /// The stand-by is promoted, and has everything. Who believes in the old primary may join again and again.
    pub const fn fail_over() -> Scenario {
        Scenario { rows: 3, fail_over: true, ..Scenario::base("fail-over") }
    }

    /// And nodes forget, and ask.
    pub const fn questions() -> Scenario {
        Scenario { name: "questions", forget: true, login: true, ..Scenario::fail_over() }
    }

    /// The stand-by is promoted, and lacks what nobody was told of.
    pub const fn lost_commits() -> Scenario {
        let writes = &[LOGOUT, TOUCH];
        Scenario { name: "lost commits", rows: 2, writes, tries: 2, log: 2, ..Scenario::fail_over() }
    }

    /// The stand-by is promoted, and lacks what callers were told of.
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

    /// And nodes are killed and started again.
    pub const fn lost_memory() -> Scenario {
        Scenario { name: "lost answers and memory", crash: true, quiet: true, ..Scenario::lost_answers() }
    }

    /// And another change is made at the other node, before or after.
    pub const fn lost_order() -> Scenario {
        let writes = &[LOGOUT, OTHER_TOUCH];
        Scenario { name: "lost answers, two changes", writes, answerers: &[1, 0], ..Scenario::lost_memory() }
    }

    /// A session has just been opened; it is revoked, all of which is lost, and another one is opened.
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

    /// It may go over to another node.
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

    /// The scenarios that are always visited.
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

    /// More of each.
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

    /// Where tokens are verified.
    pub(super) fn verifiers(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.nodes).chain(self.follower.then_some(FOLLOWER))
    }

    pub(super) fn clients(&self) -> usize {
        self.writes.iter().map(|asked| asked.client() + 1).max().unwrap_or(1)
    }

    pub(super) fn logouts(&self) -> usize {
        self.writes.iter().filter(|asked| matches!(asked, Asked::Logout { .. })).count()
    }

    /// An age, as far as Inv2 must tell it.
    pub(super) fn age(&self, age: u8) -> u8 {
        if self.ages { age.min(self.terms.term + 1) } else { 0 }
    }
}
