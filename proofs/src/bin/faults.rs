//! `faults RESCIND`: causes faults in a cluster of that program, and checks whether it keeps its promise.
//!
//! Exit codes: 0 kept, 1 broken, 2 bad usage.

use std::{
    fs,
    io::{Write, stderr, stdout},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use rand::{TryRng, rngs::SysRng};
use rescind_proofs::faults::{Fault, Plan, Scenario, Setup};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

/// Causes faults in a cluster under load, and checks whether it keeps its promise
#[derive(Parser)]
#[command(name = "faults", version)]
struct Cli {
    /// The program `rescind`
    rescind: PathBuf,
    /// The scenarios to run [default: all]
    scenarios: Vec<Scenario>,
    /// How many faults, one after the other
    #[arg(long, value_name = "N", default_value_t = 12, overrides_with = "episodes")]
    episodes: usize,
    /// Only faults of these kinds; may be given more than once [default: every kind]
    #[arg(long, value_name = "KIND")]
    fault: Vec<Fault>,
    /// The folder with the archives of PostgreSQL 17 and 18 that `scripts/faults` fetches, for `upgraded`
    #[arg(long, value_name = "DIR", default_value = "target/postgresql")]
    archives: PathBuf,
    /// The folder with the programs of the PostgreSQL to use [default: those of Debian's packages]
    #[arg(long, value_name = "DIR")]
    postgres: Option<PathBuf>,
    /// Fail on exceeded time limits too: for a machine without other work
    #[arg(long)]
    timed: bool,
    /// Keep logs, histories and databases, whatever the result
    #[arg(long)]
    keep: bool,
    /// The seed of all random values [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "error: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn tell(line: &str) {
    let _ = writeln!(stdout(), "{line}");
}

async fn run(cli: &Cli) -> anyhow::Result<()> {
    let seed = match cli.seed {
        Some(seed) => seed,
        None => SysRng.try_next_u64()?,
    };
    tell(&format!("seed {seed}"));
    let mut folder = TempDir::with_prefix("rescind-faults-")?;
    // The database's user must be able to enter the folder.
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
    // A dropped handle ends its process.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let judged = tokio::select! {
        judged = break_everything(cli, seed, &folder) => judged,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
    };
    if judged.is_err() || cli.keep {
        folder.disable_cleanup(true);
        tell(&format!("logs, histories and databases are in {}", folder.path().display()));
    }
    judged
}

async fn break_everything(cli: &Cli, seed: u64, folder: &TempDir) -> anyhow::Result<()> {
    let program = fs::canonicalize(&cli.rescind)?;
    let folder = folder.path().to_owned();
    // The programs run in other folders than this one.
    let postgres = cli.postgres.as_ref().map(fs::canonicalize).transpose().context("--postgres")?;
    let setup = Setup { program, folder, seed, archives: cli.archives.clone(), postgres };
    let mut cluster = None;
    let scenarios = if cli.scenarios.is_empty() { Scenario::value_variants() } else { &cli.scenarios };
    let kinds = if cli.fault.is_empty() { Fault::value_variants() } else { &cli.fault };
    let plan = Plan { episodes: cli.episodes, kinds: kinds.to_vec(), timed: cli.timed };
    for scenario in scenarios {
        let name = scenario.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        let figures = scenario.run(&setup, &mut cluster, &plan, tell).await.with_context(|| name.clone())?;
        tell(&format!("{name}: {figures}"));
    }
    match cluster {
        Some(cluster) => cluster.stop().await,
        None => Ok(()),
    }
}
