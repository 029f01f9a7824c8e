//! The log's lines on their way out.
//!
//! Whoever logs only copies a line into memory. A thread of its own writes the lines out. So a reader of the log that
//! stops reading, or a slow disk, delays no request and no lease. Lines for which there is no room are dropped and
//! counted.

use std::{
    io::{self, ErrorKind, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tracing::warn;

/// How many bytes may wait.
const ROOM: usize = 1 << 20;
/// The memory that is kept when no line waits.
const KEPT: usize = 1 << 16;
/// How long the end of the process waits for a reader.
const AT_THE_END: Duration = Duration::from_secs(2);

/// A process has one log, which is older than its other parts. So this count is not among their metrics.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Returns the number of lines that this process has dropped.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Lines that wait. Clones share them.
#[derive(Debug, Clone)]
pub struct LogQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Lines>,
    /// A line waits.
    filled: Condvar,
    /// No line waits, and none is being written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    waiting: Vec<u8>,
    is_writing: bool,
    /// The number of lines dropped since the log last told of any.
    untold: u64,
}

impl LogQueue {
    /// Starts the thread that writes the lines.
    ///
    /// # Errors
    ///
    /// If the operating system starts no thread.
    pub fn start(to: impl Write + Send + 'static) -> io::Result<LogQueue> {
        let queue = LogQueue(Arc::default());
        let shared = Arc::clone(&queue.0);
        thread::Builder::new().name("log".into()).spawn(move || shared.write_for_ever(to))?;
        Ok(queue)
    }

    /// Adds a line, which ends with a line break. Never waits for the reader.
    pub fn push(&self, line: &[u8]) {
        let mut lines = self.0.lock();
        if lines.waiting.len() + line.len() > ROOM {
            lines.dropped(1);
            return;
        }
        let was_empty = lines.waiting.is_empty();
        lines.waiting.extend_from_slice(line);
        drop(lines);
        if was_empty {
            self.0.filled.notify_one();
        }
    }

    /// Waits until every line is written, but not long.
    pub fn flush(&self) {
        let is_busy = |lines: &mut Lines| lines.is_writing || !lines.waiting.is_empty();
        drop(self.0.written.wait_timeout_while(self.0.lock(), AT_THE_END, is_busy));
    }
}

impl Lines {
    fn dropped(&mut self, number: u64) {
        self.untold += number;
        DROPPED.fetch_add(number, Ordering::Relaxed);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_for_ever(&self, mut to: impl Write) {
        let mut batch = Vec::new();
        let (mut failed, mut is_torn) = (false, false);
        let mut lines = self.lock();
        loop {
            lines = self
                .filled
                .wait_while(lines, |lines| lines.waiting.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut batch, &mut lines.waiting);
            lines.is_writing = true;
            // After a failed write the next one may fail too, and lines about that would cause each other for ever.
            let untold = if failed { 0 } else { std::mem::take(&mut lines.untold) };
            drop(lines);
            if untold > 0 {
                // The queue is empty now. So this line stands where the dropped ones would.
                warn!(
                    lines = untold,
                    "lines of this log were dropped: it was not read, or could not be written"
                );
            }
            // What was left of a line when a write failed is no beginning for another line.
            is_torn = is_torn && !write(&mut to, b"\n").is_empty();
            let rest = if is_torn { &*batch } else { write(&mut to, &batch) };
            if let Some(last) = batch.len().checked_sub(rest.len() + 1) {
                is_torn = batch[last] != b'\n';
            }
            failed = !rest.is_empty();
            let lost = rest.iter().filter(|&&byte| byte == b'\n').count();
            batch.clear();
            batch.shrink_to(KEPT);
            lines = self.lock();
            lines.dropped(lost as u64);
            lines.is_writing = false;
            if lines.waiting.is_empty() {
                self.written.notify_all();
            }
        }
    }
}

/// Writes these bytes, and returns those that could not be written.
fn write<'b>(to: &mut impl Write, mut bytes: &'b [u8]) -> &'b [u8] {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// Takes a write whenever the test receives one. Without the test, every write fails.
    struct Reader(SyncSender<Vec<u8>>);

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // A part at a time, as a pipe does.
            let part = &bytes[..bytes.len().min(1000)];
            self.0.send(part.to_vec()).map_err(|_| ErrorKind::BrokenPipe)?;
            Ok(part.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn queue() -> (LogQueue, Receiver<Vec<u8>>) {
        let (sender, receiver) = sync_channel(0);
        (LogQueue::start(Reader(sender)).unwrap(), receiver)
    }

    fn line(number: usize) -> String {
        format!("{number:0>99}\n")
    }

    #[test]
    fn a_reader_that_does_not_read_holds_up_nobody_and_gets_whole_lines_in_order() {
        let (queue, reader) = queue();
        // From its first part on, the writer waits for the reader.
        queue.push(format!("{:0>1499}\n", 0).as_bytes());
        let mut read = reader.recv().unwrap();
        let (number, room) = (3 * ROOM / line(0).len(), ROOM / line(0).len());
        for i in 1..=number {
            queue.push(line(i).as_bytes());
        }
        assert_eq!(queue.0.lock().untold as usize, number - room);
        while read.len() < 1500 + room * line(0).len() {
            read.extend(reader.recv().unwrap());
        }
        let numbers = str::from_utf8(&read).unwrap().lines().map(|line| line.parse::<usize>().unwrap());
        assert!(numbers.eq(0..=room));
        queue.flush();
        assert!(!queue.0.lock().is_writing);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_nothing_waits_for_them() {
        let (queue, reader) = queue();
        drop(reader);
        queue.push(b"one\ntwo\n");
        queue.flush();
        let lines = queue.0.lock();
        assert_eq!((lines.untold, lines.is_writing, lines.waiting.len()), (2, false, 0));
        assert!(dropped() >= 2);
    }
}
