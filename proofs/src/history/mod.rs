//! Whether a recorded history of a token service keeps the promise of logout:
//!
//! > Any verification *begun after* logout has *answered* 200 refuses every token the client held.
//!
//! The history is all there is to go by: when each operation began and ended for its caller, and what
//! came back. So whatever may have happened in an order that is allowed is allowed, and what is
//! reported is certain. `docs/proofs.md` has the format and what can and what cannot be decided.

mod checker;
mod logouts;
mod operation;
mod report;

use std::io::{self, BufRead};

pub use checker::Checker;
pub use operation::{Action, Kind, Malformed, Operation, Pair, Verdict};
pub use report::{Counts, Report, Seen, Violation};

use thiserror::Error;

/// Why there is no report.
#[derive(Debug, Error)]
pub enum Unreadable {
    /// It is no history.
    #[error("line {line}: {malformed}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong there.
        malformed: Malformed,
    },
    /// It could not be read.
    #[error(transparent)]
    Input(#[from] io::Error),
}

/// Reads a history, one operation a line, in the order of their ends. Empty lines are skipped.
pub fn check(mut history: impl BufRead) -> Result<Report, Unreadable> {
    let mut checker = Checker::default();
    let mut text = String::new();
    for line in 1.. {
        text.clear();
        if history.read_line(&mut text)? == 0 {
            break;
        }
        if text.trim().is_empty() {
            continue;
        }
        text.parse()
            .and_then(|operation| checker.observe(line, operation))
            .map_err(|malformed| Unreadable::Line { line, malformed })?;
    }
    Ok(checker.finish())
}
