//! The effect of one client's logouts on its tokens, as far as the history shows it.

use std::sync::Arc;

use super::report::Seen;

/// A session: a login and every pair that descends from it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: usize,
    pub(super) login: Arc<Seen>,
    /// When the newest pair was given.
    pub(super) moved_on: u64,
    /// Any of the session's tokens may be refused: a pair was presented for refresh twice, a revocation was
    /// requested, or results were lost.
    pub(super) contested: bool,
    /// The first revocation of the session that was answered 200.
    pub(super) revoked: Option<Arc<Seen>>,
}

impl Session {
    pub(super) fn opened(login: Seen, client: usize) -> Session {
        Session { client, moved_on: login.end, login: Arc::new(login), contested: false, revoked: None }
    }
}

/// The newest generation that a logout can revoke: that of the requesting token, if known. Without it, or for
/// an operator, every generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reach(u64);

impl Reach {
    pub(super) fn of(generation: Option<u64>) -> Reach {
        Reach(generation.unwrap_or(u64::MAX))
    }

    pub(super) fn includes(self, generation: Option<u64>) -> bool {
        generation.is_none_or(|generation| generation <= self.0)
    }
}

/// The logouts of a client.
#[derive(Debug, Default)]
pub(super) struct Logouts {
    /// The logouts answered 200, in the order of their ends.
    accepted: Vec<Accepted>,
    /// The reach of the logouts that may have been executed, or may still be.
    doubtful: Option<Reach>,
    /// The generations that the client had certainly reached, each with the time. Both increase.
    reached: Vec<(u64, u64)>,
}

#[derive(Debug)]
struct Accepted {
    logout: Arc<Seen>,
    reach: Reach,
    /// The logout that began last, of this one and those before: it revoked every session open by then.
    latest: Arc<Seen>,
    /// The newest generation certainly revoked by this logout or those before, and the logout that did it.
    dead: Option<(u64, Arc<Seen>)>,
}

impl Logouts {
    /// Records that a pair of this generation existed at `end`.
    pub(super) fn reached(&mut self, end: u64, generation: u64) {
        if self.reached.last().is_none_or(|&(_, newest)| newest < generation) {
            self.reached.push((end, generation));
        }
    }

    /// Records a logout answered 200. `generation`: that of the requesting token.
    pub(super) fn accept(&mut self, logout: Seen, generation: Option<u64>) {
        let logout = Arc::new(logout);
        // The logout has raised the client's generation above the one present when it began, and above that
        // of the requesting token.
        let before = self.reached.partition_point(|&(end, _)| end < logout.begin);
        let reached = before.checked_sub(1).map(|last| self.reached[last].1);
        let mut dead = generation.max(reached).map(|newest| (newest, Arc::clone(&logout)));
        let mut latest = Arc::clone(&logout);
        if let Some((newest, _)) = dead {
            self.reached(logout.end, newest + 1);
        }
        if let Some(last) = self.accepted.last() {
            if last.latest.begin > latest.begin {
                latest = Arc::clone(&last.latest);
            }
            if last.dead.as_ref().map(|(newest, _)| newest) >= dead.as_ref().map(|(newest, _)| newest) {
                dead = last.dead.clone();
            }
        }
        self.accepted.push(Accepted { logout, reach: Reach::of(generation), latest, dead });
    }

    /// Records a logout that may or may not have been executed.
    pub(super) fn doubt(&mut self, generation: Option<u64>) {
        self.doubtful = self.doubtful.max(Some(Reach::of(generation)));
    }

    /// The logout or revocation that was answered before `begin` and certainly revoked this session and
    /// generation.
    pub(super) fn revoked_before<'s>(
        &'s self,
        begin: u64,
        session: &'s Session,
        generation: Option<u64>,
    ) -> Option<&'s Arc<Seen>> {
        if let Some(revoked) = session.revoked.as_ref().filter(|revoked| revoked.end < begin) {
            return Some(revoked);
        }
        let answered = self.accepted.partition_point(|accepted| accepted.logout.end < begin);
        let last = &self.accepted[answered.checked_sub(1)?];
        if session.login.end < last.latest.begin {
            return Some(&last.latest);
        }
        last.dead.as_ref().filter(|(newest, _)| generation.is_some_and(|g| g <= *newest)).map(|(_, by)| by)
    }

    /// Whether a logout so far may explain the refusal of such a token now.
    pub(super) fn may_have_revoked(&self, session: &Session, generation: Option<u64>) -> bool {
        let since = self.accepted.iter().rev().take_while(|a| a.logout.end >= session.login.begin);
        since.map(|accepted| accepted.reach).chain(self.doubtful).any(|reach| reach.includes(generation))
    }
}
