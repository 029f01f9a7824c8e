//! The changes in their order, for followers in other processes.
//!
//! The log says *what* changed. The sender looks up the present value, which is as new or newer. A change is
//! numbered when the registry takes it over, before it is answered for.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use rescind_base::{
    ksuid,
    model::{ClientId, SessionId, UnixSeconds},
    random::Random,
};
use rescind_verifier::follow::wire::{EndedSession, Position};
use tokio::sync::watch;

/// The number of changes kept for followers that reconnect. A follower that missed more gets a snapshot.
const REMEMBERED: usize = 10_000;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// This client.
    Client(ClientId),
    /// This session, which ended before it expired.
    Session(EndedSession),
    /// The signing keys.
    Keys,
}

/// This process's feed.
#[derive(Debug, Default)]
pub struct Feed {
    log: Mutex<Log>,
    /// Notifies of the newest change's number.
    head: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Log {
    epoch: String,
    seq: u64,
    recent: VecDeque<Changed>,
    ended: HashMap<SessionId, UnixSeconds>,
}

impl Feed {
    /// An empty feed of a new epoch. `ended`: the sessions that ended before they expired, and have not
    /// expired yet.
    pub fn new(epoch: String, ended: Vec<EndedSession>) -> Feed {
        let log = Log { epoch, seq: 0, recent: VecDeque::new(), ended: by_session(ended) };
        Feed { log: Mutex::new(log), head: watch::Sender::new(0) }
    }

    /// Begins a new epoch. Every follower then needs a snapshot, because changes sent before may be lost.
    pub fn restart(&self, epoch: String, ended: Vec<EndedSession>) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        // The numbers skip one, so that no earlier acknowledgement is taken for one of a new change.
        *log = Log { epoch, seq: log.seq + 1, recent: VecDeque::new(), ended: by_session(ended) };
        self.head.send_replace(log.seq);
    }

    /// Numbers a change. A session's end is published once, however often its refresh token is presented
    /// again, unless it must be remembered longer. Returns whether the change was new.
    pub fn publish(&self, changed: Changed) -> bool {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Changed::Session(EndedSession { session, until }) = changed {
            if log.ended.get(&session).is_some_and(|&known| known >= until) {
                return false;
            }
            log.ended.insert(session, until);
        }
        log.seq += 1;
        log.recent.push_back(changed);
        if log.recent.len() > REMEMBERED {
            log.recent.pop_front();
        }
        self.head.send_replace(log.seq);
        true
    }

    /// The epoch, and the number of the newest change.
    pub fn head(&self) -> Position {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        Position { epoch: log.epoch.clone(), seq: log.seq }
    }

    /// A receiver that is notified of every change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// The changes after `seq`, in order. `None`: not all of them are kept.
    pub fn since(&self, seq: u64) -> Option<Vec<Changed>> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let missed = usize::try_from(log.seq.checked_sub(seq)?).ok()?;
        let known = log.recent.len().checked_sub(missed)?;
        Some(log.recent.range(known..).copied().collect())
    }

    /// The sessions that ended before they expired.
    pub fn ended(&self) -> Vec<EndedSession> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.ended.iter().map(|(&session, &until)| EndedSession { session, until }).collect()
    }

    /// Removes the ended sessions that have expired.
    pub fn sweep(&self, now: u64) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).ended.retain(|_, until| *until > now);
    }
}

fn by_session(ended: Vec<EndedSession>) -> HashMap<SessionId, UnixSeconds> {
    ended.into_iter().map(|ended| (ended.session, ended.until)).collect()
}

/// A random name for a new epoch of the feed.
pub fn new_epoch(random: &Random) -> String {
    ksuid::encode(&random.bytes()).map(char::from).iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_skipped() {
        let feed = Feed::new("e".into(), vec![]);
        for id in 1..=3 {
            feed.publish(Changed::Client(id));
        }
        let head = feed.head().seq;
        assert_eq!(feed.since(head - 2), Some(vec![Changed::Client(2), Changed::Client(3)]));
        assert_eq!(feed.since(head), Some(vec![]));
        // A number of another epoch, or a future one.
        assert_eq!(feed.since(head + 1), None);
        for _ in 0..REMEMBERED {
            feed.publish(Changed::Keys);
        }
        assert_eq!(feed.since(head - 1), None);
        assert_eq!(feed.since(head).map(|changes| changes.len()), Some(REMEMBERED));
    }

    #[test]
    fn nobody_follows_on_into_a_new_epoch() {
        let feed = Feed::new("e".into(), vec![]);
        feed.publish(Changed::Client(1));
        let before = feed.head();
        let changes = feed.subscribe();
        feed.restart("f".into(), vec![]);
        assert_eq!((feed.since(before.seq), changes.has_changed().unwrap()), (None, true));
        assert!(feed.head().seq > before.seq && feed.head().epoch == "f");
        assert_eq!(feed.since(feed.head().seq), Some(vec![]));
    }

    #[test]
    fn ended_sessions_are_kept_until_they_run_out() {
        let ended = |session, until| EndedSession { session, until };
        let feed = Feed::new("e".into(), vec![ended(1, 10)]);
        let head = feed.head().seq;
        for _ in 0..2 {
            feed.publish(Changed::Session(ended(2, 20)));
            feed.publish(Changed::Session(ended(1, 10)));
        }
        assert_eq!(feed.head().seq, head + 1);
        // One that must be remembered longer is published again, and no older answer shortens that.
        assert!(feed.publish(Changed::Session(ended(2, 30))));
        assert!(!feed.publish(Changed::Session(ended(2, 20))));
        assert_eq!(feed.since(head + 1), Some(vec![Changed::Session(ended(2, 30))]));
        feed.sweep(20);
        assert_eq!(feed.ended(), [ended(2, 30)]);
    }
}
