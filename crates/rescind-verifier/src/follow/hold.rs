//! Tokens that hold connections open: who looked at a token once, when the connection was opened, learns here when
//! the token is refused.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::yield_now,
    time::{Instant, sleep, timeout_at},
};

use super::{Follower, Shared, clock};
use crate::{Denied, VerifiedToken};

/// For how long a change waits, at most, for the connections that it ends.
const CLOSING: Duration = Duration::from_secs(2);
/// How many tokens are checked before other tasks have their turn: the signatures too, of those that are not cached.
const AT_A_TIME: usize = 64;

/// A token that holds a connection open. Made by [`Follower::hold`].
///
/// Wait for [`ended`](Hold::ended), close the connection, and then drop this. An exact follower acknowledges a change
/// when every hold that the change ended was dropped, or two seconds have passed. So when a server has answered a
/// logout, the connections are closed.
///
/// The feed does not end before the last hold is dropped.
#[derive(Debug)]
pub struct Hold {
    follower: Follower,
    number: u64,
    held: Arc<Held>,
    token: VerifiedToken,
}

/// The tokens that hold connections open.
#[derive(Debug, Default)]
pub(super) struct Holds {
    held: Mutex<Numbered>,
    /// Sent when a hold was dropped.
    dropped: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Numbered {
    last: u64,
    held: HashMap<u64, Arc<Held>>,
}

struct Held {
    text: Box<str>,
    caller: Option<IpAddr>,
    /// Why a change ended this. It stays, whatever comes after: an ended hold is not waited for twice.
    refused: OnceLock<Denied>,
    /// Notified when `refused` is set.
    told: Notify,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("caller", &self.caller).finish_non_exhaustive()
    }
}

impl Hold {
    pub(super) fn new(follower: &Follower, text: &str, caller: Option<IpAddr>) -> Result<Hold, Denied> {
        let token = follower.verify(text, caller)?;
        let held = Held { text: text.into(), caller, refused: OnceLock::new(), told: Notify::new() };
        let held = Arc::new(held);
        let number = follower.shared.holds.put(Arc::clone(&held));
        let hold = Hold { follower: follower.clone(), number, held, token };
        // Again, because a change may have come before the hold was there to be ended.
        follower.shared.decide(text, caller, clock::wall())?;
        Ok(hold)
    }

    /// The token, as it was when the connection was opened.
    pub fn token(&self) -> &VerifiedToken {
        &self.token
    }

    /// Waits until the token is refused, and returns why: it was revoked or has expired, its client may no longer
    /// call from that address, or the follower may be out of date ([`Denied::Stale`]).
    pub async fn ended(&mut self) -> Denied {
        loop {
            if let Some(&denied) = self.held.refused.get() {
                return denied;
            }
            let shared = &self.follower.shared;
            if let Err(denied) = shared.decide(&self.held.text, self.held.caller, clock::wall()) {
                return denied;
            }
            let expires = Duration::from_secs(self.token.claims().expires_at.saturating_sub(clock::wall()));
            let stale = self.follower.shared.fresh_for();
            tokio::select! {
                () = self.held.told.notified() => {}
                () = sleep(expires.min(stale)) => {}
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.follower.shared.holds.remove(&[self.number]);
    }
}

impl Holds {
    fn lock(&self) -> MutexGuard<'_, Numbered> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, held: Arc<Held>) -> u64 {
        let mut holds = self.lock();
        holds.last += 1;
        let number = holds.last;
        holds.held.insert(number, held);
        number
    }

    fn remove(&self, numbers: &[u64]) {
        let mut holds = self.lock();
        for number in numbers {
            holds.held.remove(number);
        }
        drop(holds);
        self.dropped.send_replace(());
    }
}

/// Holds that were ended, and until when they are waited for.
pub(super) struct Ended {
    numbers: Vec<u64>,
    until: Instant,
}

/// Ends the holds whose tokens are refused now. Those that were ended before and are not dropped yet are returned too.
pub(super) async fn end_refused(shared: &Shared) -> Ended {
    let all: Vec<_> =
        shared.holds.lock().held.iter().map(|(&number, held)| (number, Arc::clone(held))).collect();
    let mut numbers = Vec::new();
    for some in all.chunks(AT_A_TIME) {
        for (number, held) in some {
            if held.refused.get().is_none() {
                let verdict = shared.decide(&held.text, held.caller, clock::wall());
                let Err(denied) = verdict else { continue };
                let _ = held.refused.set(denied);
                held.told.notify_one();
            }
            numbers.push(*number);
        }
        yield_now().await;
    }
    Ended { numbers, until: Instant::now() + CLOSING }
}

impl Ended {
    /// Waits until they are dropped, but not for ever. Nobody waits for them after that.
    pub(super) async fn closed(&self, shared: &Shared) {
        let holds = &shared.holds;
        let mut dropped = holds.dropped.subscribe();
        let all_dropped = dropped.wait_for(|()| {
            let held = &holds.lock().held;
            self.numbers.iter().all(|number| !held.contains_key(number))
        });
        if timeout_at(self.until, all_dropped).await.is_err() {
            holds.remove(&self.numbers);
        }
    }
}
