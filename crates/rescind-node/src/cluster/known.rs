//! The newest change known to have been answered for, kept on disk beside the database. A database that went
//! back in time lacks that change.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

use rescind_base::files::folder_of;
use rescind_store::{Known, Mark};
use sha2::{Digest, Sha256};
use tokio::{sync::Mutex, task::spawn_blocking};

/// The offsets are so far apart that no disk can damage one slot while it writes the other.
const SLOTS: [u64; 2] = [0, 4096];
const FORM: &[u8; 8] = b"known 01";
const CONTENT: usize = FORM.len() + 8 + 32 + 16 + 8 + 16;
const SLOT: usize = CONTENT + 32;

/// A file of two slots, written in turn: at every moment at least one of them is whole.
#[derive(Debug)]
pub struct KnownFile(Arc<Mutex<Slots>>);

#[derive(Debug)]
struct Slots {
    file: File,
    /// Identifies the installation whose database this is.
    installation: [u8; 32],
    /// How often the file was written. The next write goes to slot `(times + 1) % 2`.
    times: u64,
    written: Known,
}

impl KnownFile {
    /// Opens or creates the file, and reads the newest known change of this installation's database.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or created.
    pub fn open(path: &Path, installation: [u8; 32]) -> io::Result<(KnownFile, Known)> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let length = SLOTS[1] + SLOT as u64;
        if file.metadata()?.len() < length {
            // Allocates the space before it is needed.
            file.write_all_at(&vec![0; length as usize], 0)?;
            file.sync_all()?;
            File::open(folder_of(path))?.sync_all()?;
        }
        let mut newest = (0, Known::default());
        for at in SLOTS {
            let mut slot = [0; SLOT];
            file.read_exact_at(&mut slot, at)?;
            if let Some((times, of, known)) = read(&slot)
                && times >= newest.0
            {
                newest = (times, if of == installation { known } else { Known::default() });
            }
        }
        let (times, written) = newest;
        let slots = Slots { file, installation, times, written };
        Ok((KnownFile(Arc::new(Mutex::new(slots))), written))
    }

    /// Writes the change that `newest` returns. Callers that wait for another write share the next flush.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub async fn keep(&self, newest: impl Fn() -> Known) -> io::Result<()> {
        let mut slots = Arc::clone(&self.0).lock_owned().await;
        let known = newest();
        if slots.written == known {
            return Ok(());
        }
        spawn_blocking(move || slots.write(known)).await?
    }
}

impl Slots {
    fn write(&mut self, known: Known) -> io::Result<()> {
        let times = self.times + 1;
        let mut slot = [FORM, &times.to_be_bytes()[..], &self.installation].concat();
        let Known { history: Mark(history), seq, mark: Mark(mark) } = known;
        slot.extend([&history.to_be_bytes()[..], &seq.to_be_bytes(), &mark.to_be_bytes()].concat());
        let sum = Sha256::digest(&slot);
        slot.extend_from_slice(&sum);
        self.file.write_all_at(&slot, SLOTS[(times % 2) as usize])?;
        self.file.sync_data()?;
        (self.times, self.written) = (times, known);
        Ok(())
    }
}

/// The write count, the installation and the newest known change, if the slot is whole.
fn read(slot: &[u8; SLOT]) -> Option<(u64, [u8; 32], Known)> {
    let (content, sum) = slot.split_at(CONTENT);
    let content = content.strip_prefix(FORM).filter(|_| *Sha256::digest(content) == *sum)?;
    let (times, content) = content.split_first_chunk()?;
    let (installation, content) = content.split_first_chunk()?;
    let (history, content) = content.split_first_chunk()?;
    let (seq, content) = content.split_first_chunk()?;
    let (mark, _) = content.split_first_chunk()?;
    let known = Known {
        history: Mark(u128::from_be_bytes(*history)),
        seq: u64::from_be_bytes(*seq),
        mark: Mark(u128::from_be_bytes(*mark)),
    };
    Some((u64::from_be_bytes(*times), *installation, known))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::task::JoinSet;

    use super::*;

    const HERE: [u8; 32] = [7; 32];

    fn known(seq: u64) -> Known {
        Known { history: Mark(1 << 100), seq, mark: Mark(u128::from(seq) + 5) }
    }

    // check 96
    #[tokio::test]
    async fn what_was_kept_is_found_again_and_of_a_torn_write_what_was_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known");
        assert_eq!(KnownFile::open(&path, HERE).unwrap().1, Known::default());
        for seq in 1..=4 {
            let (file, before) = KnownFile::open(&path, HERE).unwrap();
            assert_eq!(before, if seq == 1 { Known::default() } else { known(seq - 1) });
            file.keep(|| known(seq)).await.unwrap();
        }
        assert_eq!(KnownFile::open(&path, HERE).unwrap().1, known(4));
        // The file does not apply to another installation's database.
        assert_eq!(KnownFile::open(&path, [8; 32]).unwrap().1, Known::default());
        let raw = OpenOptions::new().write(true).open(&path).unwrap();
        for byte in [0, 60, SLOT as u64 - 1] {
            // The fourth write is in the first slot.
            raw.write_all_at(b"\xee", SLOTS[0] + byte).unwrap();
            assert_eq!(KnownFile::open(&path, HERE).unwrap().1, known(3), "{byte}");
        }
        let (file, _) = KnownFile::open(&path, HERE).unwrap();
        file.keep(|| known(5)).await.unwrap();
        assert_eq!(KnownFile::open(&path, HERE).unwrap().1, known(5));
    }

    #[tokio::test]
    async fn whoever_is_told_that_it_is_kept_finds_it_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known");
        let file = Arc::new(KnownFile::open(&path, HERE).unwrap().0);
        let newest = Arc::new(AtomicU64::new(0));
        let mut all = JoinSet::new();
        for _ in 0..200 {
            let (file, newest, path) = (Arc::clone(&file), Arc::clone(&newest), path.clone());
            all.spawn(async move {
                let mine = newest.fetch_add(1, Ordering::SeqCst) + 1;
                file.keep(|| known(newest.load(Ordering::SeqCst))).await.unwrap();
                assert!(KnownFile::open(&path, HERE).unwrap().1.seq >= mine);
            });
        }
        all.join_all().await;
    }
}
