//! The model of the cluster's protocol: it holds, and it would show if it did not.

#![cfg(test)]

use rescind_proofs::model::{Fault, Protocol, Scenario, check, listing, way};

#[test]
fn every_invariant_holds_in_every_state() {
    let mut states = 0;
    for scenario in Scenario::quick() {
        let figures = check(scenario);
        assert!(figures.failures.is_empty(), "{}:\n{}", scenario.name, figures.failures.join("\n"));
        println!("{}: {} states, {} steps deep", scenario.name, figures.states, figures.depth);
        states += figures.states;
    }
    println!("all: {states} states");
    assert!(states >= 1_000_000, "{states} states are too few to say much");
}

#[test]
fn every_seeded_fault_breaks_its_invariant() {
    for fault in Fault::ALL {
        let steps = way(&Protocol::with(fault), fault.breaks(), usize::MAX);
        let steps = steps.unwrap_or_else(|| panic!("{fault:?} breaks nothing"));
        println!("{fault:?}: {}, in {} steps\n{}", fault.breaks(), steps.len(), listing(&steps));
    }
}
