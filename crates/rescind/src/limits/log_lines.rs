//! Lines in the log that callers cause: for each subject so many a minute at most, in a fixed amount of
//! memory.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use crate::{clock::Clock, model::ClientId};

const WINDOW: Duration = Duration::from_secs(60);
/// Subjects that are told apart. The others have one line together.
const SUBJECTS: usize = 64;

/// For the lines that callers cause, by who causes them.
#[derive(Debug)]
pub struct LogLimits {
    /// What `/verify` was asked for and cannot be read.
    pub parameters: LogLimit<IpAddr>,
    /// Trusted proxies that name no caller.
    pub proxies: LogLimit<IpAddr>,
    /// Callers without the certificate that their client is bound to.
    pub uncertified: LogLimit<ClientId>,
    /// Certificates that cannot be read.
    pub unreadable: LogLimit<IpAddr>,
    /// Refresh tokens used again.
    pub reused: LogLimit<ClientId>,
    /// Tokens from the future.
    pub from_future: LogLimit<()>,
    /// Requests that failed, by what made them.
    pub failures: LogLimit<Arc<str>>,
    /// Lines on what clients did well that were left out, since that was last told.
    pub left_out: AtomicU64,
}

impl LogLimits {
    /// Nothing written yet.
    pub fn new(clock: &Clock) -> LogLimits {
        LogLimits {
            parameters: LogLimit::new(1, clock.clone()),
            proxies: LogLimit::new(1, clock.clone()),
            uncertified: LogLimit::new(1, clock.clone()),
            unreadable: LogLimit::new(1, clock.clone()),
            reused: LogLimit::new(1, clock.clone()),
            from_future: LogLimit::new(1, clock.clone()),
            // Whoever was told 500 or 503 may ask for it by the request's id.
            failures: LogLimit::new(10, clock.clone()),
            left_out: AtomicU64::new(0),
        }
    }
}

/// Decides when a line is due. There is one for each line, so that no line keeps another one back.
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
    /// When the first of the lines was written that count now.
    began: Duration,
    written: u32,
    /// How often it happened since the last of them.
    since: u64,
}

impl<S: Eq + Hash> LogLimit<S> {
    /// Nothing written yet.
    pub fn new(per_minute: u32, clock: Clock) -> LogLimit<S> {
        let others = Line::new(clock.elapsed());
        LogLimit { per_minute, clock, lines: Mutex::new(Lines { told_apart: HashMap::new(), others }) }
    }

    /// It happened to this subject. `Some`: a line is due, and has to say how often it happened since
    /// the one before.
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
        // A newcomer takes the place of one that is not heard of any more.
        assert_eq!((limit.due(7_000_000), limit.due(7_000_000)), (Some(1), None));
    }
}
