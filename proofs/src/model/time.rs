//! Time passes in ticks. In each tick, each clock runs fast or slow within the bound.

use super::{
    Action, Protocol,
    state::{FOLLOWER, OTHER, Question, Renewal, Standing, State, Step, Write},
};

/// The terms of a lease, as `docs/proofs.md` derives them. Measured times are in the clock's units.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// D, in ticks.
    pub term: u8,
    /// D − m.
    pub lasts: u8,
    /// W = D(1+ρ) + m.
    pub wait: u8,
    /// A clock's units per tick, as slow as ρ allows.
    pub slow: u8,
    /// A clock's units per tick, as fast as ρ allows.
    pub fast: u8,
}

impl Terms {
    /// Clocks are exact: D = W = 2, m = 0.
    pub const EXACT: Terms = Terms { term: 2, lasts: 2, wait: 2, slow: 1, fast: 1 };

    /// Exact clocks with coarser ticks: D = W = 1.
    pub const COARSE: Terms = Terms { term: 1, lasts: 1, wait: 1, slow: 1, fast: 1 };

    /// ρ = 1/3: a tick is 3 units of real time, and 2 to 4 of a clock. D = `term` ticks, m = Dρ = `term` units.
    pub const fn drifting(term: u8) -> Terms {
        Terms { term, lasts: 2 * term, wait: 5 * term, slow: 2, fast: 4 }
    }

    /// How much of `left` may be lent to another clock: · (1−ρ)/(1+ρ).
    pub fn lend(&self, left: u8) -> u8 {
        left * self.slow / self.fast
    }
}

impl Protocol {
    pub(super) fn time_actions(&self, actions: &mut Vec<Action>) {
        let terms = &self.scenario.terms;
        let drift = terms.slow != terms.fast;
        let clocks = if drift { self.scenario.clocks_looked_at() } else { 0 };
        // Every subset of the scenario's clocks.
        let mut fast = clocks;
        loop {
            actions.push(Action::Tick { fast });
            if fast == 0 {
                break;
            }
            fast = (fast - 1) & clocks;
        }
    }

    /// A tick of real time, in which the clocks in `fast` run fast and the others slow.
    pub(super) fn tick(&self, state: &mut State, fast: u8) {
        let terms = self.scenario.terms;
        let goes = |clock: usize| if fast & 1 << clock == 0 { terms.slow } else { terms.fast };
        let aged = |age: &mut u8| *age = self.scenario.age(*age + 1);

        for (clock, node) in state.nodes.iter_mut().enumerate() {
            let passed = goes(clock);
            node.lease = node.lease.saturating_sub(passed);
            aged(&mut node.age);
            match &mut node.renewal {
                Renewal::Sent { since } | Renewal::Applied { since } => {
                    *since = terms.lasts.min(*since + passed)
                }
                Renewal::Read { since, age, .. } | Renewal::Committed { since, age, .. } => {
                    *since = terms.lasts.min(*since + passed);
                    aged(age);
                }
                Renewal::Idle => {}
            }
            match &mut node.standing {
                Standing::Leaving { lent } => *lent = lent.saturating_sub(passed),
                Standing::Waiting { since } | Standing::Settling { since, .. } => {
                    *since = terms.wait.min(*since + passed)
                }
                _ => {}
            }
            if let Some(attached) = &mut node.attached {
                attached.published = terms.wait.min(attached.published + passed);
            }
        }

        let passed = goes(FOLLOWER);
        let follower = &mut state.follower;
        follower.lease = follower.lease.saturating_sub(passed);
        aged(&mut follower.age);
        match &mut follower.question {
            Question::Idle => {}
            Question::Asked { since } | Question::Recorded { since } | Question::Lent { since, .. } => {
                *since = terms.lasts.min(*since + passed)
            }
            Question::Answered { since, age, .. } => {
                *since = terms.lasts.min(*since + passed);
                aged(age);
            }
        }

        for write in &mut state.writes {
            if let Write::Listed { elapsed, .. } = write {
                *elapsed = terms.wait.min(*elapsed + goes(OTHER));
            }
        }
        if let Some(watch) = &mut state.watch {
            watch.since = (terms.wait + 1).min(watch.since + goes(OTHER));
        }
        if let Some(Step::StateRead { age, .. }) = state.verification.as_mut().map(|v| &mut v.step) {
            aged(age);
        }
        state.told.first_tick = false;
    }
}
