//! `scripts/model`: visits every scenario and seeds every fault, or shows how one fault breaks an invariant.

#![expect(clippy::print_stdout, reason = "the tables are what it is for")]

use std::{env, process::ExitCode};

use rescind_proofs::model::{Fault, Figures, Protocol, Scenario, check, listing, shortest};

fn main() -> ExitCode {
    let holds = match env::args().nth(1) {
        None => scenarios(every_scenario()) & faults(),
        Some(name) => {
            let fault = Fault::ALL.into_iter().find(|fault| format!("{fault:?}") == name);
            let scenario = every_scenario().find(|scenario| scenario.name == name);
            match (fault, scenario) {
                (Some(fault), _) => steps(fault),
                (_, Some(scenario)) => scenarios([scenario]),
                (None, None) => {
                    println!("usage: scripts/model [FAULT|SCENARIO], where FAULT is one of {:?}", Fault::ALL);
                    return ExitCode::from(2);
                }
            }
        }
    };
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn every_scenario() -> impl Iterator<Item = Scenario> {
    Scenario::quick().into_iter().chain(Scenario::long())
}

/// Visits these scenarios. Returns whether every invariant holds.
fn scenarios(scenarios: impl IntoIterator<Item = Scenario>) -> bool {
    println!("| scenario | states | depth | seconds |\n| --- | --- | --- | --- |");
    let (mut states, mut seconds, mut hold) = (0, 0.0, true);
    for scenario in scenarios {
        let Figures { states: visited, depth, took, failures } = check(scenario);
        println!("| {} | {visited} | {depth} | {:.1} |", scenario.name, took.as_secs_f64());
        failures.iter().for_each(|failure| println!("{failure}"));
        states += visited;
        seconds += took.as_secs_f64();
        hold &= failures.is_empty();
    }
    println!("| all | {states} | | {seconds:.1} |\n");
    hold
}

/// Seeds every fault. Returns whether the model detects each.
fn faults() -> bool {
    println!("| fault | breaks | in steps |\n| --- | --- | --- |");
    let mut show = true;
    for fault in Fault::ALL {
        let (invariant, _) = fault.breaks().split_once(':').unwrap_or((fault.breaks(), ""));
        match shortest(&Protocol::with(fault), fault.breaks()) {
            Some(steps) => println!("| `{fault:?}` | {invariant} | {} |", steps.len()),
            None => {
                println!("| `{fault:?}` | nothing | |");
                show = false;
            }
        }
    }
    show
}

/// Seeds one fault and prints the steps that show it. Returns whether the model detects it.
fn steps(fault: Fault) -> bool {
    let found = shortest(&Protocol::with(fault), fault.breaks());
    match &found {
        Some(steps) => println!("{}\n{}", fault.breaks(), listing(steps)),
        None => println!("{fault:?} breaks nothing"),
    }
    found.is_some()
}
