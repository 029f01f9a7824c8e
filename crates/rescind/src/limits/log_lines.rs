//! Limits log lines that callers cause: a number per subject and minute, in a fixed amount of memory.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use crate::{clock::Clock, model::ClientId};

const WINDOW: Duration = Duration::from_secs(60);
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
    per_minute: u32,
    clock: Clock,
    lines: Mutex<Lines<S>>,
}

#[derive(Debug)]
struct Lines<S> {
    told_apart: HashMap<S, Line>,
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
        LogLimit { per_minute, clock, lines: Mutex::new(Lines { told_apart: HashMap::new(), others }) }
    }

    /// Counts an occurrence for this subject. `Some`: write a line, with this number of occurrences since the
    /// last one.
    pub fn due(&self, subject: S) -> Option<u64> {
        let now = self.clock.elapsed();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let Lines { told_apart, others } = &mut *lines;
        if !told_apart.contains_key(&subject) && told_apart.len() >= SUBJECTS {
            told_apart.retain(|_, line| !line.is_over(now));
        }
        let has_room = told_apart.len() < SUBJECTS;
        let line = match told_apart.entry(subject) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) if has_room => new.insert(Line::new(now)),
            Entry::Vacant(_) => others,
        };
        line.since += 1;
        if line.is_over(now) {
            (line.began, line.written) = (now, 0);
        }
        (line.written < self.per_minute).then(|| {
            line.written += 1;
            std::mem::take(&mut line.since)
        })
    }
}

impl Line {
    fn new(began: Duration) -> Line {
        Line { began, written: 0, since: 0 }
    }

    fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.began) >= WINDOW
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
        assert_eq!(limit.lines.lock().unwrap().told_apart.len(), SUBJECTS);
        clock.advance(60);
        // A new subject replaces one whose window has ended.
        assert_eq!((limit.due(7_000_000), limit.due(7_000_000)), (Some(1), None));
    }
}
