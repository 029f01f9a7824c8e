//! GC: the rows of dead nodes.

use super::{
    Action, Fault, Protocol,
    action::RowStep,
    state::{Renewal, State, Watch},
    store::{ROWS, Row},
};

impl Protocol {
    pub(super) fn row_actions(&self, state: &State, actions: &mut Vec<Action>) {
        if !self.scenario.gc {
            return;
        }
        for server in state.store.servers() {
            for id in 0..ROWS {
                let Row::Present { beat, .. } = state.store.at(server).rows[id] else { continue };
                if state.watch.is_none_or(|seen| (seen.id, seen.beat) != (id, beat)) {
                    actions.push(Action::Row(RowStep::Watch { id, server }));
                } else if self.may_collect(state, id) && self.may_commit(state) {
                    actions.push(Action::Row(RowStep::Collect { id, server }));
                }
            }
        }
    }

    /// Whether the row was seen unchanged for longer than W, and no transaction holds its lock.
    fn may_collect(&self, state: &State, id: usize) -> bool {
        let unchanged = state.watch.is_some_and(|seen| seen.since > self.scenario.terms.wait);
        let locked = state
            .nodes
            .iter()
            .any(|node| usize::from(node.id) == id && matches!(node.renewal, Renewal::Read { .. }));
        (unchanged || self.has(Fault::EarlyGc)) && !locked
    }

    pub(super) fn row_step(&self, state: &mut State, step: RowStep) {
        match step {
            RowStep::Watch { id, server } => {
                if let Row::Present { beat, .. } = state.store.at(server).rows[id] {
                    state.watch = Some(Watch { id, beat, since: 0 });
                }
            }
            RowStep::Collect { id, server } => {
                state.watch = None;
                self.commit(state, server, |content| content.rows[id] = Row::Gone);
            }
        }
    }
}

/// Only comparisons of beats matter, so beats are counted from the lowest on any server. A seen beat below
/// the lowest cannot be shown again, and is dropped.
pub(super) fn settle(state: &mut State) {
    for id in 0..ROWS {
        let beats = state.store.contents().filter_map(|content| match content.rows[id] {
            Row::Present { beat, .. } => Some(beat),
            _ => None,
        });
        let lowest = beats.min();
        if state.watch.is_some_and(|seen| seen.id == id && lowest.is_none_or(|lowest| seen.beat < lowest)) {
            state.watch = None;
        }
        let Some(lowest @ 1..) = lowest else { continue };
        for content in state.store.contents_mut() {
            if let Row::Present { beat, .. } = &mut content.rows[id] {
                *beat -= lowest;
            }
        }
        if let Some(seen) = &mut state.watch
            && seen.id == id
        {
            seen.beat -= lowest;
        }
    }
}
