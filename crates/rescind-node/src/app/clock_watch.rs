//! Judges whether the wall clock can be trusted before something is deleted.
//!
//! The store keeps the last trusted time. Since then at least the time that this process has run, by the boot
//! clock, has passed: nobody can set the boot clock. The sum is the least possible time. A wall clock close
//! to that is trusted. A clock further off is in doubt until it has run without a jump for as long as it is
//! off. Then either the service was stopped for so long, or all sessions of before have expired. Meanwhile
//! nothing is deleted by that clock.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rescind_base::{clock::Clock, model::UnixSeconds};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// In seconds. A clock off by no more is trusted; expired sessions are kept for as long.
pub(super) const CLOSE: u64 = 3600;
/// How often the trusted time is saved, in seconds.
const SAVE_EVERY: u64 = 600;

/// The state of the watch over the wall clock.
#[derive(Debug)]
pub struct ClockWatch {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The wall clock when it was last trusted, and the boot clock at that moment.
    believed: UnixSeconds,
    at: Duration,
    saved: UnixSeconds,
    doubt: Option<Doubt>,
}

/// A wall clock that is in doubt.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    since: Duration,
    ahead: i64,
    contradicted: bool,
}

/// The result of one look at the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// The present time or an earlier one: by this time data may be deleted.
    pub at_least: UnixSeconds,
    /// By how many seconds the wall clock is ahead of what it should be; negative if it is behind.
    pub ahead: i64,
    pub turn: Option<Turn>,
    /// The time to save in the store. `None`: the saved time is recent enough.
    pub save: Option<UnixSeconds>,
}

/// A change since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Doubted,
    Believed,
}

/// The state of the wall clock, for operators.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClockView {
    /// The clock is in doubt: nothing is deleted by it.
    pub in_doubt: bool,
    /// By how many seconds it is ahead of the store's and the boot clock's time; negative if it is behind.
    pub ahead_seconds: i64,
    /// By how many seconds it is ahead of the database's clock. Absent with an embedded store.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ahead_of_database_seconds: Option<i64>,
}

impl ClockWatch {
    /// `stored`: the last time that the store has saved, 0 for a new store.
    pub fn new(stored: UnixSeconds, clock: Clock) -> ClockWatch {
        let believed = if stored == 0 { clock.now() } else { stored };
        let state = State { believed, at: clock.elapsed(), saved: stored, doubt: None };
        ClockWatch { clock, state: Mutex::new(state) }
    }

    /// Reads and judges the clocks. `contradicted`: another machine's clock disagrees.
    pub fn look(&self, contradicted: bool) -> Time {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (wall, boot) = (self.clock.now(), self.clock.elapsed());
        let least = state.believed.saturating_add(boot.saturating_sub(state.at).as_secs());
        let ahead = wall.cast_signed().saturating_sub(least.cast_signed());
        let doubted = state.doubt;
        let is_close = |other: i64| ahead.abs_diff(other) <= CLOSE;
        state.doubt = (contradicted || !is_close(0)).then(|| match doubted {
            Some(doubt) if is_close(doubt.ahead) && contradicted == doubt.contradicted => doubt,
            _ => Doubt { since: boot, ahead, contradicted },
        });
        // So long that the difference is no passing error.
        let has_lasted = |doubt: Doubt| {
            !contradicted && boot.saturating_sub(doubt.since).as_secs() >= doubt.ahead.unsigned_abs()
        };
        state.doubt = state.doubt.filter(|doubt| !has_lasted(*doubt));
        if state.doubt.is_none() {
            (state.believed, state.at) = (wall, boot);
        }
        // For a clock in doubt the least time is saved, so that the next process does not start further back.
        let known = if state.doubt.is_some() { least } else { wall };
        let save = Some(known).filter(|known| known.abs_diff(state.saved) >= SAVE_EVERY);
        let turn = match (doubted, state.doubt) {
            (None, Some(_)) => Some(Turn::Doubted),
            (Some(_), None) => Some(Turn::Believed),
            (None, None) | (Some(_), Some(_)) => None,
        };
        let at_least = if state.doubt.is_some() { wall.min(least) } else { wall };
        Time { at_least, ahead, turn, save }
    }

    /// Records that the store has saved this time.
    pub fn saved(&self, at: UnixSeconds) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).saved = at;
    }

    /// The judgement of the last look, and how far the clock is off now.
    pub fn view(&self, ahead_of_database_seconds: Option<i64>) -> ClockView {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = self.clock.elapsed().saturating_sub(state.at).as_secs();
        let least = state.believed.saturating_add(passed);
        ClockView {
            in_doubt: state.doubt.is_some(),
            ahead_seconds: self.clock.now().cast_signed().saturating_sub(least.cast_signed()),
            ahead_of_database_seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_736_942_400;
    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;

    fn watch(stored: u64) -> (ClockWatch, Clock) {
        let clock = Clock::manual(NOW);
        (ClockWatch::new(stored, clock.clone()), clock)
    }

    // check 103
    #[test]
    fn a_clock_that_jumps_is_not_believed_and_one_put_right_is() {
        let (watch, clock) = watch(NOW);
        assert_eq!(watch.look(false), Time { at_least: NOW, ahead: 0, turn: None, save: None });
        for days in [100, -100, 8] {
            clock.advance(60);
            let right = clock.now();
            clock.set_ahead(days * DAY);
            let time = watch.look(false);
            assert_eq!((time.at_least, time.ahead), (right.min(clock.now()), days * DAY));
            assert_eq!((time.turn, time.save), (Some(Turn::Doubted), None));
            assert!(watch.view(None).in_doubt);
            clock.advance(60);
            assert_eq!(
                (watch.look(false).at_least, watch.look(false).turn),
                ((right + 60).min(clock.now()), None)
            );
            clock.set_ahead(-days * DAY);
            let time = watch.look(false);
            assert_eq!((time.at_least, time.ahead, time.turn), (right + 60, 0, Some(Turn::Believed)));
        }
        // A slow clock is corrected now and then.
        clock.set_ahead(HOUR);
        assert_eq!((watch.look(false).at_least, watch.look(false).turn), (clock.now(), None));
    }

    // check 103
    #[test]
    fn after_a_long_time_away_a_clock_is_believed_when_it_has_gone_on_for_as_long() {
        let (watch, clock) = watch(NOW - 100 * DAY.unsigned_abs());
        assert_eq!(watch.look(false).turn, Some(Turn::Doubted));
        for day in 1..100 {
            clock.advance(DAY);
            let time = watch.look(false);
            let sure = clock.now() - 100 * DAY.unsigned_abs();
            assert_eq!((time.at_least, time.turn, time.save), (sure, None, Some(sure)), "{day}");
            watch.saved(sure);
        }
        clock.advance(DAY);
        let time = watch.look(false);
        assert_eq!(
            (time.at_least, time.turn, time.save),
            (clock.now(), Some(Turn::Believed), Some(clock.now()))
        );
    }

    #[test]
    fn a_clock_that_jumps_again_has_to_go_on_anew() {
        let (watch, clock) = watch(NOW - 3 * DAY.unsigned_abs());
        watch.look(false);
        clock.advance(3 * DAY - 1);
        assert!(watch.look(false).turn.is_none() && watch.view(None).in_doubt);
        clock.set_ahead(DAY);
        watch.look(false);
        clock.advance(4 * DAY - 1);
        watch.look(false);
        assert!(watch.view(None).in_doubt);
        clock.advance(1);
        assert_eq!(watch.look(false).turn, Some(Turn::Believed));
    }

    // check 103
    #[test]
    fn a_clock_that_another_machine_contradicts_is_never_believed() {
        let (watch, clock) = watch(NOW);
        assert_eq!(watch.look(true).turn, Some(Turn::Doubted));
        clock.advance(400 * DAY);
        let time = watch.look(true);
        assert_eq!((time.at_least, time.turn, time.save), (clock.now(), None, Some(clock.now())));
        assert_eq!(watch.look(false).turn, Some(Turn::Believed));
    }

    #[test]
    fn a_new_store_believes_and_what_is_believed_is_saved_now_and_then() {
        let (watch, clock) = watch(0);
        assert_eq!(watch.look(false).save, Some(NOW));
        watch.saved(NOW);
        clock.advance(599);
        assert_eq!(watch.look(false).save, None);
        clock.advance(1);
        assert_eq!(watch.look(false).save, Some(NOW + 600));
    }
}
