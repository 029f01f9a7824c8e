//! Logs, on standard error, and traces.

use std::{
    io::{IsTerminal, stderr},
    panic::{self, PanicHookInfo},
};

use tracing::{error, warn};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{
    config::{Environment, Log, LogFormat, LogLevel},
    secret,
    telemetry::traces::{self, Traces},
};

/// The targets of this program's own lines begin with this.
const OURS: &str = "rescind";

/// Lets a command print warnings about files that other users may read.
pub(super) fn warnings() {
    let lines = fmt::layer().with_writer(stderr).with_target(false).without_time().with_ansi(false);
    let permissions = Targets::new().with_target("rescind::files::permissions", LevelFilter::WARN);
    let _ = tracing_subscriber::registry().with(lines.with_filter(permissions)).try_init();
}

/// Logs a panic. Its text may contain secrets, so only the safe part of it is shown.
fn panicked(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    error!(place, text = secret::shown(panic.payload_as_str().unwrap_or("no text")), "panicked");
}

/// Starts the log, as text or JSON, and the traces. Dropping the traces ends them.
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
    // Libraries log warnings only, because their other lines may contain data that they were given.
    let targets = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target(OURS, level);
    let lines = lines.with_filter(targets.with_target(traces::STEP, LevelFilter::OFF));

    let (traces, problem) = match environment.wants_traces().then(Traces::start).transpose() {
        Ok(traces) => (traces, None),
        Err(problem) => (None, Some(problem)),
    };
    let spans = traces.as_ref().map(|traces| traces.layer().with_filter(LevelFilter::INFO));
    // A second start in one process keeps the first one's log.
    let _ = tracing_subscriber::registry().with(lines).with(spans).try_init();
    panic::set_hook(Box::new(panicked));
    if let Some(error) = problem {
        warn!(error, "no traces are sent");
    }
    traces
}
