//! Logs, on standard error, and traces.

mod line;

use std::{
    io::{self, IsTerminal, Write, stderr},
    panic::{self, PanicHookInfo},
    sync::Arc,
};

use rescind_base::{
    files::permissions,
    secret,
    telemetry::{STEP, log_queue::LogQueue},
};
use rescind_node::config::{Environment, Log, LogFormat, LogLevel};
use rustix::fs::fstat;
use tracing::{error, warn};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use crate::traces::Traces;
use line::{Form, Lines, Priorities};

/// The targets of this program's own lines begin with this.
const OURS: &str = "rescind";

/// Lets a command print warnings about files that other users may read.
pub(super) fn warnings() {
    let lines = Lines::new(Form::Brief, Priorities(false), |line: &[u8]| _ = stderr().write_all(line));
    let targets = Targets::new().with_target(permissions::TARGET, LevelFilter::WARN);
    let _ = tracing_subscriber::registry().with(lines.with_filter(targets)).try_init();
}

/// Whether standard error is the stream that systemd has opened to its journal (systemd.exec(5)).
fn is_journal(environment: &Environment) -> bool {
    let here = fstat(stderr()).ok().map(|stat| format!("{}:{}", stat.st_dev, stat.st_ino));
    environment.journal_stream().is_some() && environment.journal_stream() == here.as_deref()
}

/// Logs a panic. Its text may contain secrets, so only the safe part of it is shown.
fn panicked(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    error!(place, text = secret::shown(panic.payload_as_str().unwrap_or("no text")), "panicked");
}

/// The log and the traces of a process. Dropping it ends the traces, and then writes the last lines.
pub(super) struct Started {
    level: SetLevel,
    _traces: Option<Traces>,
    _queue: Flushed,
}

/// Puts another level in force.
pub(super) type SetLevel = Arc<dyn Fn(LogLevel) + Send + Sync>;

impl Started {
    pub(super) fn level(&self) -> SetLevel {
        Arc::clone(&self.level)
    }
}

struct Flushed(LogQueue);

impl Drop for Flushed {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Starts the log, as text or JSON, and the traces.
///
/// # Errors
///
/// If the operating system starts no thread for the log.
pub(super) fn start(log: &Log, environment: &Environment) -> io::Result<Started> {
    let is_terminal = stderr().is_terminal();
    let form = match log.format {
        LogFormat::Auto if !is_terminal => Form::Json,
        LogFormat::Auto | LogFormat::Text => {
            Form::Text { colours: is_terminal && environment.wants_colours() }
        }
        LogFormat::Json => Form::Json,
    };
    let queue = LogQueue::start(stderr())?;
    let to = queue.clone();
    let lines = Lines::new(form, Priorities(is_journal(environment)), move |line: &[u8]| to.push(line));
    let (filter, handle) = reload::Layer::new(targets(log.level));
    let lines = lines.with_filter(filter);

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
    // Fails only if there is no log any more.
    let level = Arc::new(move |level| _ = handle.reload(targets(level)));
    Ok(Started { level, _traces: traces, _queue: Flushed(queue) })
}

/// Which lines are logged. Libraries log warnings only, because their other lines may contain data that they were given.
fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let targets = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target(OURS, level);
    targets.with_target(STEP, LevelFilter::OFF)
}
