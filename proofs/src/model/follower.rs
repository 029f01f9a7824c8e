//! Attached exact verifiers: processes that embed the follower, with leases from their nodes.

use super::{
    Action, Fault, Protocol,
    action::FollowerStep,
    state::{Attached, Follower, Question, State},
};

impl Protocol {
    pub(super) fn follower_actions(&self, state: &State, actions: &mut Vec<Action>) {
        if !self.scenario.follower {
            return;
        }
        let mut may = |step| actions.push(Action::Follower(step));
        let follower = &state.follower;
        for (index, node) in state.nodes.iter().enumerate() {
            if node.has_joined() && follower.feed != Some((index, node.id)) {
                may(FollowerStep::Attach { node: index });
            }
        }
        if let Question::Answered { head, .. } = follower.question
            && follower.memory.applied >= head
        {
            may(FollowerStep::Extend);
        }
        let Some(index) = followed(state) else { return };
        let node = &state.nodes[index];
        if follower.memory.applied < node.memory.applied {
            may(FollowerStep::Apply);
        }
        if node.attached.is_some_and(|attached| attached.heard < follower.memory.applied) {
            may(FollowerStep::Acknowledge);
        }
        match follower.question {
            Question::Idle => may(FollowerStep::Ask),
            Question::Asked { .. } => may(FollowerStep::Record),
            Question::Recorded { .. } => may(FollowerStep::Lend),
            Question::Lent { .. } => may(FollowerStep::Answer),
            Question::Answered { .. } => {}
        }
    }

    pub(super) fn follower_step(&self, state: &mut State, step: FollowerStep) {
        match step {
            FollowerStep::Attach { node } => return self.attach(state, node),
            FollowerStep::Extend => return extend(&mut state.follower),
            _ => {}
        }
        let Some(index) = followed(state) else { return };
        let (node, follower) = (&mut state.nodes[index], &mut state.follower);
        match (step, follower.question) {
            (FollowerStep::Apply, _) => {
                follower.memory = node.memory.clone();
                follower.age = node.age;
            }
            (FollowerStep::Acknowledge, _) => {
                if let Some(attached) = &mut node.attached {
                    attached.heard = follower.memory.applied;
                }
            }
            (FollowerStep::Ask, _) => follower.question = Question::Asked { since: 0 },
            (FollowerStep::Record, Question::Asked { since }) => {
                if node.attached.is_none() {
                    node.attached = Some(Attached { heard: follower.memory.applied, published: 0 });
                }
                follower.question = Question::Recorded { since };
            }
            (FollowerStep::Lend, Question::Recorded { since }) => {
                let lent = self.scenario.terms.lend(node.lease);
                follower.question = if lent == 0 { Question::Idle } else { Question::Lent { since, lent } };
            }
            (FollowerStep::Answer, Question::Lent { since, lent }) => {
                let (head, age) = (node.memory.applied, node.age);
                follower.question = Question::Answered { since, lent, head, age };
            }
            _ => {}
        }
    }

    /// Copies a node's state. A lease belongs to one feed, and ends with it.
    fn attach(&self, state: &mut State, index: usize) {
        let node = &state.nodes[index];
        let follower = &mut state.follower;
        if !self.has(Fault::LeaseOverFeeds) {
            follower.lease = 0;
        }
        follower.feed = Some((index, node.id));
        follower.memory = node.memory.clone();
        follower.age = node.age;
        follower.question = Question::Idle;
    }
}

fn extend(follower: &mut Follower) {
    if let Question::Answered { since, lent, age, .. } = follower.question {
        follower.lease = follower.lease.max(lent.saturating_sub(since));
        follower.age = follower.age.min(age);
        follower.question = Question::Idle;
    }
}

/// The node that the follower follows, if it still has the same row.
fn followed(state: &State) -> Option<usize> {
    let (index, id) = state.follower.feed?;
    Some(index).filter(|&index| state.nodes[index].has_joined() && state.nodes[index].id == id)
}
