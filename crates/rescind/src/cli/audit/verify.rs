//! `rescind audit verify` and `rescind audit checkpoint`

use std::{path::Path, time::Duration};

use anyhow::{Context as _, anyhow};
use rescind_admin::{
    AuditProblem, AuditProof, ChainView, CheckpointView, CheckpointsView, FaultView, ProofView,
};
use rescind_base::clock::Clock;
use serde::Serialize;

use super::super::{
    Context, Failure,
    output::{prose, table},
};

/// The time between two lines on how far verification has come.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// The outcome of verification.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    valid: bool,
    /// How many rows were verified.
    rows: u64,
    /// How many rows are older than the chains, so that nothing proves them.
    unchained: u64,
    chains: Vec<ChainView>,
    faults: Vec<FaultView>,
}

pub(super) fn verify(checkpoint: Option<&Path>, context: &Context) -> Result<(), Failure> {
    let checkpoints = checkpoint.map(read).transpose()?.unwrap_or_default();
    let mut outcome = Outcome::default();
    context.with_backend(false, async |backend| {
        let mut question = AuditProof { cursor: None, checkpoints };
        let mut told = Clock::System.elapsed();
        loop {
            let part: ProofView = backend.inquire("/audit/verify", &question).await?;
            outcome.rows += part.rows;
            outcome.unchained += part.unchained.unwrap_or(0);
            outcome.chains.extend(part.chain);
            outcome.faults.extend(part.faults);
            let Some(cursor) = part.cursor else { return Ok(()) };
            question.cursor = Some(cursor);
            if Clock::System.elapsed() >= told + TELL_EVERY {
                told = Clock::System.elapsed();
                prose(&format!("{} rows so far", outcome.rows));
            }
        }
    })?;
    outcome.valid = outcome.faults.is_empty();
    context.output.data(&outcome, in_words)?;
    if outcome.valid { Ok(()) } else { Err(Failure::No) }
}

/// Prints the newest checkpoint of each chain, always as JSON.
pub(super) fn checkpoint(context: &Context) -> Result<(), Failure> {
    context.with_backend(false, async |backend| {
        let newest: CheckpointsView = backend.get("/audit/checkpoint").await?;
        context.output.text(&serde_json::to_string(&newest)?)
    })
}

fn read(path: &Path) -> anyhow::Result<Vec<CheckpointView>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let kept: CheckpointsView = serde_json::from_str(&text)
        .map_err(|_| anyhow!("{}: expected what `rescind audit checkpoint` has printed", path.display()))?;
    Ok(kept.checkpoints)
}

fn in_words(Outcome { rows, unchained, chains, faults, .. }: &Outcome) -> String {
    let mut text = String::new();
    let listed = chains.iter().map(|chain| {
        let signed = match (chain.signed, &chain.signed_at) {
            (Some(number), Some(at)) => format!("to {number}, at {at}"),
            _ => "not yet".to_owned(),
        };
        [chain.chain.clone(), chain.number.to_string(), signed]
    });
    text.push_str(&table(["CHAIN", "ROWS", "SIGNED"], listed));
    text.push_str(&format!("{rows} rows were verified.\n"));
    if *unchained > 0 {
        text.push_str(&format!("{unchained} rows are older than the chains: nothing proves them.\n"));
    }
    for fault in faults {
        text.push_str(&format!("{}\n", of_fault(fault)));
    }
    text
}

fn of_fault(FaultView { chain, number, last, id, at, problem }: &FaultView) -> String {
    let chain = chain.as_deref().unwrap_or("-");
    let (number, last) = (number.unwrap_or(0), last.unwrap_or(0));
    let (id, at) = (id.unwrap_or(0), at.as_deref().unwrap_or("-"));
    match problem {
        AuditProblem::Changed => format!(
            "chain {chain}, row {number} (id {id}, {at}): it or the row before is not as it was written, or not in its place"
        ),
        AuditProblem::Removed if number == last => format!("chain {chain}, row {number}: it was removed"),
        AuditProblem::Removed => format!("chain {chain}, rows {number} to {last}: they were removed"),
        AuditProblem::NotAsSigned if at == "-" => {
            format!(
                "chain {chain}, row {number}: it or a row before is not what it was when the rows after it were deleted"
            )
        }
        AuditProblem::NotAsSigned => {
            format!("chain {chain}, row {number}: it or a row before is not what was signed at {at}")
        }
        AuditProblem::BadSignature => {
            format!("chain {chain}, row {number}: what is said of it was not signed by this service")
        }
        AuditProblem::Unchained => format!("row with id {id} ({at}): it has no place in a chain"),
    }
}
