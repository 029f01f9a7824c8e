//! `check-history [--json] [FILE]`: checks whether a recorded history keeps the promise of logout.
//!
//! Exit codes: 0 kept, 1 broken, 2 the history cannot be read.

use std::{
    fs::File,
    io::{BufReader, Write, stderr, stdin, stdout},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use rescind_proofs::history::{Report, check};

/// Checks whether a recorded history of a token service keeps the promise of logout
#[derive(Parser)]
#[command(name = "check-history", version)]
struct Cli {
    /// One operation a line, as docs/proofs.md describes it [default: standard input]
    history: Option<PathBuf>,
    /// Print one JSON value and nothing else
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(report) if report.violations.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            let _ = writeln!(stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<Report> {
    let report = match &cli.history {
        Some(path) => {
            let file = File::open(path).with_context(|| path.display().to_string())?;
            check(BufReader::with_capacity(1 << 16, file))?
        }
        None => check(stdin().lock())?,
    };
    if cli.json {
        writeln!(stdout(), "{}", serde_json::to_string(&report)?)?;
    } else {
        writeln!(stdout(), "{report}")?;
    }
    Ok(report)
}
