//! What the metrics were, for charts: the last hour by 10 seconds, the last day by 5 minutes, the last week by the hour.
//!
//! A task reads the metrics every [`TICK`], so a request costs no more. Each process has its own trends, in memory.

use std::{
    collections::VecDeque,
    iter::once,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::metrics::Counted;

/// How often the metrics are read.
pub const TICK: Duration = Duration::from_secs(10);

/// The metrics at one time.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// On the boot clock, which nobody sets.
    pub at: Duration,
    pub counted: Counted,
    pub levels: Levels,
    /// In memory.
    pub sessions: u64,
}

/// How many others there are, and how many changes the last of them lacks. Of several readings, the greatest is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Levels {
    pub nodes: u64,
    pub node_lag: u64,
    pub followers: u64,
    pub follower_lag: u64,
}

impl Levels {
    fn max(self, other: Levels) -> Levels {
        Levels {
            nodes: self.nodes.max(other.nodes),
            node_lag: self.node_lag.max(other.node_lag),
            followers: self.followers.max(other.followers),
            follower_lag: self.follower_lag.max(other.follower_lag),
        }
    }
}

/// What happened between two readings.
#[derive(Debug, Clone)]
pub struct Interval {
    /// The end, on the boot clock.
    pub ends: Duration,
    pub lasts: Duration,
    pub counted: Counted,
    /// The greatest within the interval.
    pub levels: Levels,
    /// At the end.
    pub sessions: u64,
}

/// How far back to look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum TrendsRange {
    /// By 10 seconds.
    #[default]
    #[serde(rename = "1h")]
    Hour,
    /// By 5 minutes.
    #[serde(rename = "24h")]
    Day,
    /// By the hour.
    #[serde(rename = "7d")]
    Week,
}

impl TrendsRange {
    pub const ALL: [TrendsRange; 3] = [TrendsRange::Hour, TrendsRange::Day, TrendsRange::Week];

    /// How far apart its readings are.
    pub fn step(self) -> Duration {
        match self {
            TrendsRange::Hour => TICK,
            TrendsRange::Day => Duration::from_secs(300),
            TrendsRange::Week => Duration::from_secs(3600),
        }
    }

    /// How long it is.
    pub fn span(self) -> Duration {
        match self {
            TrendsRange::Hour => Duration::from_secs(3600),
            TrendsRange::Day => Duration::from_secs(86_400),
            TrendsRange::Week => Duration::from_secs(7 * 86_400),
        }
    }
}

/// The trends of this process, since its start.
#[derive(Debug, Default)]
pub struct Trends(Mutex<[Ring; 3]>);

/// The readings of one range. The newest may be nearer to the one before than a step; the next replaces it then.
#[derive(Debug, Default)]
struct Ring {
    readings: VecDeque<Reading>,
    newest: Option<Reading>,
}

impl Trends {
    /// Adds a reading, if it is newer than those before.
    pub fn add(&self, reading: &Reading) {
        for (ring, range) in self.rings().iter_mut().zip(TrendsRange::ALL) {
            ring.add(reading.clone(), range);
        }
    }

    /// Returns what happened in a range, the newest last. The last interval may be shorter than the others.
    pub fn intervals(&self, range: TrendsRange) -> Vec<Interval> {
        let rings = self.rings();
        let [hour, day, week] = &*rings;
        let ring = match range {
            TrendsRange::Hour => hour,
            TrendsRange::Day => day,
            TrendsRange::Week => week,
        };
        let ends = ring.readings.iter().skip(1).chain(&ring.newest);
        ring.readings.iter().zip(ends).map(|(start, end)| end.since(start)).collect()
    }

    fn rings(&self) -> MutexGuard<'_, [Ring; 3]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn add(&mut self, mut reading: Reading, range: TrendsRange) {
        if self.readings.back().is_some_and(|last| reading.at <= last.at) {
            return;
        }
        if let Some(newest) = &self.newest {
            reading.levels = reading.levels.max(newest.levels);
        }
        // A tick may be a little early.
        let is_due = |last: &Reading| reading.at + TICK / 2 >= last.at + range.step();
        if !self.readings.back().is_none_or(is_due) {
            self.newest = Some(reading);
            return;
        }
        self.newest = None;
        let kept = |first: &Reading| first.at + range.span() >= reading.at;
        while self.readings.front().is_some_and(|first| !kept(first)) {
            self.readings.pop_front();
        }
        self.readings.extend(once(reading));
    }
}

impl Reading {
    fn since(&self, start: &Reading) -> Interval {
        Interval {
            ends: self.at,
            lasts: self.at.saturating_sub(start.at),
            counted: self.counted.since(&start.counted),
            levels: self.levels,
            sessions: self.sessions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trends of as many ticks, in each of which one client logs in.
    fn of(ticks: u64) -> Trends {
        let trends = Trends::default();
        for tick in 0..=ticks {
            trends.add(&Reading {
                at: Duration::from_secs(1000) + TICK * u32::try_from(tick).unwrap(),
                counted: Counted { logins: tick, ..Counted::default() },
                levels: Levels { node_lag: u64::from(tick == 3), ..Levels::default() },
                sessions: tick,
            });
        }
        trends
    }

    #[test]
    fn each_range_keeps_its_span_by_its_steps_and_no_more() {
        // Nine days.
        let trends = of(9 * 8640);
        for (range, length) in [(TrendsRange::Hour, 360), (TrendsRange::Day, 288), (TrendsRange::Week, 168)] {
            let intervals = trends.intervals(range);
            assert_eq!(intervals.len(), length, "{range:?}");
            let logins = range.step().as_secs() / TICK.as_secs();
            assert!(
                intervals.iter().all(|i| i.lasts == range.step() && i.counted.logins == logins),
                "{range:?}"
            );
            assert_eq!(intervals.last().unwrap().sessions, 9 * 8640);
        }
    }

    #[test]
    fn the_last_interval_ends_with_the_newest_reading() {
        let trends = of(40);
        let day = trends.intervals(TrendsRange::Day);
        assert_eq!(day.iter().map(|i| i.counted.logins).collect::<Vec<_>>(), [30, 10]);
        // The greatest lag within an interval is not lost.
        assert_eq!(day.iter().map(|i| i.levels.node_lag).collect::<Vec<_>>(), [1, 0]);
        let week = trends.intervals(TrendsRange::Week);
        assert_eq!((week.len(), week[0].lasts, week[0].levels.node_lag), (1, Duration::from_secs(400), 1));
        assert!(of(0).intervals(TrendsRange::Week).is_empty());
    }
}
