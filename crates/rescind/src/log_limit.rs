//! Lines in the log that callers cause: for each subject one a minute at most, in a fixed amount of
//! memory.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::clock::Clock;

const EVERY: Duration = Duration::from_secs(60);
/// Subjects that are told apart. The others have one line together.
const SUBJECTS: usize = 64;

/// Decides when a line is due. There is one for each line, so that no line keeps another one back.
#[derive(Debug)]
pub struct LogLimit<S> {
    clock: Clock,
    lines: Mutex<Lines<S>>,
}

#[derive(Debug)]
struct Lines<S> {
    told_apart: HashMap<S, Line>,
    others: Line,
}

#[derive(Debug, Default)]
struct Line {
    written_at: Option<Duration>,
    /// How often it happened since.
    since: u64,
}

impl<S: Eq + Hash> LogLimit<S> {
    /// Nothing written yet.
    pub fn new(clock: Clock) -> LogLimit<S> {
        let lines = Lines { told_apart: HashMap::new(), others: Line::default() };
        LogLimit { clock, lines: Mutex::new(lines) }
    }

    /// It happened to this subject. `Some`: a line is due, and has to say how often it happened since
    /// the one before.
    pub fn due(&self, subject: S) -> Option<u64> {
        let now = self.clock.elapsed();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let Lines { told_apart, others } = &mut *lines;
        if !told_apart.contains_key(&subject) && told_apart.len() >= SUBJECTS {
            told_apart.retain(|_, line| !line.is_due(now));
        }
        let has_room = told_apart.len() < SUBJECTS;
        let line = match told_apart.entry(subject) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) if has_room => new.insert(Line::default()),
            Entry::Vacant(_) => others,
        };
        line.since += 1;
        line.is_due(now).then(|| {
            line.written_at = Some(now);
            std::mem::take(&mut line.since)
        })
    }
}

impl Line {
    fn is_due(&self, now: Duration) -> bool {
        self.written_at.is_none_or(|at| now.saturating_sub(at) >= EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // check 102
    #[test]
    fn each_subject_has_a_line_a_minute_with_how_often_it_happened() {
        let clock = Clock::manual(100);
        let limit = LogLimit::new(clock.clone());
        assert_eq!(limit.due(1), Some(1));
        for _ in 0..1000 {
            assert_eq!(limit.due(1), None);
        }
        assert_eq!(limit.due(2), Some(1));
        clock.advance(60);
        assert_eq!((limit.due(1), limit.due(1)), (Some(1001), None));
    }

    // check 102
    #[test]
    fn a_flood_of_subjects_has_a_line_together_and_takes_no_room() {
        let clock = Clock::manual(100);
        let limit = LogLimit::new(clock.clone());
        let lines = (0..100_000).filter(|&subject| limit.due(subject).is_some()).count();
        assert_eq!(lines, SUBJECTS + 1);
        assert_eq!(limit.lines.lock().unwrap().told_apart.len(), SUBJECTS);
        clock.advance(60);
        // A newcomer takes the place of one that is not heard of any more.
        assert_eq!((limit.due(7_000_000), limit.due(7_000_000)), (Some(1), None));
    }
}
