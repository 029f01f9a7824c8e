//! Checks whether a recorded history of a token service keeps the promise of logout:
//!
//! > Any verification *begun after* logout has *answered* 200 refuses every token the client held.
//!
//! The checker knows only the history: when each operation began and ended for its caller, and the answer. It
//! allows everything that some permitted order explains, so every reported violation is certain.
//! `docs/proofs.md` has the format, and says what can be decided.

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
    /// A line is no operation.
    #[error("line {line}: {malformed}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong with the line.
        malformed: Malformed,
    },
    /// The history cannot be read.
    #[error(transparent)]
    Input(#[from] io::Error),
}

/// Reads a history, one operation per line, in the order of their ends. Empty lines are skipped.
///
/// # Errors
///
/// Fails if the input cannot be read, or if a line is no operation.
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
