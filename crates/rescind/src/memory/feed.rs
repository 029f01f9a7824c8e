//! The order of changes, for verifiers in other processes to follow.
//!
//! The log says *what* changed, not how: whoever sends it looks up how it is now, which is as new
//! or newer. Changes are numbered where the registry takes them over, before they are answered for.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use rescind_verifier::follow::wire::{EndedSession, Position};
use tokio::sync::watch;

use crate::{
    ksuid,
    model::{ClientId, SessionId, UnixSeconds},
    random::Random,
};

/// So many changes are remembered for followers that come back. Whoever missed more gets a snapshot.
const REMEMBERED: usize = 10_000;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// This client.
    Client(ClientId),
    /// This session ended before its time.
    Session(EndedSession),
    /// The signing keys.
    Keys,
}

/// This process's feed.
#[derive(Debug)]
pub struct Feed {
    log: Mutex<Log>,
    /// Rings with the number of the newest change.
    head: watch::Sender<u64>,
}

#[derive(Debug)]
struct Log {
    epoch: String,
    seq: u64,
    recent: VecDeque<Changed>,
    ended: HashMap<SessionId, UnixSeconds>,
}

impl Feed {
    /// An empty feed of a new epoch. `ended` are the sessions that ended before their time, and have
    /// not run out yet.
    pub fn new(epoch: String, ended: Vec<EndedSession>) -> Feed {
        let log = Log { epoch, seq: 0, recent: VecDeque::new(), ended: by_session(ended) };
        Feed { log: Mutex::new(log), head: watch::Sender::new(0) }
    }

    /// Begins a new epoch: whoever follows needs a snapshot, for what was told may not have been so.
    pub fn restart(&self, epoch: String, ended: Vec<EndedSession>) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        // The numbers go on, and past a gap: no acknowledgement of before is one of what comes.
        *log = Log { epoch, seq: log.seq + 1, recent: VecDeque::new(), ended: by_session(ended) };
        self.head.send_replace(log.seq);
    }

    /// Numbers a change. That a session ended is one once: whoever still has its refresh token may
    /// present that as often as they like. Returns whether it is news.
    pub fn publish(&self, changed: Changed) -> bool {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Changed::Session(EndedSession { session, until }) = changed
            && log.ended.insert(session, until).is_some()
        {
            return false;
        }
        log.seq += 1;
        log.recent.push_back(changed);
        if log.recent.len() > REMEMBERED {
            log.recent.pop_front();
        }
        self.head.send_replace(log.seq);
        true
    }

    /// Where it is.
    pub fn head(&self) -> Position {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        Position { epoch: log.epoch.clone(), seq: log.seq }
    }

    /// Rings when there is more.
    pub fn bell(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// The changes after `seq`, in order. `None`: not all of them are remembered.
    pub fn since(&self, seq: u64) -> Option<Vec<Changed>> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let missed = usize::try_from(log.seq.checked_sub(seq)?).ok()?;
        let known = log.recent.len().checked_sub(missed)?;
        Some(log.recent.range(known..).copied().collect())
    }

    /// The sessions that ended before their time.
    pub fn ended(&self) -> Vec<EndedSession> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.ended.iter().map(|(&session, &until)| EndedSession { session, until }).collect()
    }

    /// Forgets the ended sessions that have run out.
    pub fn sweep(&self, now: u64) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).ended.retain(|_, until| *until > now);
    }
}

fn by_session(ended: Vec<EndedSession>) -> HashMap<SessionId, UnixSeconds> {
    ended.into_iter().map(|ended| (ended.session, ended.until)).collect()
}

/// A name for a new beginning of the feed.
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
        // From another epoch, or from the future.
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
        let bell = feed.bell();
        feed.restart("f".into(), vec![]);
        assert_eq!((feed.since(before.seq), bell.has_changed().unwrap()), (None, true));
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
        feed.sweep(10);
        assert_eq!(feed.ended(), [ended(2, 20)]);
    }
}
