//! Logs, on standard error, and traces.

use std::io::{IsTerminal, stderr};

use tracing::warn;
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{
    config::{Environment, Log, LogFormat, LogLevel},
    traces::{self, Traces},
};

/// What the targets of our own lines begin with.
const OURS: &str = "rescind";

/// Text for people, JSON for machines. The traces end when they are dropped.
pub(super) fn start(log: &Log, environment: &Environment) -> Option<Traces> {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let text = match log.format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => stderr().is_terminal(),
    };
    let lines = fmt::layer().with_writer(stderr).with_target(false);
    let lines = if text {
        lines.with_ansi(stderr().is_terminal()).boxed()
    } else {
        lines.json().flatten_event(true).with_span_list(false).boxed()
    };
    // Of libraries warnings alone: what else they say may hold what they were given.
    let targets = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target(OURS, level);
    let lines = lines.with_filter(targets.with_target(traces::STEP, LevelFilter::OFF));

    let (traces, problem) = match environment.wants_traces().then(Traces::start).transpose() {
        Ok(traces) => (traces, None),
        Err(problem) => (None, Some(problem)),
    };
    let spans = traces.as_ref().map(|traces| traces.layer().with_filter(LevelFilter::INFO));
    // A second start in one process keeps the first one's log.
    let _ = tracing_subscriber::registry().with(lines).with(spans).try_init();
    if let Some(error) = problem {
        warn!(error, "no traces are sent");
    }
    traces
}
