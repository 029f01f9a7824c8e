//! Limits log lines that callers cause: a number per subject and minute, in a fixed amount of memory.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use rescind_base::{clock::Clock, model::ClientId};
use rescind_verifier::Denied;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
/// The number of subjects counted separately. All others share one line.
const SUBJECTS: usize = 64;

/// The limits of each kind of line, by the subject that causes it.
#[derive(Debug)]
pub struct LogLimits {
    /// `/verify` parameters that cannot be read.
    pub parameters: LogLimit<IpAddr>,
    /// Trusted proxies that name no caller.
    pub proxies: LogLimit<IpAddr>,
    /// Callers without the certificate that their client is bound to.
    pub uncertified: LogLimit<ClientId>,
    /// Certificates that cannot be read.
    pub unreadable: LogLimit<IpAddr>,
    /// Refused logins, refreshes and token requests.
    pub refused: LogLimit<IpAddr>,
    /// Refused verifications. The client is known if it was its token once.
    pub denied: LogLimit<(Option<ClientId>, Denied)>,
    /// Refresh tokens used again.
    pub reused: LogLimit<ClientId>,
    /// Tokens issued in the future.
    pub from_future: LogLimit<()>,
    /// Requests that failed, by the cause.
    pub failures: LogLimit<Arc<str>>,
    /// Lines on clients' successes that were left out since the last report of this number.
    pub left_out: AtomicU64,
}

impl LogLimits {
    /// No lines yet.
    pub fn new(clock: &Clock) -> LogLimits {
        LogLimits {
            parameters: LogLimit::new(1, clock.clone()),
            proxies: LogLimit::new(1, clock.clone()),
            uncertified: LogLimit::new(1, clock.clone()),
            unreadable: LogLimit::new(1, clock.clone()),
            refused: LogLimit::new(60, clock.clone()),
            denied: LogLimit { window: SECOND, ..LogLimit::new(1, clock.clone()) },
            reused: LogLimit::new(1, clock.clone()),
            from_future: LogLimit::new(1, clock.clone()),
            // A caller who got 500 or 503 may ask an operator for this line by the request's id.
            failures: LogLimit::new(10, clock.clone()),
            left_out: AtomicU64::new(0),
        }
    }
}

/// Decides whether a line is written. Each kind has its own limit, so that no kind suppresses another.
#[derive(Debug)]
pub struct LogLimit<S> {
    most: u32,
    window: Duration,
    clock: Clock,
    lines: Mutex<Lines<S>>,
}

#[derive(Debug)]
struct Lines<S> {
    subjects: HashMap<S, Line>,
    others: Line,
}

#[derive(Debug)]
struct Line {
    /// When the first line of the present window was written.
    began: Duration,
    written: u32,
    /// Occurrences since the last written line.
    since: u64,
}

impl<S: Eq + Hash> LogLimit<S> {
    /// No lines yet.
    pub fn new(per_minute: u32, clock: Clock) -> LogLimit<S> {
        let others = Line::new(clock.elapsed());
        let lines = Mutex::new(Lines { subjects: HashMap::new(), others });
        LogLimit { most: per_minute, window: MINUTE, clock, lines }
    }

    /// Counts an occurrence for this subject. `Some`: write a line, with this number of occurrences since the
    /// last one.
    pub fn due(&self, subject: S) -> Option<u64> {
        let now = self.clock.elapsed();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let Lines { subjects, others } = &mut *lines;
        if !subjects.contains_key(&subject) && subjects.len() >= SUBJECTS {
            subjects.retain(|_, line| !line.is_over(now, self.window));
        }
        let has_room = subjects.len() < SUBJECTS;
        let line = match subjects.entry(subject) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) if has_room => new.insert(Line::new(now)),
            Entry::Vacant(_) => others,
        };
        line.since += 1;
        if line.is_over(now, self.window) {
            (line.began, line.written) = (now, 0);
        }
        (line.written < self.most).then(|| {
            line.written += 1;
            std::mem::take(&mut line.since)
        })
    }
}

impl Line {
    fn new(began: Duration) -> Line {
        Line { began, written: 0, since: 0 }
    }

    fn is_over(&self, now: Duration, window: Duration) -> bool {
        now.saturating_sub(self.began) >= window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // check 102
    #[test]
    fn each_subject_has_its_lines_a_minute_with_how_often_it_happened() {
        let clock = Clock::manual(100);
        let limit = LogLimit::new(1, clock.clone());
        assert_eq!(limit.due(1), Some(1));
        for _ in 0..1000 {
            assert_eq!(limit.due(1), None);
        }
        assert_eq!(limit.due(2), Some(1));
        clock.advance(60);
        assert_eq!((limit.due(1), limit.due(1)), (Some(1001), None));
        let several = LogLimit::new(3, clock.clone());
        let due = || (0..10).filter_map(|_| several.due("x")).collect::<Vec<_>>();
        assert_eq!(due(), [1, 1, 1]);
        clock.advance(59);
        assert!(due().is_empty());
        clock.advance(1);
        assert_eq!(due(), [18, 1, 1]);
    }

    // check 102
    #[test]
    fn a_flood_of_subjects_has_a_line_together_and_takes_no_room() {
        let clock = Clock::manual(100);
        let limit = LogLimit::new(1, clock.clone());
        let lines = (0..100_000).filter(|&subject| limit.due(subject).is_some()).count();
        assert_eq!(lines, SUBJECTS + 1);
        assert_eq!(limit.lines.lock().unwrap().subjects.len(), SUBJECTS);
        clock.advance(60);
        // A new subject replaces one whose window has ended.
        assert_eq!((limit.due(7_000_000), limit.due(7_000_000)), (Some(1), None));
    }
}
