use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

const TIMEOUTS: Timeouts = Timeouts { request: Duration::from_secs(3), idle: Duration::from_secs(7) };

#[derive(Debug, Clone, Copy)]
enum Step {
    Read,
    Wrote,
    Begin(Version),
    Awaits,
    GoesOn,
    End,
    Pass,
}

/// What the state was before it was one word: the numbers stand for themselves.
#[derive(Debug, Default)]
struct Plain {
    is_head: bool,
    worked_on: u32,
    awaited: u32,
    since: Duration,
    multiplexed: bool,
}

impl Plain {
    fn is_idle(&self) -> bool {
        !self.is_head && self.worked_on + self.awaited == 0
    }

    /// Whether this can happen: requests end, wait and go on only if there is one.
    fn take(&mut self, step: Step, now: Duration) -> bool {
        let worked_on_before = self.worked_on;
        match step {
            Step::Read | Step::Wrote => {
                if self.is_idle() && !self.multiplexed {
                    self.is_head = matches!(step, Step::Read);
                    self.since = now;
                }
                return true;
            }
            Step::Begin(version) => {
                self.multiplexed = version == Version::HTTP_2;
                self.worked_on += 1;
            }
            Step::Awaits if self.worked_on > 0 => {
                self.worked_on -= 1;
                self.awaited += 1;
            }
            Step::GoesOn if self.awaited > 0 => {
                self.awaited -= 1;
                self.worked_on += 1;
            }
            Step::End if self.worked_on > 0 => self.worked_on -= 1,
            Step::Awaits | Step::GoesOn | Step::End | Step::Pass => return false,
        }
        self.is_head = false;
        if worked_on_before > 0 && self.worked_on == 0 {
            self.since = now;
        }
        true
    }

    fn deadline(&self) -> Option<Duration> {
        if self.is_head {
            return Some(self.since + TIMEOUTS.request);
        }
        self.is_idle().then_some(self.since + TIMEOUTS.idle)
    }
}

fn step() -> impl Strategy<Value = Step> {
    let (http1, http2) = (Step::Begin(Version::HTTP_11), Step::Begin(Version::HTTP_2));
    select(vec![
        Step::Read,
        Step::Wrote,
        http1,
        http2,
        Step::Awaits,
        Step::GoesOn,
        Step::End,
        Step::End,
        Step::Pass,
    ])
}

proptest! {
    #[test]
    fn one_word_says_what_the_numbers_said(steps in vec(step(), 0..200)) {
        let clock = Clock::manual(1_800_000_000);
        let state = ConnState::new(None, clock.clone());
        let mut plain = Plain { is_head: true, since: clock.elapsed(), ..Plain::default() };
        for step in steps {
            if !plain.take(step, clock.elapsed()) {
                clock.advance(1);
                continue;
            }
            match step {
                Step::Read => state.read(),
                Step::Wrote => state.wrote(),
                Step::Begin(version) => state.begin(version),
                Step::Awaits => state.awaits(),
                Step::GoesOn => state.goes_on(),
                Step::End => state.end(),
                Step::Pass => {}
            }
            prop_assert_eq!(state.deadline(&TIMEOUTS), plain.deadline());
            prop_assert_eq!(state.waits_since(), (plain.worked_on == 0).then_some(plain.since));
        }
    }

    #[test]
    fn a_word_is_the_state_that_it_was_made_of(
        since in 0..1_u64 << 42, worked_on in 0..=MOST, awaited in 0..=MOST, idle: bool, multiplexed: bool,
    ) {
        let phase = match (worked_on, awaited) {
            (0, 0) if idle => Phase::Idle,
            (0, 0) => Phase::Head,
            _ => Phase::Busy { worked_on, awaited },
        };
        let doing = Doing { phase, since, multiplexed };
        prop_assert_eq!(Doing::unpack(doing.pack()), doing);
    }
}

#[test]
fn no_change_is_lost_when_streams_end_at_once() {
    let state = ConnState::new(None, Clock::manual(100));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    state.begin(Version::HTTP_2);
                    state.awaits();
                    state.goes_on();
                    state.end();
                }
            });
        }
    });
    assert_eq!(state.doing().phase, Phase::Idle);
}
