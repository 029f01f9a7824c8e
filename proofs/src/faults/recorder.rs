//! Records the answers to callers, in the order of their arrival.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{clock::now, process::PATIENCE};
use crate::{
    faults::process::eventually,
    history::{Action, Operation},
};

/// A history that is being written.
#[derive(Debug)]
pub(super) struct Recorder {
    /// Keeps the first failure: nothing can be written after it.
    file: Mutex<io::Result<BufWriter<File>>>,
    under_way: AtomicU64,
}

/// An operation that has begun.
#[derive(Debug)]
pub(super) struct Begun<'r> {
    recorder: &'r Recorder,
    begin: u64,
}

impl Recorder {
    pub(super) fn create(path: &Path) -> io::Result<Recorder> {
        let file = BufWriter::new(File::create(path)?);
        Ok(Recorder { file: Mutex::new(Ok(file)), under_way: AtomicU64::new(0) })
    }

    /// Begins an operation now.
    pub(super) fn begin(&self) -> Begun<'_> {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        Begun { recorder: self, begin: now() }
    }

    /// Records that the database has lost commits made since `since`.
    pub(super) fn lost(&self, since: u64) {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        Begun { recorder: self, begin: since }.end("", "database", Action::Loss);
    }

    /// Waits until every operation has ended, and writes the file to its end.
    pub(super) async fn finish(&self) -> anyhow::Result<()> {
        eventually("every operation has ended", PATIENCE, async || {
            (self.under_way.load(Ordering::SeqCst) == 0).then_some(())
        })
        .await?;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *file, Err(io::ErrorKind::WriteZero.into())) {
            Ok(mut writer) => Ok(writer.flush()?),
            Err(error) => Err(error.into()),
        }
    }
}

impl Begun<'_> {
    /// Ends the operation now.
    pub(super) fn end(self, client: &str, node: &str, action: Action) {
        let mut file = self.recorder.file.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that ends are in the order of lines.
        let (begin, end) = (self.begin, now());
        let operation = Operation { begin, end, client: client.to_owned(), node: node.to_owned(), action };
        if let Ok(writer) = &mut *file
            && let Err(error) = write(writer, &operation)
        {
            *file = Err(error);
        }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.recorder.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

fn write(writer: &mut impl Write, operation: &Operation) -> io::Result<()> {
    serde_json::to_writer(&mut *writer, operation)?;
    writer.write_all(b"\n")
}
