//! Runs the checker.

use std::{collections::BTreeMap, time::Duration};

use stateright::{
    Checker, Expectation, HasDiscoveries, Model, Path, Property,
    report::{ReportData, ReportDiscovery, Reporter},
};

use super::{Action, Protocol, Scenario};

/// The figures of one run.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Distinct states.
    pub states: usize,
    /// Steps to the farthest state.
    pub depth: usize,
    pub took: Duration,
    /// Every broken invariant, and every required state that was not reached.
    pub failures: Vec<String>,
}

/// Visits every state of a scenario.
pub fn check(scenario: Scenario) -> Figures {
    let mut watch = StopWatch(Duration::ZERO);
    let checker = Protocol::sound(scenario).checker().spawn_bfs().join_and_report(&mut watch);
    let mut discoveries = checker.discoveries();
    let mut failures = Vec::new();
    for Property { name, expectation, .. } in checker.model().properties() {
        match (expectation, discoveries.remove(name)) {
            (Expectation::Sometimes, None) => failures.push(format!("never: {name}")),
            (Expectation::Always | Expectation::Eventually, Some(path)) => {
                failures.push(format!("broken: {name}\n{}", listing(&path.into_actions())));
            }
            _ => {}
        }
    }
    Figures { states: checker.unique_state_count(), depth: checker.max_depth() - 1, took: watch.0, failures }
}

/// A way to break an invariant within `depth` states, if there is one.
pub fn way(protocol: &Protocol, invariant: &'static str, depth: usize) -> Option<Vec<Action>> {
    let checker = protocol.clone().checker().target_max_depth(depth);
    let checker = checker.finish_when(HasDiscoveries::AnyOf([invariant].into()));
    checker.spawn_bfs().join().discovery(invariant).map(Path::into_actions)
}

/// The shortest way to break an invariant, if there is one.
pub fn shortest(protocol: &Protocol, invariant: &'static str) -> Option<Vec<Action>> {
    let mut shortest: Option<Vec<Action>> = None;
    loop {
        // The checker searches breadth first, but in blocks: the first result may not be the shortest.
        let depth = shortest.as_ref().map_or(usize::MAX, |steps| steps.len() + 1);
        match way(protocol, invariant, depth) {
            Some(steps) => shortest = Some(steps),
            None => return shortest,
        }
    }
}

/// The steps as text, one per line.
pub fn listing(steps: &[Action]) -> String {
    steps.iter().enumerate().map(|(at, step)| format!("{:>4}  {step}\n", at + 1)).collect()
}

/// Measures the run's time; only the checker reads the clock.
struct StopWatch(Duration);

impl Reporter<Protocol> for StopWatch {
    fn report_checking(&mut self, data: ReportData) {
        self.0 = data.duration;
    }

    fn report_discoveries(&mut self, _: &Protocol, _: BTreeMap<&'static str, ReportDiscovery<Protocol>>) {}

    fn delay(&self) -> Duration {
        Duration::from_millis(100)
    }
}
