//! Detects clients that do not cache their tokens: they log in for nearly every request.
//!
//! Each client is judged over ten minutes from a login on, and flagged if three conditions hold:
//!
//! 1. It logged in at least 60 times. With tokens that are valid for an hour, 360 processes that cache them
//!    log in as often.
//! 2. There were fewer than three verifications per login: a login, a request and a logout make two.
//! 3. Its tokens are verified here. Verifications on other nodes and followers are not seen here. So either
//!    this process is the only verifier, or at least every second login was followed by a verification here.
//!
//! An introspection is not counted as a verification, because who asks may keep the answer: one answer stands for any
//! number of requests. So a client whose tokens are introspected is one whose tokens are verified elsewhere too.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rescind_base::model::ClientId;

const WINDOW: Duration = Duration::from_secs(600);
const LOGINS: u64 = 60;
const ENOUGH: u64 = 3;
/// The time within which a flagged client is not flagged again.
const AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// The clients that logged in lately.
#[derive(Debug, Default)]
pub struct UncachedLogins(Mutex<Clients>);

#[derive(Debug, Default)]
struct Clients {
    windows: HashMap<ClientId, Window>,
    flagged_at: HashMap<ClientId, Duration>,
}

#[derive(Debug)]
struct Window {
    since: Duration,
    logins: u64,
    /// The client's verifications at the begin of the window.
    verifications_before: u64,
    introspections: u64,
}

/// A client that does not cache its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flagged {
    pub client: ClientId,
    pub logins: u64,
    pub verifications: u64,
}

impl UncachedLogins {
    /// Counts a login of a client with `verifications` so far.
    pub fn logged_in(&self, client: ClientId, verifications: u64, now: Duration) {
        let window =
            || Window { since: now, logins: 0, verifications_before: verifications, introspections: 0 };
        self.lock().windows.entry(client).or_insert_with(window).logins += 1;
    }

    /// Counts a verification that was an introspection.
    pub fn introspected(&self, client: ClientId) {
        if let Some(window) = self.lock().windows.get_mut(&client) {
            window.introspections += 1;
        }
    }

    /// Returns the clients that did not cache their tokens in a window that has ended, unless flagged lately.
    /// A window is open until this call. `verifications`: a client's count; `all_seen`: this process is the
    /// only verifier.
    pub fn judge(
        &self,
        now: Duration,
        verifications: impl Fn(ClientId) -> u64,
        all_seen: bool,
    ) -> Vec<Flagged> {
        let judged =
            self.ended(now).into_iter().filter_map(|(client, window)| {
                let Window { logins, verifications_before, introspections, .. } = window;
                let verifications =
                    verifications(client).saturating_sub(verifications_before + introspections);
                let all_seen = all_seen && introspections == 0;
                (is_neglect(logins, verifications, all_seen) && self.is_news(client, now))
                    .then_some(Flagged { client, logins, verifications })
            });
        judged.collect()
    }

    /// Removes and returns the windows that have ended, with their clients.
    fn ended(&self, now: Duration) -> Vec<(ClientId, Window)> {
        self.lock().windows.extract_if(|_, window| window.since + WINDOW <= now).collect()
    }

    /// Whether a client was not flagged lately. Records that it is flagged now.
    fn is_news(&self, client: ClientId, now: Duration) -> bool {
        let flagged_at = &mut self.lock().flagged_at;
        flagged_at.retain(|_, at| *at + AGAIN_AFTER > now);
        let is_news = !flagged_at.contains_key(&client);
        flagged_at.entry(client).or_insert(now);
        is_news
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_neglect(logins: u64, verifications: u64, all_seen: bool) -> bool {
    logins >= LOGINS && verifications < ENOUGH * logins && (all_seen || 2 * verifications >= logins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_for_each_request_is_neglect_and_a_token_used_often_is_not() {
        for (logins, verifications, all_seen, neglect) in [
            (60, 60, true, true),
            (60, 60, false, true),
            // With a logout each, or two requests.
            (60, 120, true, true),
            (60, 179, false, true),
            (60, 180, true, false),
            (59, 59, true, false),
            (1000, 100_000, true, false),
            // A token that is not used here may be used elsewhere, unless this process is the only verifier.
            (1000, 0, true, true),
            (1000, 0, false, false),
            (1000, 499, false, false),
            (1000, 500, false, true),
        ] {
            let judged = is_neglect(logins, verifications, all_seen);
            assert_eq!(judged, neglect, "{logins} {verifications} {all_seen}");
        }
    }

    #[test]
    fn nothing_is_remembered_for_longer_than_it_counts() {
        let (caching, at) = (UncachedLogins::default(), Duration::from_secs);
        for client in 0..100 {
            caching.logged_in(client, 7, at(0));
            caching.logged_in(client, 8, at(599));
        }
        assert!(caching.ended(at(599)).is_empty());
        let ended = caching.ended(at(600));
        assert!(
            ended.len() == 100 && ended.iter().all(|(_, w)| (w.logins, w.verifications_before) == (2, 7))
        );
        assert!(caching.lock().windows.is_empty());
        assert!(caching.is_news(1, at(600)) && !caching.is_news(1, at(4199)));
        assert!(caching.is_news(2, at(4200)) && caching.is_news(1, at(4200)));
        assert!(caching.is_news(3, at(8000)));
        assert_eq!(caching.lock().flagged_at.len(), 1);
    }
}
