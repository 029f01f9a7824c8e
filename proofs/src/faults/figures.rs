//! The results of a run.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    time::Duration,
};

use anyhow::ensure;

use super::{clock::between, fault::Fault, node::WAIT};
use crate::history::{Action, Kind, Operation, Report, Verdict, Violation, check};

/// A fault, until all servers served again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Episode {
    pub(super) fault: Fault,
    /// A node or verifier was unavailable meanwhile.
    pub(super) silence: bool,
    pub(super) from: u64,
    /// When the fault had been repaired.
    pub(super) over: u64,
    pub(super) to: u64,
}

/// The figures of a run of episodes.
#[derive(Debug)]
pub(super) struct Figures {
    episodes: BTreeMap<Fault, usize>,
    report: Report,
    healthy: Latencies,
    silenced: Latencies,
    /// From the database's return until all servers serve.
    longest_return: Duration,
}

/// The durations of the logouts that were answered 200.
#[derive(Debug, Default)]
pub(super) struct Latencies(Vec<Duration>);

impl Figures {
    pub(super) fn read(history: &Path, episodes: &[Episode]) -> anyhow::Result<Figures> {
        let mut kinds = BTreeMap::new();
        for episode in episodes {
            *kinds.entry(episode.fault).or_default() += 1;
        }
        let returns = episodes.iter().filter(|episode| episode.fault.stops_the_database());
        let longest_return =
            returns.map(|episode| between(episode.over, episode.to)).max().unwrap_or_default();
        let overlaps = |operation: &Operation, episode: &Episode| {
            operation.begin <= episode.to && episode.from <= operation.end
        };
        let at_peace = |operation: &Operation| !episodes.iter().any(|episode| overlaps(operation, episode));
        let in_silence = |operation: &Operation| {
            episodes.iter().any(|episode| {
                episode.silence && episode.from <= operation.begin && operation.begin <= episode.over
            })
        };
        Ok(Figures {
            episodes: kinds,
            report: judge(history)?,
            healthy: Latencies::read(history, at_peace)?,
            silenced: Latencies::read(history, in_silence)?,
            longest_return,
        })
    }

    /// Fails on any violation, and if the run was too small to show one.
    pub(super) fn judge(&self) -> anyhow::Result<()> {
        let verified = self.report.verdicts.get(&Kind::Verify).copied().unwrap_or_default();
        let enough = 100 * self.episodes.values().sum::<usize>() as u64;
        ensure!(self.report.violations.is_empty(), "{}", self.report);
        ensure!(verified.accepted >= enough, "only {} verifications were accepted", verified.accepted);
        ensure!(
            self.report.revoked_presented >= enough,
            "a revoked token was presented only {} times",
            self.report.revoked_presented
        );
        Ok(())
    }
}

/// The checker's report on a recorded history.
pub(super) fn judge(history: &Path) -> anyhow::Result<Report> {
    Ok(check(BufReader::new(File::open(history)?))?)
}

impl Latencies {
    /// The durations of logouts by tokens for which `wanted` holds.
    pub(super) fn read(history: &Path, wanted: impl Fn(&Operation) -> bool) -> anyhow::Result<Latencies> {
        let mut latencies = vec![];
        for line in BufReader::new(File::open(history)?).lines() {
            let operation: Operation = line?.parse()?;
            let logout =
                matches!(operation.action, Action::Logout { token: Some(_), verdict: Verdict::Accepted(()) });
            if logout && wanted(&operation) {
                latencies.push(between(operation.begin, operation.end));
            }
        }
        latencies.sort_unstable();
        Ok(Latencies(latencies))
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The duration that `percent` of the logouts did not exceed.
    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let last = self.0.len().saturating_sub(1);
        self.0.get(last * percent / 100).copied().unwrap_or_default()
    }
}

impl Display for Latencies {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let milliseconds = |percent| self.percentile(percent).as_secs_f64() * 1e3;
        let [p50, p99, max] = [50, 99, 100].map(milliseconds);
        write!(f, "p50 {p50:.1} ms, p99 {p99:.1} ms, longest {max:.1} ms of {}", self.count())
    }
}

impl Display for Figures {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let Figures { episodes, report, healthy, silenced, longest_return } = self;
        for (fault, count) in episodes {
            writeln!(f, "{count:5} times {fault}")?;
        }
        writeln!(f, "{report}")?;
        let lost = |what: fn(&Violation) -> bool| report.violations.iter().filter(|v| what(v)).count();
        let logins = lost(|violation| matches!(violation, Violation::LiveRefused { .. }));
        let logouts = lost(|violation| matches!(violation, Violation::RevokedAccepted { .. }));
        writeln!(f, "of those that were answered, {logins} logins and {logouts} logouts were lost")?;
        writeln!(f, "logout, all well: {healthy}")?;
        writeln!(f, "logout, somebody not heard of: {silenced}; W is {WAIT} ms")?;
        write!(
            f,
            "everything served {:.1} s after the database's return at the latest",
            longest_return.as_secs_f64()
        )
    }
}
