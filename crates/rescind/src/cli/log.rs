//! Logs, on standard error.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::fmt;

use crate::config::{Log, LogFormat, LogLevel};

/// Text for people, JSON for machines.
pub(super) fn start(log: &Log) {
    let level = match log.level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    let text = match log.format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => stderr().is_terminal(),
    };
    let subscriber = fmt().with_max_level(level).with_writer(stderr).with_target(false);
    // A second start in one process keeps the first one's log.
    let _ = if text {
        subscriber.with_ansi(stderr().is_terminal()).try_init()
    } else {
        subscriber.json().flatten_event(true).with_span_list(false).try_init()
    };
}
