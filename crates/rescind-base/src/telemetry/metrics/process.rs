//! What the system tells of this process, under the names that all Prometheus clients use.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

use crate::clock::Clock;

/// Reads the present values. What the system does not tell is not reported.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process {
    /// Since the epoch. It is computed once, since a gauge that follows the whole seconds of a clock would move.
    started: Option<f64>,
}

impl Process {
    pub(super) fn new() -> Process {
        // Not from /proc/stat, which a sandbox may hide (systemd's ProcSubset=pid).
        let booted = Clock::System.now() as f64 - Clock::System.elapsed().as_secs_f64();
        Process { started: stat().map(|stat| booted + stat.started) }
    }
}

struct Stat {
    cpu_seconds: f64,
    threads: f64,
    /// In seconds since the machine's start.
    started: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(stat) = stat() else { return Ok(()) };
        let help = "User and system time used";
        let metric = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
        ConstCounter::new(stat.cpu_seconds).encode(metric)?;
        let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        for (name, help, value) in [
            ("process_open_fds", "Open file descriptors", open as f64),
            ("process_max_fds", "The most file descriptors that may be open", most as f64),
            ("process_threads", "Threads", stat.threads),
            ("process_virtual_memory_bytes", "Virtual memory", stat.virtual_bytes),
            ("process_resident_memory_bytes", "Resident memory", stat.resident_bytes),
        ]
        .into_iter()
        .chain(
            self.started
                .map(|at| ("process_start_time_seconds", "When the process started, since the epoch", at)),
        ) {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        Ok(())
    }
}

/// Reads `/proc/self/stat`, whose fields proc(5) numbers from 1.
fn stat() -> Option<Stat> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name, which may have spaces and brackets in it.
    let fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let field = |number: usize| fields.clone().nth(number - 3)?.parse::<f64>().ok();
    let ticks = clock_ticks_per_second() as f64;
    Some(Stat {
        cpu_seconds: (field(14)? + field(15)?) / ticks,
        threads: field(20)?,
        started: field(22)? / ticks,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * page_size() as f64,
    })
}
